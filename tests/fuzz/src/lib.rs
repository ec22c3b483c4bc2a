//! The pure layers of the program, as they are, for the fuzz targets; and what the targets share.

#![allow(dead_code, reason = "what the rest of the program uses is not here")]

#[path = "../../../src/chunking/mod.rs"]
pub mod chunking;
#[path = "../../../src/codec.rs"]
pub mod codec;
#[path = "../../../src/crypto/mod.rs"]
pub mod crypto;
#[path = "../../../src/id.rs"]
pub mod id;
#[path = "../../../src/log/mod.rs"]
pub mod log;
#[path = "../../../src/manifest/mod.rs"]
pub mod manifest;
#[path = "../../../src/pack/mod.rs"]
pub mod pack;
#[path = "../../../src/replicate.rs"]
pub mod replicate;
#[path = "../../../src/swarm/mod.rs"]
pub mod swarm;

/// Splits off the byte that says which decoder is meant.
pub fn choose(bytes: &[u8]) -> Option<(u8, &[u8])> {
    bytes.split_first().map(|(which, rest)| (*which, rest))
}

/// What was decoded must have been the one spelling of its value.
pub fn one_spelling(bytes: &[u8], encoded: Option<Vec<u8>>) {
    if let Some(encoded) = encoded {
        assert_eq!(encoded, bytes, "another spelling was accepted");
    }
}
