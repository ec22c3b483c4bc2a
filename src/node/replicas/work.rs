//! Useful work: this node's commitments to what it stores, and its answers to the challenges that follow.
//!
//! Owns: when it commits itself and answers, and how it finds the chunk that is asked for.
//! Must not know: what an answer is worth (`log::storage`).
//! Invariant: nothing is committed to that is not held whole; a receipt is submitted only with the audits that the log
//! asks for, each of which was checked here.
//! Trust: auditors are strangers; their signatures are checked. Threads: the runtime.

use crate::chain::Chain;
use crate::fetch::Class;
use crate::log::storage::Answered;
use crate::log::{Audit, EntryBody, OpenChallenge, Policy, StorageCommit, StorageReceipt};
use crate::net::{Net, ReplicaAnswer, ReplicaRequest};
use crate::node::error::{Error, Kind};
use crate::node::report::Resolved;
use crate::node::{Node, off};
use crate::replicate::Holding;

impl Node {
    /// Answers what is asked of this node, and commits itself to what it holds; where that earns something.
    pub(super) async fn work(&self, chain: &Chain) -> Result<(), Error> {
        let ledger = chain.ledger();
        let me = self.own_first(&ledger);
        let earns = matches!(ledger.params().policy, Policy::UsefulWork | Policy::Hybrid);
        if !earns || !ledger.storage_nodes().any(|node| *node == me) {
            return Ok(());
        }
        for open in ledger.open_challenges(&self.keys.author(&ledger).public()) {
            if let Err(error) = self.answer_challenge(chain, &open).await {
                tracing::info!(snapshot = %open.snapshot, %error, "a challenge is not answered yet");
            }
        }
        let held = self.holdings(&chain.genesis())?;
        let wanted = self.replicas.promises.wanted(chain)?;
        for wanted in wanted.values().filter(|wanted| held.get(&wanted.snapshot) == Some(&Holding::Whole)) {
            let ledger = chain.ledger();
            if ledger.has_committed(&self.keys.author(&ledger).public(), &wanted.snapshot) {
                continue;
            }
            let epoch = ledger.epochs().number;
            let (name, version) = (wanted.name.clone(), wanted.label.clone());
            let commit = EntryBody::StorageCommit(StorageCommit { epoch, name, version });
            if let Err(error) = self.decide(chain, commit).await {
                // The epoch may just have ended, or nobody decides: it is tried again.
                tracing::debug!(version = wanted.version, epoch, %error, "a commitment was not taken");
            }
        }
        Ok(())
    }

    async fn answer_challenge(&self, chain: &Chain, open: &OpenChallenge) -> Result<(), Error> {
        let answered = self.answer_to(chain, open, true).await?;
        let answered = answered.ok_or_else(|| Error::new(Kind::Failed, "the chunk cannot be found"))?;
        let ledger = chain.ledger();
        let prover = self.own_first(&ledger);
        let mut audits: Vec<Audit> = Vec::new();
        let mut trouble = format!("{} auditors are needed", open.needed);
        for auditor in &open.auditors {
            if audits.len() == open.needed {
                break;
            }
            let peer = Net::peer_of(&ledger.current(auditor)).unwrap_or_default();
            let request = ReplicaRequest::Audit { genesis: chain.genesis(), answered: answered.clone() };
            match self.net.ask_about_replicas(&peer, &request).await {
                Ok(ReplicaAnswer::Audited { audit })
                    if ledger.first_of(&audit.auditor) == *auditor
                        && audit.claim(chain.genesis(), &prover, &answered).verify().is_ok() =>
                {
                    audits.push(audit);
                }
                Ok(answer) => trouble = super::acknowledging::unwilling(&peer, answer).message,
                Err(error) => trouble = error.to_string(),
            }
        }
        if audits.len() < open.needed || audits.is_empty() {
            let message = format!("{} of {} audits: {trouble}", audits.len(), open.needed.max(1));
            return Err(Error::new(Kind::Unreachable, message));
        }
        let receipt = EntryBody::StorageReceipt(StorageReceipt { answered, audits });
        self.decide(chain, receipt).await.map(drop)
    }

    /// The right answer to a challenge, by this node's own copy of the chunk; from elsewhere only if `fetch` says so.
    /// None if it is not here, or the snapshot is not what the log says.
    pub(super) async fn answer_to(
        &self,
        chain: &Chain,
        open: &OpenChallenge,
        fetch: bool,
    ) -> Result<Option<Answered>, Error> {
        let ledger = chain.ledger();
        let epochs = ledger.epochs();
        let Some(seed) = epochs.seed else { return Ok(None) };
        let resolved = Resolved { snapshot: open.snapshot.to_string(), version: None };
        let view = self.open_stored(&resolved).await?;
        let totals = view.snapshot().totals;
        if totals.bytes != open.commitment.bytes {
            return Ok(None);
        }
        let Some(place) = open.challenge.position(totals.chunks) else { return Ok(None) };
        let Some(chunk) = view.nth_chunk(place).await? else { return Ok(None) };
        let object = match off(|| self.fetcher.local(&chunk.into()))? {
            Some(object) => object,
            None if fetch => self.fetcher.get(chunk.into(), Class::Prefetch).await?,
            None => return Ok(None),
        };
        Ok(Some(Answered {
            epoch: epochs.number.saturating_sub(1),
            seed,
            snapshot: open.snapshot,
            bytes: totals.bytes,
            chunk,
            answer: open.challenge.answer(object.plain()),
        }))
    }
}
