//! What goes wrong in a node, as its user is told: a kind, a sentence, and what to do next.
//!
//! Owns: the kinds, their exit codes, and the translation of every lower module's error into one of them.
//! Must not know: HTTP or terminals; both print what is here.
//! Invariant: every error has exactly one kind, so every failure has exactly one exit code.
//! Trust: messages may quote foreign names; whoever prints them escapes them.
//! Threads: pure values.

use bcai_mount::MountError;
use serde::{Deserialize, Serialize};

use crate::chain::ChainError;
use crate::codec::CodecError;
use crate::config::{ConfigError, PathsError};
use crate::fetch::FetchError;
use crate::id::ParseIdError;
use crate::ingest::IngestError;
use crate::log::note::NoteError;
use crate::log::proof::VersionProofError;
use crate::log::{GenesisError, LogError, NameError, Refusal, ValidatorSetError};
use crate::manifest::ManifestError;
use crate::net::NetError;
use crate::origin::{OriginError, UrlError};
use crate::store::StoreError;
use crate::validator::ValidatorError;
use crate::view::{GlobError, ViewError};

use super::reference::ReferenceError;

/// The kinds of failure, each with the exit code that scripts see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Failed = 1,
    Usage = 2,
    NotFound = 10,
    Busy = 11,
    Denied = 12,
    Corrupt = 13,
    Unreachable = 14,
}

impl Kind {
    /// The kind that a process which exited with `code` reported; anything unknown is a failure.
    pub fn of_exit_code(code: Option<i32>) -> Self {
        let known = [Self::Usage, Self::NotFound, Self::Busy, Self::Denied, Self::Corrupt, Self::Unreachable];
        known.into_iter().find(|kind| code == Some(*kind as i32)).unwrap_or(Self::Failed)
    }
}

/// A failure ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    /// What failed, on what, and why.
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// Adds what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// A failed system call on a named thing: `doing` reads "cannot write", `on` is its path.
    pub fn io(doing: &str, on: &std::path::Path, error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::PermissionDenied => Kind::Denied,
            ErrorKind::TimedOut | ErrorKind::ConnectionRefused => Kind::Unreachable,
            _ => Kind::Failed,
        };
        Self::new(kind, format!("{doing} {}: {error}", on.display()))
    }
}

/// Takes over the text of a lower module's error under the kind that `kind` gives it, and adds what a user of the command line can do,
/// where the text does not say.
macro_rules! kinds {
    ($($error:ty: $kind:expr $(=> $remedy:expr)?),* $(,)?) => {$(
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                let kind: fn(&$error) -> Kind = $kind;
                let made = Self::new(kind(&error), error.to_string());
                $(
                    let remedy: fn(&$error) -> Option<&'static str> = $remedy;
                    let made = Self { hint: remedy(&error).map(str::to_owned), ..made };
                )?
                made
            }
        }
    )*};
}

kinds! {
    ConfigError: |_| Kind::Usage,
    PathsError: |_| Kind::Usage => paths_remedy,
    ReferenceError: |_| Kind::Usage,
    ParseIdError: |_| Kind::Usage,
    NameError: |_| Kind::Usage,
    GlobError: |_| Kind::Usage,
    UrlError: |_| Kind::Usage,
    CodecError: |_| Kind::Corrupt,
    ManifestError: |_| Kind::Corrupt,
    GenesisError: |_| Kind::Corrupt,
    LogError: |_| Kind::Corrupt,
    ValidatorSetError: |_| Kind::Failed,
    Refusal: refusal => refusal_remedy,
    VersionProofError: version_proof,
    NoteError: note,
    ChainError: chain,
    StoreError: store,
    FetchError: fetch,
    IngestError: ingest,
    NetError: net => net_remedy,
    OriginError: origin,
    MountError: mount => mount_remedy,
    ViewError: view,
}

impl From<ValidatorError> for Error {
    fn from(error: ValidatorError) -> Self {
        let kind = match &error {
            ValidatorError::Refused(refusal) => self::refusal(refusal),
            ValidatorError::Busy => Kind::Busy,
            ValidatorError::TimedOut { .. } => Kind::Unreachable,
            _ => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

fn refusal(error: &Refusal) -> Kind {
    match error {
        Refusal::NoDataset { .. } | Refusal::NoVersion { .. } | Refusal::AllYanked { .. } => Kind::NotFound,
        Refusal::NotOwner { .. } | Refusal::NeedsRole { .. } => Kind::Denied,
        Refusal::Params(_) => Kind::Usage,
        _ => Kind::Failed,
    }
}

fn paths_remedy(error: &PathsError) -> Option<&'static str> {
    matches!(error, PathsError::Unusable { .. })
        .then_some("give the node a folder that you can write, with --home or BCAI_HOME")
}

fn refusal_remedy(error: &Refusal) -> Option<&'static str> {
    let unknown = matches!(error, Refusal::NoDataset { .. } | Refusal::NoVersion { .. });
    unknown.then_some("`bcai list` shows those that there are")
}

fn net_remedy(error: &NetError) -> Option<&'static str> {
    let taken = matches!(error, NetError::Listen { .. });
    taken.then_some(
        "end the program that has the port (`ss -lnp` names it), or set net.listen to another address",
    )
}

fn mount_remedy(error: &MountError) -> Option<&'static str> {
    let busy = matches!(error, MountError::Busy { .. });
    busy.then_some(
        "end what uses it, or `bcai unmount --lazy`: what is open stays readable until it is closed",
    )
}

fn version_proof(error: &VersionProofError) -> Kind {
    match error {
        VersionProofError::Unknown(error) => refusal(error),
        VersionProofError::TooLong(_) => Kind::Failed,
        _ => Kind::Corrupt,
    }
}

fn note(error: &NoteError) -> Kind {
    match error {
        NoteError::Key(_) | NoteError::Name(_) => Kind::Usage,
        NoteError::Malformed(_) | NoteError::NotSigned(_) | NoteError::Signature { .. } => Kind::Corrupt,
    }
}

fn chain(error: &ChainError) -> Kind {
    match error {
        ChainError::Store(error) => store(error),
        ChainError::Genesis(_) | ChainError::OtherNetwork { .. } => Kind::Failed,
        ChainError::Damaged { .. } | ChainError::Refused(_) | ChainError::Fork { .. } => Kind::Corrupt,
    }
}

fn store(error: &StoreError) -> Kind {
    match error {
        StoreError::Locked { .. } => Kind::Busy,
        StoreError::Corrupt { .. }
        | StoreError::Outside { .. }
        | StoreError::Record { .. }
        | StoreError::Log { damaged: true, .. } => Kind::Corrupt,
        _ => Kind::Failed,
    }
}

fn fetch(error: &FetchError) -> Kind {
    match error {
        FetchError::NotFound { .. }
        | FetchError::NotAsked { .. }
        | FetchError::Unreachable { .. }
        | FetchError::TimedOut { .. } => Kind::Unreachable,
        FetchError::Corrupt { .. } => Kind::Corrupt,
        FetchError::Store(error) => store(error),
    }
}

fn ingest(error: &IngestError) -> Kind {
    match error {
        IngestError::Missing { .. } => Kind::NotFound,
        IngestError::Unreadable { .. } => Kind::Denied,
        IngestError::Chunking(_) => Kind::Usage,
        IngestError::Store(error) => store(error),
        _ => Kind::Failed,
    }
}

fn net(error: &NetError) -> Kind {
    match error {
        NetError::Address { .. } | NetError::PeerId(_) => Kind::Usage,
        NetError::UnknownLog { .. } => Kind::NotFound,
        NetError::Denied { .. } => Kind::Denied,
        NetError::Protocol { .. } | NetError::OtherPeer { .. } => Kind::Corrupt,
        NetError::Refused { .. } | NetError::Setup(_) | NetError::Listen { .. } => Kind::Failed,
        _ => Kind::Unreachable,
    }
}

fn origin(error: &OriginError) -> Kind {
    match error {
        OriginError::Denied { .. } => Kind::Denied,
        OriginError::Unreachable { .. } => Kind::Unreachable,
        OriginError::Damaged { .. } | OriginError::Unfit { .. } => Kind::Corrupt,
        OriginError::Absent { .. } => Kind::NotFound,
        OriginError::Unusable { .. } | OriginError::Cancelled { .. } => Kind::Failed,
        OriginError::Store(error) => store(error),
    }
}

fn mount(error: &MountError) -> Kind {
    match error {
        MountError::Missing(_) | MountError::Ended(_) => Kind::NotFound,
        MountError::NotEmpty(_)
        | MountError::AlreadyMounted { .. }
        | MountError::Busy { .. }
        | MountError::Switching(_)
        | MountError::TooManyInUse(..) => Kind::Busy,
        MountError::NoListing { .. } => Kind::Unreachable,
        _ => Kind::Failed,
    }
}

fn view(error: &ViewError) -> Kind {
    match error {
        ViewError::NotFound(_) | ViewError::NoXattr | ViewError::PastEnd => Kind::NotFound,
        ViewError::NotADirectory(_)
        | ViewError::IsADirectory(_)
        | ViewError::NotAFile(_)
        | ViewError::NotASymlink(_)
        | ViewError::BadPath(_) => Kind::Usage,
        ViewError::Unavailable(error) => fetch(error),
        ViewError::Sealed { .. } => Kind::Denied,
        ViewError::Unfit { .. } => Kind::Corrupt,
    }
}
