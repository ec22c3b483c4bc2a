//! The trees of a mount: the one that is mounted now, and those that it took the place of while somebody still uses them.
//!
//! Owns: which tree an inode number means, how long the kernel may keep what it is told of the root, when an old tree is
//! let go.
//! Must not know: requests, or how the kernel is told of a change (`switch`).
//! Invariant: a number that the kernel holds means the same file as long as it holds it. What is told of the root
//! directory is kept by the kernel only if it is of the tree that stays mounted.
//! Trust: the kernel forgets exactly what it was told. A tree's numbers are checked.
//! Threads: the lock is held for a look-up, or while one answer is written; never while the kernel is asked for anything.
//!
//! A number that the kernel sees is `slot << 48 | number in the tree`; every tree has a slot of its own as long as it
//! lives. The root of whatever is mounted is always [`ROOT`], and what is said of it may change by a switch. So are the
//! offsets in the listing of the root made, for a listing that is under way goes on in its tree.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crate::tree::{Attr, FileKind, ROOT, Tree};

/// How long the kernel may keep what it was told. A tree never changes, so: longer than any mount.
const TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Bits of a number, or an offset in the root, that are the tree's own.
const OWN_BITS: u32 = 48;
/// Slots, so many that offsets stay positive for the kernel.
const SLOTS: u64 = 1 << (63 - OWN_BITS);
/// Stands for a number that nobody knows: how often an earlier process told the kernel numbers of a slot.
const UNKNOWN: u64 = 1 << 62;

struct Slot {
    tree: Arc<dyn Tree>,
    /// How often the kernel was told a number of this slot that it has not forgotten yet.
    held: AtomicU64,
    /// The directories among them, by their numbers in the tree.
    dirs: Mutex<HashMap<u64, u64>>,
}

impl Slot {
    fn new(tree: Arc<dyn Tree>) -> Self {
        Self { tree, held: AtomicU64::new(0), dirs: Mutex::default() }
    }

    /// Of an earlier process.
    fn inherited(tree: Arc<dyn Tree>) -> Self {
        Self { tree, held: AtomicU64::new(UNKNOWN), dirs: Mutex::default() }
    }

    /// Whether nobody knows if the kernel holds something of it.
    fn is_inherited(&self) -> bool {
        self.held.load(Ordering::Relaxed) > UNKNOWN / 2
    }
}

struct Inner {
    slots: BTreeMap<u64, Slot>,
    current: u64,
    /// The tree before it, kept for listings of the root that are under way: the kernel holds nothing for them.
    last: Option<u64>,
    /// A switch is under way: what is told of the root now is not to be kept.
    switching: bool,
}

/// The trees of one mount.
pub(crate) struct Trees(RwLock<Inner>);

/// Where a number leads.
pub(crate) struct Place {
    pub(crate) tree: Arc<dyn Tree>,
    pub(crate) ino: u64,
    slot: u64,
}

impl Place {
    /// A number of this place's tree as the kernel sees it. None if it is more than there is room for.
    pub(crate) fn number(&self, ino: u64) -> Option<u64> {
        match ino {
            ROOT => Some(ROOT),
            _ => join(self.slot, ino),
        }
    }

    /// The attributes of a file of this place's tree, with the number that the kernel sees.
    pub(crate) fn seen(&self, attr: &Attr) -> Option<Attr> {
        Some(Attr { ino: self.number(attr.ino)?, ..attr.clone() })
    }

    /// An offset in this directory as the kernel sees it.
    pub(crate) fn offset(&self, offset: u64) -> Option<u64> {
        if self.ino == ROOT { join(self.slot, offset) } else { Some(offset) }
    }
}

fn join(slot: u64, own: u64) -> Option<u64> {
    (own >> OWN_BITS == 0).then_some(slot << OWN_BITS | own)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn split(number: u64) -> (u64, u64) {
    (number >> OWN_BITS, number & ((1 << OWN_BITS) - 1))
}

/// Held while the kernel is told something; meanwhile no switch begins or ends.
pub(crate) struct Telling<'a> {
    inner: RwLockReadGuard<'a, Inner>,
    slot: u64,
    of_root: bool,
}

impl Telling<'_> {
    /// How long the kernel may keep it.
    pub(crate) fn ttl(&self) -> Duration {
        let may_change = self.of_root && (self.inner.switching || self.slot != self.inner.current);
        if may_change { Duration::ZERO } else { TTL }
    }

    /// The kernel holds one more number of this tree, that of `attr`. Called before the answer is written: it may be
    /// forgotten at once.
    pub(crate) fn holds(&self, attr: &Attr) {
        let Some(slot) = self.inner.slots.get(&self.slot) else { return };
        slot.held.fetch_add(1, Ordering::Relaxed);
        if attr.kind == FileKind::Dir {
            *lock(&slot.dirs).entry(attr.ino).or_default() += 1;
        }
    }
}

impl Trees {
    pub(crate) fn new(tree: Arc<dyn Tree>) -> Self {
        let slots = BTreeMap::from([(0, Slot::new(tree))]);
        Self(RwLock::new(Inner { slots, current: 0, last: None, switching: false }))
    }

    /// The trees of an earlier process by their slots, and which of them is mounted. What the kernel holds of them is not known,
    /// so each stays as long as the mount, unless there are too many. None if the mounted one is not among them.
    pub(crate) fn inherited(trees: BTreeMap<u64, Arc<dyn Tree>>, current: u64) -> Option<Self> {
        trees.contains_key(&current).then_some(())?;
        let of = |(slot, tree)| (slot, Slot::inherited(tree));
        let slots = trees.into_iter().filter(|(slot, _)| *slot < SLOTS).map(of).collect();
        Some(Self(RwLock::new(Inner { slots, current, last: None, switching: false })))
    }

    /// Lets go of the trees of an earlier process, but for the mounted one: whoever still uses one gets ESTALE.
    pub(crate) fn let_inherited_go(&self) {
        let mut inner = self.write();
        let current = inner.current;
        inner.slots.retain(|slot, held| *slot == current || !held.is_inherited());
    }

    /// The slots of the trees that live.
    pub(crate) fn slots(&self) -> Vec<u64> {
        self.read().slots.keys().copied().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Every change is one step.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the number `ino` means now. None if its tree is gone, of which the kernel then holds nothing.
    pub(crate) fn at(&self, ino: u64) -> Option<Place> {
        let inner = self.read();
        let (slot, own) = if ino == ROOT { (inner.current, ROOT) } else { split(ino) };
        Some(Place { tree: inner.slots.get(&slot)?.tree.clone(), ino: own, slot })
    }

    /// What a listing of the directory `ino` goes on with at `offset`: the place, and the offset in it.
    pub(crate) fn at_offset(&self, ino: u64, offset: u64) -> Option<(Place, u64)> {
        if ino != ROOT || offset == 0 {
            return Some((self.at(ino)?, offset));
        }
        let (slot, offset) = split(offset);
        Some((Place { tree: self.read().slots.get(&slot)?.tree.clone(), ino, slot }, offset))
    }

    /// Before the kernel is told something of `place`, or of a name in it. None if the tree is gone meanwhile.
    pub(crate) fn telling(&self, place: &Place) -> Option<Telling<'_>> {
        let inner = self.read();
        inner.slots.contains_key(&place.slot).then_some(())?;
        Some(Telling { inner, slot: place.slot, of_root: place.ino == ROOT })
    }

    /// The kernel has forgotten `ino`, which it was told `times` times.
    pub(crate) fn forgotten(&self, ino: u64, times: u64) {
        let (slot, own) = split(ino);
        if own == ROOT {
            // It is told nobody, and held by the kernel from first to last.
            return;
        }
        let is_over = {
            let inner = self.read();
            let Some(old) = inner.slots.get(&slot) else { return };
            let mut dirs = lock(&old.dirs);
            if let Some(held) = dirs.get_mut(&own) {
                *held = held.saturating_sub(times);
                if *held == 0 {
                    dirs.remove(&own);
                }
            }
            old.held.fetch_sub(times, Ordering::Relaxed) == times
        };
        if is_over {
            self.write().let_go();
        }
    }

    /// No longer keeps the tree before the mounted one but for its users.
    pub(crate) fn let_last_go(&self) {
        let mut inner = self.write();
        inner.last = None;
        inner.let_go();
    }

    /// Trees, the mounted one among them.
    pub(crate) fn len(&self) -> usize {
        self.read().slots.len()
    }

    /// Begins a switch: from here on the kernel keeps nothing of the root. Gives the slot of the next tree, or None if a switch is
    /// under way already.
    pub(crate) fn begin_switch(&self) -> Option<u64> {
        let mut inner = self.write();
        if inner.switching {
            return None;
        }
        let after = inner.current + 1;
        // As long as fewer trees than slots live, one of them is free.
        let mut slots = (after..after + SLOTS).map(|slot| slot % SLOTS);
        let free = slots.find(|slot| !inner.slots.contains_key(slot))?;
        inner.switching = true;
        Some(free)
    }

    /// All but the mounted one.
    pub(crate) fn old_ones(&self) -> Vec<Arc<dyn Tree>> {
        let inner = self.read();
        let old = inner.slots.iter().filter(|(slot, _)| **slot != inner.current);
        old.map(|(_, slot)| slot.tree.clone()).collect()
    }

    /// The directories in old trees that the kernel holds, each with the number that the kernel has for it.
    pub(crate) fn old_directories(&self) -> Vec<(Place, u64)> {
        let inner = self.read();
        let old = inner.slots.iter().filter(|(slot, _)| **slot != inner.current);
        let of = |(slot, old): (&u64, &Slot)| {
            let place = |ino: &u64| {
                let place = Place { tree: old.tree.clone(), ino: *ino, slot: *slot };
                let number = place.number(*ino)?;
                Some((place, number))
            };
            lock(&old.dirs).keys().filter_map(place).collect::<Vec<_>>()
        };
        old.flat_map(of).collect()
    }

    /// Ends a switch: with the tree that is mounted from now on, in the slot that `begin_switch` gave, or without a change.
    pub(crate) fn end_switch(&self, tree: Option<(u64, Arc<dyn Tree>)>) {
        let mut inner = self.write();
        inner.switching = false;
        let Some((slot, tree)) = tree else { return };
        inner.slots.insert(slot, Slot::new(tree));
        inner.last = Some(std::mem::replace(&mut inner.current, slot));
        inner.let_go();
    }
}

impl Inner {
    /// Drops the trees of which the kernel holds nothing.
    fn let_go(&mut self) {
        let kept = [Some(self.current), self.last];
        self.slots.retain(|slot, held| kept.contains(&Some(*slot)) || held.held.load(Ordering::Relaxed) > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_offsets_have_room_for_the_slot() {
        for (slot, own) in [(0, 0), (0, 7), (3, 1 << 47), (SLOTS - 1, (1 << OWN_BITS) - 1)] {
            let number = join(slot, own).unwrap();
            assert_eq!(split(number), (slot, own));
            assert!(i64::try_from(number).is_ok(), "the kernel takes an offset for a signed number");
        }
        assert_eq!(join(0, 1 << OWN_BITS), None);
    }
}
