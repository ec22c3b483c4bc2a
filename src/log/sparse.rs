//! A sparse Merkle map: a set of keyed values whose root proves both what is in it and what is not.
//!
//! Owns: the shape of the tree, its hashes, and proofs. Must not know: what keys and values mean.
//! Invariant: the root depends on the keys and values alone, never on the order in which they came.
//! Trust: keys are hashes, so nobody can make the tree deep; a proof is foreign until verified against a root.
//! Threads: pure values; clones and old versions share all nodes that did not change.
//!
//! A key is 256 bits, the first being the highest bit of its first byte; 0 goes left. A subtree without
//! values hashes to zeros, one with a single value is a leaf wherever it stands, any other is a branch:
//!
//! ```text
//! leaf   = derive_key("bcai 2026 state leaf v1", key ‖ value)
//! branch = derive_key("bcai 2026 state node v1", left ‖ right)
//! ```

use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::digest::{Digest, Of};
use crate::id::{ID_LEN, StateRoot};

/// Longest path: one branch for every bit of a key.
const MAX_DEPTH: usize = ID_LEN * 8;

/// A proof that proves nothing: junk or a lie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the proof is {0} steps long, which no tree is deep enough for")]
    TooLong(usize),
    #[error("the proof ends at another key that is not in the way of the one asked for")]
    Elsewhere,
    #[error("the proof leads to root {found}, not to {expected}")]
    Root { expected: String, found: String },
}

fn pair(what: Of, left: &Digest, right: &Digest) -> Digest {
    Digest::of(what, &[*left.as_bytes(), *right.as_bytes()].concat())
}

fn bit(key: &Digest, depth: usize) -> bool {
    key.as_bytes()[depth / 8] & (0x80 >> (depth % 8)) != 0
}

#[derive(Debug)]
enum Node<V> {
    Leaf { key: Digest, value: Digest, item: V },
    Branch { left: Link<V>, right: Link<V> },
}

/// A subtree and its hash; `None` hashes to `Digest::NONE`.
#[derive(Debug)]
struct Link<V>(Option<Arc<(Digest, Node<V>)>>);

impl<V> Clone for Link<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Link<V> {
    const EMPTY: Self = Self(None);

    fn leaf(key: Digest, value: Digest, item: V) -> Self {
        Self(Some(Arc::new((pair(Of::StateLeaf, &key, &value), Node::Leaf { key, value, item }))))
    }

    fn branch(left: Self, right: Self) -> Self {
        let hash = pair(Of::StateNode, &left.hash(), &right.hash());
        Self(Some(Arc::new((hash, Node::Branch { left, right }))))
    }

    fn hash(&self) -> Digest {
        self.0.as_ref().map_or(Digest::NONE, |node| node.0)
    }

    fn node(&self) -> Option<&Node<V>> {
        self.0.as_ref().map(|node| &node.1)
    }

    /// This subtree, at `depth`, with `leaf` of key `key` put in.
    fn with(&self, depth: usize, key: &Digest, leaf: Self) -> Self {
        match self.node() {
            None => leaf,
            Some(Node::Leaf { key: held, .. }) if held == key => leaf,
            Some(Node::Leaf { key: held, .. }) => {
                // Push the leaf that is here one down; the new one follows until their paths part.
                let below =
                    if bit(held, depth) { (Self::EMPTY, self.clone()) } else { (self.clone(), Self::EMPTY) };
                Self::into_side(below, depth, key, leaf)
            }
            Some(Node::Branch { left, right }) => {
                Self::into_side((left.clone(), right.clone()), depth, key, leaf)
            }
        }
    }

    fn into_side((left, right): (Self, Self), depth: usize, key: &Digest, leaf: Self) -> Self {
        if bit(key, depth) {
            Self::branch(left, right.with(depth + 1, key, leaf))
        } else {
            Self::branch(left.with(depth + 1, key, leaf), right)
        }
    }
}

/// A persistent map from digests to values. Cloning it is one reference count.
#[derive(Debug)]
pub struct SparseMap<V> {
    root: Link<V>,
}

impl<V> Clone for SparseMap<V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone() }
    }
}

impl<V> Default for SparseMap<V> {
    fn default() -> Self {
        Self { root: Link::EMPTY }
    }
}

impl<V> SparseMap<V> {
    /// What a header says of this map.
    pub fn root(&self) -> StateRoot {
        StateRoot::from_bytes(*self.root.hash().as_bytes())
    }

    /// Sets `key` to `item`, whose digest is `value`.
    pub fn insert(&mut self, key: Digest, value: Digest, item: V) {
        self.root = self.root.with(0, &key, Link::leaf(key, value, item));
    }

    /// The value at `key`.
    pub fn get(&self, key: &Digest) -> Option<&V> {
        let mut link = &self.root;
        for depth in 0.. {
            match link.node()? {
                Node::Leaf { key: held, item, .. } => return (held == key).then_some(item),
                Node::Branch { left, right } => link = if bit(key, depth) { right } else { left },
            }
        }
        None
    }

    /// Every value, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = &V> {
        let mut pending = vec![&self.root];
        std::iter::from_fn(move || {
            while let Some(link) = pending.pop() {
                match link.node() {
                    None => {}
                    Some(Node::Leaf { item, .. }) => return Some(item),
                    Some(Node::Branch { left, right }) => pending.extend([right, left]),
                }
            }
            None
        })
    }

    /// Proves what is, or that nothing is, at `key`.
    pub fn prove(&self, key: &Digest) -> StateProof {
        let mut siblings = Vec::new();
        let mut link = &self.root;
        let leaf = loop {
            match link.node() {
                None => break None,
                Some(Node::Leaf { key, value, .. }) => break Some((*key, *value)),
                Some(Node::Branch { left, right }) => {
                    let (on, off) = if bit(key, siblings.len()) { (right, left) } else { (left, right) };
                    siblings.push(off.hash());
                    link = on;
                }
            }
        };
        StateProof { siblings, leaf }
    }
}

/// The path from the root towards a key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StateProof {
    /// The hashes beside the path, from the root down.
    #[n(0)]
    pub siblings: Vec<Digest>,
    /// The key and value at the end of the path; none where nothing is.
    #[n(1)]
    pub leaf: Option<(Digest, Digest)>,
}

impl StateProof {
    /// The digest of the value at `key` under `root`, or `None` when it is proven that there is none.
    pub fn verify(&self, root: StateRoot, key: &Digest) -> Result<Option<Digest>, ProofError> {
        let depth = self.siblings.len();
        if depth > MAX_DEPTH {
            return Err(ProofError::TooLong(depth));
        }
        if self.leaf.is_some_and(|(held, _)| (0..depth).any(|d| bit(&held, d) != bit(key, d))) {
            return Err(ProofError::Elsewhere);
        }
        let mut hash = self.leaf.map_or(Digest::NONE, |(held, value)| pair(Of::StateLeaf, &held, &value));
        for (depth, sibling) in self.siblings.iter().enumerate().rev() {
            hash = if bit(key, depth) {
                pair(Of::StateNode, sibling, &hash)
            } else {
                pair(Of::StateNode, &hash, sibling)
            };
        }
        if hash.as_bytes() != root.as_bytes() {
            return Err(ProofError::Root { expected: root.to_string(), found: hash.to_string() });
        }
        Ok(self.leaf.filter(|(held, _)| held == key).map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn digest(bytes: &[u8]) -> Digest {
        Digest::of(Of::StateKey, bytes)
    }

    fn map_of(pairs: &[(Digest, u32)]) -> SparseMap<u32> {
        let mut map = SparseMap::default();
        for &(key, item) in pairs {
            map.insert(key, digest(&item.to_be_bytes()), item);
        }
        map
    }

    /// Keys that share long prefixes, as hashes never do, so that deep paths are walked too.
    fn keys() -> impl Strategy<Value = Digest> {
        (0u8..4, 0u8..4, 0u8..=255).prop_map(|(first, middle, last)| {
            let mut bytes = [0; ID_LEN];
            (bytes[0], bytes[15], bytes[31]) = (first, middle, last);
            Digest::from_bytes(bytes)
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_map_and_proves_it(
            pairs in proptest::collection::vec((keys(), 0u32..9), 0..40),
            asked in proptest::collection::vec(keys(), 1..20),
        ) {
            let map = map_of(&pairs);
            let plain: BTreeMap<Digest, u32> = pairs.iter().copied().collect();
            // Last writer wins and order is forgotten: a map built from the plain one has the same root.
            let rebuilt = map_of(&plain.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>());
            prop_assert_eq!(map.root(), rebuilt.root());
            prop_assert_eq!(map.iter().copied().collect::<Vec<_>>(), plain.values().copied().collect::<Vec<_>>());
            for key in asked.iter().chain(plain.keys()) {
                prop_assert_eq!(map.get(key), plain.get(key));
                let proof = map.prove(key);
                let expected = plain.get(key).map(|item| digest(&item.to_be_bytes()));
                prop_assert_eq!(proof.verify(map.root(), key), Ok(expected));
            }
        }

        #[test]
        fn a_changed_proof_proves_nothing(
            pairs in proptest::collection::vec((keys(), 0u32..9), 2..30),
            asked in keys(),
            flip in 0usize..10_000,
        ) {
            let map = map_of(&pairs);
            let proof = map.prove(&asked);
            let honest = proof.verify(map.root(), &asked);
            let mut bytes = crate::codec::encode(&proof);
            let at = flip % (bytes.len() * 8);
            bytes[at / 8] ^= 1 << (at % 8);
            if let Ok(bent) = crate::codec::decode::<StateProof>("a proof", &bytes, 1 << 16) {
                let verdict = bent.verify(map.root(), &asked);
                prop_assert!(verdict.is_err() || verdict == honest);
            }
        }
    }

    #[test]
    fn absence_cannot_be_claimed_by_pointing_elsewhere() {
        let (a, b) = (digest(b"a"), digest(b"b"));
        let map = map_of(&[(a, 1), (b, 2)]);
        assert_eq!(map.prove(&b).verify(map.root(), &a), Err(ProofError::Elsewhere));
        let endless = StateProof { siblings: vec![Digest::NONE; MAX_DEPTH + 1], leaf: None };
        assert_eq!(endless.verify(map.root(), &a), Err(ProofError::TooLong(MAX_DEPTH + 1)));
        let nothing = StateProof { siblings: vec![], leaf: None };
        assert!(matches!(nothing.verify(map.root(), &a), Err(ProofError::Root { .. })));
        assert_eq!(nothing.verify(SparseMap::<()>::default().root(), &a), Ok(None));
    }

    #[test]
    fn old_versions_stay_as_they_were() {
        let before = map_of(&[(digest(b"a"), 1)]);
        let mut after = before.clone();
        after.insert(digest(b"a"), digest(b"2"), 2);
        assert_eq!((before.get(&digest(b"a")), after.get(&digest(b"a"))), (Some(&1), Some(&2)));
        assert_ne!(before.root(), after.root());
    }
}
