//! Draining: content that leaves memory as data files before its commit.
//!
//! A drained file lies, closed and synced, in the directory of files being written, where the next sweep would remove
//! it. The commit that it belongs to moves it to its name and adds it. Until then it is read where it lies.
//!
//! Its rows say `txn_seq` of the transaction that was next when they were written, which is at most that of the
//! commit: commits may fail, or come between.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pond_tinyfs::{Placed, Record, Row};

use crate::clock::now_ms;
use crate::disk::durable;
use crate::files::digests::Digests;
use crate::files::{data_file, file_name};
use crate::journal::error::JournalError;
use crate::log::action::Add;
use crate::{OpLog, OpLogError, TxnSeq};

/// A content file that no version names yet.
#[derive(Debug)]
pub struct Drained {
    number: u32,
    rows: u64,
    /// The action that will add it, but for the name.
    add: Add,
    place: Mutex<Place>,
}

/// Where a drained file is.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The name of the table's file that it has been given for this transaction, if it has.
    named: Option<(TxnSeq, String)>,
}

impl Drained {
    /// Has the next commit give it a new name: a name whose sync has failed once cannot be told to be durable by a sync
    /// that succeeds.
    pub(crate) fn distrust_name(&self) {
        self.place.lock().named = None;
    }

    /// Rows in the file.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Its number in locations.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.add.size
    }
}

impl OpLog {
    /// Writes the extents among these rows into content files, synced, to be named by a later
    /// [`commit_drained`](Self::commit_drained). Says where their bytes lie from now on. May run beside commits and other drains.
    ///
    /// # Errors
    ///
    /// After an error nothing has changed: the rows may be drained again, or committed.
    pub fn drain(&self, rows: &[Row]) -> Result<(Vec<Drained>, Vec<Placed>), OpLogError> {
        let extents: Vec<&Row> = rows.iter().filter(|row| matches!(row.record, Record::Extent(_))).collect();
        let txn_seq = self.position().txn_seq.next();
        let mut written = Vec::new();
        for plan in data_file::plan_content(extents) {
            match data_file::write(&self.layout().inflight(), plan, txn_seq, now_ms(), self.effort()) {
                Ok(file) => written.push(file),
                Err(error) => {
                    durable::discard(written.iter().map(|file| file.path.as_path()));
                    return Err(error);
                }
            }
        }
        // Before the tree counts these bytes as stored, or writers would get the space that they have taken.
        self.refresh_space();
        let mut drained = Vec::new();
        let mut placed = Vec::new();
        for file in written {
            let number = self.files().add(
                &format!("{}/{}", crate::disk::layout::INFLIGHT, file.add.path),
                Digests::of(&file.add).as_ref(),
            );
            placed.extend(file.placed(number));
            let place = Mutex::new(Place { path: file.path, named: None });
            drained.push(Drained { number, rows: file.rows, add: file.add, place });
        }
        Ok((drained, placed))
    }

    /// Gives drained files their names for the commit of this transaction; the names are durable once `data/` is synced.
    /// Readers find the files all the while.
    pub(crate) fn name_drained(&self, drained: &[&Drained], txn_seq: TxnSeq) -> Result<Vec<Add>, OpLogError> {
        drained.iter().map(|drained| self.name_one(drained, txn_seq)).collect()
    }

    fn name_one(&self, drained: &Drained, txn_seq: TxnSeq) -> Result<Add, OpLogError> {
        let mut place = drained.place.lock();
        let name = match &place.named {
            // An earlier commit that failed has named it already.
            Some((named, name)) if *named == txn_seq => name.clone(),
            _ => {
                let name = file_name::new(txn_seq);
                let target = self.layout().data().join(&name);
                self.files()
                    .rename(drained.number, &name, || durable::rename(&place.path, &target))
                    .map_err(OpLogError::io("move", &place.path))?;
                *place = Place { path: target, named: Some((txn_seq, name.clone())) };
                name
            }
        };
        Ok(Add { path: name, ..drained.add.clone() })
    }

    /// Moves drained files into the directory in which an orphaned journal is kept: no version of this history will
    /// name them.
    pub(crate) fn orphan_drained(&self, drained: &[&Drained], kept: &Path) -> Result<(), JournalError> {
        for drained in drained {
            let mut place = drained.place.lock();
            let target = kept.join(&drained.add.path);
            // Readers take paths as they are from the table's directory on, and an absolute one replaces it.
            self.files()
                .rename(drained.number, &target.display().to_string(), || {
                    durable::rename_durably(&place.path, &target)
                })
                .map_err(JournalError::io("move", &place.path))?;
            *place = Place { path: target, named: None };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
