//! The write-ahead log: what survives, and what counts as lost.

use super::*;
use crate::crypto::SecretKey;
use crate::validator::context::LogContext;
use crate::validator::wire::InputRecord;
use arc_malachitebft_core_consensus::Input;
use arc_malachitebft_core_types::{Round, Timeout};

fn owner() -> (Genesis, PublicKey) {
    (Genesis::of(b"a network"), SecretKey::from_bytes([1; 32]).public())
}

fn record(round: u32) -> Record {
    let input: Input<LogContext> = Input::TimeoutElapsed(Timeout::propose(Round::new(round)));
    Record::Input(InputRecord::of(input).unwrap())
}

fn open(path: &Path, next: u64) -> Past {
    Wal::open(path, owner(), next).unwrap().1
}

fn at(height: u64, voting: bool, rounds: impl IntoIterator<Item = u32>) -> Past {
    Past::Height { height, voting, records: rounds.into_iter().map(record).collect() }
}

/// A log with three frames at height 7.
fn written(path: &Path) {
    let (mut wal, past) = Wal::open(path, owner(), 7).unwrap();
    assert_eq!(past, Past::New);
    wal.begin(7, true).unwrap();
    for round in 0..3 {
        wal.append(record(round));
        wal.flush().unwrap();
    }
}

#[test]
fn what_was_flushed_is_found_and_what_was_not_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    written(&path);
    let (mut wal, past) = Wal::open(&path, owner(), 7).unwrap();
    assert_eq!(past, at(7, true, 0..3));
    wal.append(record(3));
    drop(wal);
    assert_eq!(open(&path, 7), at(7, true, 0..3));
}

#[test]
fn a_height_without_records_was_never_begun() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    written(&path);
    let (mut wal, _) = Wal::open(&path, owner(), 8).unwrap();
    wal.begin(8, true).unwrap();
    wal.flush().unwrap();
    drop(wal);
    assert_eq!(open(&path, 8), at(7, true, 0..3));
}

#[test]
fn cut_at_any_byte_it_holds_the_frames_that_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    written(&path);
    let whole = std::fs::read(&path).unwrap();
    let mut ends = vec![0];
    while let Some((_, _, len)) = split_frame(&whole[*ends.last().unwrap()..]) {
        ends.push(ends.last().unwrap() + len);
    }
    assert_eq!(ends.len(), 5, "the owner's frame and three more");
    for cut in 0..=whole.len() {
        let parsed = parse(&whole[..cut]);
        let frames = ends.iter().filter(|&&end| end <= cut).count() - 1;
        assert!(!parsed.damaged, "cut at {cut}");
        assert_eq!(parsed.len, ends[frames], "cut at {cut}");
    }
    // In place, too: the torn end goes, and what is written next is found.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (mut wal, past) = Wal::open(&path, owner(), 7).unwrap();
    assert_eq!(past, at(7, true, 0..2));
    wal.append(record(9));
    wal.flush().unwrap();
    drop(wal);
    assert_eq!(open(&path, 7), at(7, true, [0, 1, 9]));
}

#[test]
fn a_flipped_bit_before_the_last_frame_is_damage_not_a_torn_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    written(&path);
    let whole = std::fs::read(&path).unwrap();
    for at in 0..start_of_last(&whole) {
        let mut bent = whole.clone();
        bent[at] ^= 0x10;
        assert!(parse(&bent).damaged, "bit flipped in byte {at}");
    }
    let mut bent = whole;
    bent[FRAME_HEAD + 3] ^= 1;
    std::fs::write(&path, bent).unwrap();
    assert_eq!(open(&path, 7), Past::Lost);
    assert_eq!(open(&path, 7), at(7, false, []), "the loss is remembered");
    assert!(with_suffix(&path, ".damaged").exists());
}

/// Where the last frame begins.
fn start_of_last(bytes: &[u8]) -> usize {
    let (mut at, mut last) = (0, 0);
    while let Some((_, _, len)) = split_frame(&bytes[at..]) {
        (last, at) = (at, at + len);
    }
    last
}

#[test]
fn a_deleted_log_is_lost_and_stays_lost_for_the_height() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    written(&path);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(open(&path, 8), Past::Lost);
    assert_eq!(open(&path, 8), at(8, false, []));
    let (mut wal, _) = Wal::open(&path, owner(), 9).unwrap();
    wal.begin(9, true).unwrap();
    wal.append(record(0));
    wal.flush().unwrap();
    drop(wal);
    assert_eq!(open(&path, 9), at(9, true, [0]));
}

#[test]
fn a_crash_while_it_is_made_for_the_first_time_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    // Locked, but killed before the file was in place.
    std::fs::write(with_suffix(&path, ".lock"), "").unwrap();
    std::fs::write(with_suffix(&path, ".new"), "half").unwrap();
    assert_eq!(open(&path, 1), Past::New);
    // The file is in place, but killed before its owner was noted, or halfway through.
    for text in ["", "3a3a"] {
        std::fs::write(with_suffix(&path, ".lock"), text).unwrap();
        assert_eq!(open(&path, 1), Past::New);
    }
}

#[test]
fn a_second_owner_and_a_second_process_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    let (wal, _) = Wal::open(&path, owner(), 1).unwrap();
    assert!(matches!(Wal::open(&path, owner(), 1), Err(WalError::Locked { .. })));
    drop(wal);
    let other = (owner().0, SecretKey::from_bytes([2; 32]).public());
    assert!(matches!(Wal::open(&path, other, 1), Err(WalError::Foreign { .. })));
    std::fs::remove_file(with_suffix(&path, ".lock")).unwrap();
    assert!(matches!(Wal::open(&path, other, 1), Err(WalError::Foreign { .. })));
}

#[test]
fn a_long_file_is_replaced_when_a_height_begins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wal");
    let (mut wal, _) = Wal::open(&path, owner(), 1).unwrap();
    wal.begin(1, true).unwrap();
    (0..200_000).for_each(|round| wal.append(record(round)));
    wal.flush().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > ROTATE_AT);
    wal.begin(2, true).unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 1000);
    wal.append(record(5));
    wal.flush().unwrap();
    drop(wal);
    assert_eq!(open(&path, 2), at(2, true, [5]));
}
