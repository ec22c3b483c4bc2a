//! The bytes of a bundle: versions of datasets in one file, for machines without a network.
//!
//! Owns: the layouts below, their golden bytes, and the checks that tell a whole structure from a torn one.
//! Must not know: where the file is, whether its log is believed, or what an object means.
//! Invariant: a decoder accepts only what its encoder writes, and no length that it gives is above its bound.
//! Trust: a bundle may have been cut short, overwritten or made by somebody else. The checks here are against accidents;
//! only the hash of an object proves the object, and only certificates prove the log.
//! Threads: pure functions.
//!
//! ```text
//!  +--------+----------+--------------+-- ... --+------------------+-- ... --+-------------+
//!  | header | contents | log segment  |         | objects segment  |         | end segment |
//!  |  64 B  |          | head, blocks |         | head, index, ... |         | head, sums  |
//!  +--------+----------+--------------+-- ... --+------------------+-- ... --+-------------+
//! ```
//!
//! All numbers are little-endian. A `check` is the first eight bytes of the BLAKE3 of all that stands before it in the
//! same structure. A segment's index stands before what it is of, so that whoever reads the file in one go knows what comes,
//! and whoever has it already seeks past it.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::codec::{self, CodecError};
use crate::id::{Genesis, HeaderId, SnapshotId};
use crate::pack::PackError;
use crate::pack::file::{Fields, RECORD_HEADER_LEN, RecordHeader, check_of, is_checked};

/// Version of everything in this file.
pub const VERSION: u32 = 1;

// Header, 64 bytes, followed by the contents:
//
//  0          8         12           16      24                   56      64
//  +----------+---------+------------+-------+--------------------+-------+
//  | bcaibndl | version | length of  | zeros | BLAKE3 of contents | check |
//  |          |         | contents   |       |                    |       |
//  +----------+---------+------------+-------+--------------------+-------+
const MAGIC: &[u8; 8] = b"bcaibndl";
pub const HEADER_LEN: usize = 64;
/// Longest encoded `Contents`, in bytes.
pub const MAX_CONTENTS_LEN: usize = 1 << 20;
/// Most versions in one bundle.
pub const MAX_VERSIONS: usize = 1024;

// Head of a segment, 64 bytes, followed by its body:
//
//  0      4      5       8       12      16       24               56      64
//  +------+------+-------+-------+-------+--------+----------------+-------+
//  | bcSG | kind | zeros | count | zeros | length | BLAKE3 of body | check |
//  +------+------+-------+-------+-------+--------+----------------+-------+
//
// kind: 0 log, 1 objects, 2 end · count: of blocks or objects · length: of the body
const SEGMENT_MAGIC: &[u8; 4] = b"bcSG";
pub const SEGMENT_HEAD_LEN: usize = 64;
/// Longest body of a segment, in bytes.
pub const MAX_BODY_LEN: u64 = 16 << 20;
/// Most blocks or objects in one segment, so that its index has less than 1 MiB.
pub const MAX_COUNT: u32 = 16_384;

/// Bytes of the body of the end segment.
pub const END_LEN: usize = 48;

/// Why bytes were refused. Corruption, or not a bundle at all; only `Version` is the user's: the file needs another bcai.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("it is no bundle: {0}")]
    Foreign(&'static str),
    #[error("it has bundle format {found}; this bcai reads format {VERSION}")]
    Version { found: u32 },
    #[error("its header is damaged: {0}")]
    Header(&'static str),
    #[error("what should be a segment is none: {0}")]
    Segment(&'static str),
    #[error(transparent)]
    Contents(#[from] CodecError),
    #[error(transparent)]
    Record(#[from] PackError),
}

/// A version, as a bundle names it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Carried {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub label: String,
    #[n(2)]
    pub snapshot: SnapshotId,
}

/// What a bundle says of itself. All of it is a claim until the log has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Contents {
    /// The genesis document of the network, encoded.
    #[n(0)]
    pub document: ByteVec,
    /// The versions whose objects are here, in this order.
    #[n(1)]
    pub versions: Vec<Carried>,
    /// What the reader must have already: of its objects none are here.
    #[n(2)]
    pub since: Option<Carried>,
    /// Height of the first block that is here, and of the last, with its id.
    #[n(3)]
    pub first: u64,
    #[n(4)]
    pub head: u64,
    #[n(5)]
    pub header: HeaderId,
    /// Number of objects, and plain bytes of the chunks among them: for those who wait.
    #[n(6)]
    pub objects: u64,
    #[n(7)]
    pub bytes: u64,
}

impl Contents {
    /// The network, if the document is one of any.
    pub fn genesis(&self) -> Genesis {
        Genesis::of(&self.document)
    }

    /// Header and contents: how the file begins.
    pub fn encode(&self) -> Vec<u8> {
        let contents = codec::encode(self);
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        // A writer names `MAX_VERSIONS` at most, which is far below 4 GiB.
        bytes[12..16].copy_from_slice(&(contents.len() as u32).to_le_bytes());
        bytes[24..56].copy_from_slice(blake3::hash(&contents).as_bytes());
        let check = check_of(&bytes[..56]);
        bytes[56..].copy_from_slice(&check);
        bytes.extend_from_slice(&contents);
        bytes
    }

    /// Decodes what a header announced.
    pub fn decode(header: &Header, bytes: &[u8]) -> Result<Self, BundleError> {
        if *blake3::hash(bytes).as_bytes() != header.hash {
            return Err(BundleError::Header("its list of contents is not the one that it announces"));
        }
        let contents: Self = codec::decode("the contents of a bundle", bytes, MAX_CONTENTS_LEN)?;
        let is_sound = (1..=MAX_VERSIONS).contains(&contents.versions.len())
            && (1..u64::MAX).contains(&contents.head)
            && (1..=contents.head + 1).contains(&contents.first);
        if !is_sound {
            return Err(BundleError::Header("its list of contents breaks a rule"));
        }
        Ok(contents)
    }
}

/// How a bundle begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the contents behind it, in bytes; at most [`MAX_CONTENTS_LEN`].
    pub contents_len: usize,
    hash: [u8; 32],
}

impl Header {
    /// `bytes` is the start of a file. Magic, version and check stay where they are in every version.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        let shown = bytes.get(..MAGIC.len()).unwrap_or(bytes);
        if !MAGIC.starts_with(shown) {
            return Err(BundleError::Foreign("it does not begin with `bcaibndl`"));
        }
        let bytes = bytes.get(..HEADER_LEN).ok_or(BundleError::Header("the file is too short"))?;
        let mut fields = Fields::new(bytes);
        let _magic = fields.take::<8>();
        if !is_checked(bytes) {
            return Err(BundleError::Header("it does not fit its check"));
        }
        let found = fields.u32();
        if found != VERSION {
            return Err(BundleError::Version { found });
        }
        let contents_len = fields.u32() as usize;
        let zeros = fields.zeros::<8>();
        if !zeros || contents_len > MAX_CONTENTS_LEN {
            return Err(BundleError::Header("its fields break a rule"));
        }
        Ok(Self { contents_len, hash: fields.take() })
    }
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SegmentKind {
    /// Blocks of the log by height, each behind its length in 4 bytes.
    Log = 0,
    /// The record headers of the objects, as in packs; then, in the same order, their stored bytes.
    Objects = 1,
    /// Nothing comes behind it.
    End = 2,
}

/// The head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub kind: SegmentKind,
    pub count: u32,
    /// Length of the body in bytes; at most [`MAX_BODY_LEN`].
    pub len: u64,
    pub hash: [u8; 32],
}

impl Segment {
    /// The head of a body that consists of these parts.
    pub fn of(kind: SegmentKind, count: u32, body: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        body.iter().for_each(|part| _ = hasher.update(part));
        let len = body.iter().map(|part| part.len() as u64).sum();
        Self { kind, count, len, hash: *hasher.finalize().as_bytes() }
    }

    pub fn encode(&self) -> [u8; SEGMENT_HEAD_LEN] {
        let mut bytes = [0; SEGMENT_HEAD_LEN];
        bytes[..4].copy_from_slice(SEGMENT_MAGIC);
        bytes[4] = self.kind as u8;
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.hash);
        let check = check_of(&bytes[..56]);
        bytes[56..].copy_from_slice(&check);
        bytes
    }

    /// `bytes` begins where the segment does.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        let bytes = bytes.get(..SEGMENT_HEAD_LEN).ok_or(BundleError::Segment("it is too short"))?;
        let mut fields = Fields::new(bytes);
        if fields.take() != *SEGMENT_MAGIC {
            return Err(BundleError::Segment("it does not begin with `bcSG`"));
        }
        if !is_checked(bytes) {
            return Err(BundleError::Segment("its head is damaged"));
        }
        let kind = match fields.u8() {
            0 => SegmentKind::Log,
            1 => SegmentKind::Objects,
            2 => SegmentKind::End,
            _ => return Err(BundleError::Segment("its kind is unknown")),
        };
        let zeros = fields.zeros::<3>();
        let count = fields.u32();
        let zeros = fields.zeros::<4>() && zeros;
        let len = fields.u64();
        let least = match kind {
            SegmentKind::Log => u64::from(count) * 4,
            SegmentKind::Objects => u64::from(count) * RECORD_HEADER_LEN as u64,
            SegmentKind::End => END_LEN as u64,
        };
        let is_end = kind == SegmentKind::End;
        let fits = len >= least && len <= MAX_BODY_LEN && count <= MAX_COUNT && (!is_end || len == least);
        if !zeros || !fits {
            return Err(BundleError::Segment("its fields break a rule"));
        }
        Ok(Self { kind, count, len, hash: fields.take() })
    }

    /// Length of the index of an objects segment, in bytes.
    pub fn index_len(&self) -> usize {
        self.count as usize * RECORD_HEADER_LEN
    }

    /// The record headers of an objects segment out of its index, whose stored bytes fill the rest of the body.
    pub fn records(&self, index: &[u8]) -> Result<Vec<RecordHeader>, BundleError> {
        if index.len() != self.index_len() {
            return Err(BundleError::Segment("its index is too short"));
        }
        let records: Vec<RecordHeader> =
            index.chunks_exact(RECORD_HEADER_LEN).map(RecordHeader::decode).collect::<Result<_, _>>()?;
        let stored: u64 = records.iter().map(|record| u64::from(record.stored_len)).sum();
        if stored + index.len() as u64 != self.len {
            return Err(BundleError::Segment("its index does not fit its length"));
        }
        Ok(records)
    }

    /// The blocks of a log segment out of its body.
    pub fn blocks<'a>(&self, body: &'a [u8]) -> Result<Vec<&'a [u8]>, BundleError> {
        let (mut blocks, mut rest) = (Vec::new(), body);
        while blocks.len() < self.count as usize
            && let Some((len, behind)) = rest.split_first_chunk::<4>()
        {
            let len = u32::from_le_bytes(*len) as usize;
            let block = behind.get(..len).ok_or(BundleError::Segment("a block is cut short"))?;
            blocks.push(block);
            rest = &behind[len..];
        }
        match rest.is_empty() && blocks.len() == self.count as usize {
            true => Ok(blocks),
            false => Err(BundleError::Segment("its blocks do not fill it")),
        }
    }
}

/// Adds a block to the body of a log segment.
pub fn push_block(body: &mut Vec<u8>, block: &[u8]) {
    // A block is shorter than 4 GiB: what is decided has a bound of about a MiB.
    body.extend_from_slice(&(block.len() as u32).to_le_bytes());
    body.extend_from_slice(block);
}

/// The last segment: from it a reader knows that nothing is missing in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Objects in the file, and their bytes as stored.
    pub objects: u64,
    pub stored_bytes: u64,
    /// BLAKE3 of header, contents and the heads of all segments before this one.
    pub digest: [u8; 32],
}

impl End {
    pub fn encode(&self) -> [u8; END_LEN] {
        let mut bytes = [0; END_LEN];
        bytes[..8].copy_from_slice(&self.objects.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes[16..].copy_from_slice(&self.digest);
        bytes
    }

    /// `body` is that of an end segment.
    pub fn decode(body: &[u8; END_LEN]) -> Self {
        let mut fields = Fields::new(body);
        Self { objects: fields.u64(), stored_bytes: fields.u64(), digest: fields.take() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Kind, ObjectId};
    use crate::pack::Codec;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn contents(versions: usize) -> Contents {
        let version = |n: usize| Carried {
            name: "team/photos".into(),
            label: format!("v{n}"),
            snapshot: SnapshotId::of(&n.to_le_bytes()),
        };
        Contents {
            document: b"a genesis document".to_vec().into(),
            versions: (1..=versions).map(version).collect(),
            since: Some(version(0)),
            first: 8,
            head: 12,
            header: HeaderId::of(b"header"),
            objects: 3,
            bytes: 70_000,
        }
    }

    fn open(bytes: &[u8]) -> Result<Contents, BundleError> {
        let header = Header::decode(bytes)?;
        let end = HEADER_LEN + header.contents_len;
        Contents::decode(&header, bytes.get(HEADER_LEN..end).unwrap_or_default())
    }

    fn records(count: u8) -> (Segment, Vec<u8>, Vec<RecordHeader>) {
        let record = |seed: u8| RecordHeader {
            id: ObjectId::of(Kind::Tree, &[seed]),
            codec: Codec::Raw,
            stored_len: 1,
            plain_len: 1,
        };
        let records: Vec<_> = (0..count).map(record).collect();
        let mut body: Vec<u8> = records.iter().flat_map(RecordHeader::encode).collect();
        body.extend(0..count);
        (Segment::of(SegmentKind::Objects, count.into(), &[&body]), body, records)
    }

    /// These bytes are the format. A change here is a new version, not a new expectation.
    #[test]
    fn golden_bytes() {
        let bytes = contents(1).encode();
        assert_eq!(HEXLOWER.encode(&bytes[..HEADER_LEN]), GOLDEN_HEADER);
        let head = Segment::of(SegmentKind::Log, 1, &[b"\x02\0\0\0hi"]).encode();
        assert_eq!(HEXLOWER.encode(&head), GOLDEN_SEGMENT);
        let end = End { objects: 3, stored_bytes: 70_123, digest: [9; 32] };
        assert_eq!(HEXLOWER.encode(&end.encode()), GOLDEN_END);
        assert_eq!(End::decode(&end.encode()), end);
    }
    const GOLDEN_HEADER: &str = "62636169626e646c01000000a30000000000000000000000151ccfb54ef6b922e938861adf4ea4dc97d6ae34bd6960ed\
        067d49b59052610e3ae190c6da338d9f";
    const GOLDEN_SEGMENT: &str = "626353470000000001000000000000000600000000000000ab7182b24bbb8d4dd02bbd8953b59b4e8ea2f9cf8ab720c5\
        0bdd294d02e403e7aaaf15f8c91628d9";
    const GOLDEN_END: &str = "0300000000000000eb1101000000000009090909090909090909090909090909090909090909090909090909090909\
        09";

    #[test]
    fn a_foreign_file_a_torn_one_and_one_of_another_version_are_told_apart() {
        let mut bytes = contents(1).encode();
        assert!(matches!(open(b"PK\x03\x04 some other file"), Err(BundleError::Foreign(_))));
        assert!(matches!(open(b"bcai"), Err(BundleError::Header(_))));
        assert!(matches!(open(&bytes[..bytes.len() - 1]), Err(BundleError::Header(_))));
        bytes[8] = 2;
        let check = check_of(&bytes[..56]);
        bytes[56..64].copy_from_slice(&check);
        assert_eq!(open(&bytes), Err(BundleError::Version { found: 2 }));
    }

    #[test]
    fn a_correct_check_does_not_excuse_bad_fields() {
        for (at, value) in [(16, 1), (15, 0xff)] {
            let mut bytes = contents(1).encode();
            bytes[at] = value;
            let check = check_of(&bytes[..56]);
            bytes[56..64].copy_from_slice(&check);
            assert!(matches!(open(&bytes), Err(BundleError::Header(_))), "byte {at}");
        }
        for (at, value) in [(4, 3), (5, 1), (10, 0xff), (12, 1), (16, 0), (20, 0xff)] {
            let mut bytes = records(3).0.encode();
            bytes[at] = value;
            let check = check_of(&bytes[..56]);
            bytes[56..].copy_from_slice(&check);
            assert!(matches!(Segment::decode(&bytes), Err(BundleError::Segment(_))), "byte {at}");
        }
        let none = Contents { versions: Vec::new(), ..contents(1) }.encode();
        assert!(matches!(open(&none), Err(BundleError::Header(_))));
    }

    #[test]
    fn an_index_that_does_not_fit_its_segment_is_refused() {
        let (segment, body, expected) = records(3);
        let index = &body[..segment.index_len()];
        assert_eq!(segment.records(index), Ok(expected));
        assert!(segment.records(&index[1..]).is_err());
        assert!(Segment { len: segment.len + 1, ..segment }.records(index).is_err());
    }

    #[test]
    fn blocks_come_back_and_cut_ones_are_refused() {
        let mut body = Vec::new();
        [&b"one"[..], b"", b"three"].iter().for_each(|block| push_block(&mut body, block));
        let segment = Segment::of(SegmentKind::Log, 3, &[&body]);
        assert_eq!(segment.blocks(&body), Ok(vec![&b"one"[..], b"", b"three"]));
        for cut in 0..body.len() {
            assert!(segment.blocks(&body[..cut]).is_err(), "{cut}");
        }
        assert!(Segment { count: 2, ..segment }.blocks(&body).is_err());
    }

    proptest! {
        #[test]
        fn structures_round_trip(versions in 1usize..5, count in 0u8..40) {
            prop_assert_eq!(open(&contents(versions).encode()), Ok(contents(versions)));
            let (segment, ..) = records(count);
            prop_assert_eq!(Segment::decode(&segment.encode()), Ok(segment));
        }

        #[test]
        fn any_flipped_bit_and_any_cut_is_noticed(at: prop::sample::Index, bit in 0u8..8) {
            let bytes = contents(2).encode();
            let mut flipped = bytes.clone();
            flipped[at.index(bytes.len())] ^= 1 << bit;
            prop_assert!(open(&flipped).is_err());
            prop_assert!(open(&bytes[..at.index(bytes.len())]).is_err());
            let head = records(3).0.encode();
            let mut flipped = head;
            flipped[at.index(head.len())] ^= 1 << bit;
            prop_assert!(Segment::decode(&flipped).is_err());
            prop_assert!(Segment::decode(&head[..at.index(head.len())]).is_err());
        }

        #[test]
        fn random_bytes_never_panic_and_never_pass(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(open(&bytes).is_err());
            prop_assert!(Segment::decode(&bytes).is_err());
            let segment = Segment::of(SegmentKind::Log, 1, &[&bytes]);
            let _ = segment.blocks(&bytes);
            let count = (bytes.len() / RECORD_HEADER_LEN) as u32;
            let segment = Segment::of(SegmentKind::Objects, count, &[&bytes]);
            prop_assert!(bytes.is_empty() || segment.records(&bytes[..segment.index_len()]).is_err());
        }
    }
}
