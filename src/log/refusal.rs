//! Why an entry was refused, in words for whoever wrote it.
//!
//! Owns: the texts. Must not know: how the rules are checked. Invariant: each variant is somebody's mistake; nothing
//! here is worth sending again unchanged. Trust: what foreign text is shown is bounded. Threads: pure values.

use super::names::{Label, Name, Reason};
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
        "{name} belongs to {owner}, who published it first; {author} may not change it: publish under another name"
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
}
