//! Why an entry was refused, in words for whoever wrote it.
//!
//! Owns: the texts. Must not know: how the rules are checked. Invariant: each variant is somebody's mistake; nothing
//! here is worth sending again unchanged. Trust: what foreign text is shown is bounded. Threads: pure values.

use super::entry::{MAX_WITNESSES, MAX_WRAP_LEN};
use super::names::{Label, Name, Reason};
use super::params::ParamsError;
use super::roles::Role;
use super::weights::MAX_STAKE;
use crate::crypto::{CryptoError, PublicKey};
use crate::id::{Genesis, SnapshotId};

/// An entry, or a question about the state, that cannot be answered with yes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the entry is for network {found}, this log is of network {expected}")]
    OtherNetwork { expected: Genesis, found: Genesis },
    #[error(transparent)]
    Signature(#[from] CryptoError),
    #[error(
        "{name} belongs to {owner}, who published it first; {author} may not change it: publish under another name, or \
         ask its owner for a grant"
    )]
    NotOwner { name: Name, owner: PublicKey, author: PublicKey },
    #[error(
        "{name}@{version} is already published as snapshot {snapshot} (height {height}) and cannot become snapshot \
         {offered}; versions never change: publish under a new version"
    )]
    Published { name: Name, version: Label, snapshot: SnapshotId, offered: SnapshotId, height: u64 },
    #[error("{name}@{label} is a tag; a version cannot have the same label: choose another")]
    IsTag { name: Name, label: Label },
    #[error("{name}@{label} is a version, and versions never change: choose another label for the tag")]
    IsVersion { name: Name, label: Label },
    #[error("there is no dataset `{name}` in this log")]
    NoDataset { name: String },
    #[error("{name} has no version or tag `{label}`; its latest version is {latest}")]
    NoVersion { name: Name, label: String, latest: String },
    #[error("{name}@{parent}, given as the parent, was never published")]
    NoParent { name: Name, parent: Label },
    #[error("{name}@{version} was withdrawn at height {height}: {reason}")]
    Yanked { name: Name, version: Label, height: u64, reason: Reason },
    #[error(
        "every version of {name} was withdrawn, so that it has no latest; name a version to read it all the same"
    )]
    AllYanked { name: Name },
    #[error(
        "entry number {found} of {author} comes too late: the log already holds their number {last}; sign it again \
         with a higher one"
    )]
    Nonce { author: PublicKey, last: u64, found: u64 },
    #[error("{author} may not {what}: that needs the role {role} in this network, which an admin can give")]
    NeedsRole { author: PublicKey, role: Role, what: &'static str },
    #[error("key {key} was replaced by {successor} and writes nothing any more: use the new key")]
    Rotated { key: PublicKey, successor: PublicKey },
    #[error("key {key} already has a place of its own in this log: use a new key")]
    KeyInUse { key: PublicKey },
    #[error("{name} belongs to {owner}, who may do everything with it: there is nothing to grant or take")]
    OwnerHasAll { name: Name, owner: PublicKey },
    #[error("the role {role} is of the whole network and cannot be granted with a name")]
    NotForNames { role: Role },
    #[error(
        "a wrapped key of {len} bytes does not go with this grant: it is {MAX_WRAP_LEN} bytes at most, and none without \
         a role"
    )]
    Wrap { len: usize },
    #[error("{to} was granted nothing with {name}, so there is nothing to take back")]
    NoGrant { name: Name, to: PublicKey },
    #[error("{key} has no role in this network, so there is nothing to take back")]
    NoRole { key: PublicKey },
    #[error("a network needs an admin: make somebody else one first")]
    LastAdmin,
    #[error("there may be {limit} {what} at most, and there are")]
    TooMany { what: &'static str, limit: usize },
    #[error(
        "the version comes with {found} replica acknowledgements; this network needs {needed}, and takes {MAX_WITNESSES} \
         at most"
    )]
    Replicas { needed: usize, found: usize },
    #[error(
        "{copies} copies are less than the {found} nodes that have acknowledged, or more than {MAX_WITNESSES}"
    )]
    Copies { copies: usize, found: usize },
    #[error(
        "the acknowledgement by {node} does not count: it is the publisher's own, is there twice, or its node has not \
         the role storage"
    )]
    Replica { node: PublicKey },
    #[error("{key} is not an operator of a validator")]
    NoOperator { key: PublicKey },
    #[error(
        "{operator} was jailed at height {height} for signing two things at once: an admin must release it first"
    )]
    Jailed { operator: PublicKey, height: u64 },
    #[error("{operator} is not in jail")]
    NotJailed { operator: PublicKey },
    #[error(
        "voting key {voter} signed two things at once (height {height}) and can never vote again: use another"
    )]
    VoterJailed { voter: PublicKey, height: u64 },
    #[error("{key} never was a voting key of this network, so there is nobody to jail")]
    NotAVoter { key: PublicKey },
    #[error("the two statements of {voter} do not contradict each other, or are not in their order")]
    NoContradiction { voter: PublicKey },
    #[error("{key} has no stake: an admin can give it some")]
    NoStake { key: PublicKey },
    #[error("a stake of {amount} is above the limit of {MAX_STAKE}")]
    StakeTooLarge { amount: u64 },
    #[error("this is epoch {expected}'s to say, not epoch {found}'s: sign it again for the right one")]
    OtherEpoch { expected: u64, found: u64 },
    #[error("there is no open commitment of the author to snapshot {snapshot}")]
    NoCommitment { snapshot: SnapshotId },
    #[error("the receipt for snapshot {snapshot} answers another challenge than the one that was set")]
    OtherChallenge { snapshot: SnapshotId },
    #[error("the receipt has {found} audits; it needs {needed}, of the {asked} who may audit it")]
    Audits { needed: usize, found: usize, asked: usize },
    #[error("{auditor} was not asked to audit this challenge, or is named twice")]
    Auditor { auditor: PublicKey },
    #[error(transparent)]
    Params(#[from] ParamsError),
}
