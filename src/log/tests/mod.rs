//! Tests of the log as a whole, and the small networks they are made with.

mod blocks;
mod climbs;
mod entries;
mod epochs;
mod files;
mod floors;
mod heads;
mod operators;
mod proofs;
mod replicas;
mod rights;
mod shown;

use super::*;
use crate::crypto::{SecretKey, Signature};
use crate::id::{HeaderId, SnapshotId};

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes([seed; 32])
}

/// Public keys by seed: to derive them again for every block takes longer than all else.
static PUBLIC: std::sync::LazyLock<Vec<crate::crypto::PublicKey>> =
    std::sync::LazyLock::new(|| (0..=u8::MAX).map(|seed| key(seed).public()).collect());

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
        Self::founded(document(seeds.clone()), seeds)
    }

    /// With parameters of its own.
    pub fn with(seeds: impl IntoIterator<Item = u8>, change: impl FnOnce(&mut GenesisDoc)) -> Self {
        let seeds: Vec<u8> = seeds.into_iter().collect();
        let mut doc = document(seeds.clone());
        change(&mut doc);
        Self::founded(doc, seeds)
    }

    fn founded(doc: GenesisDoc, seeds: Vec<u8>) -> Self {
        Self { ledger: Ledger::genesis(&doc).unwrap(), doc, seeds, blocks: Vec::new() }
    }

    /// Decides and applies one entry.
    pub fn say(&mut self, author: u8, body: EntryBody) {
        let nonce = self.ledger.nonce(&key(author).public()) + 1;
        let entry = self.entry(author, nonce, body);
        self.ledger.admit(&entry).unwrap_or_else(|refusal| panic!("{refusal}"));
        self.decide(vec![entry]);
    }

    /// What is said against an entry that must be refused.
    pub fn refused(&self, author: u8, body: EntryBody) -> Refusal {
        let nonce = self.ledger.nonce(&key(author).public()) + 1;
        self.ledger.admit(&self.entry(author, nonce, body)).unwrap_err()
    }

    /// Ends the epoch and begins the next with an empty height.
    pub fn next_epoch(&mut self) {
        let time_ms = self.ledger.time_ms() + self.ledger.params().epoch_ms;
        for time_ms in [time_ms, time_ms + 1] {
            let proposer = self.ledger.validators().members()[0].key;
            let (header, body) = self.ledger.propose(vec![], time_ms, proposer);
            let certificate = self.certify(&header, &self.signers(), 0);
            let block = Block { header, body, certificate };
            self.ledger = self.ledger.apply(&block).unwrap();
            self.blocks.push(block);
        }
    }

    /// The seeds of all who vote on the next height.
    pub fn signers(&self) -> Vec<u8> {
        let set = self.ledger.validators();
        let seeds = PUBLIC.iter().enumerate().filter(|(_, key)| set.get(key).is_some());
        seeds.map(|(seed, _)| seed as u8).collect()
    }

    /// What the voting key of `seed` weighs at the next height, in thousandths of all.
    pub fn weight(&self, seed: u8) -> u64 {
        let set = self.ledger.validators();
        set.get(&key(seed).public()).map_or(0, |v| v.weight * 1000 / set.total_weight())
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
        let proposer = self.ledger.validators().members()[0].key;
        self.ledger.propose(entries, self.ledger.time_ms() + 10, proposer)
    }

    /// The next block, signed by all validators.
    pub fn block(&self, entries: Vec<Entry>) -> Block {
        let (header, body) = self.propose(entries);
        let certificate = self.certify(&header, &self.signers(), 0);
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
        self.ledger.update(self.blocks.last().unwrap()).unwrap()
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
        copies: None,
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

/// An entry body of every kind, and of every form of it. Not all would execute.
pub fn one_of_each(genesis: crate::id::Genesis) -> Vec<EntryBody> {
    let (name, version): (Name, Label) = ("photos".parse().unwrap(), "v1".parse().unwrap());
    let (one, two) = (key(1).public(), key(2).public());
    let header = |seed: u8| HeaderId::of(&[seed]);
    let signature = key(1).sign(b"");
    let EntryBody::Publish(plain) = publish("photos", "v1", 1) else { unreachable!() };
    let replica = Replica::sign(&key(3), genesis, plain.snapshot);
    let answered = storage::Answered {
        epoch: 1,
        seed: header(1),
        snapshot: snapshot(1),
        bytes: 1_000,
        chunk: crate::id::ChunkId::of(b"chunk"),
        answer: Digest::NONE,
    };
    let audits = vec![Audit::sign(&key(4), genesis, &one, &answered)];
    let votes = [(None, signature), (Some(header(1)), signature)];
    let proposals = [(header(1), None, signature), (header(2), Some(3), signature)];
    let roles = RoleSet::NONE.with(Role::Reader);
    vec![
        EntryBody::Publish(plain.clone()),
        EntryBody::Publish(Publish { parent: Some("v0".parse().unwrap()), replicas: vec![replica], ..plain }),
        tag("photos", "good", "v1"),
        yank("photos", "v1", "r"),
        EntryBody::Grant(Grant { name: name.clone(), to: two, roles, wrap: None }),
        EntryBody::Grant(Grant { name: name.clone(), to: two, roles, wrap: Some(vec![7; 80].into()) }),
        EntryBody::Role(RoleChange { to: two, roles }),
        EntryBody::Rotate(Rotate::to(&key(2), genesis, &one)),
        EntryBody::Validator(ValidatorChange::join(&key(2), genesis, &one)),
        EntryBody::Validator(ValidatorChange::Leave),
        EntryBody::Validator(ValidatorChange::Release { operator: two }),
        EntryBody::Stake(Stake { holder: two, amount: 7 }),
        EntryBody::Delegate(Delegate { to: two }),
        EntryBody::StorageCommit(StorageCommit { epoch: 1, name, version }),
        EntryBody::StorageReceipt(StorageReceipt { answered, audits }),
        EntryBody::Evidence(Evidence::of_votes(two, VoteKind::Prevote, 7, 1, votes)),
        EntryBody::Evidence(Evidence::of_proposals(two, 7, 1, proposals)),
        EntryBody::Params(Params::default()),
    ]
}
