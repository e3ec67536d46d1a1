//! The ledger: rows that were taken out of the tree and that no version holds yet, in the order of their lsns.
//!
//! It is pure bookkeeping under one mutex. Taking a cut of the tree and entering it here happen under that mutex,
//! so that no batch can overtake another: whatever is committed or journaled is a prefix of the operations.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use pond_oplog::Drained;
use pond_tinyfs::{Lsn, NodeId, Row, StorageError, TinyFs};

/// Rows of one cut. Never empty.
#[derive(Clone)]
pub(crate) struct Batch {
    /// Number of the batch, ascending.
    pub(crate) number: u64,
    /// The rows, sorted by lsn.
    pub(crate) rows: Arc<Vec<Row>>,
    /// All operations up to this one are in this batch or in one before it.
    pub(crate) cut_lsn: Lsn,
    /// Bytes of content in the rows.
    pub(crate) bytes: u64,
    /// Whether a durable journal frame holds the rows.
    pub(crate) journaled: bool,
    /// Whether factories made all of it.
    pub(crate) by_factories: bool,
    /// Where the content is.
    pub(crate) content: Content,
}

/// Where the content of a batch is.
#[derive(Clone)]
pub(crate) enum Content {
    /// In its rows.
    InRows,
    /// In its rows, and being written into content files.
    Draining,
    /// In content files.
    Drained(Arc<DrainedContent>),
}

/// Content that has left memory.
pub(crate) struct DrainedContent {
    /// The files, which the next commit names.
    pub(crate) files: Vec<Drained>,
    /// Their rows, saying where the bytes lie.
    pub(crate) rows: Vec<Row>,
}

impl Batch {
    /// Whether the content is in files that only a commit can name, or on its way there.
    pub(crate) fn leaves_memory(&self) -> bool {
        !matches!(self.content, Content::InRows)
    }

    /// What was drained of it.
    pub(crate) fn drained(&self) -> Option<&DrainedContent> {
        match &self.content {
            Content::Drained(content) => Some(content),
            Content::InRows | Content::Draining => None,
        }
    }
}

/// Why no writes are taken any more.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// For the user.
    pub(crate) why: Arc<str>,
    /// Whether what is uncommitted may still be committed: not where another writer's version stands, or one of which
    /// nobody knows whether it is durable.
    pub(crate) may_commit: bool,
}

/// The ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    batches: VecDeque<Batch>,
    next_number: u64,
    /// Nodes that factories changed since the last cut.
    factory_nodes: HashSet<NodeId>,
    /// Commits are numbered from 1 as they start; each covers all that was issued before its start.
    pub(crate) attempts_started: u64,
    /// The last commit that ended, well or badly.
    pub(crate) attempts_ended: u64,
    /// The last commit that ended well.
    pub(crate) last_success: u64,
    /// Why the last spill of what unlinked files hold failed; `None` once one has succeeded.
    pub(crate) spill_failure: Option<StorageError>,
    /// Drains that have ended, well or badly.
    pub(crate) drains_ended: u64,
    /// Whether a commit is wanted without waiting for the interval.
    pub(crate) requested: bool,
    /// Whether the pond is being closed, so that nothing gives way to other programs any more.
    pub(crate) closing: bool,
    /// While a commit is under way, when it stops giving way to other programs.
    pub(crate) hurried_from: Option<Instant>,
    /// Why the last commit failed; `None` once one has succeeded.
    pub(crate) failure: Option<StorageError>,
    /// Commits that failed in a row.
    pub(crate) failures: u32,
    /// Before this, a failed commit is not tried again unless somebody waits for it.
    pub(crate) retry_at: Option<Instant>,
    /// Why no writes are taken.
    pub(crate) refusal: Option<Refusal>,
    /// Whether the committer is to end.
    pub(crate) stop: bool,
}

impl Ledger {
    /// Takes a cut of the tree and enters it; the number of its batch, if there was anything to take.
    pub(crate) fn take_cut(&mut self, fs: &TinyFs) -> Option<u64> {
        let cut = fs.cut();
        let touched = std::mem::take(&mut self.factory_nodes);
        if cut.rows.is_empty() {
            return None;
        }
        let by_factories = !touched.is_empty() && cut.rows.iter().all(|row| touched.contains(&row.node));
        self.enter(cut.rows, cut.cut_lsn, cut.bytes, false, by_factories);
        Some(self.next_number)
    }

    /// Takes a cut of the tree whose content is drained: until [`drained`](Self::drained) or
    /// [`not_drained`](Self::not_drained) no commit takes the batch.
    pub(crate) fn take_cut_to_drain(&mut self, fs: &TinyFs) -> Option<Batch> {
        let number = self.take_cut(fs)?;
        let batch = self.batches.back_mut().filter(|batch| batch.number == number)?;
        batch.content = Content::Draining;
        Some(batch.clone())
    }

    /// Notes that a batch's content is in these files, and what is left of its rows.
    pub(crate) fn drained(&mut self, number: u64, rows: Vec<Row>, content: DrainedContent) {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) {
            batch.rows = Arc::new(rows);
            batch.content = Content::Drained(Arc::new(content));
        }
    }

    /// Notes that a batch's content stays in its rows.
    pub(crate) fn not_drained(&mut self, number: u64) {
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) {
            batch.content = Content::InRows;
        }
    }

    /// How many batches are being drained, of those up to this one.
    pub(crate) fn draining(&self, up_to: u64) -> usize {
        let up_to = self.batches.iter().take_while(|batch| batch.number <= up_to);
        up_to.filter(|batch| matches!(batch.content, Content::Draining)).count()
    }

    /// The number of the last batch that was entered.
    pub(crate) fn last_number(&self) -> u64 {
        self.next_number
    }

    /// Enters rows that recovery found in the journal.
    pub(crate) fn adopt_recovered(&mut self, rows: Vec<Row>, cut_lsn: Lsn) {
        if !rows.is_empty() {
            // Content is not counted: the rows are in the journal, and that is what the count is for.
            self.enter(rows, cut_lsn, 0, true, false);
        }
    }

    fn enter(&mut self, rows: Vec<Row>, cut_lsn: Lsn, bytes: u64, journaled: bool, by_factories: bool) {
        self.next_number += 1;
        self.batches.push_back(Batch {
            number: self.next_number,
            rows: Arc::new(rows),
            cut_lsn,
            bytes,
            journaled,
            by_factories,
            content: Content::InRows,
        });
    }

    /// Notes that a factory changes these nodes. Call it, and the change, under the ledger's mutex.
    pub(crate) fn note_factory_nodes(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.factory_nodes.extend(nodes);
    }

    /// The uncommitted batches up to the one of this number, in order.
    pub(crate) fn uncommitted(&self, up_to: u64) -> Vec<Batch> {
        self.batches.iter().take_while(|batch| batch.number <= up_to).cloned().collect()
    }

    /// The batches that no durable frame holds, in order: the last ones, as a frame takes all there is. Of thousands that wait
    /// for a commit nothing is looked at but these.
    pub(crate) fn unjournaled(&self) -> Vec<Batch> {
        let newest = self.batches.iter().rev().take_while(|batch| !batch.journaled);
        let mut batches: Vec<Batch> = newest.cloned().collect();
        batches.reverse();
        batches
    }

    /// Whether every entered row is in the journal or in a version.
    pub(crate) fn all_durable(&self) -> bool {
        self.batches.back().is_none_or(|batch| batch.journaled)
    }

    /// Whether every entered row is in a version.
    pub(crate) fn all_committed(&self) -> bool {
        self.batches.is_empty()
    }

    /// Rows that no version holds.
    pub(crate) fn rows(&self) -> usize {
        let drained = |batch: &Batch| batch.drained().map_or(0, |content| content.rows.len());
        self.batches.iter().map(|batch| batch.rows.len() + drained(batch)).sum()
    }

    /// Notes that a durable frame holds these batches, which follow each other.
    pub(crate) fn journaled(&mut self, batches: &[Batch]) {
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return };
        let newest = self.batches.iter_mut().rev().take_while(|batch| batch.number >= first.number);
        for batch in newest.filter(|batch| batch.number <= last.number) {
            batch.journaled = true;
        }
    }

    /// Drops these batches: a durable version holds them.
    pub(crate) fn committed(&mut self, batches: &[Batch]) {
        if let Some(last) = batches.last() {
            self.batches.retain(|batch| batch.number > last.number);
        }
    }
}

/// The rows of batches that are in memory, as the log takes them.
pub(crate) fn rows_of(batches: &[Batch]) -> Vec<&[Row]> {
    batches.iter().map(|batch| batch.rows.as_slice()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pond_tinyfs::{Timestamp, root_row};

    fn rows(lsn: u64) -> Vec<Row> {
        vec![Row { lsn: Lsn(lsn), ..root_row(Timestamp(0), 0, 0) }]
    }

    #[test]
    fn batches_keep_their_order_and_leave_it_only_when_committed() {
        let mut ledger = Ledger::default();
        ledger.enter(rows(2), Lsn(2), 10, false, false);
        ledger.enter(rows(3), Lsn(3), 10, false, false);
        let in_flight = ledger.uncommitted(u64::MAX);
        ledger.enter(rows(4), Lsn(4), 10, false, false);

        ledger.journaled(&ledger.unjournaled());
        assert!(ledger.all_durable());
        assert!(!ledger.all_committed());

        ledger.committed(&in_flight);
        let left: Vec<Lsn> = ledger.uncommitted(u64::MAX).iter().map(|batch| batch.cut_lsn).collect();
        assert_eq!(left, [Lsn(4)]);
    }

    #[test]
    fn a_row_is_journaled_once() {
        let mut ledger = Ledger::default();
        ledger.enter(rows(2), Lsn(2), 10, false, false);
        let first = ledger.unjournaled();
        ledger.journaled(&first);
        ledger.enter(rows(3), Lsn(3), 10, false, false);
        let second = ledger.unjournaled();
        assert_eq!(second.len(), 1);
        assert_eq!(second[0].cut_lsn, Lsn(3));
        assert!(!ledger.all_durable());
    }

    #[test]
    fn recovered_rows_are_durable_and_wait_to_be_committed() {
        let mut ledger = Ledger::default();
        ledger.adopt_recovered(rows(7), Lsn(7));
        assert!(ledger.all_durable());
        assert!(!ledger.all_committed());
        assert_eq!(ledger.rows(), 1);
    }
}
