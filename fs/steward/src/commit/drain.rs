//! Draining: content leaves memory as content files while more of it comes in, without a version being made.
//!
//! A drain takes a cut, so that what it writes is a prefix's, and writes the content of the rows into files that the next
//! commit names; their metadata stays in the ledger. Two drainers take turns: while the files of one are synced,
//! the other encodes. A crash before the commit loses what was drained, which no fsync has promised: an fsync that finds
//! drained content commits.

use pond_oplog::OpLogError;
use pond_tinyfs::{ExtentContent, Placed, Record, Row, StorageError};

use crate::commit::committer::Committer;
use crate::commit::ledger::{Batch, DrainedContent, Ledger};
use crate::commit::log::for_waiters;
use crate::host::end_process::EndProcessOnPanic;

/// Threads that drain.
pub(crate) const DRAINERS: usize = 2;

impl Committer {
    /// A drainer's thread. Ends after [`stop`](Self::stop).
    pub(crate) fn run_drains(&self) {
        let _no_half_drain = EndProcessOnPanic("a drainer");
        loop {
            self.spill_unlinked();
            let batch = {
                let mut ledger = self.ledger.lock();
                if ledger.stop {
                    return;
                }
                let batch = self.next_to_drain(&mut ledger);
                let spills = ledger.spill_failure.is_none() && self.must_spill();
                if batch.is_none() && !spills {
                    self.drain_wanted.wait(&mut ledger);
                }
                batch
            };
            if let Some(batch) = batch {
                self.drain(&batch);
            }
        }
    }

    /// Whether unlinked files hold so much that it has to leave memory.
    pub(crate) fn must_spill(&self) -> bool {
        self.fs.unspilled_bytes() >= self.room.spill
    }

    /// Whether much is on its way out of memory.
    pub(crate) fn is_spilling(&self) -> bool {
        self.fs.spilling_bytes() >= self.room.spill
    }

    /// Writes what unlinked files hold to files without names, if it is much.
    pub(crate) fn spill_unlinked(&self) {
        if !self.must_spill() {
            return;
        }
        let failure = self.fs.spill().err().map(|error| for_waiters(&error, error.errno()));
        let mut ledger = self.ledger.lock();
        if let Some(error) = &failure
            && ledger.spill_failure.is_none()
        {
            tracing::warn!(%error, "what unlinked files hold stays in memory");
        }
        ledger.spill_failure = failure;
        drop(ledger);
        self.ended.notify_all();
    }

    fn next_to_drain(&self, ledger: &mut Ledger) -> Option<Batch> {
        let can_commit = ledger.refusal.as_ref().is_none_or(|refusal| refusal.may_commit);
        let enough = self.room.drain_at(ledger.draining(u64::MAX));
        if self.fs.uncut_bytes() < enough || ledger.failure.is_some() || !can_commit {
            return None;
        }
        // The next fsync would have to commit it, instead of journaling what is left.
        if self.fsyncs_come() && self.fs.dirty_bytes() < self.room.slow {
            return None;
        }
        ledger.take_cut_to_drain(&self.fs)
    }

    fn drain(&self, batch: &Batch) {
        let mut result = self.log.drain(&batch.rows);
        if result.as_ref().is_err_and(OpLogError::is_full) && self.give_up_reserve() {
            result = self.log.drain(&batch.rows);
        }
        match result {
            Ok((files, placed)) => {
                self.fs.stored(&placed);
                let (metadata, rows) = placed_rows(&batch.rows, placed);
                let mut ledger = self.ledger.lock();
                ledger.drained(batch.number, metadata, DrainedContent { files, rows });
                ledger.drains_ended += 1;
            }
            Err(error) => {
                let failure = self.could_not_store(&error);
                let mut ledger = self.ledger.lock();
                ledger.not_drained(batch.number);
                ledger.drains_ended += 1;
                // The commit decides how to go on: it stores the same rows in new files, or fails too.
                ledger.failure = Some(failure);
                ledger.requested = true;
                self.wanted.notify_one();
            }
        }
        self.ended.notify_all();
    }
}

/// Parts rows into those that stay in memory and the extents, which say from now on where their bytes lie.
pub(crate) fn placed_rows(rows: &[Row], mut placed: Vec<Placed>) -> (Vec<Row>, Vec<Row>) {
    placed.sort_unstable_by_key(|place| (place.lsn, place.seq));
    let mut metadata = Vec::new();
    let mut extents = Vec::with_capacity(placed.len());
    for row in rows {
        let found = placed.binary_search_by_key(&(row.lsn, row.seq), |place| (place.lsn, place.seq));
        match (&row.record, found) {
            (Record::Extent(extent), Ok(at)) => {
                let mut extent = extent.clone();
                extent.content = ExtentContent::Stored(placed[at].location);
                extents.push(Row { record: Record::Extent(extent), ..row.clone() });
            }
            _ => metadata.push(row.clone()),
        }
    }
    (metadata, extents)
}

/// Rows that were drained, with their bytes, for the journal where no commit can be made.
pub(crate) fn read_back(
    content: &DrainedContent,
    persistence: &dyn pond_tinyfs::PersistenceLayer,
) -> Result<Vec<Row>, StorageError> {
    let with_bytes = |row: &Row| {
        let mut row = row.clone();
        if let Record::Extent(extent) = &mut row.record
            && let ExtentContent::Stored(location) = extent.content
        {
            extent.content = ExtentContent::Memory(persistence.read(location, 0, extent.length)?);
        }
        Ok(row)
    };
    content.rows.iter().map(with_bytes).collect()
}

#[cfg(test)]
mod tests;
