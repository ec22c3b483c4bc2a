//! Which blocks are accepted, and which lie of a header is caught by which check.

use super::*;
use crate::id::{LogRoot, StateRoot};

const AUTHOR: u8 = 50;

/// Three heights of four validators, with a block for the fourth.
fn four() -> (Network, Block) {
    let mut network = Network::of(1..=4);
    network.decide(vec![network.entry(AUTHOR, 1, publish("photos", "v1", 1))]);
    network.decide(vec![]);
    network.decide(vec![network.entry(AUTHOR, 2, publish("photos", "v2", 2))]);
    let entries = vec![
        network.entry(AUTHOR, 3, publish("photos", "v3", 3)),
        network.entry(AUTHOR, 4, tag("photos", "t", "v3")),
    ];
    let block = network.block(entries);
    (network, block)
}

/// What is said to `block` after `change`, with a body digest and certificate that fit the change.
fn verdict(network: &Network, block: &Block, change: impl FnOnce(&mut Block)) -> LogError {
    let mut block = block.clone();
    change(&mut block);
    block.certificate = network.certify(&block.header, &network.seeds, 0);
    network.ledger.apply(&block).unwrap_err()
}

fn mismatch(network: &Network, block: &Block, what: &str, change: impl FnOnce(&mut Header)) {
    match verdict(network, block, |block| change(&mut block.header)) {
        LogError::Mismatch { height: 4, what: found, .. } => assert_eq!(found, what),
        other => panic!("{what}: {other}"),
    }
}

#[test]
fn honest_blocks_are_applied_and_equal_on_every_machine() {
    let (network, block) = four();
    let mut other = Ledger::genesis(&network.doc).unwrap();
    for block in &network.blocks {
        other = other.apply(&Block::decode(&block.encode()).unwrap()).unwrap();
    }
    assert_eq!(other.trusted(), network.ledger.trusted());
    assert_eq!(other.apply(&block).unwrap().height(), 4);
    assert_eq!(other.height(), 3, "the ledger that a block was applied to stays as it was");
    assert_eq!(other.datasets().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["photos"]);
}

#[test]
fn every_field_of_a_header_is_checked() {
    let (network, block) = four();
    let is = |error: LogError, expected: fn(&LogError) -> bool| assert!(expected(&error), "{error}");
    is(verdict(&network, &block, |b| b.header.version = 2), |e| {
        matches!(e, LogError::Version { height: 4, found: 2 }) && e.to_string().contains("upgrade")
    });
    is(verdict(&network, &block, |b| b.header.genesis = document([9]).id()), |e| {
        matches!(e, LogError::OtherNetwork { .. })
    });
    is(verdict(&network, &block, |b| b.header.height = 5), |e| {
        matches!(e, LogError::Height { expected: 4, found: 5 })
    });
    is(verdict(&network, &block, |b| b.header.time_ms = 1), |e| matches!(e, LogError::Time { .. }));
    is(verdict(&network, &block, |b| b.header.proposer = key(AUTHOR).public()), |e| {
        matches!(e, LogError::Proposer { .. })
    });
    mismatch(&network, &block, "previous header", |h| h.previous = None);
    mismatch(&network, &block, "epoch", |h| h.epoch = 1);
    mismatch(&network, &block, "previous certificate", |h| h.previous_certificate = Digest::NONE);
    mismatch(&network, &block, "body", |h| h.body = Digest::NONE);
    mismatch(&network, &block, "log size", |h| h.log_size += 1);
    mismatch(&network, &block, "log root", |h| h.log_root = LogRoot::from_bytes([0; 32]));
    mismatch(&network, &block, "state root", |h| h.state_root = StateRoot::from_bytes([0; 32]));
    mismatch(&network, &block, "validators", |h| h.validators = Digest::NONE);
    mismatch(&network, &block, "next validators", |h| h.next_validators = Digest::NONE);
    mismatch(&network, &block, "parameters", |h| h.params = Digest::NONE);
    mismatch(&network, &block, "evidence root", |h| h.evidence_root = h.body);
}

fn is_entry(error: &LogError, at: usize, expected: fn(&Refusal) -> bool) -> bool {
    matches!(error, LogError::Entry { height: 4, index, cause } if *index == at && expected(cause))
}

#[test]
fn a_body_must_fit_its_header_and_execute() {
    let (network, block) = four();
    let swap = |b: &mut Block| b.body.entries.swap(0, 1);
    let error = verdict(&network, &block, swap);
    assert!(is_entry(&error, 0, |cause| matches!(cause, Refusal::NoVersion { .. })), "{error}");
    let error = verdict(&network, &block, |b| {
        b.body.entries.pop();
    });
    assert!(matches!(error, LogError::Mismatch { what: "body", .. }), "{error}");
    let error = verdict(&network, &block, |b| b.body.entries.push(b.body.entries[0].clone()));
    assert!(matches!(error, LogError::Repeated { index: 2, .. }), "{error}");
    let error = verdict(&network, &block, |b| b.body.entries[1].nonce += 1);
    assert!(is_entry(&error, 1, |cause| matches!(cause, Refusal::Signature(_))), "{error}");
    let error = verdict(&network, &block, |b| {
        b.body.entries = vec![b.body.entries[0].clone(); MAX_BODY_ENTRIES + 1];
    });
    assert!(matches!(error, LogError::TooLarge { .. }), "{error}");
}

#[test]
fn a_proposal_takes_what_executes_and_fits() {
    let network = Network::of([1]);
    let bad = network.entry(51, 1, tag("photos", "t", "v1"));
    let good = network.entry(AUTHOR, 1, publish("photos", "v1", 1));
    let (header, body) = network.propose(vec![bad, good.clone(), good.clone()]);
    assert_eq!(body.entries, vec![good]);
    assert!(network.ledger.execute(&header, &body).is_ok());
    let (header, _) = network.ledger.propose(vec![], 0, key(1).public());
    assert_eq!(header.time_ms, network.doc.time_ms, "a clock that is behind does not turn time back");
}

/// Two machines may hold different certificates of one header. The block that follows settles which one counts, and
/// a machine that holds the other must accept it.
#[test]
fn another_certificate_of_the_previous_header_is_accepted_when_it_is_one() {
    let (mut network, _) = four();
    let header = network.ledger.head().unwrap().clone();
    let mut other = network.blocks.pop().unwrap();
    let before =
        network.blocks.iter().fold(Ledger::genesis(&network.doc).unwrap(), |l, b| l.apply(b).unwrap());
    other.certificate = network.certify(&header, &[1, 2, 4], 5);
    let elsewhere = before.apply(&other).unwrap();
    let (header, body) = elsewhere.propose(vec![], 9_999, key(2).public());
    assert_ne!(body.previous.as_ref(), network.ledger.certificate());
    assert!(network.ledger.execute(&header, &body).is_ok());

    let lie = |previous: Option<Certificate>| {
        let body = Body { previous, ..body.clone() };
        network.ledger.execute(&header, &body).map(|e| e.id()).unwrap_err()
    };
    assert!(matches!(lie(None), LogError::NoPreviousCertificate { height: 4 }));
    let mut forged = other.certificate.clone();
    forged.round += 1;
    let error = lie(Some(forged));
    let expected = |e: &LogError| {
        matches!(e, LogError::Certificate { height: 3, cause: CertificateError::Signature(_) })
    };
    assert!(expected(&error), "{error}");
    assert!(matches!(
        network.ledger.execute(&network.blocks[0].header, &body).map(|e| e.id()),
        Err(LogError::Height { expected: 4, found: 1 })
    ));
}

#[test]
fn each_fault_of_a_certificate_has_its_own_name() {
    let (network, block) = four();
    let refused = |change: &dyn Fn(&mut Certificate)| {
        let mut block = block.clone();
        change(&mut block.certificate);
        match network.ledger.apply(&block).unwrap_err() {
            LogError::Certificate { height: 4, cause } => cause,
            other => panic!("{other}"),
        }
    };
    use CertificateError as E;
    assert!(matches!(refused(&|c| c.height = 5), E::Height { expected: 4, found: 5 }));
    assert!(matches!(refused(&|c| c.header = HeaderId::of(b"")), E::Header { .. }));
    assert!(matches!(refused(&|c| c.signers.push(0)), E::Bitmap { expected: 1, found: 2, .. }));
    assert!(matches!(refused(&|c| c.signers.clear()), E::Bitmap { found: 0, .. }));
    assert!(matches!(refused(&|c| c.signers[0] |= 0x10), E::Signer { index: 4, validators: 4 }));
    let none = E::Count { signers: 4, signatures: 3 };
    assert_eq!(refused(&|c| c.signatures.truncate(3)), none);
    let two = |c: &mut Certificate| {
        c.signers[0] = 0b0011;
        c.signatures.truncate(2);
    };
    assert!(matches!(refused(&two), E::Quorum { weight: 2, total: 4 }));
    assert!(matches!(refused(&|c| c.round = 1), E::Signature(_)));
    assert!(matches!(refused(&|c| c.signatures.swap(0, 1)), E::Signature(_)));
    let stranger = votes(&network.doc, &[AUTHOR], 4, 0, block.header.id());
    let set = network.ledger.validators();
    let error = Certificate::assemble(set, 4, 0, block.header.id(), stranger);
    assert_eq!(error, Err(E::NotAValidator(key(AUTHOR).public())));
}

/// A vote for one thing must never count for another: prevote, other round, height, header or network.
#[test]
fn votes_are_for_one_thing_only() {
    let (genesis, other, id) = (document([1]).id(), document([2]).id(), HeaderId::of(b"a"));
    let base = vote_bytes(genesis, VoteKind::Precommit, 4, 0, Some(id));
    for changed in [
        vote_bytes(other, VoteKind::Precommit, 4, 0, Some(id)),
        vote_bytes(genesis, VoteKind::Prevote, 4, 0, Some(id)),
        vote_bytes(genesis, VoteKind::Precommit, 5, 0, Some(id)),
        vote_bytes(genesis, VoteKind::Precommit, 4, 1, Some(id)),
        vote_bytes(genesis, VoteKind::Precommit, 4, 0, Some(HeaderId::of(b"b"))),
        vote_bytes(genesis, VoteKind::Precommit, 4, 0, None),
    ] {
        assert_eq!(changed.len(), base.len());
        assert_ne!(changed, base);
    }
}

#[test]
fn a_replay_reaches_the_same_ledger_and_finds_the_bad_height() {
    let (mut network, block) = four();
    network.blocks.push(block);
    let start = Ledger::genesis(&network.doc).unwrap();
    let applied = network.blocks.iter().fold(start.clone(), |l, b| l.apply(b).unwrap());
    assert_eq!(start.replay(&network.blocks).unwrap().trusted(), applied.trusted());
    // Height 3's certificate is repeated in the body of height 4, hence bent in the last block, where only
    // its own signature can tell.
    let bent = Signature::from_bytes([1; 64]);
    network.blocks[3].certificate.signatures[2] = bent;
    let (height, error) = start.replay(&network.blocks).unwrap_err();
    assert!(
        matches!(error, LogError::Certificate { height: 4, cause: CertificateError::Signature(_) }),
        "{error}"
    );
    assert_eq!(height, 4);
}

#[test]
fn a_genesis_that_cannot_found_a_network_is_refused() {
    let good = document([1]);
    assert_eq!(GenesisDoc::decode(&good.encode()), Ok(good.clone()));
    assert_eq!(GenesisDoc::decode_as(&good.encode(), good.id()), Ok(good.clone()));
    let other = document([2]);
    let wrong = GenesisDoc::decode_as(&other.encode(), good.id());
    assert_eq!(wrong, Err(GenesisError::Other { expected: good.id(), found: other.id() }));
    let future = GenesisDoc { version: 2, ..good.clone() };
    assert_eq!(GenesisDoc::decode(&future.encode()), Err(GenesisError::Version { found: 2 }));
    let heavy = ValidatorSet::new(vec![Validator { key: key(1).public(), weight: 2 }]).unwrap();
    let heavy = GenesisDoc { validators: heavy, ..good.clone() };
    assert!(matches!(Ledger::genesis(&heavy), Err(GenesisError::Weight { weight: 2, .. })));
    let hasty = GenesisDoc { params: Params { heartbeat_ms: 0, ..good.params.clone() }, ..good.clone() };
    assert_eq!(GenesisDoc::decode(&hasty.encode()), Err(GenesisError::Params(ParamsError::Heartbeat(0))));
    let twice = vec![key(1).public(), key(1).public()];
    for admins in [vec![], twice, (0..=MAX_ADMINS as u8).map(|seed| key(seed).public()).collect()] {
        let doc = GenesisDoc { admins, ..good.clone() };
        assert_eq!(GenesisDoc::decode(&doc.encode()), Err(GenesisError::Admins));
    }
}
