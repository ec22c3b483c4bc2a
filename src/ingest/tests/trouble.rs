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
        options,
        progress,
        claims: Claims::default(),
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
    assert_eq!(outbox::writer(&writing, &puts_rx).objects, 0);
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
