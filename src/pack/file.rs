//! The bytes of a pack file, as pure functions over them.
//!
//! Owns: the layouts below, their golden bytes, and the checks that tell a whole structure from a torn one.
//! Must not know: where a pack is, or which of its records are alive.
//! Invariant: a decoder accepts only what its encoder writes, with every length inside the file.
//! Trust: a pack may have been cut short, overwritten or made by somebody else. The checks here are against
//! accidents; only the hash of an object proves the object.
//! Threads: pure functions.
//!
//! ```text
//!  +-------------+----------+----------+-- ... --+---------------------+----------+
//!  | file header | record 0 | record 1 |         | trailer (when full) |  footer  |
//!  |    32 B     |                                | 48 B for each record|   64 B   |
//!  +-------------+----------+----------+-- ... --+---------------------+----------+
//! ```
//!
//! All numbers are little-endian. A `check` is the first eight bytes of the BLAKE3 of all that stands before
//! it in the same structure. Records follow one another without padding; a record of a cache pack that has
//! been evicted, header and all, reads as zeros.

use crate::id::{ID_LEN, Kind, ObjectId};
use crate::pack::{Codec, PackError, check_lengths};

/// Version of everything in this file.
pub const VERSION: u32 = 1;

/// What the records of a pack are kept for. The numbers are part of the pack format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Keep {
    /// Published here: synced before it is promised, never evicted.
    Published = 0,
    /// Fetched: evicted when the cache is over its budget.
    Cache = 1,
}

// File header, 32 bytes:
//
//  0          8         12      13      16           20      24          32
//  +----------+---------+-------+-------+------------+-------+-----------+
//  | bcaipack | version | class | zeros | pack number| zeros |   check   |
//  +----------+---------+-------+-------+------------+-------+-----------+
//
// version: 1 · class: 0 published, 1 cache · pack number: that of the file name
const FILE_MAGIC: &[u8; 8] = b"bcaipack";
pub const FILE_HEADER_LEN: usize = 32;

// Record header, 56 bytes, followed by `stored len` bytes:
//
//  0      4      5       6       8            12          16       48        56
//  +------+------+-------+-------+------------+-----------+--------+---------+
//  | bcRC | kind | codec | zeros | stored len | plain len |  hash  |  check  |
//  +------+------+-------+-------+------------+-----------+--------+---------+
//
// kind: 0 chunk, 1 blob, 2 tree, 3 snapshot · codec: 0 raw, 1 LZ4 block, 2 zstd · hash: of the plain bytes
// The check covers the header only: it tells where a torn tail begins. The body is proven by its hash.
const RECORD_MAGIC: &[u8; 4] = b"bcRC";
pub const RECORD_HEADER_LEN: usize = 56;

// Trailer: one entry of 48 bytes for each record, sorted by hash, then kind, then offset:
//
//  0      32       36           40          44     45      46      48
//  +------+--------+------------+-----------+------+-------+-------+
//  | hash | offset | stored len | plain len | kind | codec | zeros |
//  +------+--------+------------+-----------+------+-------+-------+
//
// offset: of the record's header, from the start of the file
pub const ENTRY_LEN: usize = 48;

// Footer, the last 64 bytes of a sealed pack:
//
//  0          8       12      16      24                  56        64
//  +----------+-------+-------+-------+-------------------+---------+
//  | bcaiseal | count | zeros | start | BLAKE3 of trailer |  check  |
//  +----------+-------+-------+-------+-------------------+---------+
//
// count: of entries · start: offset of the first entry, which is the end of the last record
const FOOTER_MAGIC: &[u8; 8] = b"bcaiseal";
pub const FOOTER_LEN: usize = 64;

/// The most records in one pack, so that its trailer (3 MiB) can be read at once.
pub const MAX_RECORDS: u32 = 65_536;

const CHECK_LEN: usize = 8;

/// Bytes of a record whose body is `stored_len` bytes.
pub fn record_len(stored_len: u32) -> u64 {
    RECORD_HEADER_LEN as u64 + u64::from(stored_len)
}

/// Bytes that sealing adds to a pack of `records` records.
pub fn trailer_len(records: u32) -> u64 {
    u64::from(records) * ENTRY_LEN as u64 + FOOTER_LEN as u64
}

pub(super) fn check_of(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..CHECK_LEN]);
    check
}

/// Whether the last eight bytes are the check of those before.
pub(super) fn is_checked(structure: &[u8]) -> bool {
    let (body, check) = structure.split_at(structure.len() - CHECK_LEN);
    check_of(body) == check
}

/// Reads fixed-size fields one after another out of a structure whose length was checked before.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(structure: &'a [u8]) -> Self {
        Self(structure)
    }

    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut field = [0; N];
        let (head, rest) = self.0.split_at(N);
        field.copy_from_slice(head);
        self.0 = rest;
        field
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(super) fn zeros<const N: usize>(&mut self) -> bool {
        self.take::<N>() == [0; N]
    }
}

/// The start of a pack file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    pub keep: Keep,
    pub number: u32,
}

impl FileHeader {
    pub fn encode(&self) -> [u8; FILE_HEADER_LEN] {
        let mut bytes = [0; FILE_HEADER_LEN];
        bytes[..8].copy_from_slice(FILE_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12] = self.keep as u8;
        bytes[16..20].copy_from_slice(&self.number.to_le_bytes());
        let check = check_of(&bytes[..24]);
        bytes[24..].copy_from_slice(&check);
        bytes
    }

    /// `bytes` is the start of a file. Every version keeps this header's length, magic, version and check, so
    /// that a file of another version can be told from a damaged one.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let bytes = bytes.get(..FILE_HEADER_LEN).ok_or(PackError::BadFileHeader("it is too short"))?;
        let mut fields = Fields::new(bytes);
        if fields.take() != *FILE_MAGIC {
            return Err(PackError::BadFileHeader("it does not begin with `bcaipack`"));
        }
        if !is_checked(bytes) {
            return Err(PackError::BadFileHeader("its header is damaged"));
        }
        let found = fields.u32();
        if found != VERSION {
            return Err(PackError::Version { found });
        }
        let keep = match fields.u8() {
            0 => Keep::Published,
            1 => Keep::Cache,
            _ => return Err(PackError::BadFileHeader("its class is unknown")),
        };
        let first_gap = fields.zeros::<3>();
        let number = fields.u32();
        if !(first_gap && fields.zeros::<4>()) {
            return Err(PackError::BadFileHeader("its reserved bytes are not zero"));
        }
        Ok(Self { keep, number })
    }
}

/// What stands before each object in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    pub id: ObjectId,
    pub codec: Codec,
    pub stored_len: u32,
    pub plain_len: u32,
}

impl RecordHeader {
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..4].copy_from_slice(RECORD_MAGIC);
        bytes[4] = self.id.kind as u8;
        bytes[5] = self.codec as u8;
        bytes[8..12].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.plain_len.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.id.hash);
        let check = check_of(&bytes[..48]);
        bytes[48..].copy_from_slice(&check);
        bytes
    }

    /// `bytes` begins where the record does.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let bytes = bytes.get(..RECORD_HEADER_LEN).ok_or(PackError::BadRecord("it is too short"))?;
        let mut fields = Fields::new(bytes);
        if fields.take() != *RECORD_MAGIC {
            return Err(PackError::BadRecord("it does not begin with `bcRC`"));
        }
        if !is_checked(bytes) {
            return Err(PackError::BadRecord("its header is damaged"));
        }
        let kind = Kind::try_from(fields.u8()).map_err(|_| PackError::BadRecord("its kind is unknown"))?;
        let codec = Codec::try_from(fields.u8())?;
        if !fields.zeros::<2>() {
            return Err(PackError::BadRecord("its reserved bytes are not zero"));
        }
        let (stored_len, plain_len) = (fields.u32(), fields.u32());
        check_lengths(codec, plain_len, stored_len as usize)?;
        Ok(Self { id: ObjectId { kind, hash: fields.take::<ID_LEN>() }, codec, stored_len, plain_len })
    }

    /// Where the first record header in `bytes` begins: how a scan finds its way past a hole or damage.
    pub fn find(bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(step) = bytes[at..].iter().position(|&byte| byte == RECORD_MAGIC[0]) {
            at += step;
            if Self::decode(&bytes[at..]).is_ok() {
                return Some(at);
            }
            at += 1;
        }
        None
    }
}

/// One record of a pack, and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub header: RecordHeader,
    /// Offset of the record's header in the file.
    pub offset: u32,
}

impl Entry {
    fn sort_key(&self) -> ([u8; ID_LEN], Kind, u32) {
        (self.header.id.hash, self.header.id.kind, self.offset)
    }

    fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..32].copy_from_slice(&self.header.id.hash);
        bytes[32..36].copy_from_slice(&self.offset.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.header.stored_len.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.header.plain_len.to_le_bytes());
        bytes[44] = self.header.id.kind as u8;
        bytes[45] = self.header.codec as u8;
        bytes
    }

    /// `bytes` is exactly one entry; `end` is where the records of its pack end.
    fn decode(bytes: &[u8], end: u64) -> Result<Self, PackError> {
        let mut fields = Fields::new(bytes);
        let hash = fields.take::<ID_LEN>();
        let (offset, stored_len, plain_len) = (fields.u32(), fields.u32(), fields.u32());
        let kind = Kind::try_from(fields.u8()).map_err(|_| PackError::BadTrailer("a kind is unknown"))?;
        let codec = Codec::try_from(fields.u8())?;
        if !fields.zeros::<2>() {
            return Err(PackError::BadTrailer("reserved bytes are not zero"));
        }
        check_lengths(codec, plain_len, stored_len as usize)?;
        if (offset as usize) < FILE_HEADER_LEN || u64::from(offset) + record_len(stored_len) > end {
            return Err(PackError::BadTrailer("a record lies outside the pack"));
        }
        Ok(Self {
            header: RecordHeader { id: ObjectId { kind, hash }, codec, stored_len, plain_len },
            offset,
        })
    }
}

/// Trailer and footer for a pack whose records end at `start`; sorts `entries`.
pub fn encode_trailer(entries: &mut [Entry], start: u64) -> Vec<u8> {
    entries.sort_unstable_by_key(Entry::sort_key);
    let mut bytes: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    let mut footer = [0; FOOTER_LEN];
    footer[..8].copy_from_slice(FOOTER_MAGIC);
    // A pack is sealed before it holds more than `MAX_RECORDS`.
    footer[8..12].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    footer[16..24].copy_from_slice(&start.to_le_bytes());
    footer[24..56].copy_from_slice(blake3::hash(&bytes).as_bytes());
    let check = check_of(&footer[..56]);
    footer[56..].copy_from_slice(&check);
    bytes.extend_from_slice(&footer);
    bytes
}

/// The end of a sealed pack: where its trailer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    count: u32,
    start: u64,
    hash: [u8; 32],
}

impl Footer {
    /// `bytes` is the end of a file of `file_len` bytes.
    pub fn decode(bytes: &[u8], file_len: u64) -> Result<Self, PackError> {
        let begin = bytes.len().checked_sub(FOOTER_LEN).ok_or(PackError::BadTrailer("it is too short"))?;
        let bytes = &bytes[begin..];
        let mut fields = Fields::new(bytes);
        if fields.take() != *FOOTER_MAGIC || !is_checked(bytes) {
            return Err(PackError::BadTrailer("the pack is not sealed"));
        }
        let (count, zeros, start, hash) = (fields.u32(), fields.zeros::<4>(), fields.u64(), fields.take());
        let fits = start >= FILE_HEADER_LEN as u64 && start.checked_add(trailer_len(count)) == Some(file_len);
        if !zeros || count > MAX_RECORDS || !fits {
            return Err(PackError::BadTrailer("it does not fit the file"));
        }
        Ok(Self { count, start, hash })
    }

    /// Offset of the first entry, which is where the records end.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Length of the entries in bytes; at most 3 MiB.
    pub fn entries_len(&self) -> usize {
        self.count as usize * ENTRY_LEN
    }

    /// Decodes the entries that this footer ends.
    pub fn decode_entries(&self, bytes: &[u8]) -> Result<Vec<Entry>, PackError> {
        if bytes.len() != self.entries_len() || *blake3::hash(bytes).as_bytes() != self.hash {
            return Err(PackError::BadTrailer("its entries are damaged"));
        }
        let entries: Vec<Entry> = bytes
            .chunks_exact(ENTRY_LEN)
            .map(|entry| Entry::decode(entry, self.start))
            .collect::<Result<_, _>>()?;
        if !entries.is_sorted_by(|a, b| a.sort_key() < b.sort_key()) {
            return Err(PackError::BadTrailer("its entries are not in order"));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    fn record(seed: u8) -> RecordHeader {
        let id = ObjectId::of(Kind::Tree, &[seed]);
        RecordHeader { id, codec: Codec::Lz4, stored_len: 100 + u32::from(seed), plain_len: 1000 }
    }

    fn sealed(count: u8) -> (Vec<Entry>, Vec<u8>, u64) {
        let mut at = FILE_HEADER_LEN as u64;
        let mut entries = Vec::new();
        for seed in 0..count {
            entries.push(Entry { header: record(seed), offset: at as u32 });
            at += record_len(record(seed).stored_len);
        }
        let bytes = encode_trailer(&mut entries, at);
        (entries, bytes, at)
    }

    fn open(bytes: &[u8], file_len: u64) -> Result<Vec<Entry>, PackError> {
        let footer = Footer::decode(bytes, file_len)?;
        let begin = bytes.len().checked_sub(FOOTER_LEN + footer.entries_len());
        footer.decode_entries(&bytes[begin.expect("a whole trailer")..bytes.len() - FOOTER_LEN])
    }

    /// These bytes are the format. A change here is a new version, not a new expectation.
    #[test]
    fn golden_bytes() {
        let header = FileHeader { keep: Keep::Cache, number: 7 };
        assert_eq!(HEXLOWER.encode(&header.encode()), GOLDEN_FILE_HEADER);
        let id = ObjectId::of(Kind::Chunk, b"bcai");
        let record = RecordHeader { id, codec: Codec::Raw, stored_len: 4, plain_len: 4 };
        assert_eq!(HEXLOWER.encode(&record.encode()), GOLDEN_RECORD);
        let trailer = encode_trailer(&mut [Entry { header: record, offset: 32 }], 92);
        assert_eq!(HEXLOWER.encode(&trailer), GOLDEN_TRAILER);
    }
    const GOLDEN_FILE_HEADER: &str = "626361697061636b010000000100000007000000000000001b7ea590a56dfa3c";
    const GOLDEN_RECORD: &str = "6263524300000000040000000400000035f3553147386964acdb6e53395eaf2418dee222a06de3ffd6fd190b0902f16c\
        a98e994c41611773";
    const GOLDEN_TRAILER: &str = "35f3553147386964acdb6e53395eaf2418dee222a06de3ffd6fd190b0902f16c20000000040000000400000000000000\
        626361697365616c01000000000000005c00000000000000a8669420c7b276891f13a0fc204de55d5b92850023d1c0ff\
        04fe80fc105a7d0995e07cdd17f60dde";

    #[test]
    fn another_version_is_named_as_such() {
        let mut bytes = FileHeader { keep: Keep::Published, number: 1 }.encode();
        bytes[8] = 2;
        let check = check_of(&bytes[..24]);
        bytes[24..].copy_from_slice(&check);
        assert_eq!(FileHeader::decode(&bytes), Err(PackError::Version { found: 2 }));
    }

    #[test]
    fn a_correct_check_does_not_excuse_bad_fields() {
        for (at, value) in [(12, 2), (13, 1), (20, 1)] {
            let mut bytes = FileHeader { keep: Keep::Published, number: 1 }.encode();
            bytes[at] = value;
            let check = check_of(&bytes[..24]);
            bytes[24..].copy_from_slice(&check);
            assert!(matches!(FileHeader::decode(&bytes), Err(PackError::BadFileHeader(_))), "byte {at}");
        }
        for (at, value) in [(4, 9), (5, 9), (6, 1), (11, 0xff), (15, 0xff)] {
            let mut bytes = record(1).encode();
            bytes[at] = value;
            let check = check_of(&bytes[..48]);
            bytes[48..].copy_from_slice(&check);
            assert!(RecordHeader::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_trailer_with_a_record_outside_the_pack_is_refused() {
        let mut entries = [Entry { header: record(0), offset: 32 }];
        let end = 32 + record_len(100);
        for (offset, start) in [(31, end), (33, end), (32, end - 1), (u32::MAX, end)] {
            entries[0].offset = offset;
            let bytes = encode_trailer(&mut entries, start);
            assert!(open(&bytes, start + bytes.len() as u64).is_err(), "{offset} {start}");
        }
    }

    #[test]
    fn a_header_is_found_behind_anything() {
        let mut bytes = b"bcRC but no header, then zeros".to_vec();
        bytes.resize(5000, 0);
        assert_eq!(RecordHeader::find(&bytes), None);
        bytes.extend_from_slice(&record(3).encode());
        assert_eq!(RecordHeader::find(&bytes), Some(5000));
    }

    proptest! {
        #[test]
        fn structures_round_trip(number: u32, cache: bool, count in 0u8..40) {
            let header = FileHeader { keep: if cache { Keep::Cache } else { Keep::Published }, number };
            prop_assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
            prop_assert_eq!(RecordHeader::decode(&record(count).encode()), Ok(record(count)));
            let (entries, bytes, start) = sealed(count);
            prop_assert_eq!(open(&bytes, start + bytes.len() as u64), Ok(entries));
        }

        #[test]
        fn any_flipped_bit_is_noticed(at: prop::sample::Index, bit in 0u8..8) {
            let flip = |mut bytes: Vec<u8>| {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
                bytes
            };
            let header = FileHeader { keep: Keep::Published, number: 3 };
            prop_assert!(FileHeader::decode(&flip(header.encode().to_vec())).is_err());
            prop_assert!(RecordHeader::decode(&flip(record(1).encode().to_vec())).is_err());
            let (_, bytes, start) = sealed(5);
            prop_assert!(open(&flip(bytes.clone()), start + bytes.len() as u64).is_err());
        }

        #[test]
        fn any_cut_is_noticed(keep: prop::sample::Index) {
            let header = FileHeader { keep: Keep::Published, number: 3 }.encode();
            prop_assert!(FileHeader::decode(&header[..keep.index(header.len())]).is_err());
            let record = record(1).encode();
            prop_assert!(RecordHeader::decode(&record[..keep.index(record.len())]).is_err());
            let (_, bytes, start) = sealed(5);
            let cut = keep.index(bytes.len());
            prop_assert!(Footer::decode(&bytes[..cut], start + cut as u64).is_err());
        }

        #[test]
        fn random_bytes_never_panic_and_never_pass(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(FileHeader::decode(&bytes).is_err());
            prop_assert!(RecordHeader::decode(&bytes).is_err());
            prop_assert!(Footer::decode(&bytes, bytes.len() as u64).is_err());
            prop_assert_eq!(RecordHeader::find(&bytes), None);
        }
    }
}
