//! The log up to some height: what it says, who votes next, and the rules by which one more block is accepted.
//!
//! Owns: proposing, executing and applying blocks. Must not know: clocks, disks, rounds, or who else runs.
//! Invariant: a `Ledger` was reached from its genesis by blocks that each carry a quorum's certificate, and
//! equal blocks reach equal ledgers on every machine.
//! Trust: headers, bodies and blocks are foreign; every field of them is checked here.
//! Threads: pure values; a clone is a few reference counts.

mod identities;

use std::sync::Arc;

use super::block::{Block, Body, Header, MAX_BODY_ENTRIES, MAX_BODY_ENTRY_BYTES};
use super::certificate::{Certificate, CertificateError};
use super::digest::Digest;
use super::entry::Entry;
use super::genesis::{GenesisDoc, GenesisError, LOG_VERSION};
use super::light::{Signed, Trusted, Update};
use super::params::Params;
use super::refusal::Refusal;
use super::sparse::StateProof;
use super::state::{Admission, Checks, Dataset, Epochs, State, StateKey, Version};
use super::validators::ValidatorSet;
use crate::crypto::{self, PublicKey};
use crate::id::{EntryId, Genesis, HeaderId};

/// Why a block was refused. Each says that whoever proposed or sent it is wrong, or that it was damaged; the
/// same block will never be accepted on the same ledger, except after `Height`, once those before it have been applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    #[error(
        "height {height} has log format {found}; this version of bcai reads format {LOG_VERSION}: upgrade bcai"
    )]
    Version { height: u64, found: u32 },
    #[error("the block is of network {found}, this log is of network {expected}")]
    OtherNetwork { expected: Genesis, found: Genesis },
    #[error("expected height {expected}, got {found}")]
    Height { expected: u64, found: u64 },
    #[error("height {height}: time {found} ms is before {floor} ms, the time of the height before it")]
    Time { height: u64, floor: u64, found: u64 },
    #[error("height {height}: {proposer} is not a validator")]
    Proposer { height: u64, proposer: PublicKey },
    #[error("height {height}: the header says {what} {found}, but it is {expected}")]
    Mismatch { height: u64, what: &'static str, expected: String, found: String },
    #[error("height {height}: {entries} entries of {bytes} bytes are over the limits of a block")]
    TooLarge { height: u64, entries: usize, bytes: usize },
    #[error("height {height}: the body does not carry the previous height's certificate")]
    NoPreviousCertificate { height: u64 },
    #[error("height {height}: {cause}")]
    Certificate { height: u64, cause: CertificateError },
    #[error("height {height}, entry {index}: {cause}")]
    Entry { height: u64, index: usize, cause: Box<Refusal> },
    #[error("height {height}, entry {index}: repeats entry {earlier}")]
    Repeated { height: u64, index: usize, earlier: EntryId },
}

/// Everything that follows from the blocks so far.
#[derive(Debug, Clone)]
pub struct Ledger {
    doc: Arc<GenesisDoc>,
    genesis: Genesis,
    head: Option<Arc<Head>>,
    /// Who votes on the next height.
    validators: ValidatorSet,
    /// Every set so far and the first height that it voted or votes on, ascending.
    sets: Arc<Vec<(u64, ValidatorSet)>>,
    /// After the newest height.
    state: State,
}

#[derive(Debug)]
struct Head {
    id: HeaderId,
    signed: Signed,
}

/// A block's effect, fit for a vote. It becomes a `Ledger` only by a certificate.
#[derive(Debug)]
pub struct Executed<'a> {
    on: &'a Ledger,
    header: Header,
    id: HeaderId,
    state: State,
}

impl Executed<'_> {
    /// The id that was executed, which is what to vote on.
    pub fn id(&self) -> HeaderId {
        self.id
    }

    /// Checks `certificate` and makes the block final.
    pub fn certify(self, certificate: Certificate) -> Result<Ledger, LogError> {
        self.certify_with(certificate, &mut Checks::Now)
    }

    fn certify_with(self, certificate: Certificate, checks: &mut Checks) -> Result<Ledger, LogError> {
        let Ledger { doc, genesis, validators, sets, .. } = self.on;
        let height = self.header.height;
        let verdict = match checks {
            Checks::Now | Checks::AuthorsKnown => certificate.verify(*genesis, validators, height, self.id),
            Checks::Later(claims) => {
                certificate.claims(*genesis, validators, height, self.id).map(|votes| claims.extend(votes))
            }
        };
        verdict.map_err(|cause| LogError::Certificate { height, cause })?;
        let next = self.state.voters_after(self.header.time_ms).clone();
        let mut sets = sets.clone();
        if next != *validators {
            Arc::make_mut(&mut sets).push((height + 1, next.clone()));
        }
        let signed = Signed { header: self.header, certificate, validators: validators.clone() };
        Ok(Ledger {
            doc: doc.clone(),
            genesis: *genesis,
            head: Some(Arc::new(Head { id: self.id, signed })),
            validators: next,
            sets,
            state: self.state,
        })
    }
}

impl Ledger {
    /// The log before its first height.
    pub fn genesis(doc: &GenesisDoc) -> Result<Self, GenesisError> {
        doc.check()?;
        let validators = doc.validators.clone();
        let sets = Arc::new(vec![(1, validators.clone())]);
        let state = State::genesis(doc);
        Ok(Self { doc: Arc::new(doc.clone()), genesis: doc.id(), head: None, validators, sets, state })
    }

    /// The network's name.
    pub fn network(&self) -> Genesis {
        self.genesis
    }

    /// What the network began with.
    pub fn document(&self) -> &GenesisDoc {
        &self.doc
    }

    /// Heights decided so far.
    pub fn height(&self) -> u64 {
        self.head().map_or(0, |header| header.height)
    }

    /// The newest header; none before height 1.
    pub fn head(&self) -> Option<&Header> {
        self.head.as_ref().map(|head| &head.signed.header)
    }

    /// Id of the newest header; none before height 1.
    pub fn head_id(&self) -> Option<HeaderId> {
        self.head.as_ref().map(|head| head.id)
    }

    /// The certificate of the newest header, as this machine received it; none before height 1.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.head.as_ref().map(|head| &head.signed.certificate)
    }

    /// Who votes on the next height.
    pub fn validators(&self) -> &ValidatorSet {
        &self.validators
    }

    /// Who voted on `height`, which is at most the next one.
    pub fn validators_at(&self, height: u64) -> Option<&ValidatorSet> {
        if !(1..=self.height() + 1).contains(&height) {
            return None;
        }
        let after = self.sets.partition_point(|(first, _)| *first <= height);
        self.sets[..after].last().map(|(_, set)| set)
    }

    /// What a light client needs to believe the header of `block`, which this log holds.
    pub fn update(&self, block: &Block) -> Option<Update> {
        let height = block.header.height;
        let validators = self.validators_at(height)?.clone();
        let next = self.validators_at(height + 1)?.clone();
        let (header, certificate) = (block.header.clone(), block.certificate.clone());
        Some(Update { signed: Signed { header, certificate, validators }, next })
    }

    /// No later header may have a time before this, in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.head().map_or(self.doc.time_ms, |header| header.time_ms)
    }

    /// Entries in the log.
    pub fn entries(&self) -> u64 {
        self.state.log().size()
    }

    /// The largest nonce of `author` that executed; 0 when none did.
    pub fn nonce(&self, author: &PublicKey) -> u64 {
        self.state.nonce(author)
    }

    /// The parameters in force for the next height.
    pub fn params(&self) -> &Params {
        self.state.params()
    }

    /// The epoch of the newest height, and who votes when. The next height begins another if the newest was its last.
    pub fn epochs(&self) -> &Epochs {
        self.state.epochs()
    }

    /// The dataset called `name`.
    pub fn dataset(&self, name: &str) -> Option<&Dataset> {
        self.state.dataset(name)
    }

    /// All datasets, by name.
    pub fn datasets(&self) -> impl Iterator<Item = &Dataset> {
        self.state.datasets().into_iter()
    }

    /// The version that `name@label` means; without a label, or with `latest`, the newest that is not withdrawn.
    /// A withdrawn version is found by its label or a tag: see `Version::yanked`.
    pub fn resolve(&self, name: &str, label: Option<&str>) -> Result<&Version, Refusal> {
        let dataset = self.dataset(name);
        let unknown = || Refusal::NoDataset { name: name.chars().take(80).collect() };
        dataset.ok_or_else(unknown)?.resolve(label)
    }

    /// Proves to whoever has the head what, or that nothing, is at `key`.
    pub fn prove(&self, key: &StateKey) -> StateProof {
        self.state.prove(key)
    }

    /// What a light client that follows this log keeps.
    pub fn trusted(&self) -> Trusted {
        let signed = self.head.as_ref().map(|head| head.signed.clone());
        Trusted::new(self.genesis, self.doc.time_ms, self.validators.clone(), signed)
    }

    /// Whether `entry` would execute in the next block.
    pub fn admit(&self, entry: &Entry) -> Result<Admission, Refusal> {
        self.begun().admit(self.genesis, entry, &mut Checks::Now)
    }

    /// As `admit`, for entries that it has let in under an earlier head: the signature of an author stays what it was, and
    /// checking it is most of the work.
    pub fn admit_again<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Vec<Result<Admission, Refusal>> {
        let state = self.begun();
        let again = |entry| state.admit(self.genesis, entry, &mut Checks::AuthorsKnown);
        entries.into_iter().map(again).collect()
    }

    /// The state that the next body is executed on.
    fn begun(&self) -> State {
        let mut state = self.state.clone();
        state.begin(self.head.as_ref().map(|head| (head.id, head.signed.header.time_ms)));
        state
    }

    /// The next block, of those `entries`, which were admitted before, that execute one after the other and fit. The others
    /// are left out; `admit` says why, or that they have yet to come. A `time_ms` before the newest header's is raised to it.
    pub fn propose(&self, entries: Vec<Entry>, time_ms: u64, proposer: PublicKey) -> (Header, Body) {
        let (height, time_ms) = (self.height() + 1, time_ms.max(self.time_ms()));
        let (mut state, mut accepted, mut room) = (self.begun(), Vec::new(), MAX_BODY_ENTRY_BYTES);
        for entry in entries {
            let len = entry.encode().len();
            if accepted.len() == MAX_BODY_ENTRIES || len > room {
                break;
            }
            let outcome = state.execute(self.genesis, &entry, height, time_ms, &mut Checks::AuthorsKnown);
            if outcome == Ok(Admission::New) {
                room -= len;
                accepted.push(entry);
            }
        }
        let body = Body { previous: self.certificate().cloned(), entries: accepted };
        (self.header(time_ms, proposer, &body, &state), body)
    }

    /// The only header that fits `body` and the `state` that it leads to.
    fn header(&self, time_ms: u64, proposer: PublicKey, body: &Body, state: &State) -> Header {
        Header {
            version: LOG_VERSION,
            genesis: self.genesis,
            height: self.height() + 1,
            epoch: state.epochs().number,
            time_ms,
            previous: self.head_id(),
            previous_certificate: body.previous.as_ref().map_or(Digest::NONE, Certificate::digest),
            log_size: state.log().size(),
            log_root: state.log().root(),
            body: body.digest(),
            state_root: state.root(),
            validators: self.validators.digest(),
            next_validators: state.voters_after(time_ms).digest(),
            params: state.params().digest(),
            evidence_root: body.evidence_root(),
            proposer,
        }
    }

    /// Checks everything about a block but its certificate: what a validator does before it votes.
    pub fn execute(&self, header: &Header, body: &Body) -> Result<Executed<'_>, LogError> {
        self.execute_with(header, body, &mut Checks::Now)
    }

    fn execute_with(
        &self,
        header: &Header,
        body: &Body,
        checks: &mut Checks,
    ) -> Result<Executed<'_>, LogError> {
        self.check_place(header)?;
        self.check_previous_certificate(header.height, body)?;
        let state = self.run(header, body, checks)?;
        let expected = self.header(header.time_ms, header.proposer, body, &state);
        compare(header, &expected)?;
        Ok(Executed { on: self, header: header.clone(), id: header.id(), state })
    }

    /// Executes a decided block and checks its certificate.
    pub fn apply(&self, block: &Block) -> Result<Self, LogError> {
        self.execute(&block.header, &block.body)?.certify(block.certificate.clone())
    }

    /// Applies blocks that follow one another, checking all their signatures in one batch: about half the cost
    /// of applying each. For blocks that were applied before, such as this machine's own log. An error comes with
    /// the height at which it was met.
    pub fn replay(&self, blocks: &[Block]) -> Result<Self, (u64, LogError)> {
        let mut checks = Checks::Later(Vec::new());
        let ledger = self.run_through(blocks, &mut checks)?;
        match checks {
            Checks::Later(claims) if crypto::verify_batch(&claims).is_ok() => Ok(ledger),
            // Some signature is bad: find the height.
            _ => self.run_through(blocks, &mut Checks::Now),
        }
    }

    fn run_through(&self, blocks: &[Block], checks: &mut Checks) -> Result<Self, (u64, LogError)> {
        blocks.iter().try_fold(self.clone(), |ledger, block| {
            let executed = ledger.execute_with(&block.header, &block.body, checks);
            let applied = executed.and_then(|done| done.certify_with(block.certificate.clone(), checks));
            applied.map_err(|error| (ledger.height() + 1, error))
        })
    }

    /// What can be said of a header before the work of executing its body.
    fn check_place(&self, header: &Header) -> Result<(), LogError> {
        let height = header.height;
        if header.version != LOG_VERSION {
            return Err(LogError::Version { height, found: header.version });
        }
        if header.genesis != self.genesis {
            return Err(LogError::OtherNetwork { expected: self.genesis, found: header.genesis });
        }
        if height != self.height() + 1 {
            return Err(LogError::Height { expected: self.height() + 1, found: height });
        }
        if header.previous != self.head_id() {
            let show = |id: Option<HeaderId>| id.map_or("none".to_owned(), |id| id.to_string());
            let (expected, found) = (show(self.head_id()), show(header.previous));
            return Err(LogError::Mismatch { height, what: "previous header", expected, found });
        }
        if header.time_ms < self.time_ms() {
            return Err(LogError::Time { height, floor: self.time_ms(), found: header.time_ms });
        }
        match self.validators.position(&header.proposer) {
            Some(_) => Ok(()),
            None => Err(LogError::Proposer { height, proposer: header.proposer }),
        }
    }

    fn check_previous_certificate(&self, height: u64, body: &Body) -> Result<(), LogError> {
        match (&self.head, &body.previous) {
            (None, None) => Ok(()),
            // This machine's own, which it has already verified.
            (Some(head), Some(certificate)) if head.signed.certificate == *certificate => Ok(()),
            (Some(head), Some(certificate)) => certificate
                .verify(self.genesis, &head.signed.validators, height - 1, head.id)
                .map_err(|cause| LogError::Certificate { height: height - 1, cause }),
            _ => Err(LogError::NoPreviousCertificate { height }),
        }
    }

    fn run(&self, header: &Header, body: &Body, checks: &mut Checks) -> Result<State, LogError> {
        let height = header.height;
        let (entries, bytes) = (body.entries.len(), body.entries.iter().map(|e| e.encode().len()).sum());
        if entries > MAX_BODY_ENTRIES || bytes > MAX_BODY_ENTRY_BYTES {
            return Err(LogError::TooLarge { height, entries, bytes });
        }
        let mut state = self.begun();
        for (index, entry) in body.entries.iter().enumerate() {
            match state.execute(self.genesis, entry, height, header.time_ms, checks) {
                Ok(Admission::New) => {}
                Ok(Admission::Already { entry: earlier, .. }) => {
                    return Err(LogError::Repeated { height, index, earlier });
                }
                Err(cause) => return Err(LogError::Entry { height, index, cause: Box::new(cause) }),
            }
        }
        Ok(state)
    }
}

/// Names the first field in which a header differs from the one that would be right.
fn compare(found: &Header, expected: &Header) -> Result<(), LogError> {
    macro_rules! fields {
        ($($field:ident => $what:literal),* $(,)?) => {$(
            if found.$field != expected.$field {
                return Err(LogError::Mismatch {
                    height: expected.height,
                    what: $what,
                    expected: expected.$field.to_string(),
                    found: found.$field.to_string(),
                });
            }
        )*};
    }
    fields! {
        epoch => "epoch",
        previous_certificate => "previous certificate",
        body => "body",
        log_size => "log size",
        log_root => "log root",
        state_root => "state root",
        validators => "validators",
        next_validators => "next validators",
        params => "parameters",
        evidence_root => "evidence root",
    }
    Ok(())
}
