//! The index: which object lies where, in one redb file. All tables are defined here.
//!
//! Owns: `index.redb`, its tables and the bookkeeping that keeps them in step with one another.
//! Must not know: pack files; it is told what they hold.
//! Invariant: each cached object has exactly one row in `recency`, with the tick in its row in `objects`; the
//! counts of a pack's row are those of the objects that lie in it, and so are those of a part of a file outside.
//! Trust: the file is local, but may be damaged: what comes out is checked before it is used as a length.
//! Threads: any; redb lets one writer and many readers in at a time.
//! A crash leaves: the last committed transaction. Each commit is durable and saves what redb needs to open
//! at once afterwards (`set_quick_repair`), so opening does not depend on the size of the index.

mod listings;
mod outside;
mod pins;
mod rows;
mod sweeping;

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, TableError,
};

use listings::{DirKey, ListingKey};
pub(super) use rows::{BlobRow, OUTSIDE, OutsideRow, PINNED, PackRow, Place, Stamp};
use rows::{BlobRowRaw, Key, ObjectRow, OutsideRowRaw, PackRowRaw, id_of, key};

use crate::id::{BlobId, ID_LEN, Kind, ObjectId};
use crate::pack::file::Keep;
use crate::store::disk::Disk;

/// Version of the whole store directory. The version in the table names goes with it.
pub(super) const SCHEMA: u64 = 1;

/// kind byte and hash → pack (or part of a file outside), offset of the record, stored length, tick (0: published).
const OBJECTS: TableDefinition<&Key, ObjectRow> = TableDefinition::new("objects.v1");
/// (tick, object) of every cached object: the oldest tick is evicted first.
const RECENCY: TableDefinition<(u64, &Key), ()> = TableDefinition::new("recency.v1");
/// pack number → class, sealed, length, records, live objects, live bytes, bytes on disk.
const PACKS: TableDefinition<u32, PackRowRaw> = TableDefinition::new("packs.v1");
/// snapshot id → encoded `SnapshotRecord`.
const SNAPSHOTS: TableDefinition<&[u8; ID_LEN], &[u8]> = TableDefinition::new("snapshots.v1");
/// blob → length, bytes on disk, tick of the last use, BLAKE3 of the content: the blob files.
const BLOBS: TableDefinition<&[u8; ID_LEN], BlobRowRaw> = TableDefinition::new("blobs.v1");
/// number of a part of a file outside of the packs → where it begins, stamp of the file, live objects, live bytes, path.
const OUTSIDE_FILES: TableDefinition<u32, OutsideRowRaw<'static>> = TableDefinition::new("outside.v1");
/// BLAKE3 of what a pin is of → encoded `PinRecord`.
const PINS: TableDefinition<&[u8; ID_LEN], &[u8]> = TableDefinition::new("pins.v1");
/// (root of the tree, directory, last name) → what an earlier snapshot found out about the names up to that one.
const LISTINGS: TableDefinition<ListingKey, &[u8]> = TableDefinition::new("listings.v1");
/// root of a tree → number of its last use: the trees that have listings.
const TREES: TableDefinition<DirKey, u64> = TableDefinition::new("trees.v1");
/// "schema", "tick", "next_pack", "next_outside", "outside_bytes", "pin_epoch", "pinned_bytes", "tree_uses". The name has
/// no version, because the version is in it.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

const CACHE_BYTES: usize = 16 << 20;

pub(super) type IndexResult<T> = Result<T, redb::Error>;

/// Makes damage of what is otherwise a panic: redb checks what it reads when it opens a file, but asserts some of it,
/// and a bit flipped in the right place is then a panic at each start. Unwinding is safe here, because nothing that
/// `work` had in hand is used again: an index that fails to open is dropped, and after a write that fails there is no
/// other.
pub(super) fn guarded<T>(work: impl FnOnce() -> IndexResult<T>) -> IndexResult<T> {
    let panicked = |_| Err(redb::Error::Corrupted("redb panicked over what is in it".to_owned()));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

/// Errors that mean the file is not a sound index, as opposed to one that cannot be reached now.
pub(super) fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. } | redb::Error::RepairAborted => {
            true
        }
        redb::Error::Io(cause) => {
            matches!(cause.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

pub(super) struct Index {
    /// `None` only while it is dropped.
    db: Option<Database>,
}

impl Drop for Index {
    fn drop(&mut self) {
        // After a write that panicked, closing panics too.
        let close = || {
            drop(self.db.take());
            Ok(())
        };
        if let Err(error) = guarded(close) {
            tracing::warn!(%error, "the index could not be closed");
        }
    }
}

impl Index {
    /// Opens the file, or begins an empty one without a schema.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> IndexResult<Self> {
        let open = || disk.database(Database::builder().set_cache_size(CACHE_BYTES), path);
        guarded(|| Ok(Self { db: Some(open()?) }))
    }

    fn db(&self) -> IndexResult<&Database> {
        self.db.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    /// The version that the file was initialised with; `None` for an empty one.
    pub(super) fn schema(&self) -> IndexResult<Option<u64>> {
        let txn = self.db()?.begin_read()?;
        match txn.open_table(META) {
            Ok(meta) => Ok(meta.get("schema")?.map(|value| value.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates all tables in an empty file.
    pub(super) fn initialise(&self) -> IndexResult<()> {
        self.write(|tables| tables.set("schema", SCHEMA))
    }

    pub(super) fn read(&self) -> IndexResult<View> {
        Ok(View { txn: self.db()?.begin_read()? })
    }

    /// Runs `change` in one transaction and commits it durably; on an error nothing is changed.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Tables) -> IndexResult<T>) -> IndexResult<T> {
        guarded(|| self.try_write(change))
    }

    fn try_write<T>(&self, change: impl FnOnce(&mut Tables) -> IndexResult<T>) -> IndexResult<T> {
        let mut txn = self.db()?.begin_write()?;
        txn.set_quick_repair(true);
        let result = {
            let mut tables = Tables {
                objects: txn.open_table(OBJECTS)?,
                recency: txn.open_table(RECENCY)?,
                packs: txn.open_table(PACKS)?,
                snapshots: txn.open_table(SNAPSHOTS)?,
                blobs: txn.open_table(BLOBS)?,
                outside: txn.open_table(OUTSIDE_FILES)?,
                pins: txn.open_table(PINS)?,
                listings: txn.open_table(LISTINGS)?,
                trees: txn.open_table(TREES)?,
                meta: txn.open_table(META)?,
                rows: BTreeMap::new(),
                outside_rows: BTreeMap::new(),
                outside_change: 0,
                pinned: (0, 0),
            };
            let result = change(&mut tables)?;
            tables.store_rows()?;
            tables.store_outside()?;
            tables.store_pinned()?;
            result
        };
        txn.commit()?;
        Ok(result)
    }
}

/// One consistent state of the index.
pub(super) struct View {
    txn: ReadTransaction,
}

impl View {
    pub(super) fn find(&self, id: &ObjectId) -> IndexResult<Option<Place>> {
        Ok(self.txn.open_table(OBJECTS)?.get(&key(id))?.map(|row| row.value().into()))
    }

    /// Which of `ids` are not in the index, or not kept so, in their order.
    pub(super) fn missing(&self, ids: &[ObjectId], keep: Keep) -> IndexResult<Vec<ObjectId>> {
        let objects = self.txn.open_table(OBJECTS)?;
        let mut missing = Vec::new();
        for id in ids {
            let place = objects.get(&key(id))?.map(|row| Place::from(row.value()));
            if !place.is_some_and(|place| place.is_kept(keep)) {
                missing.push(*id);
            }
        }
        Ok(missing)
    }

    /// How many bytes each of `ids` is stored as, in their order; nothing for what is not in the index.
    pub(super) fn stored_lens(&self, ids: &[ObjectId]) -> IndexResult<Vec<Option<u32>>> {
        let objects = self.txn.open_table(OBJECTS)?;
        let len = |id| Ok(objects.get(&key(id))?.map(|row| Place::from(row.value()).stored_len));
        ids.iter().map(len).collect()
    }

    /// Up to `limit` objects with ids after `after`.
    pub(super) fn objects_after(
        &self,
        after: Option<&ObjectId>,
        limit: usize,
    ) -> IndexResult<Vec<(ObjectId, Place)>> {
        let from = after.map_or([0; ID_LEN + 1], key);
        let mut objects = Vec::new();
        for row in self.txn.open_table(OBJECTS)?.range::<&Key>(&from..)? {
            let (found, place) = row?;
            if after.is_some() && *found.value() == from {
                continue;
            }
            objects.push((id_of(found.value())?, place.value().into()));
            if objects.len() == limit {
                break;
            }
        }
        Ok(objects)
    }

    pub(super) fn object_count(&self) -> IndexResult<u64> {
        Ok(self.txn.open_table(OBJECTS)?.len()?)
    }

    pub(super) fn packs(&self) -> IndexResult<BTreeMap<u32, PackRow>> {
        let packs = self.txn.open_table(PACKS)?;
        let mut rows = BTreeMap::new();
        for row in packs.iter()? {
            let (number, row) = row?;
            rows.insert(number.value(), PackRow::from_raw(row.value()));
        }
        Ok(rows)
    }

    pub(super) fn snapshots(&self) -> IndexResult<Vec<Vec<u8>>> {
        let snapshots = self.txn.open_table(SNAPSHOTS)?;
        let mut records = Vec::new();
        for row in snapshots.iter()? {
            records.push(row?.1.value().to_vec());
        }
        Ok(records)
    }

    pub(super) fn blob(&self, id: &BlobId) -> IndexResult<Option<BlobRow>> {
        Ok(self.txn.open_table(BLOBS)?.get(id.as_bytes())?.map(|row| row.value().into()))
    }

    pub(super) fn blobs(&self) -> IndexResult<Vec<(BlobId, BlobRow)>> {
        let blobs = self.txn.open_table(BLOBS)?;
        let mut rows = Vec::new();
        for row in blobs.iter()? {
            let (id, row) = row?;
            rows.push((BlobId::from_bytes(*id.value()), row.value().into()));
        }
        Ok(rows)
    }

    /// The tick of the cached object that would be evicted first.
    pub(super) fn oldest_tick(&self) -> IndexResult<Option<u64>> {
        let first = self.txn.open_table(RECENCY)?.first()?.map(|(row, _)| row.value().0);
        Ok(first.filter(|tick| *tick < PINNED))
    }

    /// A number from the meta table; 0 if it was never set.
    pub(super) fn number(&self, name: &str) -> IndexResult<u64> {
        Ok(self.txn.open_table(META)?.get(name)?.map_or(0, |value| value.value()))
    }
}

/// The tables inside one write transaction.
pub(super) struct Tables<'txn> {
    objects: Table<'txn, &'static Key, ObjectRow>,
    recency: Table<'txn, (u64, &'static Key), ()>,
    packs: Table<'txn, u32, PackRowRaw>,
    snapshots: Table<'txn, &'static [u8; ID_LEN], &'static [u8]>,
    blobs: Table<'txn, &'static [u8; ID_LEN], BlobRowRaw>,
    outside: Table<'txn, u32, OutsideRowRaw<'static>>,
    pins: Table<'txn, &'static [u8; ID_LEN], &'static [u8]>,
    listings: Table<'txn, ListingKey<'static>, &'static [u8]>,
    trees: Table<'txn, DirKey, u64>,
    meta: Table<'txn, &'static str, u64>,
    /// Pack rows in use by this transaction, written back at its end.
    rows: BTreeMap<u32, PackRow>,
    /// Rows of parts of files outside, likewise.
    outside_rows: BTreeMap<u32, OutsideRow>,
    /// By how much the bytes that are outside have grown in it.
    outside_change: i64,
    /// Bytes of pinned records that this transaction has added, and taken away.
    pinned: (u64, u64),
}

impl Tables<'_> {
    pub(super) fn set(&mut self, name: &str, value: u64) -> IndexResult<()> {
        self.meta.insert(name, value)?;
        Ok(())
    }

    pub(super) fn keep_snapshot(&mut self, id: &[u8; ID_LEN], record: &[u8]) -> IndexResult<()> {
        self.snapshots.insert(id, record)?;
        Ok(())
    }

    pub(super) fn keep_snapshot_if_new(&mut self, id: &[u8; ID_LEN], record: &[u8]) -> IndexResult<()> {
        if self.snapshots.get(id)?.is_none() {
            self.snapshots.insert(id, record)?;
        }
        Ok(())
    }

    pub(super) fn set_blob(&mut self, id: &BlobId, row: BlobRow) -> IndexResult<()> {
        self.blobs.insert(id.as_bytes(), (row.len, row.disk, row.tick, row.hash))?;
        Ok(())
    }

    pub(super) fn remove_blob(&mut self, id: &BlobId) -> IndexResult<Option<BlobRow>> {
        Ok(self.blobs.remove(id.as_bytes())?.map(|row| row.value().into()))
    }

    /// The row of a pack, to be changed; made on first use.
    pub(super) fn pack(&mut self, number: u32, keep: Keep) -> IndexResult<&mut PackRow> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.rows.entry(number) {
            let stored = self.packs.get(number)?.map(|row| PackRow::from_raw(row.value()));
            vacant.insert(stored.unwrap_or(PackRow::new(keep)));
        }
        self.rows.get_mut(&number).ok_or_else(|| redb::Error::Corrupted(format!("row of pack {number}")))
    }

    pub(super) fn remove_pack(&mut self, number: u32) -> IndexResult<()> {
        self.rows.remove(&number);
        self.packs.remove(number)?;
        Ok(())
    }

    fn store_rows(&mut self) -> IndexResult<()> {
        for (number, row) in &self.rows {
            self.packs.insert(number, row.raw())?;
        }
        Ok(())
    }

    fn find(&self, id: &ObjectId) -> IndexResult<Option<Place>> {
        Ok(self.objects.get(&key(id))?.map(|row| row.value().into()))
    }

    fn attach(&mut self, id: &ObjectId, place: &Place) -> IndexResult<()> {
        let key = key(id);
        self.objects.insert(&key, place.row())?;
        if place.keep() == Keep::Cache {
            self.recency.insert((place.tick, &key), ())?;
        }
        if place.is_outside() {
            return self.attach_outside(place);
        }
        self.pinned.0 += if place.is_pinned() { place.record_len() } else { 0 };
        let row = self.pack(place.pack, place.keep())?;
        row.live += 1;
        row.live_bytes += place.record_len();
        Ok(())
    }

    fn detach(&mut self, id: &ObjectId, place: &Place) -> IndexResult<()> {
        let key = key(id);
        self.objects.remove(&key)?;
        self.recency.remove((place.tick, &key))?;
        if place.is_outside() {
            return self.detach_outside(place);
        }
        self.pinned.1 += if place.is_pinned() { place.record_len() } else { 0 };
        let row = self.pack(place.pack, place.keep())?;
        row.live = row.live.saturating_sub(1);
        row.live_bytes = row.live_bytes.saturating_sub(place.record_len());
        Ok(())
    }

    /// Gives an object its one home. Published beats cached, and a later record an earlier one; the place
    /// that lost is returned, and may be freed once the transaction has been committed. What is pinned stays so.
    pub(super) fn settle(&mut self, id: &ObjectId, place: Place) -> IndexResult<Option<Place>> {
        match self.find(id)? {
            Some(old) if old == place => Ok(None),
            Some(old) if old.keep() == Keep::Published && place.keep() == Keep::Cache => Ok(Some(place)),
            Some(old) if old.is_pinned() && old.is_at(&place) => Ok(None),
            Some(old) => {
                let stays = old.is_pinned() && place.keep() == Keep::Cache;
                self.detach(id, &old)?;
                self.attach(id, &Place { tick: if stays { old.tick } else { place.tick }, ..place })?;
                Ok(Some(old))
            }
            None => {
                self.attach(id, &place)?;
                Ok(None)
            }
        }
    }

    /// Drops one cached object from the index, if it lies at `bad` and is not pinned; says where it was.
    pub(super) fn forget(&mut self, id: &ObjectId, bad: &Place) -> IndexResult<Option<Place>> {
        let evictable = |place: &Place| place.keep() == Keep::Cache && !place.is_pinned();
        let found = self.find(id)?.filter(|place| place.is_at(bad) && evictable(place));
        let Some(place) = found else { return Ok(None) };
        self.detach(id, &place)?;
        Ok(Some(place))
    }

    /// Marks a cached object as used at `tick`, and the blob file of a blob.
    pub(super) fn touch(&mut self, id: &ObjectId, tick: u64) -> IndexResult<()> {
        let file = self.blobs.get(&id.hash)?.map(|row| BlobRow::from(row.value()));
        if let Some(file) = file.filter(|file| id.kind == Kind::Blob && file.tick < tick) {
            self.set_blob(&BlobId::from_bytes(id.hash), BlobRow { tick, ..file })?;
        }
        let Some(place) = self.find(id)? else { return Ok(()) };
        if place.keep() == Keep::Cache && place.tick < tick {
            let key = key(id);
            self.recency.remove((place.tick, &key))?;
            self.recency.insert((tick, &key), ())?;
            self.objects.insert(&key, Place { tick, ..place }.row())?;
        }
        Ok(())
    }

    /// Drops the least recently used objects, up to `limit` of them or until `bytes` are covered.
    pub(super) fn take_oldest(&mut self, bytes: u64, limit: usize) -> IndexResult<Vec<Place>> {
        let mut victims = Vec::new();
        let mut stale = Vec::new();
        let mut covered = 0;
        for row in self.recency.iter()? {
            if covered >= bytes || victims.len() + stale.len() >= limit {
                break;
            }
            let (row, _) = row?;
            let (tick, key) = row.value();
            if tick >= PINNED {
                break;
            }
            let id = id_of(key)?;
            match self.find(&id)? {
                Some(place) if place.tick == tick => {
                    covered += place.record_len();
                    victims.push((id, place));
                }
                _ => stale.push((tick, *key)),
            }
        }
        for (tick, key) in stale {
            self.recency.remove((tick, &key))?;
        }
        for (id, place) in &victims {
            self.detach(id, place)?;
        }
        Ok(victims.into_iter().map(|(_, place)| place).collect())
    }

    /// Drops a whole cache pack and all that lies in it, given the ids that its records have; says how many
    /// objects went. `None`, and nothing is changed, if one of them is pinned.
    pub(super) fn drop_pack(&mut self, number: u32, ids: &[ObjectId]) -> IndexResult<Option<u64>> {
        let mut lost = BTreeMap::new();
        for id in ids {
            lost.extend(self.find(id)?.filter(|place| place.pack == number).map(|place| (key(id), place)));
        }
        if self.pack(number, Keep::Cache)?.live > lost.len() as u64 {
            // Its records are damaged, so that they do not name all of it. Rare enough for a full walk.
            lost.extend(self.places_in(number)?);
        }
        if lost.values().any(Place::is_pinned) {
            return Ok(None);
        }
        for (key, place) in &lost {
            self.detach(&id_of(key)?, place)?;
        }
        self.remove_pack(number)?;
        Ok(Some(lost.len() as u64))
    }

    fn places_in(&self, number: u32) -> IndexResult<Vec<(Key, Place)>> {
        let mut places = Vec::new();
        for row in self.objects.iter()? {
            let (key, place) = row?;
            let place = Place::from(place.value());
            if place.pack == number {
                places.push((*key.value(), place));
            }
        }
        Ok(places)
    }
}
