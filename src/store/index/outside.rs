//! The index of what lies in files outside of the packs.
//!
//! Owns: the table `outside.v1` and the count of the bytes it accounts for.
//! Must not know: the files.
//! Invariant: an object that lies outside lies in a part that has a row, and a part that no object lies in has none.
//! Trust, threads, what a crash leaves: those of `index`.

use redb::ReadableTable;

use super::rows::{OutsideRow, Place};
use super::{IndexResult, OUTSIDE_FILES, Tables, View};

impl View {
    pub(in crate::store) fn outside(&self, number: u32) -> IndexResult<Option<OutsideRow>> {
        let rows = self.txn.open_table(OUTSIDE_FILES)?;
        Ok(rows.get(number)?.map(|row| OutsideRow::from_raw(row.value())))
    }

    /// The first part with this number or a higher one.
    pub(in crate::store) fn outside_from(&self, number: u32) -> IndexResult<Option<OutsideRow>> {
        let rows = self.txn.open_table(OUTSIDE_FILES)?;
        let first = rows.range(number..)?.next().transpose()?;
        Ok(first.map(|(_, row)| OutsideRow::from_raw(row.value())))
    }
}

impl Tables<'_> {
    /// Makes the row of a part known, unless it is; objects may lie in it from here on.
    pub(in crate::store) fn add_outside(&mut self, number: u32, row: &OutsideRow) -> IndexResult<()> {
        if self.outside_row(number)?.is_none() {
            self.outside_rows.insert(number, row.clone());
        }
        Ok(())
    }

    fn outside_row(&mut self, number: u32) -> IndexResult<Option<&mut OutsideRow>> {
        if !self.outside_rows.contains_key(&number)
            && let Some(row) = self.outside.get(number)?.map(|row| OutsideRow::from_raw(row.value()))
        {
            self.outside_rows.insert(number, row);
        }
        Ok(self.outside_rows.get_mut(&number))
    }

    pub(super) fn attach_outside(&mut self, place: &Place) -> IndexResult<()> {
        let row = self.outside_row(place.pack)?;
        let row = row.ok_or_else(|| redb::Error::Corrupted(format!("row of file {}", place.pack)))?;
        row.live += 1;
        row.live_bytes += place.record_len();
        self.outside_change += i64::from(place.stored_len);
        Ok(())
    }

    pub(super) fn detach_outside(&mut self, place: &Place) -> IndexResult<()> {
        self.outside_change -= i64::from(place.stored_len);
        if let Some(row) = self.outside_row(place.pack)? {
            row.live = row.live.saturating_sub(1);
            row.live_bytes = row.live_bytes.saturating_sub(place.record_len());
        }
        Ok(())
    }

    /// Writes the changed rows back; a part that nothing lies in any more goes.
    pub(super) fn store_outside(&mut self) -> IndexResult<()> {
        for (number, row) in &self.outside_rows {
            if row.live == 0 {
                self.outside.remove(number)?;
            } else {
                self.outside.insert(number, row.raw())?;
            }
        }
        if self.outside_change != 0 {
            let before = self.meta.get("outside_bytes")?.map_or(0, |bytes| bytes.value());
            self.set("outside_bytes", before.saturating_add_signed(self.outside_change))?;
        }
        Ok(())
    }
}
