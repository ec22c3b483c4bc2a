//! Who may write what: grants with a name, roles in the network, and one key in the place of another.

use super::*;
use crate::log::state::StateKey;

const OWNER: u8 = 50;
const OTHER: u8 = 51;
const NEW: u8 = 52;

fn photos() -> Network {
    let mut network = Network::of([1]);
    network.say(OWNER, publish("photos", "v1", 1));
    network
}

fn public(seed: u8) -> crate::crypto::PublicKey {
    key(seed).public()
}

fn grant(to: u8, roles: &[Role]) -> EntryBody {
    grant_with(to, roles, None)
}

fn grant_with(to: u8, roles: &[Role], wrap: Option<Vec<u8>>) -> EntryBody {
    let (name, roles) = ("photos".parse().unwrap(), roles.iter().copied().collect());
    EntryBody::Grant(Grant { name, to: public(to), roles, wrap: wrap.map(Into::into) })
}

fn role(to: u8, roles: &[Role]) -> EntryBody {
    EntryBody::Role(RoleChange { to: public(to), roles: roles.iter().copied().collect() })
}

fn rotate(network: &Network, from: u8, to: u8) -> EntryBody {
    EntryBody::Rotate(Rotate::to(&key(to), network.doc.id(), &public(from)))
}

#[test]
fn whom_the_owner_grants_may_publish_and_nobody_else() {
    let mut network = photos();
    let next = || publish("photos", "v2", 2);
    assert!(matches!(network.refused(OTHER, next()), Refusal::NotOwner { .. }));
    assert!(matches!(network.refused(OTHER, grant(OTHER, &[Role::Publisher])), Refusal::NotOwner { .. }));
    // A reader reads; a network-wide admin owns no names.
    network.say(OWNER, grant(OTHER, &[Role::Reader]));
    assert!(matches!(network.refused(OTHER, next()), Refusal::NotOwner { .. }));
    assert!(matches!(network.refused(1, next()), Refusal::NotOwner { .. }));
    network.say(OWNER, grant(OTHER, &[Role::Publisher]));
    assert!(network.ledger.allows("photos", &public(OTHER), Role::Publisher));
    assert!(!network.ledger.allows("photos", &public(OTHER), Role::Admin));
    network.say(OTHER, next());
    network.say(OTHER, tag("photos", "good", "v2"));
    network.say(OTHER, yank("photos", "v1", "r"));
    // Publishing is not granting.
    assert!(matches!(network.refused(OTHER, grant(NEW, &[Role::Reader])), Refusal::NotOwner { .. }));
    network.say(OWNER, grant(OTHER, &[Role::Admin]));
    network.say(OTHER, grant(NEW, &[Role::Publisher]));
    network.say(OWNER, grant(OTHER, &[]));
    assert!(matches!(network.refused(OTHER, publish("photos", "v3", 3)), Refusal::NotOwner { .. }));
    network.say(NEW, publish("photos", "v3", 3));
    assert_eq!(network.ledger.dataset("photos").unwrap().owner, public(OWNER));
}

#[test]
fn a_grant_is_provable_and_so_is_its_end() {
    let mut network = photos();
    network.say(OWNER, grant_with(OTHER, &[Role::Reader], Some(vec![7; 100])));
    let key = StateKey::Grant("photos".parse().unwrap(), public(OTHER));
    let held = network.ledger.dataset("photos").unwrap().grants[&public(OTHER)].clone();
    assert_eq!(held.wrap.as_deref().map(|wrap| wrap.len()), Some(100));
    let proven = |network: &Network, item: &Item| {
        let root = network.ledger.head().unwrap().state_root;
        network.ledger.prove(&key).verify(root, &key.digest()) == Ok(Some(item.digest()))
    };
    assert!(proven(&network, &Item::Grant(held.clone())));
    network.say(OWNER, grant(OTHER, &[]));
    assert!(!proven(&network, &Item::Grant(held)));
    let (stamp, block) = (network.blocks.last().unwrap(), network.ledger.head().unwrap());
    let stamp = Stamp { height: block.height, time_ms: block.time_ms, entry: stamp.body.entries[0].id() };
    assert!(proven(&network, &Item::Grant(Granted { roles: RoleSet::NONE, wrap: None, stamp })));
}

#[test]
fn senseless_grants_are_refused() {
    let mut network = photos();
    assert!(matches!(network.refused(OWNER, grant(OWNER, &[Role::Reader])), Refusal::OwnerHasAll { .. }));
    assert!(matches!(network.refused(OWNER, grant(OTHER, &[Role::Validator])), Refusal::NotForNames { .. }));
    assert!(matches!(network.refused(OWNER, grant(OTHER, &[])), Refusal::NoGrant { .. }));
    for (roles, wrap) in [(&[Role::Reader][..], vec![0; MAX_WRAP_LEN + 1]), (&[], vec![0])] {
        let body = grant_with(OTHER, roles, Some(wrap));
        assert!(matches!(network.refused(OWNER, body), Refusal::Wrap { .. }));
    }
    network.say(OWNER, grant(OTHER, &[Role::Reader]));
    let again = network.entry(OWNER, 99, grant(OTHER, &[Role::Reader]));
    assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { height: 2, .. })));
}

#[test]
fn only_an_admin_gives_roles_and_one_always_remains() {
    let mut network = Network::of([1, 2]);
    assert!(matches!(
        network.refused(OTHER, role(OTHER, &[Role::Admin])),
        Refusal::NeedsRole { role: Role::Admin, .. }
    ));
    network.say(1, role(OTHER, &[Role::Admin]));
    network.say(OTHER, role(1, &[Role::Validator]));
    network.say(OTHER, role(2, &[]));
    assert!(matches!(network.refused(2, role(2, &[Role::Admin])), Refusal::NeedsRole { .. }));
    assert_eq!(network.refused(OTHER, role(OTHER, &[Role::Reader])), Refusal::LastAdmin);
    assert_eq!(network.refused(OTHER, role(NEW, &[])), Refusal::NoRole { key: public(NEW) });
    assert_eq!(network.ledger.roles(&public(1)), Ok(RoleSet::NONE.with(Role::Validator)));
}

#[test]
fn what_the_genesis_says_is_done_already() {
    let network = Network::of([1]);
    let entry = network.entry(1, 1, role(1, &[Role::Validator, Role::Admin]));
    assert!(matches!(network.ledger.admit(&entry), Ok(Admission::Already { height: 0, .. })));
}

#[test]
fn where_only_publishers_may_others_found_no_names() {
    let mut network = Network::with([1], |doc| doc.params.publishers_only = true);
    let found = || publish("photos", "v1", 1);
    assert!(!network.ledger.allows("photos", &public(OWNER), Role::Publisher));
    assert!(matches!(network.refused(OWNER, found()), Refusal::NeedsRole { role: Role::Publisher, .. }));
    network.say(1, role(OWNER, &[Role::Publisher]));
    network.say(OWNER, found());
    // A grant with a name is enough for that name.
    network.say(OWNER, grant(OTHER, &[Role::Publisher]));
    network.say(OTHER, publish("photos", "v2", 2));
    assert!(matches!(network.refused(OTHER, publish("other", "v1", 1)), Refusal::NeedsRole { .. }));
}

#[test]
fn a_new_key_takes_everything_over_and_the_old_one_is_silent() {
    let mut network = photos();
    network.say(1, role(OWNER, &[Role::Storage]));
    let body = rotate(&network, OWNER, NEW);
    network.say(OWNER, body.clone());
    let silent = network.refused(OWNER, publish("photos", "v2", 2));
    assert_eq!(silent, Refusal::Rotated { key: public(OWNER), successor: public(NEW) });
    // The lost answer: the same entry again has succeeded.
    let again = network.entry(OWNER, 99, body);
    assert!(matches!(network.ledger.admit(&again), Ok(Admission::Already { height: 3, .. })));
    network.say(NEW, publish("photos", "v2", 2));
    network.say(NEW, grant(OTHER, &[Role::Publisher]));
    assert_eq!(network.ledger.roles(&public(NEW)), Ok(RoleSet::NONE.with(Role::Storage)));
    // And on: the name stays with the identity, whose first key it is recorded under.
    let body = rotate(&network, NEW, 53);
    network.say(NEW, body);
    network.say(53, publish("photos", "v3", 3));
    assert_eq!(network.ledger.acting(&public(53)), Ok(public(OWNER)));
    assert_eq!(network.ledger.dataset("photos").unwrap().owner, public(OWNER));
    // Nothing can be given to a key that is not in use any more.
    let refused = network.refused(1, role(NEW, &[Role::Reader]));
    assert_eq!(refused, Refusal::Rotated { key: public(NEW), successor: public(53) });
}

#[test]
fn a_key_becomes_nobodys_heir_unasked() {
    let mut network = photos();
    network.say(OTHER, publish("other", "v1", 1));
    // Keys with a past: an author, a validator, oneself.
    for to in [OTHER, 1, OWNER] {
        let body = rotate(&network, OWNER, to);
        assert_eq!(network.refused(OWNER, body), Refusal::KeyInUse { key: public(to) });
    }
    let stolen = Rotate { to: public(NEW), consent: key(OWNER).sign(b"not theirs") };
    assert!(matches!(network.refused(OWNER, EntryBody::Rotate(stolen)), Refusal::Signature(_)));
    // Consent is to one old key in one network.
    let elsewhere = Rotate::to(&key(NEW), network.doc.id(), &public(OTHER));
    assert!(matches!(network.refused(OWNER, EntryBody::Rotate(elsewhere)), Refusal::Signature(_)));
}

#[test]
fn a_network_for_members_admits_whoever_the_log_gives_a_part() {
    let mut network = photos();
    network.say(OWNER, grant(OTHER, &[Role::Reader]));
    let admitted =
        |network: &Network| [1, OWNER, OTHER, NEW, 60, 61].map(|seed| network.ledger.admits(&public(seed)));
    assert_eq!(admitted(&network), [true; 6], "it is open to everybody");
    let params = Params { members_only: Some(true), ..network.ledger.params().clone() };
    network.say(1, EntryBody::Params(params));
    assert_eq!(admitted(&network), [true, true, true, false, false, false]);
    network.say(1, role(60, &[Role::Reader]));
    network.say(1, EntryBody::Stake(Stake { holder: public(61), amount: 5 }));
    assert_eq!(admitted(&network), [true, true, true, false, true, true]);
    // A node goes by its old key until it is restarted; who lost its part has none.
    let rotation = rotate(&network, OTHER, NEW);
    network.say(OTHER, rotation);
    assert_eq!(admitted(&network), [true; 6]);
    network.say(OWNER, grant(NEW, &[]));
    network.say(1, role(60, &[]));
    assert_eq!(admitted(&network), [true, true, false, false, false, true]);
}
