//! Who has what: asking peers, and what follows from what they say.
//!
//! Owns: when peers are asked whether they have objects, and which peers.
//! Must not know: how they are asked.
//! Invariant: a peer is asked once about an object that is wanted.
//! Trust: that of [`super`].
//! Threads: a pure part of the scheduler.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Duration;

use super::choose::weight;
use super::want::Told;
use super::{Action, Scheduler};
use crate::id::ObjectId;
use crate::swarm::Class;
use crate::swarm::wire::MAX_NAMED;

/// Peers of whom is asked whether they have an object: the quickest, and beside them those with the highest weight for it.
const QUICK: usize = 16;
const HEAVY: usize = 16;
/// How long objects are collected before peers are asked whether they have them.
const COLLECT: Duration = Duration::from_millis(5);
/// The same for a few that are wanted for later, while many others wait before them: to ask everybody costs about as much for all as
/// for one.
const COLLECT_BEHIND: Duration = Duration::from_millis(50);
const FEW: usize = 64;

impl<P: Copy + Ord + Hash> Scheduler<P> {
    /// `peer` says how things stand with an object.
    pub fn told(&mut self, now: Duration, peer: P, object: ObjectId, told: Told) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(want) = self.wants.get_mut(&object) else { return };
        known.on_answered();
        if matches!(want.told(peer), Some(Told::Coming(_))) && matches!(told, Told::Here { .. }) {
            known.has_gained(now);
        }
        if let Some(Told::Nothing(at)) = want.told(peer) {
            known.window.on_rtt(now, now.saturating_sub(at));
            if !matches!(told, Told::Coming(_)) {
                known.has_it(matches!(told, Told::Here { .. }));
            }
        }
        if matches!(told, Told::Coming(_)) {
            known.has_wanted(now);
        }
        // What one has that fetches too has come to it like to us, though before it was wanted here.
        let gained = known.is_fetching(now);
        let told = if matches!(told, Told::Here { .. }) { Told::Here { gained } } else { told };
        want.on_told(peer, told);
        if want.class != Class::Fault && want.asked.is_empty() {
            self.offer(now, object);
            self.give_up_if_in_vain(now, object);
        }
    }

    /// Asks peers which of the new objects they have.
    pub(super) fn watch(&mut self, now: Duration) {
        self.watch_at = None;
        let mut objects = std::mem::take(&mut self.unwatched);
        objects.retain(|object| self.wants.get(object).is_some_and(|want| want.class != Class::Fault));
        for (peer, mut named) in self.watched(now, &objects) {
            named.retain(|object| self.wants[object].told(peer).is_none());
            for object in &named {
                if let Some(want) = self.wants.get_mut(object) {
                    want.on_watched(now, peer);
                }
            }
            let batches = named.chunks(MAX_NAMED);
            self.actions.extend(batches.map(|batch| Action::Watch { peer, objects: batch.to_vec() }));
        }
    }

    /// Who is asked about what: those expected first about everything, of the others those with the highest weight for an
    /// object about that one. So everybody looks at the one whom the object is left to, however many there are.
    fn watched(&self, now: Duration, objects: &[ObjectId]) -> Vec<(P, Vec<ObjectId>)> {
        let mut quick: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.watches()).collect();
        quick.sort_by_key(|(id, peer)| (peer.speed.expected(now), **id));
        let others = quick.split_off(quick.len().min(QUICK));
        let mut heavy: BTreeMap<P, Vec<ObjectId>> = BTreeMap::new();
        for object in objects {
            let mut weights: Vec<_> =
                others.iter().map(|(id, peer)| (weight(peer.key, object), **id)).collect();
            weights.sort_unstable_by(|a, b| b.cmp(a));
            for (_, id) in weights.into_iter().take(HEAVY) {
                heavy.entry(id).or_default().push(*object);
            }
        }
        quick.into_iter().map(|(id, _)| (*id, objects.to_vec())).chain(heavy).collect()
    }

    /// Sees to it that peers are asked about objects that are wanted as `class`, and at once if the last of them `names` others.
    pub(super) fn watch_soon(&mut self, now: Duration, class: Class, names: bool) {
        let waiting: usize = self.waiting.iter().map(BTreeMap::len).sum();
        let collected = self.unwatched.len();
        let is_behind = !names && class > Class::Readahead && collected < FEW && waiting > collected + FEW;
        let after = match () {
            () if collected == 0 => return,
            () if is_behind => COLLECT_BEHIND,
            () => COLLECT,
        };
        self.watch_at = Some(self.watch_at.map_or(now + after, |at| at.min(now + after)));
    }
}
