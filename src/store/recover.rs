//! Opening a store: after a clean stop, after a crash, after the index was lost.
//!
//! Owns: the decision what of the packs is taken into the index, and what is set aside.
//! Must not know: anything about a running store.
//! Invariant: after it, the index names only records that are on disk, synced, and were whole when they
//! were taken in; no pack file lies about without a row.
//! Trust: nothing on disk is believed without a check. Where the index was lost, what a sealed pack's trailer lists is
//! taken as it is (its hash holds); otherwise, and where it is found by a scan, it is decompressed and hashed first.
//! Threads: the opening one, under the store's lock.
//! A crash leaves: a store that recovers the same way again.
//!
//! - **Records behind the last commit** (a crash before it) are whole or torn. Whole ones are kept: they are
//!   right by their hash, and a publish that is run again finds its work done. The rest is cut off.
//! - **A pack without a row** was begun after the last commit, or the index is an older one: the same.
//! - **An index that does not open, that cannot be written, over which redb panics, or that names what the packs do not have**, is set aside as
//!   `index.redb.broken-N` and rebuilt: from the trailers of sealed packs, by scanning the others.
//!   What only the index knew is lost: recency and the liveness of superseded records. Snapshot records are
//!   carried over if they can still be read, and otherwise made again from the snapshot objects found. Pins that can
//!   be read are carried over as begun; whoever runs the store goes on with them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec;
use crate::id::{Kind, ObjectId, SnapshotId};
use crate::pack::file::{self, Entry, FILE_HEADER_LEN, FileHeader, Keep, MAX_RECORDS, RECORD_HEADER_LEN};
use crate::pack::{PackError, Packed};
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::index::{Index, IndexResult, PackRow, Place, SCHEMA, Tables, guarded, is_damage};
use crate::store::packs::{self, Current, WriteFailure};
use crate::store::{PinRecord, SnapshotRecord, disk};

/// What a running store begins with.
pub(super) struct Recovered {
    pub index: Index,
    pub current: [Option<Current>; 2],
    pub next_number: u32,
    pub first_tick: u64,
    pub cache_used: u64,
}

/// Brings the index and the packs in `packs_dir` into step.
pub(super) fn recover(disk: &dyn Disk, index_path: &Path, packs_dir: &Path) -> Result<Recovered, StoreError> {
    match into_step(disk, index_path, packs_dir) {
        // It could be opened, but not written: some of its damage shows only then.
        Err(StoreError::Index { cause, damaged: true, .. }) => {
            set_aside(disk, index_path, &cause)?;
            into_step(disk, index_path, packs_dir)
        }
        recovered => recovered,
    }
}

fn into_step(disk: &dyn Disk, index_path: &Path, packs_dir: &Path) -> Result<Recovered, StoreError> {
    let on_disk = list(packs_dir)?;
    let (index, rebuilt) = open_index(disk, index_path, &on_disk)?;
    let failed = || StoreError::index::<redb::Error>(index_path);
    let view = index.read().map_err(failed())?;
    let first_tick = view.number("tick").map_err(failed())? + 1;
    let rows = view.packs().map_err(failed())?;
    let known_next = view.number("next_pack").map_err(failed())?;
    drop(view);

    let mut recovery = Recovery { disk, index: &index, index_path, tick: first_tick, rebuilt };
    for (number, path) in &on_disk {
        recovery.adopt(*number, path, rows.get(number))?;
    }
    let rows = index.read().and_then(|view| view.packs()).map_err(failed())?;
    let current = recovery.continue_or_seal(&rows, packs_dir)?;
    let rows = index.read().and_then(|view| view.packs()).map_err(failed())?;
    let cache_used = recovery.measure_cache(&rows, packs_dir)?;
    let after_last = on_disk.keys().next_back().map_or(0, |number| number.saturating_add(1));
    let next_number = after_last.max(u32::try_from(known_next).unwrap_or(0));
    Ok(Recovered { index, current, next_number, first_tick, cache_used })
}

/// The pack files in a directory, by number.
fn list(dir: &Path) -> Result<BTreeMap<u32, PathBuf>, StoreError> {
    let failed = || StoreError::io("list", dir);
    let mut packs = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if let Some(number) = packs::number_of(&path) {
            packs.insert(number, path);
        }
    }
    Ok(packs)
}

/// Opens the index, or begins a new one where it is missing, broken or not in step with the packs; says
/// whether it was lost.
fn open_index(
    disk: &dyn Disk,
    path: &Path,
    on_disk: &BTreeMap<u32, PathBuf>,
) -> Result<(Index, bool), StoreError> {
    let (index, schema) = match Index::open(disk, path)
        .and_then(|index| guarded(|| index.schema()).map(|schema| (index, schema)))
    {
        Ok(opened) => opened,
        Err(error) if is_damage(&error) => {
            set_aside(disk, path, &error.to_string())?;
            return Ok((begin(disk, path)?, true));
        }
        Err(redb::Error::UpgradeRequired(found)) => {
            let path = path.to_owned();
            return Err(StoreError::Version { path, found: found.into(), supported: SCHEMA });
        }
        Err(error) => return Err(StoreError::index(path)(error)),
    };
    match schema {
        Some(SCHEMA) => {}
        Some(found) => {
            return Err(StoreError::Version { path: path.to_owned(), found, supported: SCHEMA });
        }
        None => {
            if !on_disk.is_empty() {
                tracing::warn!(path = %path.display(), "the index is missing; rebuilding it from the packs");
            }
            index.initialise().map_err(StoreError::index(path))?;
            return Ok((index, !on_disk.is_empty()));
        }
    }
    let rows = guarded(|| index.read()?.packs());
    let damage = match &rows {
        Ok(rows) => out_of_step(rows, on_disk)?,
        Err(error) => Some(error.to_string()),
    };
    let Some(damage) = damage else { return Ok((index, false)) };
    let snapshots = guarded(|| index.read()?.snapshots()).unwrap_or_default();
    let pins = guarded(|| index.read()?.pins()).unwrap_or_default();
    drop(index);
    set_aside(disk, path, &damage)?;
    let index = begin(disk, path)?;
    index.write(|tables| carry_over(tables, &snapshots, &pins)).map_err(StoreError::index(path))?;
    Ok((index, true))
}

fn begin(disk: &dyn Disk, path: &Path) -> Result<Index, StoreError> {
    let index = Index::open(disk, path).map_err(StoreError::index(path))?;
    index.initialise().map_err(StoreError::index(path))?;
    Ok(index)
}

fn set_aside(disk: &dyn Disk, path: &Path, cause: &str) -> Result<(), StoreError> {
    let aside = disk.set_aside(path).map_err(StoreError::io("rename", path))?;
    tracing::warn!(path = %path.display(), aside = %aside.display(), cause, "the index is broken; rebuilding it from the packs");
    Ok(())
}

/// What the index claims and the packs do not have.
fn out_of_step(
    rows: &BTreeMap<u32, PackRow>,
    on_disk: &BTreeMap<u32, PathBuf>,
) -> Result<Option<String>, StoreError> {
    for (number, row) in rows {
        let Some(path) = on_disk.get(number) else {
            return Ok(Some(format!("it names pack {number:08}, which is missing")));
        };
        let len = fs::metadata(path).map_err(StoreError::io("examine", path))?.len();
        if len < row.len {
            return Ok(Some(format!("it names {} bytes of pack {number:08}, which has {len}", row.len)));
        }
    }
    Ok(None)
}

fn carry_over(tables: &mut Tables, snapshots: &[Vec<u8>], pins: &[Vec<u8>]) -> IndexResult<()> {
    for bytes in pins {
        if let Ok(record) = PinRecord::decode(bytes) {
            // What it held is not known any more; it is made again.
            let record = PinRecord { whole: false, ..record };
            tables.set_pin(&record.key(), &codec::encode(&record))?;
        }
    }
    for bytes in snapshots {
        if let Ok(record) = SnapshotRecord::decode(bytes) {
            tables.keep_snapshot(record.id.as_bytes(), bytes)?;
        }
    }
    Ok(())
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    index: &'a Index,
    index_path: &'a Path,
    tick: u64,
    rebuilt: bool,
}

/// Records to be taken into the index, and the state of their pack.
struct Found {
    keep: Keep,
    entries: Vec<Entry>,
    records: u32,
    len: u64,
    sealed: bool,
}

impl Recovery<'_> {
    /// Takes in what the index does not know of one pack.
    fn adopt(&mut self, number: u32, path: &Path, row: Option<&PackRow>) -> Result<(), StoreError> {
        let failed = || StoreError::io("recover", path);
        if row.is_some_and(|row| row.sealed) {
            return Ok(());
        }
        let file = self.disk.open_for_writing(path).map_err(failed())?;
        let len = file.metadata().map_err(failed())?.len();
        let found = match row {
            Some(row) if len == row.len => return Ok(()),
            Some(row) => tail(&file, row.keep, row.len, len, row.records).map_err(failed())?,
            None => match self.examine(number, path, &file, len)? {
                Some(found) => found,
                None => return Ok(()),
            },
        };
        if found.len < len {
            self.disk.truncate(&file, found.len).map_err(failed())?;
        }
        self.disk.sync(&file).map_err(failed())?;
        let occupied = file.metadata().map(|stat| disk::occupied(&stat)).map_err(failed())?;
        tracing::info!(path = %path.display(), objects = found.entries.len(), "recovered a pack");
        self.index
            .write(|tables| self.take_in(tables, number, &found, occupied))
            .map_err(StoreError::index(self.index_path))
    }

    /// What a pack without a row holds; `None` if it is of no use and has been put out of the way.
    fn examine(&self, number: u32, path: &Path, file: &File, len: u64) -> Result<Option<Found>, StoreError> {
        let failed = || StoreError::io("recover", path);
        let mut header = [0; FILE_HEADER_LEN];
        let read = disk::read_up_to(file, &mut header, 0).map_err(failed())?;
        let keep = match FileHeader::decode(&header[..read]) {
            Ok(header) if header.number == number => header.keep,
            Err(PackError::Version { found }) => {
                let (path, found, supported) = (path.to_owned(), found.into(), file::VERSION.into());
                return Err(StoreError::Version { path, found, supported });
            }
            // A crash while the pack was being created; it never held a record.
            Err(_) if len <= FILE_HEADER_LEN as u64 => {
                self.disk.remove(path).map_err(failed())?;
                return Ok(None);
            }
            other => {
                let aside = self.disk.set_aside(path).map_err(failed())?;
                tracing::warn!(path = %path.display(), aside = %aside.display(), ?other, "not a pack of this store; set aside");
                return Ok(None);
            }
        };
        let (mut entries, sealed_len) = match packs::read_trailer(file).map_err(failed())? {
            Ok((entries, _)) => (entries, len),
            Err(_) => return tail(file, keep, FILE_HEADER_LEN as u64, len, 0).map(Some).map_err(failed()),
        };
        let records = entries.len() as u32;
        retain_unpunched(file, &mut entries).map_err(failed())?;
        if !self.rebuilt {
            // It was sealed, and never synced: that the trailer is there does not say that the records are.
            retain_whole(file, &mut entries).map_err(failed())?;
        }
        Ok(Some(Found { keep, entries, records, len: sealed_len, sealed: true }))
    }

    fn take_in(&self, tables: &mut Tables, number: u32, found: &Found, occupied: u64) -> IndexResult<()> {
        let row = tables.pack(number, found.keep)?;
        row.len = found.len;
        row.records = found.records;
        row.sealed = found.sealed;
        row.disk = occupied;
        // Recency is not in the packs: what is taken in counts as used now.
        let tick = if found.keep == Keep::Published { 0 } else { self.tick };
        for entry in &found.entries {
            let header = &entry.header;
            let place = Place { pack: number, offset: entry.offset, stored_len: header.stored_len, tick };
            tables.settle(&header.id, place)?;
            if self.rebuilt && header.id.kind == Kind::Snapshot && found.keep == Keep::Published {
                self.list_again(tables, &header.id)?;
            }
        }
        Ok(())
    }

    /// A snapshot whose record went with the index is listed without its figures, rather than not at all. That its
    /// object is published says that the snapshot was whole: whoever takes one puts its object after a commit of
    /// everything else (`ingest`), and what is only fetched, perhaps in part, is put as cached and not listed. The
    /// order of records cannot say more, since content that was here before, or is replaced later, lies anywhere.
    fn list_again(&self, tables: &mut Tables, id: &ObjectId) -> IndexResult<()> {
        let record = SnapshotRecord::recovered(SnapshotId::from_bytes(id.hash));
        tables.keep_snapshot_if_new(&id.hash, &codec::encode(&record))
    }

    /// Chooses the packs that go on being appended to; seals the other unsealed ones.
    fn continue_or_seal(
        &mut self,
        rows: &BTreeMap<u32, PackRow>,
        dir: &Path,
    ) -> Result<[Option<Current>; 2], StoreError> {
        let mut current = [None, None];
        // Only the newest of a class goes on: of two records of one object the later must be the one in the pack
        // with the higher number, or a rebuilt index would choose the other.
        let mut newest = [true, true];
        for (number, row) in rows.iter().rev() {
            let newest = std::mem::take(&mut newest[row.keep as usize]);
            if row.sealed {
                continue;
            }
            let path = packs::path(dir, *number);
            let failed = || StoreError::io("open", &path);
            let file = self.disk.open_for_writing(&path).map_err(failed())?;
            if newest {
                current[row.keep as usize] = Some(Current {
                    number: *number,
                    file: Arc::new(file),
                    len: row.len,
                    records: row.records,
                });
                continue;
            }
            let len = packs::seal(self.disk, &file, row.len).map_err(|failure| match failure {
                WriteFailure::Full => StoreError::Full {
                    path: path.clone(),
                    needed: file::trailer_len(row.records.min(MAX_RECORDS)),
                },
                WriteFailure::NotBegun(error) | WriteFailure::Broken(error) => {
                    StoreError::io("seal", &path)(error)
                }
            })?;
            self.disk.sync(&file).map_err(failed())?;
            let grown = len - row.len;
            self.index
                .write(|tables| {
                    let row = tables.pack(*number, row.keep)?;
                    (row.len, row.sealed, row.disk) = (len, true, row.disk + grown);
                    Ok(())
                })
                .map_err(StoreError::index(self.index_path))?;
        }
        Ok(current)
    }

    /// Counts what the cache packs really occupy: a crash may have come between dropping records and
    /// freeing them, and a copied store has lost its holes.
    fn measure_cache(&self, rows: &BTreeMap<u32, PackRow>, dir: &Path) -> Result<u64, StoreError> {
        let mut wrong = Vec::new();
        let mut total = 0;
        for (number, row) in rows.iter().filter(|(_, row)| row.keep == Keep::Cache) {
            let path = packs::path(dir, *number);
            let stat = fs::metadata(&path).map_err(StoreError::io("examine", &path))?;
            let occupied = disk::occupied(&stat);
            total += occupied;
            if occupied != row.disk {
                wrong.push((*number, occupied));
            }
        }
        if !wrong.is_empty() {
            let correct = |tables: &mut Tables| {
                wrong.iter().try_for_each(|(number, occupied)| {
                    tables.pack(*number, Keep::Cache)?.disk = *occupied;
                    Ok(())
                })
            };
            self.index.write(correct).map_err(StoreError::index(self.index_path))?;
        }
        Ok(total)
    }
}

/// Scans a pack that was not sealed from `from` on and keeps the records that verify.
fn tail(file: &File, keep: Keep, from: u64, len: u64, records: u32) -> io::Result<Found> {
    let mut entries = packs::scan(file, from, len)?;
    retain_whole(file, &mut entries)?;
    let end =
        entries.last().map_or(from, |last| u64::from(last.offset) + file::record_len(last.header.stored_len));
    let records = records.saturating_add(entries.len() as u32);
    Ok(Found { keep, entries, records, len: end, sealed: false })
}

/// Keeps the entries whose record is what its id says.
fn retain_whole(file: &File, entries: &mut Vec<Entry>) -> io::Result<()> {
    retain(entries, |entry| verifies(file, entry))
}

fn verifies(file: &File, entry: &Entry) -> io::Result<bool> {
    let header = &entry.header;
    let mut body = vec![0; header.stored_len as usize];
    file.read_exact_at(&mut body, u64::from(entry.offset) + RECORD_HEADER_LEN as u64)?;
    let packed = Packed::from_parts(header.codec as u8, header.plain_len, body.into());
    Ok(packed.and_then(|packed| packed.verify(&header.id)).is_ok())
}

/// Keeps the entries whose record has not been evicted or swept away.
fn retain_unpunched(file: &File, entries: &mut Vec<Entry>) -> io::Result<()> {
    retain(entries, |entry| Ok(packs::header_at(file, entry.offset.into())? == Some(entry.header)))
}

/// Keeps the entries that `keep` says yes to, unless it fails for one.
fn retain(entries: &mut Vec<Entry>, keep: impl Fn(&Entry) -> io::Result<bool>) -> io::Result<()> {
    let mut failed = Ok(());
    entries.retain(|entry| {
        keep(entry).unwrap_or_else(|error| {
            failed = Err(error);
            false
        })
    });
    failed
}
