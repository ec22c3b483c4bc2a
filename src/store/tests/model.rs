//! Random operations on the store against a plain map.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Put {
        seed: u32,
        keep: Keep,
    },
    Get {
        seed: u32,
    },
    /// In a file outside of the store.
    PutOutside {
        seed: u32,
    },
    Spoil {
        seed: u32,
    },
    Hold {
        seeds: Vec<u32>,
    },
    /// Lets go of all that is held.
    Release,
    Commit,
    Reopen,
    Crash,
    LoseIndex,
}

fn op() -> impl Strategy<Value = Op> {
    let seed = 0u32..120;
    prop_oneof![
        20 => (seed.clone(), prop_oneof![1 => Just(Keep::Published), 4 => Just(Keep::Cache)])
            .prop_map(|(seed, keep)| Op::Put { seed, keep }),
        10 => seed.clone().prop_map(|seed| Op::Get { seed }),
        4 => seed.clone().prop_map(|seed| Op::PutOutside { seed: seed / 2 * 2 }),
        1 => seed.clone().prop_map(|seed| Op::Spoil { seed }),
        1 => proptest::collection::vec(seed, 0..6).prop_map(|seeds| Op::Hold { seeds }),
        1 => Just(Op::Release),
        2 => Just(Op::Commit),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
        1 => Just(Op::LoseIndex),
    ]
}

/// What the model knows of an object.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Must be there, whatever happens.
    Durable,
    /// Must be there until the next crash.
    Published,
    /// Must be there until the index is lost.
    InPlace,
    /// Must be there until then or until the next crash.
    NewInPlace,
    /// May be there.
    Maybe,
}

fn object(seed: u32) -> Checked {
    // Some compress, some do not, some are smaller than a block, one is empty.
    let len = (seed * 97 % 9000) as usize;
    let plain = if seed.is_multiple_of(3) { Bytes::from(vec![seed as u8; len]) } else { noise(seed, len) };
    let kind = if seed.is_multiple_of(2) { Kind::Chunk } else { Kind::Tree };
    Checked::pack(kind, plain, if seed.is_multiple_of(5) { Compression::Zstd(1) } else { Compression::Lz4 })
}

const BUDGET: u64 = 128 << 10;

struct Run {
    dir: tempfile::TempDir,
    outside: tempfile::TempDir,
    store: Store,
    model: HashMap<u32, State>,
}

impl Run {
    fn reopen(mut self, crash: bool, lose_index: bool) -> Self {
        if crash {
            let copy = crashed_copy(&self.store, self.dir.path());
            for state in self.model.values_mut() {
                if matches!(state, State::Published | State::NewInPlace) {
                    *state = State::Maybe;
                }
            }
            self.dir = copy;
        } else {
            self.commit_model();
        }
        drop(self.store);
        if lose_index {
            for state in self.model.values_mut().filter(|state| **state == State::InPlace) {
                *state = State::Maybe;
            }
            std::fs::remove_file(self.dir.path().join("index.redb")).expect("removes");
        }
        self.store = open(self.dir.path(), BUDGET);
        self
    }

    fn commit_model(&mut self) {
        for state in self.model.values_mut() {
            *state = match *state {
                State::Published => State::Durable,
                State::NewInPlace => State::InPlace,
                same => same,
            };
        }
    }

    fn step(mut self, op: &Op) -> Self {
        match op {
            Op::Put { seed, keep } => {
                let put = self.store.put(&[object(*seed)], *keep).expect("puts");
                if *keep == Keep::Cache && put.objects > 0 {
                    assert!(self.store.stats().expect("counts").cached_bytes <= BUDGET);
                }
                let state = self.model.entry(*seed).or_insert(State::Maybe);
                if *keep == Keep::Published && *state != State::Durable {
                    *state = State::Published;
                }
            }
            Op::Get { seed } => self.check(*seed),
            Op::PutOutside { seed } => {
                self.put_outside(*seed);
                let state = self.model.entry(*seed).or_insert(State::Maybe);
                if *state == State::Maybe {
                    *state = State::NewInPlace;
                }
            }
            Op::Spoil { seed } if object(*seed).packed().stored().len() < 8 => {}
            Op::Spoil { seed } => {
                let (id, dir) = (object(*seed).id(), self.dir.path());
                let place = self.store.shared().find(&id).expect("looks");
                let spoilt = match place.filter(Place::is_outside) {
                    Some(place) => {
                        std::fs::write(self.file(*seed), b"spoiled!").expect("writes");
                        Some(place)
                    }
                    None => spoil(&self.store, dir, &id),
                };
                match spoilt.map(|place| place.keep()) {
                    Some(Keep::Published) => {
                        assert!(!self.store.forget(&id).expect("looks"), "published");
                        assert!(self.store.replace(&object(*seed)).expect("replaces"));
                        self.check(*seed);
                        // It is in a pack now, but the pack may not be on disk yet.
                        self.model.entry(*seed).and_modify(|state| {
                            if *state != State::Durable {
                                *state = State::Published;
                            }
                        });
                    }
                    Some(Keep::Cache) if self.is_held(&id) => {
                        assert!(!self.store.forget(&id).expect("looks"), "held");
                        self.store.replace(&object(*seed)).expect("replaces");
                        self.check(*seed);
                    }
                    _ => {
                        self.store.forget(&id).expect("forgets");
                        assert!(!self.store.contains(&id).expect("looks"));
                    }
                }
            }
            Op::Hold { seeds } => {
                let ids: Vec<ObjectId> = seeds.iter().map(|seed| object(*seed).id()).collect();
                match self.store.hold(&ids) {
                    Ok(_) | Err(StoreError::PinsFull { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                // That was a commit too.
                self.commit_model();
            }
            Op::Release => {
                let pin = PinRecord {
                    snapshot: SnapshotId::from_bytes([1; 32]),
                    paths: Vec::new(),
                    reference: "photos@v1".into(),
                    whole: true,
                    bytes: 1,
                    files: 1,
                    pinned_unix_ms: 1,
                    replica_of: None,
                };
                self.store.set_pin(&pin).expect("pins");
                assert!(self.store.remove_pin(&pin).expect("unpins"));
                while self.store.release_stale().expect("releases") {}
                assert_eq!(self.store.stats().expect("counts").pinned_bytes, 0);
            }
            Op::Commit => {
                self.store.commit().expect("commits");
                self.commit_model();
            }
            Op::Reopen => return self.reopen(false, false),
            Op::Crash => return self.reopen(true, false),
            Op::LoseIndex => return self.reopen(false, true),
        }
        self
    }

    fn is_held(&self, id: &ObjectId) -> bool {
        self.store.shared().find(id).expect("looks").is_some_and(|place| place.is_pinned())
    }

    fn check_pinned_bytes(&self) {
        let counted = self.store.shared().view().expect("looks").count_pinned().expect("counts");
        assert_eq!(self.store.stats().expect("counts").pinned_bytes, counted);
    }

    fn file(&self, seed: u32) -> PathBuf {
        self.outside.path().join(seed.to_string())
    }

    fn put_outside(&self, seed: u32) {
        let (object, path) = (object(seed), self.file(seed));
        if std::fs::read(&path).ok().as_deref() != Some(&object.plain()[..]) {
            std::fs::write(&path, object.plain()).expect("writes");
        }
        let file = std::fs::File::open(&path).expect("opens");
        let stat = rustix::fs::fstat(&file).expect("has a state");
        let id = crate::id::ChunkId::from_bytes(object.id().hash);
        let chunk = OutsideChunk { id, offset: 0, len: object.plain().len() as u32 };
        let fd = std::os::fd::AsFd::as_fd(&file);
        let mut begun = self.store.outside_file(path, fd, &stat).expect("begins").expect("may be in place");
        begun.put(&[chunk]).expect("puts").expect("held still");
    }

    fn check(&self, seed: u32) {
        let object = object(seed);
        let there = read(&self.store, &object.id());
        match self.model.get(&seed) {
            None => assert_eq!(there, None, "{seed} was never put"),
            Some(State::Maybe) => assert!(there.is_none_or(|plain| plain == object.plain())),
            Some(_) => assert_eq!(there.as_ref(), Some(object.plain()), "{seed} was published"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_store_does_what_a_map_does(ops in proptest::collection::vec(op(), 1..150)) {
        let dir = temp();
        let store = open(dir.path(), BUDGET);
        let mut run = Run { dir, outside: elsewhere(), store, model: HashMap::new() };
        for op in &ops {
            run = run.step(op);
            run.check_pinned_bytes();
        }
        for seed in 0..120 {
            run.check(seed);
        }
        all_sound(&run.store);
    }
}
