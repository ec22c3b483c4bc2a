//! The Merkle tree over all entries of the log, as RFC 6962 (section 2.1) and C2SP `tlog-tiles` have it.
//!
//! Owns: leaf and node hashes (SHA-256), the growing root, inclusion and consistency proofs.
//! Must not know: what an entry is. Invariant: every hash here is the root over a run of leaves, hence one type.
//! Trust: a proof is foreign until verified against a root that a certificate covers. Threads: pure values.

use sha2::{Digest as _, Sha256};

use crate::id::LogRoot;

/// A proof that proves nothing: junk, a lie, or of another tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeProofError {
    #[error("no proof leads from {from} to {to} entries")]
    Range { from: u64, to: u64 },
    #[error("the proof has {0} hashes, which is not the number it needs")]
    Length(usize),
    #[error("the proof leads to root {found}, not to {expected}")]
    Root { expected: LogRoot, found: LogRoot },
}

fn sha256(prefix: u8, parts: [&[u8]; 2]) -> LogRoot {
    let hasher = Sha256::new_with_prefix([prefix]).chain_update(parts[0]).chain_update(parts[1]);
    LogRoot::from_bytes(hasher.finalize().into())
}

/// Hash of one encoded entry: `SHA-256(0x00 ‖ entry)`.
pub fn leaf(entry: &[u8]) -> LogRoot {
    sha256(0, [entry, &[]])
}

/// `SHA-256(0x01 ‖ left ‖ right)`.
fn node(left: &LogRoot, right: &LogRoot) -> LogRoot {
    sha256(1, [left.as_bytes(), right.as_bytes()])
}

/// The root of a growing tree: at most 64 hashes, whatever its size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of the perfect subtrees that the tree is made of, the largest first: one for each bit set in `size`.
    peaks: Vec<LogRoot>,
}

impl Frontier {
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf at the end.
    pub fn append(&mut self, leaf: LogRoot) {
        let mut hash = leaf;
        // As when 1 is added to a binary number: every trailing one carries.
        for _ in 0..self.size.trailing_ones() {
            match self.peaks.pop() {
                Some(left) => hash = node(&left, &hash),
                None => break,
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves; over none, the hash of nothing.
    pub fn root(&self) -> LogRoot {
        let folded = self.peaks.iter().rev().copied().reduce(|right, left| node(&left, &right));
        folded.unwrap_or_else(|| LogRoot::from_bytes(Sha256::digest([]).into()))
    }
}

/// Where RFC 6962 parts a tree of `size` ≥ 2 leaves: the largest power of two below `size`.
fn split(size: usize) -> usize {
    1 << (size - 1).ilog2()
}

fn root_over(leaves: &[LogRoot]) -> LogRoot {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    frontier.root()
}

/// Proves that leaf `index` is in the tree over `leaves`; nothing if there is no such leaf. Costs a hash for each leaf.
pub fn prove_inclusion(leaves: &[LogRoot], index: usize) -> Option<Vec<LogRoot>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut run, mut index, mut proof) = (leaves, index, Vec::new());
    while run.len() > 1 {
        let (left, right) = run.split_at(split(run.len()));
        let other = if index < left.len() {
            run = left;
            right
        } else {
            index -= left.len();
            run = right;
            left
        };
        proof.push(root_over(other));
    }
    proof.reverse();
    Some(proof)
}

/// Proves that the tree over the first `old` of `leaves` is a prefix of the tree over all; nothing unless
/// 0 < `old` ≤ their number. Costs a hash for each leaf.
pub fn prove_consistency(leaves: &[LogRoot], old: usize) -> Option<Vec<LogRoot>> {
    if old == 0 || old > leaves.len() {
        return None;
    }
    let (mut run, mut old, mut proof, mut whole) = (leaves, old, Vec::new(), true);
    while old < run.len() {
        let (left, right) = run.split_at(split(run.len()));
        if old <= left.len() {
            proof.push(root_over(right));
            run = left;
        } else {
            proof.push(root_over(left));
            old -= left.len();
            run = right;
            whole = false;
        }
    }
    // The verifier knows the old root and needs its last subtree only where that is not all of it.
    if !whole {
        proof.push(root_over(run));
    }
    proof.reverse();
    Some(proof)
}

/// Checks that `leaf` is number `index` of the `size` leaves under `root` (RFC 9162, section 2.1.3.2).
pub fn verify_inclusion(
    root: LogRoot,
    size: u64,
    index: u64,
    leaf: LogRoot,
    proof: &[LogRoot],
) -> Result<(), TreeProofError> {
    if index >= size {
        return Err(TreeProofError::Range { from: index, to: size });
    }
    let (mut at, mut last, mut found) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(TreeProofError::Length(proof.len()));
        }
        if at & 1 == 1 || at == last {
            found = node(sibling, &found);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            found = node(&found, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    expect_end(last, proof, root, found)
}

/// Checks that the tree of `old_size` leaves under `old_root` is a prefix of the one of `size` leaves under `root`
/// (RFC 9162, section 2.1.4.2).
pub fn verify_consistency(
    old_root: LogRoot,
    old_size: u64,
    root: LogRoot,
    size: u64,
    proof: &[LogRoot],
) -> Result<(), TreeProofError> {
    if old_size == 0 || old_size > size {
        return Err(TreeProofError::Range { from: old_size, to: size });
    }
    if old_size == size {
        return expect_end(proof.len() as u64, proof, root, old_root);
    }
    let (mut at, mut last) = (old_size - 1, size - 1);
    let shift = at.trailing_ones();
    (at, last) = (at >> shift, last >> shift);
    // A perfect old tree is itself the first subtree and is left out of the proof.
    let (first, rest) = match proof.split_first() {
        _ if old_size.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (*first, rest),
        None => return Err(TreeProofError::Length(0)),
    };
    let (mut found_old, mut found) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(TreeProofError::Length(proof.len()));
        }
        if at & 1 == 1 || at == last {
            (found_old, found) = (node(sibling, &found_old), node(sibling, &found));
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            found = node(&found, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    expect_end(0, proof, old_root, found_old)?;
    expect_end(last, proof, root, found)
}

fn expect_end(left: u64, proof: &[LogRoot], expected: LogRoot, found: LogRoot) -> Result<(), TreeProofError> {
    match (left, found == expected) {
        (0, true) => Ok(()),
        (0, false) => Err(TreeProofError::Root { expected, found }),
        _ => Err(TreeProofError::Length(proof.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaves(count: usize) -> Vec<LogRoot> {
        (0..count).map(|i| leaf(&i.to_be_bytes())).collect()
    }

    /// The definition in RFC 6962, section 2.1, word for word.
    fn naive(leaves: &[LogRoot]) -> LogRoot {
        match leaves {
            [] => LogRoot::from_bytes(Sha256::digest([]).into()),
            [one] => *one,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node(&naive(left), &naive(right))
            }
        }
    }

    #[test]
    fn agrees_with_the_vectors_of_certificate_transparency() {
        // From the reference implementation's merkletree tests (google/certificate-transparency).
        let inputs = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(
            frontier.root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (input, root) in inputs.iter().zip(roots) {
            frontier.append(leaf(&data_encoding::HEXLOWER.decode(input.as_bytes()).unwrap()));
            assert_eq!(frontier.root().to_string(), root);
        }
    }

    #[test]
    fn every_small_proof_verifies_and_no_other_does() {
        for size in 1..40usize {
            let all = leaves(size);
            let root = naive(&all);
            assert_eq!(root_over(&all), root);
            for index in 0..size {
                let proof = prove_inclusion(&all, index).unwrap();
                assert_eq!(verify_inclusion(root, size as u64, index as u64, all[index], &proof), Ok(()));
                let other = (index + 1) % size;
                if other != index {
                    assert!(verify_inclusion(root, size as u64, other as u64, all[index], &proof).is_err());
                }
            }
            for old in 1..=size {
                let proof = prove_consistency(&all, old).unwrap();
                let old_root = naive(&all[..old]);
                assert_eq!(verify_consistency(old_root, old as u64, root, size as u64, &proof), Ok(()));
                let forked = naive(&[&all[1..old], &all[..1]].concat());
                if old > 1 {
                    assert!(verify_consistency(forked, old as u64, root, size as u64, &proof).is_err());
                }
            }
        }
    }

    #[test]
    fn proofs_of_nothing_are_refused() {
        let all = leaves(5);
        let root = naive(&all);
        assert_eq!(prove_inclusion(&all, 5), None);
        assert_eq!(prove_consistency(&all, 0), None);
        assert_eq!(prove_consistency(&all, 6), None);
        assert!(matches!(verify_inclusion(root, 5, 5, all[0], &[]), Err(TreeProofError::Range { .. })));
        assert!(matches!(verify_consistency(root, 6, root, 5, &[]), Err(TreeProofError::Range { .. })));
        assert_eq!(verify_consistency(root, 5, root, 5, &[root]), Err(TreeProofError::Length(1)));
        assert_eq!(verify_inclusion(root, 5, 0, all[0], &[]), Err(TreeProofError::Length(0)));
        assert_eq!(verify_consistency(root, 3, root, 5, &[]), Err(TreeProofError::Length(0)));
    }

    proptest! {
        #[test]
        fn junk_is_never_a_proof(
            size in 1u64..u64::MAX, index: u64, old: u64,
            hashes in proptest::collection::vec(any::<[u8; 32]>(), 0..70),
        ) {
            let hashes: Vec<LogRoot> = hashes.into_iter().map(LogRoot::from_bytes).collect();
            let root = leaf(b"root");
            prop_assert!(verify_inclusion(root, size, index, leaf(b"leaf"), &hashes).is_err());
            prop_assert!(verify_consistency(leaf(b"old"), old, root, size, &hashes).is_err());
        }
    }
}
