//! What a name means, for a node that has not caught up with a long log: shown by a peer, and proven.
//!
//! Owns: what is trusted of a log beyond the blocks that are here, on disk before anybody acts on it.
//! Must not know: what becomes of the version.
//! Invariant: trust never goes back, over restarts too: not to a lower height, and no name to an earlier state.
//! Trust: peers are strangers; `log::light` judges heads, `log::shown` what is shown under them.
//! Threads: the runtime; one question of a node at a time.

use std::cmp::Reverse;

use super::heads::{check_pin, refused, write};
use super::{Error, Genesis, Joined, Kind, Named, Networks, off};
use crate::chain::Chain;
use crate::log::Version;
use crate::log::light::{Climb, LightError, MAX_TRUSTED_LEN, Pin, Trusted, Update};
use crate::log::shown::{Question, Shown, ShownError};

/// How the file of what is trusted ends, after the network's id.
const TRUST_FILE: &str = "trust";

/// A version, and what was trusted of the log when it was shown.
pub(in crate::node) struct Seen {
    pub version: Version,
    pub trusted: Trusted,
}

impl Networks {
    /// What a name means by the newest head that a connected peer can prove, whatever of the log is here.
    pub(in crate::node) async fn shown(
        &self,
        joined: &Joined,
        named: &Named,
        pin: Option<Pin>,
    ) -> Result<Seen, Error> {
        let chain = &*joined.chain;
        let genesis = chain.genesis();
        self.check_whole(&genesis)?;
        let question = Question {
            name: named.name.parse()?,
            label: named.selector.as_deref().map(str::parse).transpose()?,
        };
        let _one_at_a_time = self.showing.lock().await;
        let mut heads = Vec::new();
        for peer in self.connected() {
            match self.net.head(&peer.id, genesis).await {
                Ok(head) => heads.push((Reverse(head.height), peer.id)),
                Err(error) => tracing::debug!(%error, peer = peer.id, "no news"),
            }
        }
        heads.sort();
        let mut failed = Error::new(Kind::Unreachable, format!("no peer of network {genesis} is connected"));
        for (Reverse(height), peer) in heads {
            match self.shown_by(chain, &peer, height, &question, pin).await {
                Err(error) if matches!(error.kind, Kind::Corrupt | Kind::Unreachable | Kind::Failed) => {
                    tracing::warn!(%error, peer, "this peer does not show what a name means");
                    self.check_whole(&genesis)?;
                    failed = error;
                }
                answered => return answered,
            }
        }
        Err(failed)
    }

    async fn shown_by(
        &self,
        chain: &Chain,
        peer: &str,
        height: u64,
        question: &Question,
        pin: Option<Pin>,
    ) -> Result<Seen, Error> {
        let genesis = chain.genesis();
        let mut trusted = self.trusted(chain)?;
        if let Some(pin) = pin {
            trusted = self.climb(chain, peer, trusted, pin.height.min(height)).await?;
            match trusted.head().map(|head| &head.header) {
                Some(head) if head.height == pin.height && head.id() == pin.header => {}
                Some(head) if head.height == pin.height => {
                    return Err(refused(peer, &LightError::Pinned { pin, found: head.id() }));
                }
                // Passed before, without its header being kept, or not reached.
                _ => check_pin(chain, Some(pin))?,
            }
        }
        trusted = self.climb(chain, peer, trusted, height).await?;
        let shown = Shown::decode(&self.net.show(peer, genesis, question.encode()).await?)?;
        trusted = self.advance(chain, peer, trusted, shown.head()).await?;
        let version = shown.check(&mut trusted, question);
        // What was believed on the way is kept even if it means nothing.
        self.persist(&genesis, &trusted)?;
        let version = version.map_err(|error| match error {
            ShownError::Nothing(refusal) => refusal.into(),
            other => Error::new(Kind::Corrupt, format!("peer {peer}: {other}")),
        })?;
        Ok(Seen { version, trusted })
    }

    /// Trusts the head at `height` if `peer` can prove it, step by step on disk.
    async fn climb(
        &self,
        chain: &Chain,
        peer: &str,
        trusted: Trusted,
        height: u64,
    ) -> Result<Trusted, Error> {
        let mut climb = Climb::new(trusted, height);
        while let Some(height) = climb.wants() {
            let update = self.ask_for_update(chain.genesis(), peer, height).await?;
            match climb.offer(update) {
                Ok(believed) if believed.is_empty() => {}
                Ok(_) => self.persist(&chain.genesis(), climb.trusted())?,
                Err(LightError::Fork(fork)) => return Err(self.on_fork(chain, *fork).await),
                Err(error) => return Err(refused(peer, &error)),
            }
        }
        Ok(climb.trusted().clone())
    }

    /// Trusts a head that may be a little further than the one that was climbed to.
    async fn advance(
        &self,
        chain: &Chain,
        peer: &str,
        trusted: Trusted,
        head: &Update,
    ) -> Result<Trusted, Error> {
        match trusted.advance(head) {
            Ok(trusted) => Ok(trusted),
            Err(LightError::TooFar { .. }) => {
                self.climb(chain, peer, trusted, head.signed.header.height).await
            }
            Err(LightError::Fork(fork)) => Err(self.on_fork(chain, *fork).await),
            Err(error) => Err(refused(peer, &error)),
        }
    }

    /// What is trusted by now: what was shown before, or the blocks that are here if they have come further.
    fn trusted(&self, chain: &Chain) -> Result<Trusted, Error> {
        let path = self.dir.join(format!("{}.{TRUST_FILE}", chain.genesis()));
        let held = match off(|| std::fs::read(&path)) {
            Ok(bytes) if bytes.len() <= MAX_TRUSTED_LEN => Trusted::decode(&bytes).map_err(|error| {
                let text = format!("{} is damaged: {error}", path.display());
                Error::new(Kind::Corrupt, text).hint(
                    "move the file away: what was seen of this log before is forgotten, no data is lost",
                )
            })?,
            Ok(_) => return Err(Error::new(Kind::Corrupt, format!("{} is too long", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(chain.ledger().trusted());
            }
            Err(error) => return Err(Error::io("cannot read", &path, error)),
        };
        let ledger = chain.ledger().trusted();
        Ok(if ledger.height() > held.height() { held.raised_to(&ledger) } else { held })
    }

    fn persist(&self, genesis: &Genesis, trusted: &Trusted) -> Result<(), Error> {
        let path = self.dir.join(format!("{genesis}.{TRUST_FILE}"));
        off(|| write(&self.dir, &path, &trusted.encode()))
            .map_err(|error| Error::io("cannot write", &path, error))
    }
}
