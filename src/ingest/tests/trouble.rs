//! Snapshots that are cut short, and files that change at the wrong moment.

use std::collections::BTreeMap;

use bytes::Bytes;
use crossbeam_channel::unbounded;

use super::*;
use crate::id::ObjectId;
use crate::pack::file::{RECORD_HEADER_LEN, RecordHeader};

fn run<'a>(bench: &'a Bench, options: &'a Options, progress: &'a Progress) -> Run<'a> {
    Run {
        store: &bench.store,
        tree: (0, 0),
        options,
        progress,
        claims: Claims::default(),
        in_place: None,
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    }
}

/// A user cancelled when the walk had just ended. The compressors and the writer saw the flag, dropped the batches
/// that were still on their way, and said nothing; the snapshot was committed and listed as kept, and half of its
/// files could not be read.
#[test]
fn a_batch_dropped_because_of_a_cancellation_fails_the_run() {
    let bench = Bench::new();
    let (options, progress) = (Options::default(), Progress::default());
    let object = Checked::pack(Kind::Chunk, Bytes::from_static(b"content"), options.compression);
    progress.cancel();

    let compressing = run(&bench, &options, &progress);
    let (batches, batches_rx) = unbounded();
    let (puts, _puts_rx) = unbounded();
    batches.send(vec![(object.id(), object.plain().clone())]).unwrap();
    drop(batches);
    outbox::compressor(&compressing, &batches_rx, &puts);
    assert!(matches!(*compressing.failure.lock().unwrap(), Some(IngestError::Cancelled)));

    let writing = run(&bench, &options, &progress);
    let (puts, puts_rx) = unbounded();
    puts.send(vec![object.clone()]).unwrap();
    drop(puts);
    assert_eq!(outbox::writer(&writing, &puts_rx, &unbounded().0).objects, 0);
    assert!(matches!(*writing.failure.lock().unwrap(), Some(IngestError::Cancelled)));
    assert!(!bench.store.contains(&object.id()).unwrap());
}

/// The snapshot object was flushed with the last trees, while the readers still held chunks: a crash in between left
/// it in the packs without its content, and a rebuilt index listed it.
#[test]
fn the_snapshot_object_is_the_last_in_the_packs() {
    let bench = Bench::new();
    some_tree(&bench);
    let done = bench.snapshot().unwrap();
    let mut offsets = BTreeMap::new();
    let mut packs: Vec<_> =
        fs::read_dir(bench.home.path().join("packs")).unwrap().collect::<Result<_, _>>().unwrap();
    packs.sort_by_key(|pack| pack.file_name());
    for pack in packs {
        let bytes = fs::read(pack.path()).unwrap();
        let mut at = 0;
        while let Some(found) = RecordHeader::find(&bytes[at..]) {
            at += found;
            let header = RecordHeader::decode(&bytes[at..at + RECORD_HEADER_LEN]).unwrap();
            offsets.insert((pack.file_name(), at), header.id);
            at += RECORD_HEADER_LEN + header.stored_len as usize;
        }
    }
    assert_eq!(offsets.len() as u64, done.new_objects);
    assert_eq!(offsets.into_values().next_back(), Some(ObjectId::from(done.snapshot)));
}

/// A program wrote a file again, as long as before, within the tick of the clock in which it had been written first:
/// its times were the same before and after the reading, and the snapshot had the first half of one content and the
/// second of the other.
#[test]
fn a_change_within_one_tick_of_the_clock_shows() {
    let bench = Bench::new();
    let path = bench.dir().join("file");
    for turn in 0..20 {
        fs::write(&path, format!("content {turn:02}")).unwrap();
        let stamp = || Stamp::of(&rustix::fs::stat(&path).unwrap());
        let before = loop {
            let stamp = stamp();
            match stamp.settles_in(SystemTime::now()) {
                None => break stamp,
                Some(wait) => assert!(wait <= super::source::TICK),
            }
        };
        fs::write(&path, format!("CONTENT {turn:02}")).unwrap();
        assert!(before.change(&stamp()).is_some(), "turn {turn}");
    }
}

#[test]
fn only_a_fresh_stamp_is_waited_for() {
    let bench = Bench::new();
    bench.write("file", b"x");
    let stat = rustix::fs::stat(bench.dir().join("file")).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::new(stat.st_ctime as u64, stat.st_ctime_nsec as u32);
    let (stamp, tick, ms) = (Stamp::of(&stat), super::source::TICK, Duration::from_millis);
    assert_eq!(stamp.settles_in(changed), Some(tick));
    assert_eq!(stamp.settles_in(changed + ms(5)), Some(tick - ms(5)));
    assert_eq!(stamp.settles_in(changed + tick), None);
    assert_eq!(stamp.settles_in(changed - ms(5)), Some(tick), "the stamp's clock is another than ours");
    assert_eq!(stamp.settles_in(changed - Duration::from_secs(3600)), None, "waiting would not help");
}
