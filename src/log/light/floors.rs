//! Floors: what this machine was once shown about a name, below which nothing is accepted any more.
//!
//! Owns: what counts as backwards for each kind of item. Must not know: how items are proven.
//! Invariant: a floor never falls; of more than `MAX_FLOORS` the ones that were not confirmed for longest are forgotten.
//! Trust: items have been proven against a head that is trusted; a floor is what remains if its signers lie.
//! Threads: pure values.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::LightError;
use crate::codec;
use crate::log::digest::{Digest, Of};
use crate::log::state::{Item, StateKey};

/// Most floors that are kept.
pub const MAX_FLOORS: usize = 4096;
/// Longest encoding of all floors, in bytes.
pub(super) const MAX_FLOORS_LEN: usize = MAX_FLOORS * 96 + 16;

/// What was seen of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
struct Floor {
    /// What only grows: the number of a name's versions; the heights of a tag's last move and of a version's withdrawal.
    #[n(0)]
    least: u64,
    /// What must not change: a name's owner, a version's snapshot and height; a tag's version as long as `least` is the same.
    #[n(1)]
    fixed: Digest,
    /// The height of the head under which it was last confirmed.
    #[n(2)]
    confirmed: u64,
}

/// Floors by the digest of their `StateKey`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Floors(#[n(0)] BTreeMap<Digest, Floor>);

impl Floors {
    /// Raises the floor of `key` to `item`, which is proven to be there under the head of `height`. Items other than names,
    /// versions and tags have none.
    pub(super) fn raise(
        &mut self,
        key: &StateKey,
        item: Option<&Item>,
        height: u64,
    ) -> Result<(), LightError> {
        let (digest, what) = (key.digest(), subject(key));
        let held = self.0.get(&digest);
        let Some((least, fixed, is_tag)) = item.and_then(floor) else {
            return match held {
                Some(held) => Err(LightError::Gone { what, seen: held.confirmed }),
                None => Ok(()),
            };
        };
        if let Some(held) = held {
            let changed = held.fixed != fixed && (!is_tag || held.least == least);
            if least < held.least || changed {
                return Err(LightError::Backwards { what, seen: held.confirmed });
            }
        }
        if held.is_none() && self.0.len() >= MAX_FLOORS {
            let oldest = self.0.iter().min_by_key(|(_, floor)| floor.confirmed).map(|(key, _)| *key);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(digest, Floor { least, fixed, confirmed: height });
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What grows, what is fixed, and whether that is only until the next move.
fn floor(item: &Item) -> Option<(u64, Digest, bool)> {
    let digest = |encoded: Vec<u8>| Digest::of(Of::Floor, &encoded);
    match item {
        Item::Name { owner, versions, .. } => Some((*versions, digest(codec::encode(owner)), false)),
        Item::Version(version) => {
            let withdrawn = version.yanked.as_ref().map_or(0, |yanked| yanked.stamp.height);
            let fixed = codec::encode(&(version.snapshot, version.published.height));
            Some((withdrawn, digest(fixed), false))
        }
        Item::Tag(target) => Some((target.stamp.height, digest(codec::encode(&target.version)), true)),
        _ => None,
    }
}

pub(super) fn subject(key: &StateKey) -> String {
    match key {
        StateKey::Name(name) => name.to_string(),
        StateKey::Version(name, label) | StateKey::Tag(name, label) => format!("{name}@{label}"),
        _ => "an item of the log's state".to_owned(),
    }
}
