//! From what a user wrote to the snapshot that is meant.
//!
//! Owns: the meaning of references.
//! Must not know: what happens with the snapshot.
//! Invariant: a name resolves only through a log whose certificates were checked here.
//! Trust: references may come from strangers; a URI pins the network, the log decides the rest.
//! Threads: the runtime.

use super::error::{Error, Kind};
use super::networks::Joined;
use super::report::{CreateRequest, JoinRequest, NetworkOf, Quorum, Resolved, VersionOf};
use super::{Named, Node, Reference};
use crate::chain::Chain;
use crate::crypto::PublicKey;

impl Node {
    /// What a reference means now.
    pub async fn resolve(&self, text: &str) -> Result<Resolved, Error> {
        match text.parse()? {
            Reference::Snapshot(snapshot) => Ok(Resolved { snapshot: snapshot.to_string(), version: None }),
            Reference::Named(named) => lookup(&*self.networks.default_network()?, &named),
            Reference::Uri { genesis, named, peers, origins } => {
                let Joined { chain, stale } = self.networks.join(genesis, &peers).await?;
                self.know_origins(genesis, &origins)?;
                // A version that is missing from a log that may be behind is unreachable, not nonexistent.
                lookup(&chain, &named).map_err(|error| stale.unwrap_or(error))
            }
        }
    }

    /// What a reference means as far as is known here; nobody is asked.
    pub(super) fn resolve_here(&self, text: &str) -> Result<Resolved, Error> {
        match text.parse()? {
            Reference::Snapshot(snapshot) => Ok(Resolved { snapshot: snapshot.to_string(), version: None }),
            Reference::Named(named) => lookup(&*self.networks.default_network()?, &named),
            Reference::Uri { genesis, named, .. } => {
                let chain = self.networks.get(&genesis).ok_or_else(|| {
                    Error::new(Kind::Unreachable, format!("the log of network {genesis} is not here"))
                        .hint("with fetch=local nobody is asked for it: bcai init --join URI, or mount with -o fetch=spread")
                })?;
                lookup(&chain, &named)
            }
        }
    }

    /// What a reference means after several peers were asked how far its log has come, and what they said. A snapshot id
    /// says by itself what it means.
    pub(super) async fn resolve_by_quorum(&self, text: &str) -> Result<(Resolved, Option<Quorum>), Error> {
        let (chain, named) = match text.parse()? {
            Reference::Snapshot(_) => return Ok((self.resolve_here(text)?, None)),
            Reference::Named(named) => (self.networks.default_network()?, named),
            Reference::Uri { genesis, named, peers, origins } => {
                let Joined { chain, .. } = self.networks.join(genesis, &peers).await?;
                self.know_origins(genesis, &origins)?;
                (chain, named)
            }
        };
        let quorum = self.networks.quorum(&chain).await?;
        Ok((lookup(&chain, &named)?, Some(quorum)))
    }

    /// Creates a network of this node's own, unless it has one.
    pub async fn create_network(&self, request: &CreateRequest) -> Result<NetworkOf, Error> {
        let parse = |text: &String| {
            let wrong = |error| Error::usage(format!("cannot make a validator of a key: {error}"));
            text.parse().map_err(wrong)
        };
        let keys = request.validators.iter().map(parse).collect::<Result<Vec<PublicKey>, Error>>()?;
        self.networks.create(&keys).await
    }

    /// Joins the network of a URI.
    pub async fn join_network(&self, request: &JoinRequest) -> Result<NetworkOf, Error> {
        let Reference::Uri { genesis, peers, origins, .. } = request.uri.parse()? else {
            return Err(Error::usage(format!("`{}` is not a bcai:// URI", request.uri)));
        };
        let known = self.networks.get(&genesis).is_some();
        let Joined { chain, .. } = self.networks.join(genesis, &peers).await?;
        self.know_origins(genesis, &origins)?;
        Ok(NetworkOf { genesis: genesis.to_string(), height: chain.ledger().height(), new: !known })
    }
}

fn lookup(chain: &Chain, named: &Named) -> Result<Resolved, Error> {
    let ledger = chain.ledger();
    let version = ledger.resolve(&named.name, named.selector.as_deref())?;
    if let Some(yanked) = &version.yanked {
        tracing::warn!(dataset = %named, reason = %yanked.reason, "this version was withdrawn by its publisher");
    }
    Ok(Resolved {
        snapshot: version.snapshot.to_string(),
        version: Some(VersionOf {
            genesis: chain.genesis().to_string(),
            name: named.name.clone(),
            version: version.label.to_string(),
            height: version.published.height,
        }),
    })
}
