//! Objects of encrypted datasets: compressed, then sealed.
//!
//! Owns: what stands in the message that is sealed. Must not know: what an object means, or whose key it is.
//! Invariant: what is opened is what was sealed, an object of that kind; and what is sealed is compressed already, so that
//! stores and peers need not try.
//! Trust: sealed bytes come from anyone; a declared length bounds the decompression, as everywhere. Threads: pure functions;
//! both are for a worker thread.
//!
//! Whoever has no key sees chunks and nothing else: a sealed tree node is stored as a chunk, as is a piece of a file. The kind is
//! part of what is authenticated, so that no object passes for one of another kind.

use bytes::Bytes;

use super::{Compression, MAX_OBJECT_LEN, PackError, Packed, compress};
use crate::crypto::dataset::{Keyring, SEAL_LEN, What};
use crate::id::{Kind, ObjectId, TreeId};

/// A codec and the plain length, which precede the compressed bytes.
const HEADER_LEN: usize = 5;
/// The most plain bytes that an object may have in order to be sealed.
pub const MAX_PLAIN_LEN: usize = MAX_OBJECT_LEN - HEADER_LEN - SEAL_LEN;

/// An object that is compressed and may be sealed with several generations of a key.
pub struct Plain {
    kind: Kind,
    packed: Packed,
}

impl Plain {
    /// Compresses; nothing for what is longer than [`MAX_PLAIN_LEN`].
    pub fn new(kind: Kind, plain: &Bytes, compression: Compression) -> Option<Self> {
        (plain.len() <= MAX_PLAIN_LEN).then(|| Self { kind, packed: compress(plain, compression) })
    }

    /// The sealed bytes, which are a chunk to everybody; nothing for a generation that the keys do not have.
    pub fn seal(&self, keys: &Keyring, generation: u32) -> Option<Bytes> {
        self.seal_for(keys, generation, &[])
    }

    /// The same of a snapshot, which goes with the tree of its inventory and no other.
    pub fn seal_with(&self, keys: &Keyring, generation: u32, inventory: &TreeId) -> Option<Bytes> {
        self.seal_for(keys, generation, inventory.as_bytes())
    }

    fn seal_for(&self, keys: &Keyring, generation: u32, bound_to: &[u8]) -> Option<Bytes> {
        let len = self.packed.plain_len.to_le_bytes();
        let parts: [&[u8]; 3] = [&[self.packed.codec as u8], &len, &self.packed.stored];
        keys.seal(generation, What { kind: self.kind as u8, bound_to }, &parts).map(Bytes::from)
    }
}

/// The object of this kind whose sealed bytes these are. `id` names it in errors.
pub fn open(keys: &Keyring, kind: Kind, id: &ObjectId, sealed: &[u8]) -> Result<Bytes, PackError> {
    open_as(keys, What { kind: kind as u8, bound_to: &[] }, id, sealed)
}

/// The snapshot that goes with the tree of this inventory.
pub fn open_snapshot(
    keys: &Keyring,
    inventory: &TreeId,
    id: &ObjectId,
    sealed: &[u8],
) -> Result<Bytes, PackError> {
    open_as(keys, What { kind: Kind::Snapshot as u8, bound_to: inventory.as_bytes() }, id, sealed)
}

fn open_as(keys: &Keyring, what: What<'_>, id: &ObjectId, sealed: &[u8]) -> Result<Bytes, PackError> {
    let message = keys.open(what, sealed).map_err(|cause| PackError::Sealed { id: *id, cause })?;
    let message = Bytes::from(message);
    let Some((&[codec, a, b, c, d], _)) = message.split_first_chunk::<HEADER_LEN>() else {
        return Err(PackError::TooShort { id: *id });
    };
    let stored = message.slice(HEADER_LEN..);
    Packed::from_parts(codec, u32::from_le_bytes([a, b, c, d]), stored)?.decompress(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::dataset::DatasetKey;
    use proptest::prelude::*;

    const KINDS: [Kind; 4] = [Kind::Chunk, Kind::Blob, Kind::Tree, Kind::Snapshot];

    fn keys() -> Keyring {
        Keyring::new(DatasetKey::root([5; 32]).at(1).unwrap())
    }

    fn id(sealed: &[u8]) -> ObjectId {
        ObjectId::of(Kind::Chunk, sealed)
    }

    #[test]
    fn the_longest_object_is_still_an_object_when_it_is_sealed() {
        let noise: Vec<u8> = (0..MAX_PLAIN_LEN as u32 / 32 + 1)
            .flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes())
            .collect();
        let longest = Bytes::from(noise).slice(..MAX_PLAIN_LEN);
        let sealed = Plain::new(Kind::Chunk, &longest, Compression::Lz4).unwrap().seal(&keys(), 1).unwrap();
        assert_eq!(sealed.len(), MAX_OBJECT_LEN);
        assert_eq!(open(&keys(), Kind::Chunk, &id(&sealed), &sealed).unwrap(), longest);
        let longer = Bytes::from(vec![0; MAX_PLAIN_LEN + 1]);
        assert!(Plain::new(Kind::Chunk, &longer, Compression::Lz4).is_none());
    }

    #[test]
    fn the_key_of_the_cipher_depends_on_the_compressed_bytes() {
        let text: Bytes = b"All work and no play. ".repeat(100).into();
        let [lz4, zstd] = [Compression::Lz4, Compression::Zstd(3)].map(|compression| {
            Plain::new(Kind::Chunk, &text, compression).unwrap().seal(&keys(), 1).unwrap()
        });
        // Other bytes, hence another hash, which is the cipher's key.
        assert_ne!(lz4[4..36], zstd[4..36]);
        for sealed in [lz4, zstd] {
            assert!(sealed.len() < text.len() / 2);
            assert_eq!(open(&keys(), Kind::Chunk, &id(&sealed), &sealed).unwrap(), text);
        }
    }

    proptest! {
        #[test]
        fn every_object_opens_as_itself_and_as_nothing_else(
            plain in proptest::collection::vec(0u8..4, 0..3000), kind in 0usize..4, generation in 0u32..2,
        ) {
            let plain = Bytes::from(plain);
            let sealed = Plain::new(KINDS[kind], &plain, Compression::Lz4).unwrap();
            let sealed = sealed.seal(&keys(), generation).unwrap();
            prop_assert_eq!(open(&keys(), KINDS[kind], &id(&sealed), &sealed).unwrap(), plain);
            let other = KINDS[(kind + 1) % 4];
            let refused = open(&keys(), other, &id(&sealed), &sealed);
            let is_refused = matches!(refused, Err(PackError::Sealed { .. }));
            prop_assert!(is_refused);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(open(&keys(), Kind::Chunk, &id(&bytes), &bytes).is_err());
            // Nor do they if whoever has the key has sealed them.
            if let Some(sealed) = keys().seal(0, What { kind: 0, bound_to: &[] }, &[&bytes]) {
                let _ = open(&keys(), Kind::Chunk, &id(&sealed), &sealed);
            }
        }
    }
}
