//! Large files that the kernel shall read by itself: when they are copied, and what for.

use std::os::unix::fs::FileExt;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bcai_mount::{Answer, Tree};

use super::fetching::{Source, open, source};
use super::*;
use crate::id::FileHash;
use crate::manifest::Content;

const LONG: Duration = Duration::from_secs(20);
const LARGE_FILE: u64 = 2;
const SMALL_FILE: u64 = 3;

/// A file of 11 MiB, a hole in it, and one that is not large.
fn built() -> (Built, Vec<u8>) {
    let mut builder = Builder::new(2);
    let mut content = Vec::new();
    let mut extents = Vec::new();
    for i in 0..10u8 {
        let bytes: Vec<u8> = (0..(1u32 << 20) + u32::from(i)).map(|at| (at / 7) as u8 ^ i).collect();
        content.extend_from_slice(&bytes);
        extents.push(builder.chunk(bytes));
        if i == 4 {
            content.resize(content.len() + (1 << 20), 0);
            extents.push(Extent { len: 1 << 20, chunk: None });
        }
    }
    let blob = |builder: &mut Builder, extents: &[Extent]| {
        let top = builder.file(extents);
        let content = Content::Blob { id: top.blob, chunks: top.chunks, hash: FileHash::from_bytes([0; 32]) };
        Node::File { meta: meta(0o644), nlink: 1, size: top.bytes, content }
    };
    let large = blob(&mut builder, &extents);
    let small = blob(&mut builder, &extents[..3]);
    (builder.finish(meta(0o755), &[entry("large", large), entry("small", small)]), content)
}

/// All bytes of the backing file of `ino`, if it has one now.
fn backing(mounted: &MountedView, ino: u64) -> Option<Vec<u8>> {
    let (sender, receiver) = channel();
    let answer = Answer::new(move |result: Result<&Option<bcai_mount::Backing>, _>| {
        let bytes = result.expect("never an error").as_ref().map(|backing| {
            let len = backing.file.metadata().unwrap().len();
            assert_eq!(len, backing.size);
            let mut bytes = vec![0; len as usize];
            backing.file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        });
        sender.send(bytes).unwrap();
    });
    mounted.backing(ino, answer);
    receiver.try_recv().expect("an open waits for nothing")
}

async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < LONG, "{what}");
        tokio::task::yield_now().await;
    }
}

fn mounted(home: &Home, view: &Arc<View>) -> MountedView {
    MountedView::new(view.clone(), tokio::runtime::Handle::current(), LONG)
        .passing_through(home.store.clone())
}

fn read(mounted: &MountedView, offset: u64, len: u32) -> Vec<u8> {
    let (sender, receiver) = channel();
    let answer = Answer::new(move |result: Result<&[u8], _>| sender.send(result.unwrap().to_vec()).unwrap());
    mounted.read(LARGE_FILE, offset, len, answer);
    receiver.recv_timeout(LONG).unwrap()
}

/// Different chunks that were asked for. One may be asked for twice, and not more often: a reader who catches up with
/// what is fetched ahead of it asks again, more urgently, and the first request is dropped.
fn chunks_asked(source: &Source) -> usize {
    let asked = source.asked.lock().unwrap();
    let mut times = std::collections::HashMap::new();
    asked.iter().filter(|id| id.kind == Kind::Chunk).for_each(|id| *times.entry(*id).or_insert(0) += 1);
    assert!(times.values().all(|times| *times <= 2), "{times:?}");
    times.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_here_is_copied_after_its_first_open() {
    let (home, (built, content)) = (Home::new(), built());
    let view = home.view(built).await;
    let mounted = mounted(&home, &view);
    assert_eq!(backing(&mounted, LARGE_FILE), None);
    let bytes = eventually("it is copied", || backing(&mounted, LARGE_FILE)).await;
    assert!(bytes == content);
    for none in [SMALL_FILE, ROOT, 99] {
        assert_eq!(backing(&mounted, none), None);
    }
    // Other mounts of it have it too.
    let other = self::mounted(&home, &view);
    assert!(backing(&other, LARGE_FILE).expect("at once") == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_file_that_is_elsewhere_fetches_nothing_and_reading_it_to_the_end_copies_it() {
    let (home, (built, content)) = (Home::new(), built());
    let source = source(&built, |_| false, None);
    let view = open(&home, source.clone(), built.id).await;
    let mounted = mounted(&home, &view);
    view.attr(LARGE_FILE).await.unwrap();
    let nodes = || source.asked.lock().unwrap().len();
    let before = nodes();
    assert_eq!(backing(&mounted, LARGE_FILE), None);
    eventually("it is looked at", || (nodes() > before).then_some(())).await;
    assert_eq!(chunks_asked(&source), 0);
    let mut bytes = Vec::new();
    while bytes.len() < content.len() {
        bytes.extend(read(&mounted, bytes.len() as u64, 1 << 17));
    }
    assert!(bytes == content);
    let copied = eventually("it is copied", || mounted_backing_without_asking(&home, &built)).await;
    assert!(copied == content);
    assert_eq!(chunks_asked(&source), 10, "the copy needed nothing that the reader had not read");
}

/// The blob file of the large file, without opening the file: that would have it copied.
fn mounted_backing_without_asking(home: &Home, built: &Built) -> Option<Vec<u8>> {
    let blobs = built.objects.iter().filter(|object| object.id().kind == Kind::Blob);
    let files = blobs.filter_map(|object| {
        home.store.blob_file(&crate::id::BlobId::from_bytes(object.id().hash)).expect("the store looks")
    });
    let file = files.into_iter().next()?;
    let mut bytes = vec![0; file.len as usize];
    file.file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_ends_leaves_no_copy_under_way() {
    let (home, (built, content)) = (Home::new(), built());
    let view = home.view(built).await;
    for _ in 0..20 {
        let mounted = mounted(&home, &view);
        let _ = backing(&mounted, LARGE_FILE);
    }
    // Whatever they left, the next one completes it.
    let mounted = mounted(&home, &view);
    assert!(eventually("it is copied", || backing(&mounted, LARGE_FILE)).await == content);
}
