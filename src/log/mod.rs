//! The manifest log as data: what is decided, what follows from it, and the proofs of both.
//!
//! Owns: genesis, entries, headers, bodies, certificates, the state that executing them builds, who votes with which weight,
//! Merkle proofs, the light client, proofs as files and checkpoints for others.
//! Must not know: clocks, disks, networks, or how consensus is reached. Time and keys are passed in.
//! Invariant: executing the same blocks gives the same `Ledger` on every machine.
//! Trust: nothing decoded here is believed until a `Ledger` or a `light::Trusted` has accepted it.
//! Threads: pure values; clones are cheap and share their insides.

mod block;
mod certificate;
pub mod checkpoint;
mod digest;
mod entry;
mod genesis;
mod ledger;
pub mod light;
pub mod merkle;
mod names;
pub mod note;
mod params;
pub mod proof;
mod refusal;
mod roles;
pub mod shown;
mod sparse;
mod state;
pub mod storage;
#[cfg(test)]
mod tests;
mod validators;
pub mod weights;

pub use block::{
    Block, Body, Header, MAX_BLOCK_LEN, MAX_BODY_ENTRIES, MAX_BODY_ENTRY_BYTES, MAX_BODY_LEN, MAX_HEADER_LEN,
};
pub use certificate::{
    Certificate, CertificateError, MAX_CERTIFICATE_LEN, VoteKind, proposal_bytes, vote_bytes,
};
pub use digest::Digest;
pub use entry::{
    Audit, Delegate, Entry, EntryBody, Evidence, Grant, MAX_ENTRY_LEN, MAX_WITNESSES, MAX_WRAP_LEN, Offence,
    Publish, Replica, RoleChange, Rotate, Stake, StorageCommit, StorageReceipt, Tag, ValidatorChange, Yank,
};
pub use genesis::{GenesisDoc, GenesisError, LOG_VERSION, MAX_ADMINS, MAX_GENESIS_LEN};
pub use ledger::{Executed, Ledger, LogError};
pub use names::{LATEST, Label, MAX_LABEL_LEN, MAX_NAME_LEN, MAX_REASON_LEN, Name, NameError, Reason};
pub use params::{DEFAULT_EPOCH_MS, DEFAULT_HEARTBEAT_MS, Params, ParamsError, Policy};
pub use refusal::Refusal;
pub use roles::{ParseRoleError, Role, RoleSet};
pub use sparse::{ProofError, StateProof};
pub use state::{
    Admission, Commitment, Dataset, Epochs, Granted, Holder, Identity, Item, OpenChallenge, Operator, Roles,
    Seat, Stamp, Standing, StateKey, Target, Version, Voter, Yanked,
};
pub use validators::{MAX_VALIDATORS, Validator, ValidatorSet, ValidatorSetError};
