//! One object as it is stored and as it is sent: compressed or not, and worth nothing until verified.
//!
//! Owns: the choice of codec, compression and its bounded undoing (`Packed`, `Checked`), the bytes of
//! a pack file (`file`) and of a bundle (`bundle`), and what is compressed within encrypted objects (`sealed`).
//! Must not know: files, the index, peers, or what an object means.
//! Invariant: nobody reads plain bytes out of a `Packed` except through `verify`, and a `Checked` always
//! holds plain bytes that hash to its id, beside a packed form that decompresses to exactly them.
//! Trust: everything given to `Packed::from_parts` and to the decoders of `file` may come from a hostile
//! peer or a failing disk. Lengths are checked before anything is allocated by them.
//! Threads: pure values and functions; compression is for a worker thread, not for an async task.

pub mod bundle;
pub mod file;
pub mod sealed;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::crypto::dataset::SealError;
use crate::id::{Kind, ObjectId};

/// The most plain bytes one object may have: 4 MiB.
pub const MAX_OBJECT_LEN: usize = 4 << 20;

/// Why bytes were refused. All of these are corruption or a lying peer: the same bytes never get better,
/// the object has to come from elsewhere. Only `Version` is the user's: the file needs another bcai.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    #[error("an object is stored with codec {0}, which does not exist")]
    UnknownCodec(u8),
    #[error("an object claims {len} bytes; the limit is {MAX_OBJECT_LEN}")]
    TooLong { len: u64 },
    #[error("an object of {plain_len} bytes cannot be stored as {stored_len} bytes of {codec:?}")]
    BadLength { codec: Codec, plain_len: u32, stored_len: usize },
    #[error("{id} does not decompress: {cause}")]
    Decompress { id: ObjectId, cause: String },
    #[error("the bytes given for {id} are not its own: they are {found}")]
    WrongHash { id: ObjectId, found: ObjectId },
    #[error("{id} cannot be decrypted: {cause}")]
    Sealed { id: ObjectId, cause: SealError },
    #[error("{id} is too short for an encrypted object")]
    TooShort { id: ObjectId },
    #[error("not a pack file: {0}")]
    BadFileHeader(&'static str),
    #[error("pack format {found}; this bcai reads format {}", file::VERSION)]
    Version { found: u32 },
    #[error("not a pack record: {0}")]
    BadRecord(&'static str),
    #[error("not a pack trailer: {0}")]
    BadTrailer(&'static str),
}

/// How new objects are to be compressed. Part of no format: each stored object says how it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    None,
    #[default]
    Lz4,
    /// Zstandard at a level of 1 to 22.
    Zstd(i32),
}

/// The level of a bare `zstd`.
const ZSTD_DEFAULT_LEVEL: i32 = 3;

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// Text that names no compression. The user's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a compression: use none, lz4, zstd, or zstd:LEVEL with a level from 1 to 22")]
pub struct ParseCompressionError(String);

impl FromStr for Compression {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, ParseCompressionError> {
        let level = |digits: &str| digits.parse().ok().filter(|level| (1..=22).contains(level));
        match text.split_once(':') {
            None if text == "none" => Some(Self::None),
            None if text == "lz4" => Some(Self::Lz4),
            None if text == "zstd" => Some(Self::Zstd(ZSTD_DEFAULT_LEVEL)),
            Some(("zstd", digits)) => level(digits).map(Self::Zstd),
            _ => None,
        }
        .ok_or_else(|| ParseCompressionError(text.chars().take(40).collect()))
    }
}

/// How one object is stored. The numbers are part of the pack and wire formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// The plain bytes.
    Raw = 0,
    /// One LZ4 block, without a frame or a length.
    Lz4 = 1,
    /// Zstandard frames.
    Zstd = 2,
}

impl TryFrom<u8> for Codec {
    type Error = PackError;

    fn try_from(byte: u8) -> Result<Self, PackError> {
        match byte {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            other => Err(PackError::UnknownCodec(other)),
        }
    }
}

/// Refuses lengths that no packed object has. A compressed object is shorter than its plain bytes,
/// otherwise it would have been kept raw; so the plain length bounds what may follow it.
fn check_lengths(codec: Codec, plain_len: u32, stored_len: usize) -> Result<(), PackError> {
    if plain_len as usize > MAX_OBJECT_LEN {
        return Err(PackError::TooLong { len: plain_len.into() });
    }
    let possible = match codec {
        Codec::Raw => stored_len == plain_len as usize,
        Codec::Lz4 | Codec::Zstd => stored_len > 0 && stored_len < plain_len as usize,
    };
    if possible { Ok(()) } else { Err(PackError::BadLength { codec, plain_len, stored_len }) }
}

/// An object as stored and as sent. Nobody can read it except through [`Packed::verify`].
#[derive(Clone)]
pub struct Packed {
    codec: Codec,
    plain_len: u32,
    stored: Bytes,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packed({:?}, {} of {} bytes)", self.codec, self.stored.len(), self.plain_len)
    }
}

impl Packed {
    /// Takes bytes from anywhere. Only the codec and the lengths are checked here.
    pub fn from_parts(codec: u8, plain_len: u32, stored: Bytes) -> Result<Self, PackError> {
        let codec = Codec::try_from(codec)?;
        check_lengths(codec, plain_len, stored.len())?;
        Ok(Self { codec, plain_len, stored })
    }

    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Claimed length of the plain bytes; at most [`MAX_OBJECT_LEN`].
    pub fn plain_len(&self) -> u32 {
        self.plain_len
    }

    /// The bytes that are stored and sent, unverified.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// Decompresses, never to more than the claimed length, and checks the hash.
    pub fn verify(self, id: &ObjectId) -> Result<Checked, PackError> {
        let plain = self.decompress(id)?;
        let found = ObjectId::of(id.kind, &plain);
        if found != *id {
            return Err(PackError::WrongHash { id: *id, found });
        }
        Ok(Checked { id: *id, plain, packed: self })
    }

    fn decompress(&self, id: &ObjectId) -> Result<Bytes, PackError> {
        let failed = |cause: String| PackError::Decompress { id: *id, cause };
        let plain_len = self.plain_len as usize;
        let plain = match self.codec {
            Codec::Raw => return Ok(self.stored.clone()),
            Codec::Lz4 => {
                lz4_flex::block::decompress(&self.stored, plain_len).map_err(|e| failed(e.to_string()))?
            }
            Codec::Zstd => {
                zstd::bulk::decompress(&self.stored, plain_len).map_err(|e| failed(e.to_string()))?
            }
        };
        if plain.len() != plain_len {
            return Err(failed(format!("{} bytes came out where {plain_len} were declared", plain.len())));
        }
        Ok(plain.into())
    }
}

/// A packed object proven to be `id`, together with its plain bytes. The only thing the store accepts.
#[derive(Clone)]
pub struct Checked {
    id: ObjectId,
    plain: Bytes,
    packed: Packed,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checked({:?}, {:?})", self.id, self.packed)
    }
}

impl Checked {
    /// Hashes and compresses `plain`, which is at most [`MAX_OBJECT_LEN`] bytes.
    pub fn pack(kind: Kind, plain: Bytes, compression: Compression) -> Self {
        Self::with_id(ObjectId::of(kind, &plain), plain, compression)
    }

    /// Compresses `plain`, which the caller has just hashed to `id`: so that a pipeline can hash first, skip
    /// what is known, and compress only the rest.
    pub fn with_id(id: ObjectId, plain: Bytes, compression: Compression) -> Self {
        assert!(plain.len() <= MAX_OBJECT_LEN, "no object is longer than {MAX_OBJECT_LEN} bytes");
        debug_assert_eq!(ObjectId::of(id.kind, &plain), id);
        let packed = compress(&plain, compression);
        Self { id, plain, packed }
    }

    pub fn id(&self) -> ObjectId {
        self.id
    }

    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    pub fn packed(&self) -> &Packed {
        &self.packed
    }
}

/// Compresses, or keeps the plain bytes where that saves less than a twentieth: such an object costs more
/// in decompression at each read than it saves on disk.
fn compress(plain: &Bytes, compression: Compression) -> Packed {
    let compressed = match compression {
        Compression::None => None,
        Compression::Lz4 => Some((Codec::Lz4, lz4_flex::block::compress(plain))),
        // zstd fails only for want of memory or for a level out of range; raw is right in both cases.
        Compression::Zstd(level) => {
            zstd::bulk::compress(plain, level.clamp(1, 22)).ok().map(|bytes| (Codec::Zstd, bytes))
        }
    };
    // `with_id` has checked the length, so it fits in 32 bits.
    let plain_len = plain.len() as u32;
    match compressed {
        Some((codec, bytes)) if bytes.len() * 20 <= plain.len() * 19 && !plain.is_empty() => {
            Packed { codec, plain_len, stored: bytes.into() }
        }
        _ => Packed { codec: Codec::Raw, plain_len, stored: plain.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [Kind; 4] = [Kind::Chunk, Kind::Blob, Kind::Tree, Kind::Snapshot];

    fn text(len: usize) -> Bytes {
        b"All work and no play makes a dull chunk. ".iter().copied().cycle().take(len).collect()
    }

    #[test]
    fn compression_names_round_trip_and_junk_is_refused() {
        for name in ["none", "lz4", "zstd:1", "zstd:3", "zstd:22"] {
            assert_eq!(name.parse::<Compression>().expect("a known name").to_string(), name);
        }
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(3)));
        for junk in ["", "gzip", "lz4:1", "zstd:", "zstd:0", "zstd:23", "zstd:-1", "none:", "zstd:3:4"] {
            assert!(junk.parse::<Compression>().is_err(), "{junk}");
        }
    }

    #[test]
    fn what_does_not_shrink_is_kept_raw() {
        let noise: Vec<u8> = (0..1000u32).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect();
        for compression in [Compression::Lz4, Compression::Zstd(3)] {
            let packed = Checked::pack(Kind::Chunk, noise.clone().into(), compression);
            assert_eq!(packed.packed().codec(), Codec::Raw);
            assert_ne!(Checked::pack(Kind::Chunk, text(5000), compression).packed().codec(), Codec::Raw);
        }
        assert_eq!(Checked::pack(Kind::Chunk, Bytes::new(), Compression::Lz4).packed().codec(), Codec::Raw);
    }

    #[test]
    fn impossible_lengths_and_codecs_are_refused() {
        let five = Bytes::from_static(b"12345");
        assert_eq!(Packed::from_parts(9, 5, five.clone()).err(), Some(PackError::UnknownCodec(9)));
        for (codec, plain_len) in [(0, 4), (0, 6), (1, 5), (1, 4), (2, 5), (2, 0), (1, 0)] {
            let refused = Packed::from_parts(codec, plain_len, five.clone());
            assert!(matches!(refused, Err(PackError::BadLength { .. })), "{codec} {plain_len}");
        }
        assert!(matches!(Packed::from_parts(1, 4, Bytes::new()), Err(PackError::BadLength { .. })));
        let huge = Packed::from_parts(1, (MAX_OBJECT_LEN + 1) as u32, five);
        assert_eq!(huge.err(), Some(PackError::TooLong { len: MAX_OBJECT_LEN as u64 + 1 }));
    }

    #[test]
    fn a_bomb_never_grows_past_its_declared_length() {
        let bomb = Bytes::from(vec![0u8; MAX_OBJECT_LEN]);
        for (codec, stored) in [
            (1, lz4_flex::block::compress(&bomb)),
            (2, zstd::bulk::compress(&bomb, 1).expect("zeros compress")),
        ] {
            let declared = stored.len() as u32 + 1;
            let packed = Packed::from_parts(codec, declared, stored.into()).expect("lengths are possible");
            let id = ObjectId::of(Kind::Chunk, &bomb);
            assert!(matches!(packed.verify(&id), Err(PackError::Decompress { .. })));
        }
    }

    proptest! {
        #[test]
        fn every_object_verifies_as_itself_and_as_nothing_else(
            plain in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..3000),
                proptest::collection::vec(0u8..4, 0..3000),
            ],
            kind in 0usize..4,
            compression in prop_oneof![
                Just(Compression::None), Just(Compression::Lz4), (1i32..6).prop_map(Compression::Zstd)
            ],
        ) {
            let checked = Checked::pack(KINDS[kind], plain.clone().into(), compression);
            let sent = checked.packed();
            let again = Packed::from_parts(sent.codec() as u8, sent.plain_len(), sent.stored().clone())
                .and_then(|packed| packed.verify(&checked.id()))
                .expect("its own bytes");
            prop_assert_eq!(again.plain(), checked.plain());
            let other = ObjectId { kind: KINDS[(kind + 1) % 4], hash: checked.id().hash };
            prop_assert!(sent.clone().verify(&other).is_err());
        }

        #[test]
        fn damaged_bytes_are_never_accepted(
            at in any::<prop::sample::Index>(), bit in 0u8..8, keep in any::<prop::sample::Index>(),
            zstd in any::<bool>(), cut in any::<bool>(),
        ) {
            let compression = if zstd { Compression::Zstd(3) } else { Compression::Lz4 };
            let checked = Checked::pack(Kind::Chunk, text(4000), compression);
            let mut bytes = checked.packed().stored().to_vec();
            if cut {
                bytes.truncate(keep.index(bytes.len()));
            } else {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            // A flipped bit that decompresses to the same bytes all the same is not damage.
            let packed = Packed::from_parts(checked.packed().codec() as u8, 4000, bytes.into());
            if let Ok(accepted) = packed.and_then(|packed| packed.verify(&checked.id())) {
                prop_assert_eq!(accepted.plain(), checked.plain());
            }
        }

        #[test]
        fn random_bytes_never_panic(
            codec in 0u8..4, plain_len in 0u32..100_000, bytes in proptest::collection::vec(any::<u8>(), 0..600)
        ) {
            let id = ObjectId::of(Kind::Chunk, b"something else");
            let refused = Packed::from_parts(codec, plain_len, bytes.into()).and_then(|p| p.verify(&id));
            prop_assert!(refused.is_err());
        }
    }
}
