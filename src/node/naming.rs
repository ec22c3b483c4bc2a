//! Moving a tag and withdrawing a version.
//!
//! Owns: both operations, from texts to a decided entry.
//! Must not know: who may do it, or what a reader sees of it; the log has the rules.
//! Invariant: when an operation succeeds, its entry or an earlier one that says the same is in the log.
//! Trust: the request is the user's. Threads: async. A crash leaves the entry decided or not; running it again is safe.

use super::Node;
use super::error::Error;
use super::publish::target;
use super::report::{Decided, TagRequest, YankRequest};
use crate::log::{EntryBody, Tag, Yank};

impl Node {
    /// Makes a tag of a dataset name a version, from now on.
    pub async fn tag(&self, request: &TagRequest) -> Result<Decided, Error> {
        let tag =
            Tag { name: request.name.parse()?, tag: request.tag.parse()?, version: request.version.parse()? };
        self.decide_here(EntryBody::Tag(tag)).await
    }

    /// Withdraws a version, for a reason that everybody sees.
    pub async fn yank(&self, request: &YankRequest) -> Result<Decided, Error> {
        let (name, version) = target(&request.target)?;
        let yank = Yank { name, version, reason: request.reason.parse()? };
        self.decide_here(EntryBody::Yank(yank)).await
    }

    async fn decide_here(&self, body: EntryBody) -> Result<Decided, Error> {
        let chain = self.networks.default_network()?;
        let (height, round, already) = self.decide(&chain, body).await?;
        Ok(Decided { height, round, already })
    }
}
