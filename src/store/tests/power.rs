//! Power is cut after every write, and disks fail at every write: what was promised is there, and all that is there is
//! right.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use super::simulated::{Image, Left, Simulated, Step};
use super::*;
use crate::id::BlobId;

const BUDGET: u64 = 128 << 10;

/// What a call of the store that has returned means for ever after, or until another takes it back.
#[derive(Debug, Clone)]
enum Promise {
    /// Published and committed.
    Kept(Vec<u32>),
    /// No longer wanted, from the call on that takes them away.
    Gone(Vec<u32>),
    /// Held in the cache.
    Held(Vec<u32>),
    /// No longer held, from the call on that lets go.
    Released,
    Snapshot(SnapshotId),
    /// A pin is there, or is not from the call on that removes it.
    Pin(PinRecord),
    Unpin(PinRecord),
}

/// What has to be there.
#[derive(Debug, Default)]
struct Due {
    kept: BTreeSet<u32>,
    held: BTreeSet<u32>,
    snapshots: BTreeSet<[u8; 32]>,
    pins: BTreeMap<[u8; 32], PinRecord>,
}

impl Due {
    fn after(promises: &[Promise]) -> Self {
        let mut due = Self::default();
        for promise in promises {
            match promise {
                Promise::Kept(seeds) => due.kept.extend(seeds),
                Promise::Gone(seeds) => seeds.iter().for_each(|seed| {
                    due.kept.remove(seed);
                }),
                Promise::Held(seeds) => due.held.extend(seeds),
                Promise::Released => due.held.clear(),
                Promise::Snapshot(id) => {
                    due.snapshots.insert(*id.as_bytes());
                }
                Promise::Pin(pin) => {
                    due.pins.insert(pin.key(), pin.clone());
                }
                Promise::Unpin(pin) => {
                    due.pins.remove(&pin.key());
                }
            }
        }
        due
    }

    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.held.is_empty() && self.snapshots.is_empty() && self.pins.is_empty()
    }

    fn check(&self, store: &Store, story: &str) {
        for seed in self.kept.iter().chain(&self.held) {
            let id = object(*seed).id();
            let there = store.get(&id).map(|packed| packed.is_some_and(|packed| packed.verify(&id).is_ok()));
            assert!(matches!(there, Ok(true)), "{story}: object {seed} is gone or wrong: {there:?}");
        }
        let found: BTreeSet<_> = store.snapshots().expect("lists").iter().map(|s| *s.id.as_bytes()).collect();
        assert!(self.snapshots.is_subset(&found), "{story}: a snapshot is gone");
        let pins = store.pins().expect("lists");
        assert!(self.pins.values().all(|pin| pins.contains(pin)), "{story}: a pin is gone");
    }
}

/// Some objects compress, some are smaller than a block, one is empty.
fn object(seed: u32) -> Checked {
    let len = (seed * 97 % 5000) as usize;
    let plain = if seed.is_multiple_of(3) { Bytes::from(vec![seed as u8; len]) } else { noise(seed, len) };
    Checked::pack(if seed.is_multiple_of(4) { Kind::Tree } else { Kind::Chunk }, plain, Compression::Lz4)
}

fn objects(seeds: &[u32]) -> Vec<Checked> {
    seeds.iter().copied().map(object).collect()
}

fn ids(seeds: &[u32]) -> Vec<ObjectId> {
    seeds.iter().map(|seed| object(*seed).id()).collect()
}

fn pin(round: u32) -> PinRecord {
    PinRecord {
        snapshot: SnapshotId::of(&round.to_le_bytes()),
        paths: vec![format!("part-{round}/**")],
        reference: "photos@v1".into(),
        whole: true,
        bytes: 1,
        files: 1,
        pinned_unix_ms: 1,
        replica_of: None,
    }
}

/// A store on a simulated disk, and what it has promised.
struct Work {
    dir: tempfile::TempDir,
    disk: Simulated,
    store: Option<Store>,
    promises: Vec<Promise>,
}

type Worked = Result<(), StoreError>;

impl Work {
    fn new() -> Self {
        Self { dir: elsewhere(), disk: Simulated::default(), store: None, promises: Vec::new() }
    }

    fn open(&mut self) -> Worked {
        // One at a time: the old one is closed first.
        self.store = None;
        self.store = Some(open_on(self.dir.path(), BUDGET, Arc::new(self.disk.clone()))?);
        Ok(())
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    fn promise(&mut self, promise: Promise) {
        self.promises.push(promise);
        self.disk.promised(self.promises.len());
    }

    /// All that a store does, a little of each: publishing, filling the cache beyond its budget, pins and their end,
    /// blob files, listings, eviction by name, sweeping, and opening again.
    fn round(&mut self, round: u32) -> Worked {
        if round.is_multiple_of(3) {
            self.open()?;
        }
        let first = round * 100;
        let published: Vec<u32> = (first..first + 12).collect();
        self.store().put(&objects(&published[..8]), Keep::Published)?;
        let cached: Vec<u32> = (first + 50..first + 80).collect();
        self.store().put(&objects(&cached), Keep::Cache)?;
        self.store().put(&objects(&published[8..]), Keep::Published)?;
        self.store().commit()?;
        self.promise(Promise::Kept(published.clone()));
        self.pin(round, &cached[20..])?;
        self.blob_file(round)?;
        let id = SnapshotId::of(&round.to_be_bytes());
        self.store().keep_snapshot(SnapshotRecord::recovered(id))?;
        self.promise(Promise::Snapshot(id));
        self.store().evict(&ids(&cached[..5]))?;
        // What was cached is published from here on.
        self.store().put(&objects(&cached[6..9]), Keep::Published)?;
        let row =
            Listing { dir: (1, round.into()), first: b"a".into(), last: b"z".into(), bytes: vec![7; 300] };
        self.store().keep_listing((1, 1), row)?;
        self.store().tidy_listings((1, 1), |dir| dir.1 % 2 == 0)?;
        self.promise(Promise::Kept(cached[6..9].to_vec()));
        self.sweep(&published)?;
        self.store().commit()
    }

    fn pin(&mut self, round: u32, cached: &[u32]) -> Worked {
        let missing = self.store().hold(&ids(cached))?;
        let held = cached.iter().copied().filter(|seed| !missing.contains(&object(*seed).id())).collect();
        self.promise(Promise::Held(held));
        self.store().set_pin(&pin(round))?;
        self.promise(Promise::Pin(pin(round)));
        if round % 4 == 3 {
            self.promise(Promise::Unpin(pin(round)));
            self.store().remove_pin(&pin(round))?;
            self.promise(Promise::Released);
            while self.store().release_stale()? {}
        }
        Ok(())
    }

    /// Takes some of what was published away.
    fn sweep(&mut self, published: &[u32]) -> Worked {
        let (gone, kept) = published.split_at(4);
        self.promise(Promise::Gone(gone.to_vec()));
        let mut marks = self.store().marks([3; 32])?;
        let due = Due::after(&self.promises);
        due.kept.iter().chain(kept).for_each(|seed| marks.insert(&object(*seed).id()));
        self.store().sweep(&marks, &[], &mut |_, _| ControlFlow::Continue(()))?;
        Ok(())
    }

    fn blob_file(&self, round: u32) -> Worked {
        let chunk = chunk(round, 9000);
        let blob = BlobId::from_bytes([round as u8; 32]);
        let Some(mut writer) = self.store().begin_blob_file(blob, 9000)? else { return Ok(()) };
        writer.write(&chunk)?;
        writer.finish()
    }
}

/// Opens what a cut has left, and finds what is due, and all of it right.
fn check(dir: &Path, due: &Due, story: &str) {
    let store = open(dir, BUDGET);
    let aside = std::fs::read_dir(dir).expect("lists").map(|entry| entry.expect("an entry").file_name());
    let aside: Vec<_> = aside.filter(|name| name.to_string_lossy().contains("broken")).collect();
    // A store that was never open may begin anew.
    assert!(aside.is_empty() || due.is_empty(), "{story}: {aside:?} was set aside");
    due.check(&store, story);
    assert_eq!(verify(&store), [], "{story}");
    // What was dropped before the cut and not freed is freed when room is wanted.
    store.put(&objects(&[88_888]), Keep::Cache).expect("puts");
    let stats = store.stats().expect("counts");
    assert!(stats.cached_bytes <= BUDGET, "{story}: {stats:?}");
    let pinned = store.shared().view().expect("looks").count_pinned().expect("counts");
    assert_eq!(stats.pinned_bytes, pinned, "{story}");
    // It goes on as if nothing had been.
    let new = object(99_999);
    store.put(std::slice::from_ref(&new), Keep::Published).expect("puts");
    store.commit().expect("commits");
    assert!(has(&store, &new), "{story}");
}

/// Cuts the power after every `stride`th step of `rounds` rounds, and checks what each of `ways` leaves. Says how
/// many cuts that were.
fn cut(rounds: u32, stride: usize, ways: impl Fn(usize) -> Vec<Left>) -> usize {
    let mut work = Work::new();
    (0..rounds).for_each(|round| work.round(round).expect("nothing fails"));
    work.store = None;
    let (mut image, mut promised, mut cuts) = (Image::default(), 0, 0);
    for (at, step) in work.disk.steps().iter().enumerate() {
        image.apply(step);
        if let Step::Promised(promises) = step {
            promised = *promises;
        }
        if at % stride != 0 {
            continue;
        }
        let due = Due::after(&work.promises[..promised]);
        for left in ways(at) {
            let dir = elsewhere();
            image.write(left, work.dir.path(), dir.path());
            check(dir.path(), &due, &format!("a cut after step {at} that leaves {left:?}"));
            cuts += 1;
            if cuts % 1000 == 0 {
                println!("{cuts} cuts");
            }
        }
    }
    cuts
}

#[test]
fn nothing_that_was_promised_is_lost_in_a_power_cut() {
    let cuts = cut(5, 7, |at| vec![Left::Nothing, Left::Everything, Left::Some(at as u64)]);
    println!("{cuts} cuts");
    assert!(cuts > 300, "{cuts}");
}

#[test]
#[ignore = "on demand: every step, eight ways, for ten minutes"]
fn nothing_that_was_promised_is_lost_in_any_power_cut() {
    let some = |at: usize| (0..6).map(move |way| Left::Some((at * 6 + way) as u64));
    let cuts = cut(5, 1, |at| [Left::Nothing, Left::Everything].into_iter().chain(some(at)).collect());
    println!("{cuts} cuts");
}

/// Works on a disk on which everything fails from the `after`th change or sync on. What was promised before stays
/// readable, what is refused is refused for a reason that is told, and after a restart on a sound disk, or a power cut,
/// all of it is there. Whether it came to a failure.
fn fail(after: usize, errno: Errno) -> bool {
    let mut work = Work::new();
    work.disk.fail(after, errno);
    let story = format!("{errno:?} from change {after} on");
    let ended = (0..3).try_for_each(|round| work.round(round));
    if !work.disk.has_failed() {
        ended.expect("nothing fails");
        return false;
    }
    if let Some(store) = &work.store {
        Due::after(&work.promises).check(store, &story);
        // A full disk takes no new object; a dead one nothing at all.
        let refused = store.put(&objects(&[77_777]), Keep::Published).and_then(|_| store.commit());
        match refused.expect_err("nothing can be written") {
            StoreError::Stopped { .. } => {}
            StoreError::Full { .. } => assert_eq!(errno, Errno::NOSPC, "{story}"),
            StoreError::Io { .. } | StoreError::Index { .. } => {
                let then = store.put(&objects(&[77_777]), Keep::Published).expect_err("it has stopped");
                assert!(
                    matches!(then, StoreError::Stopped { .. } | StoreError::Io { .. }),
                    "{story}: {then}"
                );
            }
            error => panic!("{story}: {error}"),
        }
    }
    work.store = None;
    let due = Due::after(&work.promises);
    let mut image = Image::default();
    work.disk.steps().iter().for_each(|step| image.apply(step));
    let cut = elsewhere();
    image.write(Left::Some(after as u64), work.dir.path(), cut.path());
    check(cut.path(), &due, &format!("{story}, then a cut"));
    check(work.dir.path(), &due, &format!("{story}, then a restart"));
    true
}

#[test]
fn a_disk_that_fails_at_any_write_loses_nothing_and_is_told_of() {
    for errno in [Errno::IO, Errno::NOSPC] {
        let failures = (0..).step_by(5).take_while(|after| fail(*after, errno)).count();
        println!("{failures} failures of {errno:?}");
        assert!(failures > 50, "{failures}");
    }
}
