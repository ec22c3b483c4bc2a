//! Files that lie about their structure. The worst they may do is to be cut badly.

use std::cell::Cell;
use std::io;

use super::super::borders::Borders;
use super::make::*;
use super::*;

/// Cuts the file and checks that nothing is lost, whatever the borders are; and that looking for them did not
/// take more than its length allows.
fn survives(data: &[u8]) -> Result<(), TestCaseError> {
    for average in [1024, 16 * KIB] {
        let read_bytes = Cell::new(0);
        let slice = read_slice(data);
        let read = |at, buffer: &mut [u8]| {
            read_bytes.set(read_bytes.get() + buffer.len());
            slice(at, buffer)
        };
        let mut borders = Borders::new(&read, data.len() as u64, average);
        let mut last = 0;
        while let Some(border) = borders.next().unwrap() {
            prop_assert!(border > last && border <= data.len() as u64);
            last = border;
        }
        // A window for each piece that may count, on each level, and the ends of zips.
        let most = 3 * (data.len() / 64 + 3) * (8 << 10) + (1 << 20);
        prop_assert!(read_bytes.get() <= most, "{} of {}", read_bytes.get(), data.len());
    }
    let auto = Chunking::Auto { average: 16 * KIB };
    let lengths = cut_at_once(auto, data);
    prop_assert!(lengths.iter().all(|len| (1..=auto.max_len()).contains(len)));
    prop_assert_eq!(lengths.iter().sum::<usize>(), data.len());
    prop_assert_eq!(lengths, cut_in_pieces(auto, data, &[1000, 70_000, 3]));
    Ok(())
}

/// Makes every format's detector believe that the junk is its own.
fn disguised(format: u8, mut junk: Vec<u8>, number: u64) -> Vec<u8> {
    match format {
        0 => {
            // Headers with right checksums and any size.
            for (block, size) in junk.chunks_exact_mut(512).step_by(3).zip(0..) {
                block[124..136]
                    .copy_from_slice(format!("{:011o}\0", number.rotate_left(size) % 9000).as_bytes());
                sign(block);
            }
        }
        1 => {
            let end = junk.len() - 22;
            junk[..4].copy_from_slice(b"PK\x03\x04");
            junk[end..end + 4].copy_from_slice(b"PK\x05\x06");
            junk[end + 20..].fill(0);
            let start = number as usize % end;
            junk[end + 12..end + 16].copy_from_slice(&((end - start) as u32).to_le_bytes());
            junk[end + 16..end + 20].copy_from_slice(&(start as u32).to_le_bytes());
            for at in (start..end.saturating_sub(50)).step_by(46) {
                junk[at..at + 4].copy_from_slice(b"PK\x01\x02");
                junk[at + 22..at + 24].fill(0);
                junk[at + 28..at + 34].fill(0);
                junk[at + 44..at + 46].fill(0);
            }
        }
        2 => {
            let end = junk.len() - 8;
            junk[..4].copy_from_slice(b"PAR1");
            let len = (number % end as u64) as u32;
            junk[end..end + 4].copy_from_slice(&len.to_le_bytes());
            junk[end + 4..].copy_from_slice(b"PAR1");
        }
        _ => {
            junk[..9].copy_from_slice(b"\0\0\0\0\0\0\0\0{");
            junk[..2].copy_from_slice(&(number as u16 % 2000).to_le_bytes());
        }
    }
    junk
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn junk_in_disguise(format in 0u8..4, len in 600usize..100_000, seed: u64, number: u64) {
        survives(&disguised(format, noise(&seed.to_le_bytes(), len), number))?;
    }

    #[test]
    fn damaged_files(
        which in 0usize..6,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..8),
    ) {
        let parts = || [300, 40_000, 70, 3000].map(|len| noise(&[len as u8], len)).into_iter();
        let pages: Vec<u8> = parts().flat_map(|part| page(&part)).collect();
        let len = pages.len() as u64;
        let mut file = match which {
            0 => tar(&parts().map(|part| ("name".into(), part)).collect::<Vec<_>>()),
            1 => zip(&parts().map(stored).collect::<Vec<_>>(), false),
            2 => zip(&parts().map(stored).collect::<Vec<_>>(), true),
            3 => safetensors(&["a", "b", "c", "d"].into_iter().zip(parts()).collect::<Vec<_>>()),
            4 => [b"PAR1".to_vec(), pages, parquet_footer(&[vec![(4, len)]])].concat(),
            _ => tar(&[("zip".into(), zip(&parts().map(stored).collect::<Vec<_>>(), true))]),
        };
        for (at, byte, how) in damage {
            // Structure is at the ends.
            let near = at.index(400.min(file.len()));
            let far = file.len() - 1 - near;
            match how {
                0 => file[near] ^= byte,
                1 => file[far] ^= byte,
                2 => file.truncate(file.len() - near.min(file.len() / 2)),
                _ => file.insert(far, byte),
            }
        }
        survives(&file)?;
    }
}

/// Column chunks over one another are walked once, though no page of theirs counts.
#[test]
fn overlapping_lists_take_no_more_than_their_length() {
    let pages = page(&[1; 10]).repeat(5000);
    let len = pages.len() as u64;
    let columns: Vec<(u64, u64)> = (0..5000).map(|number| (4 + number % 7, len - number)).collect();
    let file = [b"PAR1".to_vec(), pages, parquet_footer(&[columns])].concat();
    survives(&file).unwrap();
    let mut entries: Vec<ZipEntry> = (0..2000).map(|_| stored(vec![1; 10])).collect();
    entries.push(stored(noise(b"", 100_000)));
    let mut zip = zip(&entries, false);
    // All entries claim to be the first and to hold everything.
    let starts: Vec<usize> =
        zip.windows(4).enumerate().filter(|(_, bytes)| bytes == b"PK\x01\x02").map(|(at, _)| at).collect();
    for at in starts {
        zip[at + 20..at + 24].copy_from_slice(&90_000u32.to_le_bytes());
        zip[at + 42..at + 46].fill(0);
    }
    survives(&zip).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_cannot_be_cut() {
    let files = super::one_of_each();
    for (name, data) in &files {
        for fail_at in 0..4 {
            let (calls, slice) = (Cell::new(0), read_slice(data));
            let read = |at, buffer: &mut [u8]| {
                calls.set(calls.get() + 1);
                if calls.get() > fail_at { Err(io::Error::other("bad sector")) } else { slice(at, buffer) }
            };
            let mut borders = Borders::new(&read, data.len() as u64, 64 * KIB);
            let outcome = std::iter::from_fn(|| borders.next().transpose()).find_map(Result::err);
            assert_eq!(outcome.map(|error| error.to_string()).as_deref(), Some("bad sector"), "{name}");
        }
    }
}
