//! Validators that come, go and are caught; stake; parameters.

use super::*;

const NEW: u8 = 60;

fn public(seed: u8) -> crate::crypto::PublicKey {
    key(seed).public()
}

fn role(to: u8, role: Role) -> EntryBody {
    EntryBody::Role(RoleChange { to: public(to), roles: RoleSet::NONE.with(role) })
}

fn join(network: &Network, operator: u8, voter: u8) -> EntryBody {
    EntryBody::Validator(ValidatorChange::join(&key(voter), network.doc.id(), &public(operator)))
}

fn stake(holder: u8, amount: u64) -> EntryBody {
    EntryBody::Stake(Stake { holder: public(holder), amount })
}

fn delegate(to: u8) -> EntryBody {
    EntryBody::Delegate(Delegate { to: public(to) })
}

/// Two precommits of `seed` at one height and round.
fn double_vote(network: &Network, seed: u8) -> Evidence {
    let vote = |header: Option<HeaderId>| {
        let bytes = vote_bytes(network.doc.id(), VoteKind::Precommit, 7, 2, header);
        (header, key(seed).sign(&bytes))
    };
    let votes = [vote(Some(HeaderId::of(b"b"))), vote(Some(HeaderId::of(b"a")))];
    Evidence::of_votes(public(seed), VoteKind::Precommit, 7, 2, votes)
}

fn four() -> Network {
    Network::with(1..=4, |doc| doc.params.epoch_ms = 1_000)
}

#[test]
fn who_joins_votes_two_epochs_later_a_tenth_at_a_time() {
    let mut network = four();
    let body = join(&network, NEW, 61);
    assert!(matches!(network.refused(NEW, body.clone()), Refusal::NeedsRole { role: Role::Validator, .. }));
    network.say(1, role(NEW, Role::Validator));
    network.say(NEW, body.clone());
    let again = network.entry(NEW, 99, body);
    assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { .. })));
    let seen: Vec<(u64, u64)> = (0..5)
        .map(|_| {
            network.next_epoch();
            (network.weight(61), network.weight(1))
        })
        .collect();
    assert_eq!(seen, [(0, 250), (100, 225), (200, 200), (200, 200), (200, 200)]);
    assert_eq!(network.ledger.head().unwrap().epoch, 5);
}

#[test]
fn who_leaves_or_loses_the_role_is_gone_by_tenths() {
    let mut network = Network::with(1..=6, |doc| doc.params.epoch_ms = 1_000);
    network.say(2, EntryBody::Validator(ValidatorChange::Leave));
    network.say(1, EntryBody::Role(RoleChange { to: public(3), roles: RoleSet::NONE }));
    assert!(matches!(
        network.refused(2, EntryBody::Validator(ValidatorChange::Leave)),
        Refusal::NoOperator { .. }
    ));
    let mut seen = Vec::new();
    for _ in 0..6 {
        network.next_epoch();
        seen.push((network.weight(2), network.weight(3), network.ledger.validators().members().len()));
    }
    // Both had a sixth; a tenth of all moves at once, half of it from each.
    assert_eq!(seen, [(166, 166, 6), (116, 116, 6), (66, 66, 6), (16, 16, 6), (0, 0, 4), (0, 0, 4)]);
}

#[test]
fn another_voting_key_takes_over_with_all_of_the_weight() {
    let mut network = four();
    let body = join(&network, 2, 62);
    network.say(2, body);
    network.next_epoch();
    assert_eq!((network.weight(2), network.weight(62)), (250, 0));
    network.next_epoch();
    assert_eq!((network.weight(2), network.weight(62)), (0, 250));
    // A voting key stays with its operator for ever.
    network.say(1, role(NEW, Role::Validator));
    for voter in [2, 62, 3] {
        let body = join(&network, NEW, voter);
        assert_eq!(network.refused(NEW, body), Refusal::KeyInUse { key: public(voter) });
    }
    let forged = ValidatorChange::Join { voter: public(63), consent: key(NEW).sign(b"not its own") };
    assert!(matches!(network.refused(NEW, EntryBody::Validator(forged)), Refusal::Signature(_)));
}

#[test]
fn equivocation_jails_until_an_admin_lifts_it_and_the_key_for_ever() {
    let mut network = four();
    let evidence = EntryBody::Evidence(double_vote(&network, 2));
    // Anybody may bring it.
    network.say(NEW, evidence.clone());
    let head = network.ledger.head().unwrap();
    assert_ne!(head.evidence_root, Digest::NONE);
    assert_eq!(network.ledger.operator(&public(2)).unwrap().standing, Standing::Jailed);
    let again = network.entry(63, 1, evidence);
    assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { height: 1, .. })));
    let mut seen = Vec::new();
    for _ in 0..5 {
        network.next_epoch();
        seen.push(network.weight(2));
    }
    assert_eq!(seen, [250, 150, 50, 0, 0]);
    assert_eq!(network.ledger.head().unwrap().evidence_root, Digest::NONE);

    let body = join(&network, 2, 62);
    assert!(matches!(network.refused(2, body.clone()), Refusal::Jailed { .. }));
    let release = EntryBody::Validator(ValidatorChange::Release { operator: public(2) });
    assert!(matches!(network.refused(NEW, release.clone()), Refusal::NeedsRole { .. }));
    network.say(1, release.clone());
    assert!(matches!(network.refused(1, release), Refusal::NotJailed { .. }));
    let old = join(&network, 2, 2);
    assert!(matches!(network.refused(2, old), Refusal::VoterJailed { .. }));
    network.say(2, body);
}

#[test]
fn what_is_no_proof_jails_nobody() {
    let network = four();
    let refused = |evidence: Evidence| network.refused(NEW, EntryBody::Evidence(evidence));
    let good = double_vote(&network, 2);
    let Offence::Votes { kind, first, second } = good.offence.clone() else { panic!() };
    let with = |offence| Evidence { offence, ..good.clone() };
    let same = with(Offence::Votes { kind, first, second: first });
    assert!(matches!(refused(same), Refusal::NoContradiction { .. }));
    let turned = with(Offence::Votes { kind, first: second, second: first });
    assert!(matches!(refused(turned), Refusal::NoContradiction { .. }));
    let bent = with(Offence::Votes { kind, first, second: (second.0, first.1) });
    assert!(matches!(refused(bent), Refusal::Signature(_)));
    let prevotes = with(Offence::Votes { kind: VoteKind::Prevote, first, second });
    assert!(matches!(refused(prevotes), Refusal::Signature(_)));
    assert!(matches!(refused(Evidence { round: 3, ..good.clone() }), Refusal::Signature(_)));
    let stranger = double_vote(&network, NEW);
    assert_eq!(refused(stranger), Refusal::NotAVoter { key: public(NEW) });
}

#[test]
fn two_proposals_of_a_round_are_evidence_too() {
    let mut network = four();
    let proposal = |id: HeaderId, locked: Option<u32>| {
        (id, locked, key(3).sign(&proposal_bytes(network.doc.id(), 7, 2, locked, id)))
    };
    let both = [proposal(HeaderId::of(b"x"), None), proposal(HeaderId::of(b"y"), Some(1))];
    let evidence = Evidence::of_proposals(public(3), 7, 2, both);
    network.say(NEW, EntryBody::Evidence(evidence));
    assert_eq!(network.ledger.operator(&public(3)).unwrap().standing, Standing::Jailed);
}

/// A lone validator that was restored from a backup and signed twice: somebody must go on.
#[test]
fn a_network_does_not_end_itself() {
    let mut network = Network::with([1], |doc| doc.params.epoch_ms = 1_000);
    network.say(NEW, EntryBody::Evidence(double_vote(&network, 1)));
    for _ in 0..5 {
        network.next_epoch();
    }
    assert_eq!(network.weight(1), 1000);
    network.say(NEW, publish("photos", "v1", 1));
}

#[test]
fn stake_counts_for_whom_it_stands_behind() {
    let change = |doc: &mut GenesisDoc| {
        doc.params.epoch_ms = 1_000;
        doc.params.policy = Policy::Delegated;
    };
    let mut network = Network::with(1..=5, change);
    // Every founder is an admin here; 60 is not.
    assert!(matches!(network.refused(NEW, stake(NEW, 9)), Refusal::NeedsRole { .. }));
    assert!(matches!(network.refused(NEW, delegate(1)), Refusal::NoStake { .. }));
    assert!(matches!(network.refused(1, stake(1, weights::MAX_STAKE + 1)), Refusal::StakeTooLarge { .. }));
    network.say(1, stake(NEW, 1));
    assert!(matches!(network.refused(NEW, delegate(61)), Refusal::NoOperator { .. }));
    network.say(NEW, delegate(2));
    for _ in 0..4 {
        network.next_epoch();
    }
    // Of six in all, two stand behind 2, which is a third: just less.
    assert_eq!((network.weight(2), network.weight(1)), (333, 166));
    network.say(NEW, delegate(NEW));
    network.say(1, stake(NEW, 0));
    assert_eq!(network.ledger.holder(&public(NEW)), None);
    for _ in 0..4 {
        network.next_epoch();
    }
    assert_eq!((network.weight(2), network.weight(1)), (200, 200));
}

#[test]
fn parameters_change_by_an_admins_entry() {
    let mut network = four();
    let mut params = network.ledger.params().clone();
    params.heartbeat_ms = 5_000;
    let body = |params: &Params| EntryBody::Params(params.clone());
    assert!(matches!(network.refused(NEW, body(&params)), Refusal::NeedsRole { .. }));
    let unchanged = network.entry(1, 9, body(&network.doc.params));
    assert!(matches!(network.ledger.admit(&unchanged), Ok(Admission::Already { height: 0, .. })));
    let before = network.ledger.head().map(|head| head.params);
    network.say(1, body(&params));
    assert_eq!(network.ledger.head().unwrap().params, params.digest());
    assert_ne!(network.ledger.head().map(|head| head.params), before);
    assert_eq!(network.ledger.params(), &params);
    let wrong: [fn(&mut Params); 7] = [
        |p| p.heartbeat_ms = 0,
        |p| p.epoch_ms = 999,
        |p| p.seats = 0,
        |p| p.replicas = 17,
        |p| p.audits = 17,
        |p| p.audits = 0,
        |p| p.block_ms = 10_001,
    ];
    for change in wrong {
        let mut bad = params.clone();
        change(&mut bad);
        assert!(matches!(network.refused(1, body(&bad)), Refusal::Params(_)), "{bad:?}");
    }
}
