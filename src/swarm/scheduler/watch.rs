//! Who has what: asking peers, and what follows from what they say.
//!
//! Owns: when peers are asked whether they have objects, and which peers.
//! Must not know: how they are asked.
//! Invariant: a peer is asked once about an object that is wanted.
//! Trust: that of [`super`].
//! Threads: a pure part of the scheduler.

use std::hash::Hash;
use std::time::Duration;

use super::want::Told;
use super::{Action, Scheduler};
use crate::id::ObjectId;
use crate::swarm::Class;
use crate::swarm::wire::MAX_NAMED;

/// Peers of whom is asked whether they have an object.
const WATCHED: usize = 32;
/// How long objects are collected before peers are asked whether they have them.
const COLLECT: Duration = Duration::from_millis(5);

impl<P: Copy + Ord + Hash> Scheduler<P> {
    /// `peer` says how things stand with an object.
    pub fn told(&mut self, now: Duration, peer: P, object: ObjectId, told: Told) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let Some(want) = self.wants.get_mut(&object) else { return };
        known.on_answered();
        if matches!(want.told(peer), Some(Told::Coming(_))) && matches!(told, Told::Here { .. }) {
            known.has_gained(now);
        }
        if let Some(Told::Nothing(at)) = want.told(peer) {
            known.window.on_rtt(now, now.saturating_sub(at));
            if !matches!(told, Told::Coming(_)) {
                known.has_it(matches!(told, Told::Here { .. }));
            }
        }
        want.on_told(peer, told);
        if want.class != Class::Fault && want.asked.is_empty() {
            self.offer(now, object);
            self.give_up_if_in_vain(now, object);
        }
    }

    /// Asks peers, those expected first before others, which of the new objects they have.
    pub(super) fn watch(&mut self, now: Duration) {
        self.watch_at = None;
        let mut objects = std::mem::take(&mut self.unwatched);
        objects.retain(|object| self.wants.get(object).is_some_and(|want| want.class != Class::Fault));
        let mut peers: Vec<_> = self.peers.iter().filter(|(_, peer)| peer.watches()).collect();
        peers.sort_by_key(|(id, peer)| (peer.speed.expected(now), **id));
        let peers: Vec<P> = peers.into_iter().take(WATCHED).map(|(id, _)| *id).collect();
        for peer in peers {
            let unknown = |object: &&ObjectId| self.wants[object].told(peer).is_none();
            let named: Vec<ObjectId> = objects.iter().filter(unknown).copied().collect();
            for object in &named {
                if let Some(want) = self.wants.get_mut(object) {
                    want.on_watched(now, peer);
                }
            }
            let batches = named.chunks(MAX_NAMED);
            self.actions.extend(batches.map(|batch| Action::Watch { peer, objects: batch.to_vec() }));
        }
    }

    pub(super) fn watch_soon(&mut self, now: Duration) {
        if !self.unwatched.is_empty() && self.watch_at.is_none() {
            self.watch_at = Some(now + COLLECT);
        }
    }
}
