//! What holds for all chunkings: boundaries depend on bytes alone, and stay what they are.

mod formats;
mod hostile;
pub(crate) mod make;

use proptest::prelude::*;

use self::make::{noise, read_slice};
use super::*;

/// Lengths of the chunks of `data` when it is all there at once.
fn cut_at_once(chunking: Chunking, data: &[u8]) -> Vec<usize> {
    cut_in_pieces(chunking, data, &[data.len().max(1)])
}

fn cut_in_pieces(chunking: Chunking, data: &[u8], pieces: &[usize]) -> Vec<usize> {
    let read = read_slice(data);
    let mut cutter = Cutter::new(chunking, data.len() as u64, &read).unwrap();
    cutter.run(0, data.len() as u64).unwrap();
    // Offsets of what is shown to the cutter: from the next chunk on, as far as has been read.
    let (mut at, mut shown) = (0, 0);
    let mut lengths = Vec::new();
    for piece in pieces.iter().cycle() {
        while let Some(len) = cutter.next(&data[at..shown]).unwrap() {
            lengths.push(len);
            at += len;
        }
        if shown == data.len() {
            break;
        }
        shown = (shown + piece).min(data.len());
    }
    assert_eq!((at, cutter.remaining()), (data.len(), 0));
    lengths
}

const CDC_16K: Chunking = Chunking::Cdc { average: 16 * KIB };

#[test]
fn golden_boundaries() {
    let data = noise(b"bcai chunking", 3 << 20);
    let lengths = |text: &str| cut_at_once(text.parse().unwrap(), &data);
    assert_eq!(lengths("cdc:64K"), GOLDEN_64K);
    assert_eq!(lengths("auto"), GOLDEN_64K);
    assert_eq!(lengths("cdc:256K"), GOLDEN_256K);
    assert_eq!(lengths("cdc:1M"), GOLDEN_1M);
    assert_eq!(lengths("fixed:1M"), [1 << 20; 3]);
    assert_eq!(lengths("fixed:2M"), [2 << 20, 1 << 20]);
    assert_eq!(lengths("fixed:4M"), [3 << 20]);
}

const GOLDEN_64K: &[usize] = &[
    111734, 69754, 142434, 18714, 101793, 42964, 172722, 94623, 90196, 81343, 35104, 139479, 82244, 26819,
    104179, 69009, 90980, 102094, 39938, 41671, 115407, 82219, 25454, 53436, 66441, 109547, 203123, 97783,
    70961, 71812, 104415, 218532, 97363, 29526, 97718, 44197,
];
const GOLDEN_256K: &[usize] = &[323922, 521012, 81343, 283646, 406200, 264751, 777518, 345421, 141915];
const GOLDEN_1M: &[usize] = &[1657794, 1487934];

#[test]
fn little_data_is_one_chunk() {
    let data = noise(b"small", 128 * KIB as usize + 1);
    assert_eq!(cut_at_once(Chunking::default(), &[]), [0; 0]);
    assert_eq!(cut_at_once(Chunking::default(), &data[..1]), [1]);
    assert_eq!(cut_at_once(Chunking::default(), &data[..128 * KIB as usize]), [128 * KIB as usize]);
    assert!(cut_at_once(Chunking::default(), &data).len() > 1);
}

#[test]
fn an_insertion_moves_few_boundaries() {
    let data = noise(b"edit", 4 << 20);
    let edited = [&data[..1_000_000], b"inserted", &data[1_000_000..]].concat();
    let chunks = |data: &[u8]| {
        let mut rest = data;
        let mut set = std::collections::HashSet::new();
        for len in cut_at_once(CDC_16K, data) {
            set.insert(blake3::hash(&rest[..len]));
            rest = &rest[len..];
        }
        set
    };
    let new = chunks(&edited).difference(&chunks(&data)).count();
    assert!((1..=4).contains(&new), "{new} new chunks");
}

#[test]
fn text_form_round_trips_and_junk_is_refused() {
    for text in [
        "auto",
        "auto:16K",
        "auto:1M",
        "cdc:16K",
        "cdc:64K",
        "cdc:256K",
        "cdc:1M",
        "fixed:64K",
        "fixed:1M",
        "fixed:2M",
        "fixed:4M",
    ] {
        assert_eq!(text.parse::<Chunking>().unwrap().to_string(), text);
    }
    assert_eq!("cdc:65536".parse(), Ok(Chunking::Cdc { average: 65_536 }));
    assert_eq!(["auto", "auto:64K"].map(str::parse), [Ok(Chunking::default()), Ok(Chunking::default())]);
    for text in [
        "",
        "cdc",
        "auto:",
        "auto:8K",
        "Auto",
        "cdc:",
        "cdc:K",
        "cdc:+64K",
        "cdc:64k",
        "cdc:8K",
        "cdc:2M",
        "cdc:65K",
        "fixed:8M",
        "cdc:0",
        "fixed:32K",
        "rabin:64K",
        "cdc:64K ",
        "cdc:99999999999",
        "cdc:4194304M",
    ] {
        assert!(text.parse::<Chunking>().is_err(), "{text}");
    }
}

/// One file of each format, with members small, middling and long, and a tar of them all.
fn one_of_each() -> Vec<(String, Vec<u8>)> {
    let parts = |seed: &str| {
        let part = |(number, len)| noise(format!("{seed}{number}").as_bytes(), len);
        [100, 300_000, 90_000, 5000, 150_000].into_iter().enumerate().map(part).collect::<Vec<_>>()
    };
    let mut files = Vec::new();
    files.push((
        "a.zip".into(),
        make::zip(&parts("zip").into_iter().map(make::stored).collect::<Vec<_>>(), false),
    ));
    let tensors = ["e", "b", "d", "c", "a"].into_iter().zip(parts("tensors")).collect::<Vec<_>>();
    files.push(("b.safetensors".into(), make::safetensors(&tensors)));
    let mut parquet = b"PAR1".to_vec();
    parts("pages").iter().for_each(|data| parquet.extend(make::page(data)));
    let (first, second) = (300_000 + 100, parquet.len() as u64 - 4 - 300_100);
    parquet.extend(make::parquet_footer(&[vec![(4, first)], vec![(4 + first, second)]]));
    files.push(("c.parquet".into(), parquet));
    let tar = parts("tar").into_iter().enumerate().map(|(number, data)| (number.to_string(), data));
    files.push(("d.tar".into(), make::tar(&tar.collect::<Vec<_>>())));
    files.push(("e.tar".into(), make::tar(&files)));
    files
}

/// The cuts of `auto`, by the BLAKE3 of their list.
#[test]
fn golden_boundaries_of_formats() {
    let files = one_of_each();
    let found = files.iter().map(|(name, data)| {
        let lengths = cut_at_once(Chunking::default(), data);
        (name.as_str(), lengths.len(), blake3::hash(format!("{lengths:?}").as_bytes()).to_string())
    });
    let golden = GOLDEN_FORMATS.iter().map(|(name, count, hash)| (*name, *count, hash.to_string()));
    assert_eq!(found.collect::<Vec<_>>(), golden.collect::<Vec<_>>());
}

const GOLDEN_FORMATS: &[(&str, usize, &str)] = &[
    ("a.zip", 12, "f81a207f5f63c5243d005bb5781e1c0cd09fc7f8e8eaf0459535c9033c43d578"),
    ("b.safetensors", 11, "a725eda200530514b30994fc12f0c281c8273cbc609b05ec63125372284f56a8"),
    ("c.parquet", 8, "081fa9289e5787da97fa8bca755d48f8bc33dac2ce8ddcc01c25b76b87667522"),
    ("d.tar", 12, "075c63c36077c7c0f6b919f672ed11eaf802de93af480cedecb69acfbe4dd8e4"),
    ("e.tar", 48, "12c5ba36f00c152fff98f10d083564de6ced9aa73f3a06f5a3431ba73ce921dc"),
];

/// What a folder and a tar of it have in common are all chunks of the folder that are not tiny.
#[test]
fn a_file_in_a_tar_is_cut_as_it_is_alone() {
    let files = one_of_each();
    let chunks = |data: &[u8]| {
        let mut rest = data;
        let cut = cut_at_once(Chunking::default(), data).into_iter();
        cut.map(|len| blake3::hash(rest.split_off(..len).unwrap())).collect::<std::collections::HashSet<_>>()
    };
    let (tar, single) = files.split_last().unwrap();
    let tar = chunks(&tar.1);
    for (name, data) in single {
        assert!(chunks(data).is_subset(&tar), "{name}");
    }
}

#[test]
fn holes_move_no_border() {
    let (_, data) = one_of_each().swap_remove(3);
    let chunking = Chunking::default();
    let read = read_slice(&data);
    let mut cuts = vec![0];
    cut_at_once(chunking, &data).iter().for_each(|len| cuts.push(cuts[cuts.len() - 1] + len));
    // From the middle of one chunk to the middle of another.
    let (start, end) = ((cuts[3] + cuts[4]) / 2, (cuts[6] + cuts[7]) / 2);
    let mut cutter = Cutter::new(chunking, data.len() as u64, &read).unwrap();
    let mut ends = Vec::new();
    for run in [0..start, end..data.len()] {
        cutter.run(run.start as u64, run.end as u64).unwrap();
        let mut at = run.start;
        while let Some(len) = cutter.next(&data[at..]).unwrap() {
            at += len;
            ends.push(at);
        }
        assert_eq!(at, run.end);
    }
    assert!(ends.contains(&start));
    let borders = formats::borders(&data, 64 * KIB);
    let visible = |border: &&u64| !(start as u64..=end as u64).contains(border);
    assert!(borders.iter().filter(visible).all(|border| ends.contains(&(*border as usize))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pieces_do_not_matter(
        len in 0usize..600_000,
        seed: u64,
        period in 1usize..5000,
        periodic: bool,
        pieces in prop::collection::vec(1usize..300_000, 1..6),
    ) {
        let mut data = noise(&seed.to_le_bytes(), len);
        if periodic {
            for at in period..len {
                data[at] = data[at - period];
            }
        }
        for chunking in [CDC_16K, Chunking::Auto { average: 16 * KIB }, Chunking::Fixed { size: 64 * KIB }] {
            let at_once = cut_at_once(chunking, &data);
            prop_assert!(at_once.iter().all(|len| *len <= chunking.max_len()));
            prop_assert_eq!(at_once, cut_in_pieces(chunking, &data, &pieces));
        }
    }
}
