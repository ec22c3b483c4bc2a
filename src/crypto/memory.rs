//! Remembers, for a simulation of many machines on one thread, which keys and signatures are good: each would check them
//! again, and nine tenths of a simulation would be arithmetic whose result is known.
//!
//! Owns: a table for each thread that has asked for one. Must not know: what is signed.
//! Invariant: what is in the table has been checked in full once. What is not good is never in it.
//! Trust: tests only. Threads: each has its own table, or none.

use std::cell::RefCell;
use std::collections::HashSet;

use super::{KEY_LEN, PublicKey, Signature};

#[derive(Default)]
struct Known {
    keys: HashSet<[u8; KEY_LEN]>,
    signatures: HashSet<[u8; 32]>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// Begins an empty table on this thread, which the returned value ends.
pub fn begin() -> Memory {
    KNOWN.set(Some(Known::default()));
    Memory(())
}

/// Ends the table when it is dropped.
pub struct Memory(());

impl Drop for Memory {
    fn drop(&mut self) {
        KNOWN.set(None);
    }
}

fn digest(key: &PublicKey, message: &[u8], signature: &Signature) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes()).update(signature.as_bytes()).update(message);
    *hasher.finalize().as_bytes()
}

pub(super) fn knows_key(bytes: &[u8; KEY_LEN]) -> bool {
    KNOWN.with_borrow(|known| known.as_ref().is_some_and(|known| known.keys.contains(bytes)))
}

pub(super) fn learn_key(bytes: &[u8; KEY_LEN]) {
    KNOWN.with_borrow_mut(|known| known.as_mut().map(|known| known.keys.insert(*bytes)));
}

pub(super) fn knows(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    KNOWN.with_borrow(|known| {
        known.as_ref().is_some_and(|known| known.signatures.contains(&digest(key, message, signature)))
    })
}

pub(super) fn learn(key: &PublicKey, message: &[u8], signature: &Signature) {
    KNOWN.with_borrow_mut(|known| {
        known.as_mut().map(|known| known.signatures.insert(digest(key, message, signature)))
    });
}
