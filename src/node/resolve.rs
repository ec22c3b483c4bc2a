//! From what a user wrote to the snapshot that is meant.
//!
//! Owns: the meaning of references.
//! Must not know: what happens with the snapshot.
//! Invariant: a name resolves only through a log whose certificates were checked here.
//! Trust: references may come from strangers; a URI pins the network, the log decides the rest.
//! Threads: the runtime.

use super::error::{Error, Kind};
use super::networks::{Joined, check_pin};
use super::report::{CreateRequest, JoinRequest, Mounted, NetworkOf, Quorum, Resolved, VersionOf};
use super::{Named, Node, Reference, Uri, now_ms, off};
use crate::chain::Chain;
use crate::crypto::PublicKey;
use crate::id::Genesis;
use crate::log::Version;
use crate::log::light::Trusted;

/// How far the clock goes on before that is remembered.
const CLOCK_STEP_MS: u64 = 3_600_000;

impl Node {
    /// What a reference means now.
    pub async fn resolve(&self, text: &str) -> Result<Resolved, Error> {
        match text.parse()? {
            Reference::Snapshot(snapshot) => Ok(Resolved { snapshot: snapshot.to_string(), version: None }),
            Reference::Named(named) => self.lookup_fresh(&*self.networks.default_network()?, &named),
            Reference::Uri(uri) => {
                let joined = self.join(&uri).await?;
                if joined.behind {
                    return self.resolve_behind(&joined, &uri).await;
                }
                let Joined { chain, stale, .. } = joined;
                // A version that is missing from a log that may be behind is unreachable, not nonexistent.
                let behind = |error: Error| match stale {
                    Some(stale) if error.kind == Kind::NotFound => stale,
                    _ => error,
                };
                self.lookup_fresh(&chain, &uri.named).map_err(behind)
            }
        }
    }

    /// What a reference means as far as is known here; nobody is asked.
    pub(super) fn resolve_here(&self, text: &str) -> Result<Resolved, Error> {
        match text.parse()? {
            Reference::Snapshot(snapshot) => Ok(Resolved { snapshot: snapshot.to_string(), version: None }),
            Reference::Named(named) => lookup(&*self.networks.default_network()?, &named),
            Reference::Uri(Uri { genesis, pin, named, .. }) => {
                let chain = self.networks.get(&genesis).ok_or_else(|| {
                    Error::new(Kind::Unreachable, format!("the log of network {genesis} is not here"))
                        .hint("with fetch=local nobody is asked for it: bcai init --join URI, or mount with -o fetch=spread")
                })?;
                check_pin(&chain, pin)?;
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
            Reference::Uri(uri) => (self.join(&uri).await?.chain, uri.named),
        };
        let quorum = self.networks.quorum(&chain).await?;
        Ok((self.lookup_fresh(&chain, &named)?, Some(quorum)))
    }

    /// What a URI means in a log of which most is not here yet.
    async fn resolve_behind(&self, joined: &Joined, uri: &Uri) -> Result<Resolved, Error> {
        let seen = self.networks.shown(joined, &uri.named, uri.pin).await?;
        let resolved = resolved(joined.chain.genesis(), &uri.named, &seen.version, seen.trusted.height());
        if is_moving(&uri.named, &resolved) {
            self.check_fresh(&joined.chain, &seen.trusted)?;
        }
        Ok(resolved)
    }

    /// As `lookup`, of a log that has not forked; what may mean another version later, only if the log is not too old to
    /// say what it means now.
    fn lookup_fresh(&self, chain: &Chain, named: &Named) -> Result<Resolved, Error> {
        self.networks.check_whole(&chain.genesis())?;
        let resolved = lookup(chain, named)?;
        if is_moving(named, &resolved) {
            self.check_fresh(chain, &chain.ledger().trusted())?;
        }
        Ok(resolved)
    }

    /// Whether the newest block known here is new enough to tell which version is the newest. A validator that decides the
    /// log knows without one.
    fn check_fresh(&self, chain: &Chain, trusted: &Trusted) -> Result<(), Error> {
        if self.max_log_age.is_zero() || self.networks.decides(&chain.genesis()) {
            return Ok(());
        }
        let (now, seen) = (now_ms(), self.state.get().clock_ms);
        if now > seen + CLOCK_STEP_MS {
            off(|| self.state.update(|facts| facts.clock_ms = now))?;
        }
        let max = u64::try_from(self.max_log_age.as_millis()).unwrap_or(u64::MAX);
        let fresh = trusted.at_time(seen).check_fresh(now, max);
        fresh.map_err(|error| Error::new(Kind::Unreachable, error.to_string()))
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
        let Reference::Uri(uri) = request.uri.parse()? else {
            return Err(Error::usage(format!("`{}` is not a bcai:// URI", request.uri)));
        };
        let known = self.networks.get(&uri.genesis).is_some();
        let Joined { chain, .. } = self.join(&uri).await?;
        Ok(NetworkOf { genesis: uri.genesis.to_string(), height: chain.ledger().height(), new: !known })
    }

    /// Belongs to the network of a URI from now on, and knows what the URI says of it.
    pub(super) async fn join(&self, uri: &Uri) -> Result<Joined, Error> {
        let joined = self.networks.join(uri.genesis, &uri.peers).await?;
        if joined.behind {
            return Ok(joined);
        }
        check_pin(&joined.chain, uri.pin).map_err(|error| match &joined.stale {
            // The log that is here ends before it.
            Some(stale) if error.kind == Kind::Unreachable => stale.clone(),
            _ => error,
        })?;
        self.know_origins(uri.genesis, &uri.origins)?;
        Ok(joined)
    }
}

impl Node {
    /// A mount, with what the log says of the version that is mounted.
    pub(super) fn with_withdrawal(&self, mut mounted: Mounted) -> Mounted {
        mounted.withdrawn = mounted.version.as_ref().and_then(|mounted| {
            let chain = self.networks.get(&mounted.genesis.parse().ok()?)?;
            let ledger = chain.ledger();
            let version = ledger.resolve(&mounted.name, Some(&mounted.version)).ok()?;
            version.yanked.as_ref().map(|yanked| yanked.reason.to_string())
        });
        mounted
    }
}

/// Whether a name may mean another version later.
fn is_moving(named: &Named, resolved: &Resolved) -> bool {
    let version = resolved.version.as_ref().map(|version| version.version.as_str());
    named.selector.as_deref() != version
}

fn lookup(chain: &Chain, named: &Named) -> Result<Resolved, Error> {
    let ledger = chain.ledger();
    let version = ledger.resolve(&named.name, named.selector.as_deref())?;
    Ok(resolved(chain.genesis(), named, version, ledger.height()))
}

fn resolved(genesis: Genesis, named: &Named, version: &Version, as_of: u64) -> Resolved {
    if let Some(yanked) = &version.yanked {
        tracing::warn!(dataset = %named, reason = %yanked.reason, "this version was withdrawn by its publisher");
    }
    Resolved {
        snapshot: version.snapshot.to_string(),
        version: Some(VersionOf {
            genesis: genesis.to_string(),
            name: named.name.clone(),
            version: version.label.to_string(),
            height: version.published.height,
            as_of,
        }),
    }
}
