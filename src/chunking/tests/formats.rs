//! Each format's borders, in files whose layout is known.

use super::super::borders::Borders;
use super::make::*;

/// All borders, with cuts that the tests' small files have too: pieces of 64 bytes count for an average of 1024.
pub(super) fn borders(data: &[u8], average: u32) -> Vec<u64> {
    let read = read_slice(data);
    let mut borders = Borders::new(&read, data.len() as u64, average);
    let found: Vec<u64> = std::iter::from_fn(|| borders.next().unwrap()).collect();
    assert!(found.is_sorted_by(|a, b| a < b) && found.iter().all(|at| (1..=data.len() as u64).contains(at)));
    found
}

const NONE: [u64; 0] = [];

/// Borders but for the end of the file.
fn small(data: &[u8]) -> Vec<u64> {
    let mut found = borders(data, 1024);
    assert_eq!(found.pop(), Some(data.len() as u64));
    found
}

/// Where `needles` start and end in `data`.
fn places(data: &[u8], needles: &[&[u8]]) -> Vec<u64> {
    let mut places = Vec::new();
    for needle in needles {
        let start = data.windows(needle.len()).position(|window| window == *needle).unwrap();
        places.extend([start as u64, (start + needle.len()) as u64]);
    }
    places.sort();
    places.dedup();
    places
}

#[test]
fn a_tar_is_cut_around_the_data_of_its_members() {
    let data = ["a", "b", "c"].map(|name| noise(name.as_bytes(), 700));
    let mut tar = Vec::new();
    tar_member(&mut tar, "a", b'0', &data[0]);
    tar_member(&mut tar, "dir/", b'5', b"");
    tar_member(&mut tar, "small", b'0', &[1; 63]);
    tar_member(&mut tar, "b", 0, &data[1]);
    tar_member(&mut tar, "c", b'7', &data[2]);
    assert_eq!(small(&tar), [512, 1212, 3584, 4284, 5120, 5820]);
    // What follows the end: nothing, the usual padding, another tar.
    tar.resize(tar.len() + 20 * 512, 0);
    let len = tar.len() as u64;
    assert_eq!(small(&tar), [512, 1212, 3584, 4284, 5120, 5820]);
    tar_member(&mut tar, "c", b'0', &data[2]);
    assert_eq!(small(&tar)[6..], [len + 512, len + 512 + 700]);
    // Much emptiness is the end.
    let len = tar.len();
    tar.resize(len + 2048 * 512, 0);
    tar_member(&mut tar, "d", b'0', &data[2]);
    assert_eq!(small(&tar).len(), 10);
    tar.splice(len..len, [0; 512]);
    assert_eq!(small(&tar).len(), 8);
}

#[test]
fn a_tar_of_every_kind_of_header() {
    let data: [Vec<u8>; 6] = std::array::from_fn(|number| noise(&[number as u8], 1000 + number));
    let mut tar = Vec::new();
    // POSIX: a header for all, and one that gives the size of the next.
    tar_member(&mut tar, "global", b'g', b"20 comment=whatever\n");
    tar_member(&mut tar, "pax", b'x', b"30 mtime=1700000000.123456789\n13 size=1000\n");
    tar.extend(tar_header("a", b'0', 0));
    tar.extend(&data[0]);
    tar.resize(tar.len().next_multiple_of(512), 0);
    // GNU: a long name and a long target.
    tar_member(&mut tar, "././@LongLink", b'L', &[b'n'; 600]);
    tar_member(&mut tar, "././@LongLink", b'K', &[b't'; 600]);
    tar_member(&mut tar, "b", b'0', &data[1]);
    // GNU: a sparse member with two more blocks of its map.
    let mut sparse = tar_header("c", b'S', 1002);
    sparse[482] = 1;
    sign(&mut sparse);
    tar.extend(sparse);
    let mut map = [7; 512];
    tar.extend(map);
    map[504] = 0;
    tar.extend(map);
    tar.extend(&data[2]);
    tar.resize(tar.len().next_multiple_of(512), 0);
    // A hard link that gives the size of what it links to, as some writers do.
    tar.extend(tar_header("link", b'1', 5000));
    // The historic form has no magic.
    let mut old = tar_header("d", 0, 1003);
    old[257..265].fill(0);
    sign(&mut old);
    tar.extend(old);
    tar.extend(&data[3]);
    tar.resize(tar.len().next_multiple_of(512), 0);
    // Sizes in binary, and octal with other blanks.
    let mut binary = tar_header("e", b'0', 1 << 40);
    binary[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\x03\xec");
    sign(&mut binary);
    tar.extend(binary);
    tar.extend(&data[4]);
    tar.resize(tar.len().next_multiple_of(512), 0);
    let mut blanks = tar_header("f", b'0', 0);
    blanks[124..136].copy_from_slice(b"     1755\0  ");
    sign(&mut blanks);
    tar.extend(blanks);
    tar.extend(&data[5]);
    tar.resize((tar.len() + 1024).next_multiple_of(512), 0);
    assert_eq!(small(&tar), places(&tar, &data.each_ref().map(Vec::as_slice)));
}

#[test]
fn a_broken_tar_is_cut_as_far_as_it_is_whole() {
    let data = noise(b"a", 3000);
    let mut tar = Vec::new();
    for name in ["a", "b", "c"] {
        tar_member(&mut tar, name, b'0', &data);
    }
    let whole = small(&tar);
    assert_eq!(whole.len(), 6);
    // The header of the second member is at 3584.
    for damage in [
        &mut |header: &mut [u8]| header[0] ^= 1,
        &mut |header: &mut [u8]| {
            header[124..136].copy_from_slice(b"77777777777\0");
            sign(header);
        },
        &mut |header: &mut [u8]| {
            header[124..136].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
            sign(header);
        },
        &mut |header: &mut [u8]| {
            header[124..136].fill(0xff);
            sign(header);
        },
        &mut |header: &mut [u8]| {
            header[124..136].copy_from_slice(b"12345678\0 9\0");
            sign(header);
        },
    ] as [&mut dyn FnMut(&mut [u8]); 5]
    {
        let mut tar = tar.clone();
        damage(&mut tar[3584..4096]);
        assert_eq!(small(&tar), whole[..2]);
    }
    assert_eq!(small(&tar[..8000]), whole[..4]);
}

#[test]
fn a_zip_is_cut_around_the_data_of_its_entries() {
    let data: [Vec<u8>; 5] = std::array::from_fn(|number| noise(&[number as u8], 500 + number));
    let mut entries: Vec<ZipEntry> = data.iter().cloned().map(stored).collect();
    entries[1].method = 8;
    entries[2].streamed = true;
    entries[3].large = true;
    entries.insert(1, stored(vec![3; 63]));
    let needles = data.each_ref().map(Vec::as_slice);
    for large_end in [false, true] {
        let zip = zip(&entries, large_end);
        assert_eq!(small(&zip), places(&zip, &needles));
        // Nothing that is cut off, or put behind, is a zip.
        assert_eq!(small(&zip[..zip.len() - 1]), NONE);
        assert_eq!(small(&[&zip, &b"x"[..]].concat()), NONE);
    }
    // An entry that is not where the directory says is left out.
    let mut zip = zip(&entries, false);
    let second = zip.windows(4).enumerate().filter(|(_, bytes)| bytes == b"PK\x03\x04").nth(2).unwrap().0;
    zip[second] = b'Q';
    assert_eq!(small(&zip), places(&zip, &[needles[0], needles[2], needles[3], needles[4]]));
}

#[test]
fn more_entries_than_are_held_at_once() {
    let entries: Vec<ZipEntry> = (0..70_000).map(|_| stored(vec![5; 64])).collect();
    let zip = zip(&entries, true);
    assert_eq!(small(&zip).len(), 140_000);
}

#[test]
fn a_safetensors_file_is_cut_around_its_tensors() {
    let data: [Vec<u8>; 4] = std::array::from_fn(|number| noise(&[number as u8], 1000 + number));
    let [a, b, c, d] = data.clone();
    let file = safetensors(&[("z", a), ("norm", vec![1; 63]), ("y", b), ("a", c), ("\\u00e9", d)]);
    assert_eq!(small(&[&file, &b""[..]].concat()), {
        let mut places = places(&file, &data.each_ref().map(Vec::as_slice));
        // The last tensor ends with the file.
        places.pop();
        places
    });
    // Another length of the header, JSON that ends early, an offset that is too large.
    let broken = |from: &str, to: &str| {
        let at = file.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut file = file.clone();
        file.splice(at..at + from.len(), to.bytes());
        small(&file).len()
    };
    assert_eq!(broken("\"dtype\"", "\"dtype "), 0);
    assert_eq!(broken("[0,1000]", "[0,9999]"), 3);
    assert_eq!(broken("[0,1000]", "[9,1   ]"), 3);
    for len in [0, 1, file.len() as u64, u64::MAX, 64 << 20, (64 << 20) + 1] {
        let mut file = file.clone();
        file[..8].copy_from_slice(&len.to_le_bytes());
        assert_eq!(small(&file), NONE, "{len}");
    }
}

#[test]
fn a_parquet_file_is_cut_at_its_pages() {
    let pages: [Vec<u8>; 6] = std::array::from_fn(|number| page(&noise(&[number as u8], 800 + number)));
    let little = page(&[3; 20]);
    let mut file = b"PAR1".to_vec();
    let mut columns = Vec::new();
    for column in [&pages[..1], &pages[1..4], &pages[4..]] {
        let start = file.len() as u64;
        if columns.is_empty() {
            file.extend(&little);
        }
        column.iter().for_each(|page| file.extend(page));
        columns.push((start, file.len() as u64 - start));
    }
    let body = file.clone();
    let expected = places(&body, &pages.each_ref().map(Vec::as_slice));
    // In order, and out of it.
    for groups in [
        vec![columns[..1].to_vec(), columns[1..].to_vec()],
        vec![vec![columns[2], columns[0]], vec![columns[1]]],
        columns.iter().map(|column| vec![*column]).collect(),
    ] {
        let file = [body.clone(), parquet_footer(&groups)].concat();
        assert_eq!(small(&file), expected);
    }
    // A page header that says nothing makes one piece of the rest of its column chunk.
    let mut damaged = [body.clone(), parquet_footer(&[columns.clone()])].concat();
    let second = places(&body, &[&pages[2]])[0];
    damaged[second as usize] = 0;
    let border_within = places(&body, &[&pages[3]])[0];
    assert_eq!(
        small(&damaged),
        expected.iter().copied().filter(|at| *at != border_within).collect::<Vec<_>>()
    );
    // Column chunks past the end, over one another, without end.
    let lies = [(4, u64::MAX >> 1), (columns[0].0, columns[0].1), (5, 1000), (1 << 40, 100)];
    let lying = [body, parquet_footer(&[lies.to_vec()])].concat();
    assert_eq!(small(&lying), expected[..2]);
}

/// Written by pyarrow 26: two row groups of three columns, the second with a dictionary, zstd, page indexes.
#[test]
fn a_parquet_file_of_another_writer() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/two-row-groups.parquet");
    let found = small(&std::fs::read(path).unwrap());
    // pyarrow says that column chunks start and end at 4, 1678, 2396, 4070, 5744, 6461 and 8135, and that the
    // data behind the dictionaries is at 2099 and 6164.
    let first = [4, 841, 1678, 2099, 2228, 2312, 2396, 3233, 4070];
    let second = [4907, 5744, 6164, 6293, 6377, 6461, 7298, 8135];
    assert_eq!(found, [&first[..], &second].concat());
}

#[test]
fn formats_in_formats_are_looked_into() {
    let tensors = || safetensors(&[("a", noise(b"a", 2000)), ("b", noise(b"b", 2000))]);
    let zipped = || zip(&[stored(tensors())], false);
    let tarred = || tar(&[("zip".into(), zipped())]);
    let (a, b) = (noise(b"a", 2000), noise(b"b", 2000));
    let inner = |file: &[u8]| {
        let found = small(file);
        places(file, &[&a, &b]).iter().filter(|place| found.contains(place)).count()
    };
    assert_eq!(inner(&zipped()), 3);
    assert_eq!(inner(&tarred()), 3);
    // The end of the tensors is that of the file, which is a border one level up.
    assert_eq!(inner(&tar(&[("tar".into(), tarred())])), 1);
}
