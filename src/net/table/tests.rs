//! Who is known, who is forgotten, who is refused.

use super::*;

#[test]
fn who_is_allowed_again_is_neither_banned_nor_blocked() {
    let table = Table::new(Instant::now());
    let [liar, unmet] = [(); 2].map(|()| PeerId::random());
    table.connected(liar, None, None, true);
    table.ban(liar);
    table.block(liar);
    table.block(unmet);
    let states: Vec<_> = table.list().iter().map(|peer| peer.state).collect();
    assert_eq!(states, [PeerState::Blocked; 2], "also who was never met");
    assert!(table.refusal(&liar).is_some_and(|cause| cause.contains("blocked")));
    table.allow(&liar);
    assert!(table.refusal(&liar).is_none());
    assert_eq!(table.list().iter().filter(|peer| peer.state == PeerState::Connected).count(), 1);
}

/// When too many are known, of those that are away the one with the least to be said for it goes.
#[test]
fn the_worst_of_those_who_are_away_is_forgotten() {
    let table = Table::new(Instant::now());
    let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    let peers: Vec<PeerId> = (0..MAX_KNOWN).map(|_| PeerId::random()).collect();
    for peer in &peers {
        table.connected(*peer, Some(address.clone()), None, true);
        table.closed(*peer, 0);
    }
    let worst = peers[MAX_KNOWN / 3];
    table.link(&worst).unwrap().health(|health, _| (0..9).for_each(|_| health.on_outcome(false)));
    table.connected(PeerId::random(), None, None, true);
    assert_eq!(table.list().len(), MAX_KNOWN);
    assert!(table.link(&worst).is_none());
}

/// mDNS connected every node of any program that uses libp2p. Nothing could be asked of them, yet each counted as a
/// peer that may have what is wanted when it was away.
#[test]
fn who_was_only_discovered_and_is_no_node_of_ours_is_forgotten() {
    let table = Table::new(Instant::now());
    let address: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
    let [discovered, named, came] = [(); 3].map(|()| PeerId::random());
    table.connected(discovered, Some(address.clone()), None, false);
    table.connected(named, Some(address.clone()), None, true);
    table.connected(came, None, Some(address.clone()), false);
    for peer in [discovered, named, came] {
        assert_eq!(table.speaks(&peer, false), peer == discovered);
    }
    assert!(table.closed(discovered, 0).is_empty(), "it is not dialled again");
    assert_eq!(table.closed(named, 0), std::slice::from_ref(&address));
    assert_eq!((table.list().len(), table.absent(|_| false)), (2, 0));
    // When it comes back it may be another program.
    table.connected(named, Some(address), None, false);
    assert!(!table.speaks(&named, true));
    table.closed(named, 0);
    assert_eq!(table.absent(|_| false), 1);
}
