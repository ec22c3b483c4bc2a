//! Finding those who hold or want the same snapshot: every node announces itself to its peers, and is a tracker to them.
//!
//! Owns: the swarms this node is in, announcing them, answering the announcements of others, and the members that were
//! named.
//! Must not know: what a swarm is of; how long anything counts or who is dialled next (`swarm::tracker` does).
//! Invariant: a peer is asked by one task at a time and answered by a few.
//! Trust: whoever is named is a claim, as are its addresses; both are checked for form, and Noise proves who answers.
//! Threads: one task that waits for what is due, one more for each announcement and each answer on their way.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::addresses::{is_for, taken};
use super::callers;
use super::log_wire::{LogWireError, read, write};
use super::peer_wire::{Announce, Answer, MAX_ANNOUNCE, MAX_ANSWER, MAX_SWARMS, Member};
use super::shared::{Command, PEERS_PROTOCOL, Shared};
use super::streams::Incoming;
use crate::id::SwarmId;
use crate::swarm::tracker::{EVERY, Heard, MAX_NAMED, MAX_SWARMS_EACH, Pace, Tracker};

/// How long one announcement may take, its answer included.
const ANSWER: Duration = Duration::from_secs(15);
/// Members that are to be named if there is room for any: some cannot be reached, or have no room themselves.
const FEW: usize = 16;
/// Announcements answered at the same time, in all and of one peer.
const MAX_CALLS: usize = 64;
const MAX_CALLS_EACH: usize = 4;

/// Both sides of finding members.
#[derive(Default)]
pub(super) struct Trackers {
    /// What others have announced.
    tracker: Mutex<Tracker<PeerId, Multiaddr>>,
    mine: Mutex<Mine>,
    /// Woken when something is due earlier than it was.
    sooner: Notify,
}

/// What this node is in and whom it has heard of there.
#[derive(Default)]
struct Mine {
    /// With the number of guards, and that of the first of them.
    joined: HashMap<SwarmId, (usize, u64)>,
    joins: u64,
    pace: Option<Pace>,
    heard: Heard<PeerId, Multiaddr>,
    /// Peers that have only just connected.
    newcomers: HashSet<PeerId>,
    /// Peers that are being told.
    telling: HashSet<PeerId>,
}

/// Keeps this node in a swarm until it is dropped.
#[must_use = "dropping it leaves the swarm"]
pub struct SwarmGuard {
    trackers: Arc<Trackers>,
    swarm: SwarmId,
}

impl Drop for SwarmGuard {
    fn drop(&mut self) {
        self.trackers.mine().leave(&self.swarm);
    }
}

impl Mine {
    fn leave(&mut self, swarm: &SwarmId) {
        if let Some((guards, _)) = self.joined.get_mut(swarm) {
            *guards -= 1;
            if *guards == 0 {
                self.joined.remove(swarm);
            }
        }
        if self.joined.is_empty() {
            self.pace = None;
            self.heard.clear();
        }
    }

    /// Whom to tell now: those of `connected` that are not being told already, or the newcomers among them.
    fn whom_to_tell(&mut self, now: Duration, connected: Vec<PeerId>) -> Vec<PeerId> {
        let newcomers = std::mem::take(&mut self.newcomers);
        let Some(pace) = &mut self.pace else { return Vec::new() };
        let all = pace.next() <= now;
        if all {
            pace.announced(now);
        }
        let due = connected.into_iter().filter(|peer| all || newcomers.contains(peer));
        due.filter(|peer| self.telling.insert(*peer)).collect()
    }

    /// What is announced: the swarms joined last come first, and those that no peer would keep are left out.
    fn swarms(&self) -> Vec<SwarmId> {
        let mut swarms: Vec<_> = self.joined.iter().map(|(swarm, (_, number))| (*number, *swarm)).collect();
        swarms.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        swarms.into_iter().take(MAX_SWARMS_EACH).map(|(_, swarm)| swarm).collect()
    }
}

impl Trackers {
    fn mine(&self) -> MutexGuard<'_, Mine> {
        // A panic leaves at most a peer that is taken for being told.
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tracker(&self) -> MutexGuard<'_, Tracker<PeerId, Multiaddr>> {
        // A panic leaves at most an entry that expires.
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node is in `swarm` from `now` on.
    pub(super) fn join(self: &Arc<Self>, swarm: SwarmId, now: Duration) -> SwarmGuard {
        let mut mine = self.mine();
        mine.joins += 1;
        let number = mine.joins;
        let (guards, _) = mine.joined.entry(swarm).or_insert((0, number));
        *guards += 1;
        if *guards == 1 {
            mine.pace = Some(Pace::new(now));
            self.sooner.notify_one();
        }
        SwarmGuard { trackers: self.clone(), swarm }
    }

    /// What is announced now.
    pub(super) fn swarms(&self) -> Vec<SwarmId> {
        self.mine().swarms()
    }

    /// A peer that answers announcements has connected.
    pub(super) fn met(&self, peer: PeerId) {
        let mut mine = self.mine();
        if !mine.joined.is_empty() {
            mine.newcomers.insert(peer);
            self.sooner.notify_one();
        }
    }
}

/// Announces this node's swarms whenever that is due.
pub(super) async fn announce(shared: Arc<Shared>) {
    loop {
        let due = shared.trackers.mine().pace.map(|pace| Instant::from_std(shared.started + pace.next()));
        tokio::select! {
            // Without a swarm nothing is due before the next is joined.
            () = sleep_until(due.unwrap_or_else(|| Instant::now() + EVERY)) => {}
            () = shared.trackers.sooner.notified() => {}
        }
        let peers = shared.trackers.mine().whom_to_tell(shared.started.elapsed(), shared.table.trackers());
        for peer in peers {
            let (shared, stop) = (shared.clone(), shared.stop.clone());
            let tasks = shared.tasks.clone();
            tasks.spawn(stop.run_until_cancelled_owned(async move {
                let told = tell(&shared, peer).await;
                shared.trackers.mine().telling.remove(&peer);
                if let Err(error) = told {
                    tracing::debug!(%peer, %error, "a peer could not be told of our swarms");
                }
                shared.command(Command::MeetMembers).await;
            }));
        }
    }
}

/// Announces all swarms to one peer, and notes whom it names.
async fn tell(shared: &Shared, peer: PeerId) -> Result<(), LogWireError> {
    let near = shared.table.is_near(&peer);
    let mut addresses = shared.table.listening_on();
    addresses.retain(|address| is_for(near, address));
    let swarms = shared.trackers.swarms();
    let wanted = match room_for_named(shared) {
        0 => 0,
        room => (2 * room).clamp(FEW, MAX_NAMED),
    };
    for swarms in swarms.chunks(MAX_SWARMS) {
        let announce = Announce::new(&addresses, swarms, wanted);
        let pauses = ExponentialBuilder::default().with_min_delay(Duration::from_millis(20)).with_jitter();
        // Like requests about logs, a stream may have been dropped for want of room.
        let calls = (|| call(shared, peer, &announce))
            .retry(pauses)
            .when(|error| !matches!(error, LogWireError::Codec(_)));
        let answer = match timeout(ANSWER, calls).await.map_err(|_| LogWireError::too_slow())? {
            Err(error @ LogWireError::Codec(_)) => {
                shared.command(Command::Disconnect(peer)).await;
                return Err(error);
            }
            answer => answer?,
        };
        note(shared, &answer, near);
    }
    Ok(())
}

async fn call(shared: &Shared, peer: PeerId, announce: &Announce) -> Result<Answer, LogWireError> {
    let limits = ("a list of members", MAX_ANSWER);
    let answer: Answer = shared.exchange(peer, PEERS_PROTOCOL, announce, limits).await?;
    answer.check()?;
    Ok(answer)
}

fn note(shared: &Shared, answer: &Answer, near: bool) {
    let now = shared.started.elapsed();
    let mut mine = shared.trackers.mine();
    for member in &answer.members {
        let Some(peer) = member.peer() else { continue };
        let addresses = member.addresses().filter_map(|bytes| taken(bytes, peer, near));
        mine.heard.named(now, peer, addresses.collect());
    }
}

/// How many more of those that others name this node would connect with: a third of its connections is left for what is asked for otherwise.
pub(super) fn room_for_named(shared: &Shared) -> usize {
    (shared.max_peers - shared.max_peers / 3).saturating_sub(shared.table.connected_count())
}

/// Members to dial now, `room` at most. They count as dialled.
pub(super) fn to_dial(shared: &Shared, room: usize) -> Vec<(PeerId, Vec<Multiaddr>)> {
    let settled = |peer: &PeerId| {
        *peer == shared.me || shared.table.is_connected(peer) || shared.table.refusal(peer).is_some()
    };
    let mut mine = shared.trackers.mine();
    match room == 0 || mine.joined.is_empty() {
        true => Vec::new(),
        false => mine.heard.to_dial(shared.started.elapsed(), room, settled),
    }
}

/// Answers announcements.
pub(super) async fn answer(shared: Arc<Shared>, incoming: Incoming) {
    let serve = |shared: Arc<Shared>, peer, stream| async move {
        let served = timeout(ANSWER, serve(&shared, peer, stream)).await;
        if let Err(error) = served.unwrap_or_else(|_| Err(LogWireError::too_slow())) {
            tracing::debug!(%peer, %error, "an announcement could not be answered");
            if let LogWireError::Codec(_) = error {
                shared.command(Command::Disconnect(peer)).await;
            }
        }
    };
    callers::each(shared, incoming, (MAX_CALLS, MAX_CALLS_EACH), serve).await;
}

async fn serve(shared: &Shared, peer: PeerId, mut stream: Stream) -> Result<(), LogWireError> {
    let announce: Announce = read(&mut stream, "an announcement", MAX_ANNOUNCE).await?;
    announce.check()?;
    write(&mut stream, &track(shared, peer, &announce)).await
}

/// Notes where `peer` is and says who else is there.
fn track(shared: &Shared, peer: PeerId, announce: &Announce) -> Answer {
    let near = shared.table.is_near(&peer);
    let now = shared.started.elapsed();
    let addresses = announce.addresses.iter().filter_map(|bytes| taken(bytes, peer, near)).collect();
    let members = {
        let mut tracker = shared.trackers.tracker();
        tracker.announce(now, peer, addresses, &announce.swarms);
        tracker.members(now, &peer, &announce.swarms, announce.wanted as usize)
    };
    let useful = members.into_iter().filter_map(|(member, mut addresses)| {
        addresses.retain(|address| is_for(near, address));
        let dialled = !addresses.is_empty() && shared.table.refusal(&member).is_none();
        dialled.then(|| Member::new(&member, &addresses))
    });
    Answer { members: useful.collect() }
}
