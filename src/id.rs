//! Names of things: one newtype per hash, so that a tree can never be asked for as a chunk.
//!
//! Owns: the hash functions behind every id, and their text form (64 lower-case hex digits).
//! Must not know: how anything is encoded, stored or sent.
//! Invariant: an id made by `of` is the hash of the bytes it was given, under the rule of its kind.
//! Trust: parsing accepts any 32 bytes; an id says nothing until content has been checked against it.
//! Threads: pure values.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;

/// Length of every id, in bytes.
pub const ID_LEN: usize = 32;

/// Text that is not 64 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: expected 64 hexadecimal digits")]
pub struct ParseIdError(String);

fn parse_hex(text: &str) -> Result<[u8; ID_LEN], ParseIdError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    bytes.and_then(|b| b.try_into().ok()).ok_or_else(|| ParseIdError(text.chars().take(80).collect()))
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// Takes 32 bytes that are already known to be such an id.
            pub const fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
                &self.0
            }

            /// The first ten hex digits, for tables and log lines.
            pub fn short(&self) -> String {
                self.to_string()[..10].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let bytes = d.bytes()?;
                bytes.try_into().map(Self).map_err(|_| minicbor::decode::Error::message("an id is 32 bytes"))
            }
        }
    )*};
}

ids! {
    /// BLAKE3-256 of a chunk as addressed. A file of one chunk has the same id as `b3sum` prints for it.
    ChunkId,
    /// BLAKE3-256 of a whole file's content, as `b3sum` prints it.
    FileHash,
    /// Id of a blob node: a file's ordered list of chunks, or of further blob nodes.
    BlobId,
    /// Id of a tree node: a run of a directory's entries, or of further tree nodes.
    TreeId,
    /// Id of a snapshot object.
    SnapshotId,
    /// Id of a genesis document. It names a network.
    Genesis,
    /// Id of a block header of the manifest log.
    HeaderId,
    /// Id of a log entry, signature included.
    EntryId,
    /// SHA-256 root of the RFC 6962 tree over all log entries.
    LogRoot,
    /// Root of the sparse Merkle map over the state of the log.
    StateRoot,
    /// Names the peers of one snapshot to those who look for them.
    SwarmId,
    /// Tells the keys of encrypted datasets apart, without telling anything of them.
    KeyId,
}

impl ChunkId {
    /// Plain BLAKE3 of the chunk.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl SwarmId {
    /// BLAKE3 `derive_key` with the context `bcai 2026 swarm v1`, of the snapshot's id and the secret of its dataset, if
    /// that has one: then whoever knows the id alone cannot find those who hold it.
    pub fn new(snapshot: &SnapshotId, secret: Option<&[u8; ID_LEN]>) -> Self {
        let secret = secret.map_or(&[][..], |secret| secret);
        Self(blake3::derive_key("bcai 2026 swarm v1", &[&snapshot.0[..], secret].concat()))
    }

    /// Names the nodes of a network to each other: BLAKE3 `derive_key` with the context `bcai 2026 network swarm v1`, of
    /// its id.
    pub fn of_network(genesis: &Genesis) -> Self {
        Self(blake3::derive_key("bcai 2026 network swarm v1", &genesis.0))
    }
}

impl KeyId {
    /// BLAKE3 `derive_key` with the context `bcai 2026 dataset key id v1`, of the key as of one generation.
    pub fn of(key: &[u8; ID_LEN]) -> Self {
        Self(blake3::derive_key("bcai 2026 dataset key id v1", key))
    }
}

macro_rules! derived {
    ($($name:ident => $context:literal),* $(,)?) => {$(
        impl $name {
            #[doc = concat!("BLAKE3 `derive_key` with the context `", $context, "`, of the canonical encoding.")]
            pub fn of(encoded: &[u8]) -> Self {
                Self(blake3::derive_key($context, encoded))
            }
        }
    )*};
}

// The contexts are part of the format: they keep an object of one kind from ever
// passing for one of another kind, whatever its bytes.
derived! {
    BlobId => "bcai 2026 blob v1",
    TreeId => "bcai 2026 tree v1",
    SnapshotId => "bcai 2026 snapshot v1",
    Genesis => "bcai 2026 genesis v1",
    HeaderId => "bcai 2026 header v1",
    EntryId => "bcai 2026 entry v1",
}

/// What a stored object is. The numbers are part of the pack and wire formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Chunk = 0,
    Blob = 1,
    Tree = 2,
    Snapshot = 3,
}

impl TryFrom<u8> for Kind {
    type Error = u8;
    fn try_from(byte: u8) -> Result<Self, u8> {
        match byte {
            0 => Ok(Self::Chunk),
            1 => Ok(Self::Blob),
            2 => Ok(Self::Tree),
            3 => Ok(Self::Snapshot),
            other => Err(other),
        }
    }
}

/// The address of anything the store keeps and peers exchange: a kind and its hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    pub kind: Kind,
    pub hash: [u8; ID_LEN],
}

impl ObjectId {
    /// The id that `bytes` have when they are an object of kind `kind`.
    pub fn of(kind: Kind, bytes: &[u8]) -> Self {
        match kind {
            Kind::Chunk => ChunkId::of(bytes).into(),
            Kind::Blob => BlobId::of(bytes).into(),
            Kind::Tree => TreeId::of(bytes).into(),
            Kind::Snapshot => SnapshotId::of(bytes).into(),
        }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Chunk => "chunk",
            Kind::Blob => "blob",
            Kind::Tree => "tree",
            Kind::Snapshot => "snapshot",
        };
        write!(f, "{kind} {}", HEXLOWER_PERMISSIVE.encode(&self.hash))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kind, HEXLOWER_PERMISSIVE.encode(&self.hash[..5]))
    }
}

macro_rules! object_ids {
    ($($name:ident => $kind:ident),*) => {$(
        impl From<$name> for ObjectId {
            fn from(id: $name) -> Self {
                Self { kind: Kind::$kind, hash: id.0 }
            }
        }
    )*};
}
object_ids!(ChunkId => Chunk, BlobId => Blob, TreeId => Tree, SnapshotId => Snapshot);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_junk_is_refused() {
        let id = ChunkId::of(b"bcai");
        assert_eq!(id.to_string().parse::<ChunkId>(), Ok(id));
        assert!("".parse::<ChunkId>().is_err());
        assert!(id.to_string()[1..].parse::<ChunkId>().is_err());
        assert!(format!("{}zz", &id.to_string()[2..]).parse::<ChunkId>().is_err());
    }

    #[test]
    fn kinds_never_share_an_id() {
        let ids: std::collections::HashSet<_> = [Kind::Chunk, Kind::Blob, Kind::Tree, Kind::Snapshot]
            .map(|kind| ObjectId::of(kind, b"same bytes").hash)
            .into();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn a_swarm_is_of_its_snapshot_and_secret() {
        let snapshots = [SnapshotId::of(b"a"), SnapshotId::of(b"b")];
        let secrets = [None, Some([0; ID_LEN]), Some([1; ID_LEN])];
        let ids: std::collections::HashSet<_> = snapshots
            .iter()
            .flat_map(|snapshot| secrets.iter().map(|secret| SwarmId::new(snapshot, secret.as_ref())))
            .collect();
        assert_eq!(ids.len(), 6);
        assert!(!ids.iter().any(|id| snapshots.iter().any(|snapshot| snapshot.as_bytes() == id.as_bytes())));
    }

    #[test]
    fn chunk_id_is_what_b3sum_prints() {
        // `printf '' | b3sum`, from the BLAKE3 test vectors.
        let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(ChunkId::of(b"").to_string(), empty);
    }
}
