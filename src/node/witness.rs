//! Checkpoints: what this node vouches for to other logs' witnesses, and what it vouches for as a witness itself.
//!
//! Owns: signing the head of a log, cosigning one that others have signed, and remembering what was cosigned.
//! Must not know: the form of notes and checkpoints (`log::note`, `log::checkpoint`).
//! Invariant: of one log it cosigns only the head that it holds itself, whose certificate was checked, and never one that does
//! not continue what it has cosigned before, even if its copy of the log was lost in between.
//! Trust: a checkpoint is foreign. Who has signed it does not matter: it is compared with the log that is here.
//! Threads: the runtime; cosigning reads the whole log once. What was cosigned is on disk before the signature leaves.

use std::sync::Arc;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::error::{Error, Kind};
use super::networks::Joined;
use super::proofs::leaves;
use super::report::{CheckedCheckpoint, CheckpointRequest, CosignRequest, NoteSignature, SignedCheckpoint};
use super::{Node, Reference, now_ms, off};
use crate::chain::Chain;
use crate::id::{Genesis, LogRoot};
use crate::log::checkpoint::{self, Checkpoint};
use crate::log::merkle::Frontier;
use crate::log::note::{Note, NoteKey};

/// The largest head of one log that was cosigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cosigned {
    pub entries: u64,
    /// In hexadecimal.
    pub root: String,
}

/// Checks that each of `keys` has signed the checkpoint in `bytes`. Needs nothing else.
pub fn check_checkpoint(bytes: &[u8], keys: &[NoteKey]) -> Result<CheckedCheckpoint, Error> {
    let note = Note::parse(bytes)?;
    let checkpoint = Checkpoint::parse(note.text())?;
    let signature = |key: &NoteKey| {
        let time_s = note.verify(key)?;
        Ok(NoteSignature { key: key.to_string(), time_ms: time_s.map(|time_s| time_s.saturating_mul(1000)) })
    };
    Ok(CheckedCheckpoint {
        origin: checkpoint.origin,
        entries: checkpoint.size,
        root: BASE64.encode(checkpoint.root.as_bytes()),
        signatures: keys.iter().map(signature).collect::<Result<_, Error>>()?,
    })
}

/// The log that a checkpoint says it is of.
fn network_of(checkpoint: &Checkpoint) -> Result<Genesis, Error> {
    let genesis = checkpoint.origin.strip_prefix("bcai/").and_then(|genesis| genesis.parse().ok());
    let known = genesis.filter(|genesis| checkpoint::origin(*genesis) == checkpoint.origin);
    known.ok_or_else(|| {
        Error::usage(format!("the checkpoint is of log `{}`, which is no network of bcai", checkpoint.origin))
            .hint("bcai cosigns checkpoints that `bcai log --checkpoint` makes")
    })
}

impl Node {
    /// Signs the head of a log, for others to cosign.
    pub async fn checkpoint(&self, request: &CheckpointRequest) -> Result<SignedCheckpoint, Error> {
        let chain = match &request.network {
            Some(network) => self.network(network).await?,
            None => self.networks.default_network()?,
        };
        self.networks.check_whole(&chain.genesis())?;
        let ledger = chain.ledger();
        let head = ledger.head().ok_or_else(|| {
            Error::not_found(format!("nothing was decided in network {} yet", chain.genesis()))
                .hint("publish something first")
        })?;
        let (note, key) = Checkpoint::of(head).signed(&self.keys.author(&ledger))?;
        Ok(signed(&note, &key, chain.genesis(), head.log_size))
    }

    /// The network of a URI, joined if need be, or the one with this id.
    async fn network(&self, text: &str) -> Result<Arc<Chain>, Error> {
        if let Ok(genesis) = text.parse() {
            return self.followed(genesis);
        }
        match text.parse() {
            Ok(Reference::Uri(uri)) => Ok(self.join(&uri).await?.chain),
            _ => Err(Error::usage(format!("`{text}` names no network: a checkpoint is of all its datasets"))
                .hint("leave it out, or give the network's id or a bcai:// URI")),
        }
    }

    /// A network that this node follows.
    pub(super) fn followed(&self, genesis: Genesis) -> Result<Arc<Chain>, Error> {
        self.networks.get(&genesis).ok_or_else(|| {
            Error::not_found(format!("network {genesis} is not followed here"))
                .hint("bcai init --join URI follows it from now on")
        })
    }

    /// Cosigns a checkpoint if it is the head of its log as it is known here.
    pub async fn cosign(&self, request: &CosignRequest) -> Result<SignedCheckpoint, Error> {
        let mut note = Note::parse(request.note.as_bytes())?;
        let checkpoint = Checkpoint::parse(note.text())?;
        if let Some(line) = checkpoint.extensions.first() {
            return Err(Error::new(Kind::Denied, format!("the checkpoint has a further line, `{line}`"))
                .hint("this version of bcai does not know what that would vouch for"));
        }
        let genesis = network_of(&checkpoint)?;
        let mut chain = self.followed(genesis)?;
        let mut stale = None;
        if checkpoint.size > chain.ledger().entries() {
            Joined { chain, stale, .. } = self.networks.join(genesis, &[]).await?;
        }
        self.networks.check_whole(&genesis)?;
        // What is signed by this node is signed in one order: a smaller head never after a larger one.
        let _one_at_a_time = self.publishing.lock().await;
        off(|| self.check_head(&chain, &checkpoint, stale))?;
        let cosigned = Cosigned { entries: checkpoint.size, root: checkpoint.root.to_string() };
        off(|| self.state.update(|facts| _ = facts.cosigned.insert(genesis.to_string(), cosigned)))?;
        let secret = self.keys.author(&chain.ledger());
        let key = note.cosign(&format!("bcai/node/{}", secret.public()), &secret, now_ms() / 1000)?;
        Ok(signed(&note, &key, genesis, checkpoint.size))
    }

    /// Refuses a checkpoint that is not the head of the log that is here, or whose log does not go on from what was cosigned.
    fn check_head(&self, chain: &Chain, checkpoint: &Checkpoint, stale: Option<Error>) -> Result<(), Error> {
        let (genesis, ledger) = (chain.genesis(), chain.ledger());
        let (offered, held) = (checkpoint.size, ledger.entries());
        if offered > held {
            let cause = stale.map_or(String::new(), |error| format!(" ({error})"));
            return Err(Error::new(
                Kind::Unreachable,
                format!("the checkpoint is over {offered} entries, and the log of network {genesis} has {held} here{cause}"),
            )
            .hint("what is not here cannot be vouched for: connect to a peer that has it (bcai peers add ADDRESS)"));
        }
        let leaves = leaves(chain, ledger.height())?;
        if root_over(&leaves, offered) != Some(checkpoint.root) {
            return Err(conflict(format!(
                "the checkpoint says that the first {offered} entries of network {genesis} are others than those that validators \
                 have signed and this node holds"
            )));
        }
        if let Some(before) = self.state.get().cosigned.get(&genesis.to_string()) {
            match root_over(&leaves, before.entries) {
                Some(root) if root.to_string() == before.root => {}
                Some(_) => {
                    return Err(conflict(format!(
                        "the log of network {genesis} that is here is another one than that of {} entries which this node has \
                         cosigned",
                        before.entries
                    )));
                }
                None => return Err(older(offered, before.entries, "were cosigned here before")),
            }
        }
        if offered < held { Err(older(offered, held, "are known here")) } else { Ok(()) }
    }
}

fn signed(note: &Note, key: &NoteKey, genesis: Genesis, entries: u64) -> SignedCheckpoint {
    SignedCheckpoint { note: note.to_string(), key: key.to_string(), genesis: genesis.to_string(), entries }
}

fn conflict(message: String) -> Error {
    Error::new(Kind::Corrupt, message)
        .hint("somebody shows two histories: keep both files, do not trust who signed this one, and tell the operators")
}

fn older(offered: u64, known: u64, how: &str) -> Error {
    Error::new(Kind::Failed, format!("the checkpoint is over {offered} entries, and {known} {how}"))
        .hint("ask for a new one: bcai log --checkpoint")
}

/// The root over the first `size` leaves; nothing if there are fewer.
fn root_over(leaves: &[LogRoot], size: u64) -> Option<LogRoot> {
    let first = leaves.get(..usize::try_from(size).ok()?)?;
    let mut tree = Frontier::default();
    first.iter().for_each(|leaf| tree.append(*leaf));
    Some(tree.root())
}
