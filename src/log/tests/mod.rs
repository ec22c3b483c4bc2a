//! Tests of the log as a whole, and the small networks they are made with.

mod blocks;
mod entries;
mod heads;
mod proofs;

use super::*;
use crate::crypto::{SecretKey, Signature};
use crate::id::{HeaderId, SnapshotId};

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

pub fn snapshot(seed: u8) -> SnapshotId {
    SnapshotId::of(&[seed])
}

pub fn validator_set(seeds: impl IntoIterator<Item = u8>) -> ValidatorSet {
    let members = seeds.into_iter().map(|seed| Validator { key: key(seed).public(), weight: 1 });
    ValidatorSet::new(members.collect()).unwrap()
}

pub fn document(seeds: impl IntoIterator<Item = u8>) -> GenesisDoc {
    GenesisDoc::new("test".parse().unwrap(), [7; 16], 1_000, validator_set(seeds))
}

/// Precommits of `seeds` for one header.
pub fn votes(
    doc: &GenesisDoc,
    seeds: &[u8],
    height: u64,
    round: u32,
    header: HeaderId,
) -> Vec<(crate::crypto::PublicKey, Signature)> {
    let message = vote_bytes(doc.id(), VoteKind::Precommit, height, round, Some(header));
    seeds.iter().map(|&seed| (key(seed).public(), key(seed).sign(&message))).collect()
}

/// A log whose validators have the keys of `seeds`, the first of which proposes everything.
pub struct Network {
    pub doc: GenesisDoc,
    pub seeds: Vec<u8>,
    pub ledger: Ledger,
    pub blocks: Vec<Block>,
}

impl Network {
    pub fn of(seeds: impl IntoIterator<Item = u8>) -> Self {
        let seeds: Vec<u8> = seeds.into_iter().collect();
        let doc = document(seeds.clone());
        Self { ledger: Ledger::genesis(&doc).unwrap(), doc, seeds, blocks: Vec::new() }
    }

    pub fn entry(&self, author: u8, nonce: u64, body: EntryBody) -> Entry {
        Entry::sign(&key(author), self.doc.id(), nonce, body)
    }

    pub fn certify(&self, header: &Header, seeds: &[u8], round: u32) -> Certificate {
        let (set, id) = (self.ledger.validators(), header.id());
        let votes = votes(&self.doc, seeds, header.height, round, id);
        Certificate::assemble(set, header.height, round, id, votes).unwrap()
    }

    pub fn propose(&self, entries: Vec<Entry>) -> (Header, Body) {
        self.ledger.propose(entries, self.ledger.time_ms() + 10, key(self.seeds[0]).public())
    }

    /// The next block, signed by all validators.
    pub fn block(&self, entries: Vec<Entry>) -> Block {
        let (header, body) = self.propose(entries);
        let certificate = self.certify(&header, &self.seeds, 0);
        Block { header, body, certificate }
    }

    /// Decides and applies `entries`, all of which must execute.
    pub fn decide(&mut self, entries: Vec<Entry>) -> &Ledger {
        let count = entries.len();
        let block = self.block(entries);
        assert_eq!(block.body.entries.len(), count, "an entry was refused");
        self.ledger = self.ledger.apply(&block).unwrap();
        self.blocks.push(block);
        &self.ledger
    }

    /// What a light client is sent to reach the newest head.
    pub fn update(&self) -> light::Update {
        let block = self.blocks.last().unwrap();
        let signed = light::Signed {
            header: block.header.clone(),
            certificate: block.certificate.clone(),
            validators: self.ledger.validators().clone(),
        };
        light::Update { signed, next: self.ledger.validators().clone() }
    }
}

pub fn publish(name: &str, version: &str, seed: u8) -> EntryBody {
    EntryBody::Publish(Publish {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        snapshot: snapshot(seed),
        bytes: 1_000,
        inodes: 10,
        parent: None,
        replicas: Vec::new(),
    })
}

pub fn tag(name: &str, tag: &str, version: &str) -> EntryBody {
    EntryBody::Tag(Tag {
        name: name.parse().unwrap(),
        tag: tag.parse().unwrap(),
        version: version.parse().unwrap(),
    })
}

pub fn yank(name: &str, version: &str, reason: &str) -> EntryBody {
    EntryBody::Yank(Yank {
        name: name.parse().unwrap(),
        version: version.parse().unwrap(),
        reason: reason.parse().unwrap(),
    })
}
