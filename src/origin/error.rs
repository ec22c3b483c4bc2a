//! Why an origin did not give or take something.
//!
//! Owns: the variants, their texts, and what each means for whoever wanted an object.
//! Must not know: requests.
//! Invariant: every text names the origin, the cause and, where there is one, the remedy; none holds a secret.
//! Trust: causes quote foreign servers: one line, cut short, without control characters.
//! Threads: pure values.

use std::error::Error as StdError;
use std::sync::Arc;

use super::url::OriginUrl;
use crate::fetch::FetchError;
use crate::id::ObjectId;
use crate::store::StoreError;

/// The most characters of a foreign cause.
const MAX_CAUSE: usize = 200;

/// How a folder, a web server and S3 say that a file ends before the range that was asked for.
const PAST_END: [&str; 3] = ["Wanted range starting at", "416 Range Not Satisfiable", "InvalidRange"];

/// What the client says of a server that sends the whole file where a part was asked for.
const NO_RANGES: [&str; 2] = ["Range request not supported", "non-partial response"];

/// `Unreachable` may pass; `Denied` and `Unusable` are for whoever set the origin up; `Damaged` does not get better by
/// itself; the others are of the node that uploads.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OriginError {
    #[error(
        "the origin {url} refuses access to {name}: {cause}; check its permissions, and for S3 AWS_ACCESS_KEY_ID, \
         AWS_SECRET_ACCESS_KEY and AWS_REGION in the environment that the daemon was started in (`bcai stop` ends it, the \
         next command starts it in yours)"
    )]
    Denied { url: OriginUrl, name: String, cause: String },
    #[error("the origin {url} cannot be reached for {name}: {cause}")]
    Unreachable { url: OriginUrl, name: String, cause: String },
    #[error("the origin {url} cannot be used: {cause}")]
    Unusable { url: OriginUrl, cause: String },
    #[error("{url}/{name} is damaged or no file of an origin: {cause}")]
    Damaged { url: OriginUrl, name: String, cause: String },
    #[error("{id} cannot be uploaded, because it is not here; `bcai verify --repair` fetches what is absent")]
    Absent { id: ObjectId },
    #[error("{id} cannot be uploaded: {cause}; `bcai verify --repair` replaces what is damaged")]
    Unfit { id: ObjectId, cause: String },
    #[error("the upload to {url} was cancelled")]
    Cancelled { url: OriginUrl },
    #[error("the local store failed: {0}")]
    Store(#[from] Arc<StoreError>),
}

impl OriginError {
    /// What it means for whoever wanted the object `id`.
    pub(super) fn of(self, id: ObjectId) -> FetchError {
        match self {
            Self::Damaged { .. } => FetchError::Corrupt { id, cause: self.to_string() },
            _ => FetchError::Unreachable { id, cause: self.to_string() },
        }
    }

    /// What a request for `name` ended with; `None` if there is no such file.
    pub(super) fn of_request(url: &OriginUrl, name: &str, error: &object_store::Error) -> Option<Self> {
        use object_store::Error;
        let (url, name, cause) = (url.clone(), name.to_owned(), cause_of(error));
        Some(match error {
            Error::NotFound { .. } => return None,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                Self::Denied { url, name, cause }
            }
            _ if PAST_END.iter().any(|text| cause.contains(text)) => {
                Self::Damaged { url, name, cause: "it ends before what a catalogue or its own trailer names".into() }
            }
            _ if NO_RANGES.iter().any(|text| cause.contains(text)) => Self::Unusable {
                url,
                cause: "its server does not answer requests for a part of a file (HTTP ranges); use another server"
                    .into(),
            },
            _ => Self::Unreachable { url, name, cause },
        })
    }
}

/// The innermost cause: those around it repeat the request.
fn cause_of(error: &dyn StdError) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    // S3 answers with a document, of which one word says what is the matter.
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let text = match code {
        Some((code, _)) => code,
        None => text.lines().next().unwrap_or_default(),
    };
    text.chars().filter(|c| !c.is_control()).take(MAX_CAUSE).collect()
}
