//! Draining: content leaves memory as content files while more of it comes in, without a version being made.
//!
//! A drain takes a cut, so that what it writes is a prefix's, and writes the content of the rows into files that the next
//! commit names; their metadata stays in the ledger. Two drainers take turns: while the files of one are synced,
//! the other encodes. A crash before the commit loses what was drained, which no fsync has promised: an fsync that finds
//! drained content commits.

use std::sync::Arc;

use pond_oplog::OpLogError;
use pond_tinyfs::{ExtentContent, Placed, Record, Row};

use crate::commit::committer::Committer;
use crate::commit::ledger::{Batch, DrainedContent};
use crate::host::end_process::EndProcessOnPanic;
use crate::host::memory::HugePages;
use crate::pacing::scheduler::DrainAction;

/// One that drains, and spills what unlinked files hold.
pub(crate) struct Drainer {
    committer: Arc<Committer>,
}

impl Drainer {
    pub(crate) fn new(committer: Arc<Committer>) -> Self {
        Drainer { committer }
    }

    /// The drainer's thread. Ends when the committer is stopped.
    pub(crate) fn run(&self) {
        let _no_half_drain = EndProcessOnPanic("a drainer");
        let committer = &*self.committer;
        let mut has_spilled = false;
        loop {
            let mut ledger = committer.ledger();
            let drains = ledger.drains(committer.fs().content_in_memory(), committer.fsyncs_come());
            match drains.next(&committer.bounds(), has_spilled) {
                DrainAction::End => return,
                DrainAction::Spill => {
                    drop(ledger);
                    committer.spill_unlinked();
                    has_spilled = true;
                }
                DrainAction::Drain => {
                    let batch = ledger.enter_cut_to_drain(committer.fs().cut());
                    drop(ledger);
                    if let Some(batch) = batch {
                        self.drain(&batch);
                    }
                    has_spilled = false;
                }
                DrainAction::Wait => {
                    committer.wait_for_drains(&mut ledger);
                    has_spilled = false;
                }
            }
        }
    }

    fn drain(&self, batch: &Batch) {
        let committer = &*self.committer;
        // What is drained is bulk content, and more of it comes meanwhile.
        let _huge_pages = committer.bounds().are_ample().then(HugePages::hold);
        let mut result = committer.log().drain(batch.rows());
        if result.as_ref().is_err_and(OpLogError::is_full) && committer.disk().give_up_reserve() {
            result = committer.log().drain(batch.rows());
        }
        let result = match result {
            Ok((files, placed)) => {
                committer.fs().stored(&placed);
                let (metadata, rows) = placed_rows(batch.rows(), placed);
                Ok((metadata, DrainedContent::new(files, rows)))
            }
            Err(error) => Err(committer.could_not_store(&error)),
        };
        let wake = committer.ledger().drain_ended(batch, result);
        committer.wake(wake);
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

#[cfg(test)]
mod tests;
