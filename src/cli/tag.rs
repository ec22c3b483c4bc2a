//! `bcai tag`.
//!
//! Owns: its arguments.
//! Must not know: who may move a tag.
//! Invariant: the tag is moved, by a decided entry, when the command returns.
//! Trust: as `cli`. Threads: the main thread.

use clap::Args;

use super::{Context, output};
use crate::api::route;
use crate::node::Error;
use crate::node::report::{Decided, TagRequest};

/// Make a tag of a dataset name another of its versions
///
/// A tag is a name that moves, such as `stable`: NAME@TAG means the version that it names at the time. The log keeps every move. `latest`
/// moves by itself and cannot be set.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bcai tag photos stable v2\n  bcai mount photos@stable /mnt/photos")]
pub struct Tag {
    /// The dataset
    name: String,
    /// The tag, which is made if there is none
    tag: String,
    /// The version
    version: String,
}

impl Tag {
    pub fn run(self, ctx: &Context) -> Result<(), Error> {
        let request = TagRequest { name: self.name, tag: self.tag, version: self.version };
        let decided: Decided = ctx.with_daemon(async |client| client.post(route::TAG, &request).await)?;
        ctx.output.confirm(&decided, |decided| {
            let TagRequest { name, tag, version } = &request;
            let is = if decided.already { "already is" } else { "is now" };
            output::safe(&format!("{name}@{tag} {is} {version}, height {}", decided.height))
        });
        Ok(())
    }
}
