//! The one owner of the consensus state: feeds it what arrives, and carries out what it decides.
//!
//! Owns: the engine's state, the height in progress, and the order of things within a turn.
//! Must not know: what carries messages, or that there is a runtime: it is called with what has arrived and the time.
//! Invariant: a turn is: feed everything; flush the write-ahead log; only then send, commit and go to the next height.
//! Trust: messages are foreign. Votes and proposals are checked before they may begin a height or be put aside for one;
//! the engine has every one checked again before it counts.
//! Threads: one thread at a time; a turn may block on the disk. A crash at any point leaves a log that `open`
//! replays to the same votes.

mod receive;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_malachitebft_core_consensus as engine;
use arc_malachitebft_core_types as bft;
use bft::{LinearTimeouts, Round, ThresholdParams, ValuePayload, VoteExtensionPolicy};
use bytes::Bytes;
use engine::{Input, LocallyProposedValue, Params, State};
use tokio::sync::mpsc;

use super::app::App;
use super::context::{Height, LogContext, header_of, number};
use super::effects::Shell;
use super::link::Outgoing;
use super::mempool::Reply;
use super::signing::{Signer, Step};
use super::timers::Timers;
use super::wal::{Past, Wal};
use super::wire::{Candidate, Message, Record};
use super::{Now, ValidatorError};
use crate::chain::Chain;
use crate::codec;
use crate::crypto::{PublicKey, SecretKey};
use crate::id::HeaderId;
use crate::log::{Entry, ValidatorSet};

/// What a turn is fed.
pub enum Event {
    Submit(Box<Entry>, Reply),
    Message(PublicKey, Message),
}

/// Work of one turn.
enum Work {
    Input(Box<Input<LogContext>>),
    Message(PublicKey, Message),
}

/// The validator without its runtime.
pub struct Driver {
    app: App,
    me: PublicKey,
    state: State<LogContext>,
    shell: Shell,
    outgoing: mpsc::Sender<Outgoing>,
    wal_path: PathBuf,
    /// Whether the engine has been told to begin this height.
    running: bool,
    /// A height that the write-ahead log has begun and the chain, put back to an earlier state, has yet to reach.
    owed: Option<(u64, bool, Vec<Record>)>,
    work: VecDeque<Work>,
    /// Blocks of this height that have been executed, or could not be, and who proposed them here first.
    judged: HashMap<HeaderId, PublicKey>,
    /// Checked messages of the next height.
    ahead: Vec<(PublicKey, Message)>,
}

impl Driver {
    /// Opens the write-ahead log and goes on where it ends.
    pub fn open(
        key: SecretKey,
        chain: Arc<Chain>,
        wal_path: &Path,
        outgoing: mpsc::Sender<Outgoing>,
        timeouts: LinearTimeouts,
        now: Now,
    ) -> Result<Self, ValidatorError> {
        let (me, genesis) = (key.public(), chain.genesis());
        let app = App::new(chain);
        let ledger = app.ledger();
        let height = Height(ledger.height() + 1);
        let (wal, past) = Wal::open(wal_path, (genesis, me), height.0)?;
        let params = Params {
            address: me,
            threshold_params: ThresholdParams::default(),
            value_payload: ValuePayload::ProposalAndParts,
            enabled: true,
        };
        // The engine's own queue for later heights stays empty: `ahead` holds only what has been checked.
        let state = State::new(LogContext, height, ledger.validators().clone(), params, 1, 1);
        let shell = Shell {
            genesis,
            signer: Signer::new(key, genesis, height),
            timers: Timers::new(timeouts),
            wal,
            height,
            voting: true,
            candidates: Default::default(),
            replayed: Default::default(),
            outbox: Vec::new(),
            wanted: None,
            accusations: Default::default(),
            decided: None,
            fault: None,
        };
        let mut driver = Self {
            app,
            me,
            state,
            shell,
            outgoing,
            wal_path: wal_path.to_owned(),
            running: false,
            owed: None,
            work: VecDeque::new(),
            judged: HashMap::new(),
            ahead: Vec::new(),
        };
        driver.resume(past, now)?;
        driver.turn(Vec::new(), now)?;
        Ok(driver)
    }

    fn resume(&mut self, past: Past, now: Now) -> Result<(), ValidatorError> {
        let next = self.shell.height.0;
        match past {
            Past::Lost => {
                tracing::error!(height = next, "the write-ahead log was lost: not voting at this height");
                self.shell.voting = false;
                Ok(())
            }
            Past::Height { height, voting, records } if height >= next => {
                if height > next {
                    tracing::error!(
                        voted = height,
                        next,
                        "the log is older than our votes: not voting until it has caught up"
                    );
                }
                self.owed = Some((height, voting, records));
                self.begin(now)
            }
            // A key that others have decided beside before, and no record of it: it may have voted here from another home.
            Past::New if next > 1 && self.set().members().len() > 1 => {
                tracing::warn!(
                    height = next,
                    "what this key has signed before is not known: not voting at this height"
                );
                self.shell.voting = false;
                Ok(self.shell.wal.begin(next, false)?)
            }
            Past::New | Past::Height { .. } => self.begin(now),
        }
    }

    /// Prepares for the height `shell.height`, without beginning it.
    fn begin(&mut self, now: Now) -> Result<(), ValidatorError> {
        let height = self.shell.height;
        self.running = false;
        self.shell.timers.clear();
        self.shell.signer.begin(height);
        self.shell.candidates.clear();
        self.judged.clear();
        // A timeout that was due belongs to the height that has just ended.
        self.work.retain(|work| matches!(work, Work::Message(..)));
        self.shell.wanted = None;
        match self.owed.take() {
            Some((owed, voting, records)) if owed == height.0 => {
                self.shell.voting = voting;
                if voting && !records.is_empty() { self.replay(records, now) } else { Ok(()) }
            }
            // The file keeps its records until the chain has caught up with them.
            Some(owed) if owed.0 > height.0 => {
                self.shell.voting = false;
                self.owed = Some(owed);
                Ok(())
            }
            _ => {
                self.shell.voting = true;
                Ok(self.shell.wal.begin(height.0, true)?)
            }
        }
    }

    /// Brings the engine to where the records end. It derives the same votes again, and takes their signatures
    /// from the records.
    fn replay(&mut self, records: Vec<Record>, now: Now) -> Result<(), ValidatorError> {
        tracing::info!(height = %self.shell.height, records = records.len(), "replaying the write-ahead log");
        let mut inputs = Vec::new();
        for record in records {
            match record {
                Record::Candidate(candidate) => {
                    self.judged.insert(candidate.header.id(), candidate.header.proposer);
                    self.shell.candidates.insert(candidate.header.id(), *candidate);
                }
                Record::Input(input) => {
                    self.remember(&input.0);
                    self.shell.replayed.insert(codec::encode(&input));
                    inputs.push(input.0);
                }
                Record::Owner(..) | Record::Height(..) => {}
            }
        }
        self.start(now)?;
        self.state.index_wal_entries(&inputs);
        for input in inputs {
            if self.shell.decided.is_none() {
                self.step(input, now)?;
            }
        }
        self.state.reset_entries_index();
        self.shell.replayed.clear();
        Ok(())
    }

    fn remember(&mut self, input: &Input<LogContext>) {
        match input {
            Input::Vote(vote) if vote.voter == self.me => {
                self.shell.signer.remember(vote.kind.into(), vote.round, header_of(&vote.id));
            }
            Input::Proposal(proposal) if proposal.proposer == self.me => {
                self.shell.signer.remember(Step::Propose, proposal.round, Some(proposal.id));
            }
            _ => {}
        }
    }

    /// Has the engine begin the height.
    fn start(&mut self, now: Now) -> Result<(), ValidatorError> {
        self.running = true;
        self.state.params.enabled = self.shell.voting;
        let set = self.app.ledger().validators().clone();
        // No target time: the engine would read the wall clock for it.
        let policy = VoteExtensionPolicy::Disabled;
        self.step(Input::StartHeight(self.shell.height, set, false, None, policy), now)
    }

    /// One input, to the end of all its effects.
    fn step(&mut self, input: Input<LogContext>, now: Now) -> Result<(), ValidatorError> {
        let Self { state, shell, .. } = self;
        let result: Result<(), engine::Error<LogContext>> = engine::process!(
            input: input,
            state: state,
            metrics: &(),
            with: effect => shell.grant(effect, now)
        );
        match (self.shell.fault.take(), result) {
            (Some(fault), _) => Err(fault),
            (None, Err(error)) => Err(ValidatorError::Engine(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
    }

    /// Takes in what has happened since the last turn, and does all that follows from it.
    pub fn turn(&mut self, events: Vec<Event>, now: Now) -> Result<(), ValidatorError> {
        self.catch_up(now)?;
        for event in events {
            match event {
                Event::Submit(entry, reply) => self.submit(*entry, reply),
                Event::Message(from, message) => self.work.push_back(Work::Message(from, message)),
            }
        }
        while let Some(timeout) = self.shell.timers.take_due(now.instant) {
            self.work.push_back(Work::Input(Box::new(Input::TimeoutElapsed(timeout))));
        }
        let mut began = false;
        loop {
            self.work_off(now)?;
            self.settle(now)?;
            if !self.work.is_empty() || self.shell.wanted.is_some() {
                continue;
            }
            let due = self.app.due_ms(now).is_some_and(|due| due <= now.unix_ms);
            // At most one height a turn begins this way, so that what arrives meanwhile goes into the next.
            if began || self.running || !due || !self.may_decide() {
                return Ok(());
            }
            began = true;
            self.start(now)?;
        }
    }

    /// How long nothing need be done unless something arrives.
    pub fn idle_for(&self, now: Now) -> Option<std::time::Duration> {
        if self.running {
            return self.shell.timers.next().map(|due| due.saturating_duration_since(now.instant));
        }
        let due = self.app.due_ms(now).filter(|_| self.may_decide())?;
        Some(std::time::Duration::from_millis(due.saturating_sub(now.unix_ms)))
    }

    /// The height being decided, or to be decided next.
    pub fn height(&self) -> u64 {
        self.shell.height.0
    }

    /// Has a later flush of the write-ahead log end in a crash.
    #[cfg(test)]
    pub fn tear_at(&mut self, tear: Option<super::wal::Tear>) {
        self.shell.wal.tear_at(tear);
    }

    fn may_decide(&self) -> bool {
        self.shell.voting && self.set().get(&self.me).is_some()
    }

    fn set(&self) -> ValidatorSet {
        self.app.ledger().validators().clone()
    }

    fn submit(&mut self, entry: Entry, reply: Reply) {
        let set = self.set();
        let alone = set.members().len() == 1;
        let height = self.shell.height.0;
        let unable = if set.get(&self.me).is_none() {
            Some(ValidatorError::NotAValidator { key: self.me, height })
        } else if alone && !self.shell.voting {
            Some(ValidatorError::Abstaining { height, path: self.wal_path.clone() })
        } else {
            None
        };
        if let Some(error) = unable {
            // Whoever has given up waiting is not listening any more.
            let _ = reply.send(Err(error));
        } else if self.app.submit(entry.clone(), Some(reply)) && !alone {
            self.shell.send(Message::Entry(Box::new(entry)));
        }
    }

    fn work_off(&mut self, now: Now) -> Result<(), ValidatorError> {
        while self.shell.decided.is_none() {
            if let Some(round) = self.shell.wanted.take() {
                self.propose(round, now)?;
                continue;
            }
            match self.work.pop_front() {
                Some(Work::Input(input)) => self.step(*input, now)?,
                Some(Work::Message(from, message)) => self.receive(from, message, now)?,
                None => break,
            }
        }
        Ok(())
    }

    fn propose(&mut self, round: u32, now: Now) -> Result<(), ValidatorError> {
        if self.shell.signer.proposed(round) {
            return Ok(());
        }
        // One block a height is enough: proposing it again costs nobody another execution or another record.
        let mine =
            self.shell.candidates.iter().find(|(_, c)| c.header.proposer == self.me).map(|(id, _)| *id);
        let id = mine.unwrap_or_else(|| {
            let candidate = self.app.build(now, self.me);
            let id = candidate.header.id();
            self.keep(candidate);
            id
        });
        let height = self.shell.height;
        self.step(Input::Propose(LocallyProposedValue::new(height, Round::new(round), id)), now)
    }

    fn keep(&mut self, candidate: Candidate) {
        if self.shell.voting {
            self.shell.wal.append(Record::Candidate(Box::new(candidate.clone())));
        }
        self.judged.entry(candidate.header.id()).or_insert(candidate.header.proposer);
        self.shell.candidates.insert(candidate.header.id(), candidate);
    }

    /// Makes durable what has been said, then says it and acts on it.
    fn settle(&mut self, now: Now) -> Result<(), ValidatorError> {
        self.shell.wal.flush()?;
        if self.outgoing.is_closed() {
            self.shell.outbox.clear();
        }
        for (to, message) in self.shell.outbox.drain(..) {
            if self.outgoing.try_send((to, Bytes::from(message.encode()))).is_err() {
                tracing::trace!("a message to other validators was dropped");
            }
        }
        let Some(decision) = self.shell.decided.take() else { return Ok(()) };
        let missing = || ValidatorError::Engine(format!("decided {}, which is not here", decision.value_id));
        let candidate = self.shell.candidates.remove(&decision.value_id).ok_or_else(missing)?;
        let round = number(decision.round);
        let votes = decision.commit_signatures.iter().map(|s| (s.address, s.signature.0));
        self.app.decide(candidate, round, votes)?;
        self.catch_up(now)
    }

    /// Goes on to the next height when the chain has, by our decision or by one that reached it another way.
    fn catch_up(&mut self, now: Now) -> Result<(), ValidatorError> {
        let next = self.app.ledger().height() + 1;
        if next <= self.shell.height.0 {
            return Ok(());
        }
        self.app.report(self.shell.height.0..next)?;
        // A height that was decided elsewhere has not ended for the engine, which still holds what it has met there.
        let (proposals, votes) =
            (self.state.driver.take_proposal_evidence(), self.state.driver.take_vote_evidence());
        self.shell.accusations.collect(engine::MisbehaviorEvidence { proposals, votes });
        self.shell.height = Height(next);
        self.begin(now)?;
        self.accuse();
        for (from, message) in std::mem::take(&mut self.ahead) {
            self.work.push_back(Work::Message(from, message));
        }
        Ok(())
    }

    /// Has the log told of those who contradicted themselves, as long as it does not know of it.
    fn accuse(&mut self) {
        let Shell { accusations, signer, .. } = &mut self.shell;
        for entry in accusations.entries(&self.app.ledger(), signer) {
            if self.app.submit(entry.clone(), None) {
                self.shell.send(Message::Entry(Box::new(entry)));
            }
        }
    }
}
