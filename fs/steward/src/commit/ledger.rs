//! The ledger: what waits to be stored. Rows that were taken out of the tree and that no version holds yet, in the order of
//! their lsns; and how storing them goes: commits asked for, under way, ended, failed.
//!
//! It is pure bookkeeping under one mutex: it knows no clock, and says who is to be woken instead of waking them. Taking a cut
//! of the tree and entering it here happen under that mutex, so that no batch can overtake another: whatever is committed or
//! journaled is a prefix of the operations.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pond_oplog::{Drained, Origin, Position};
use pond_tinyfs::{Cut, ExtentContent, Lsn, NodeId, PersistenceLayer, Record, Row, StorageError};

use crate::pacing::scheduler::{patience, pause_after};

/// Rows of one cut. Never empty.
#[derive(Clone)]
pub(crate) struct Batch {
    /// Number of the batch, ascending.
    number: u64,
    /// The rows, sorted by lsn.
    rows: Arc<Vec<Row>>,
    /// All operations up to this one are in this batch or in one before it.
    cut_lsn: Lsn,
    /// Bytes of content in the rows.
    bytes: u64,
    /// Whether a durable journal frame holds the rows.
    journaled: bool,
    /// Whether factories made all of it.
    by_factories: bool,
    /// Where it is to be a version of its own: who asked for that.
    alone: Option<Arc<Origin>>,
    /// Where the content is.
    content: Content,
}

/// Where the content of a batch is.
#[derive(Clone)]
enum Content {
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
    files: Vec<Drained>,
    /// Their rows, saying where the bytes lie.
    rows: Vec<Row>,
}

impl DrainedContent {
    pub(crate) fn new(files: Vec<Drained>, rows: Vec<Row>) -> Self {
        DrainedContent { files, rows }
    }

    /// Its rows with their bytes, for the journal where no commit can be made.
    pub(crate) fn read_back(&self, persistence: &dyn PersistenceLayer) -> Result<Vec<Row>, StorageError> {
        let with_bytes = |row: &Row| {
            let mut row = row.clone();
            if let Record::Extent(extent) = &mut row.record
                && let ExtentContent::Stored(location) = extent.content
            {
                extent.content = ExtentContent::Memory(persistence.read(location, 0, extent.length)?);
            }
            Ok(row)
        };
        self.rows.iter().map(with_bytes).collect()
    }
}

impl Batch {
    /// The rows that are in memory, sorted by lsn.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// All operations up to this one are in this batch or in one before it.
    pub(crate) fn cut_lsn(&self) -> Lsn {
        self.cut_lsn
    }

    /// Whether factories made all of it.
    pub(crate) fn by_factories(&self) -> bool {
        self.by_factories
    }

    /// Where it is to be a version of its own: who asked for that.
    pub(crate) fn alone(&self) -> Option<&Origin> {
        self.alone.as_deref()
    }

    /// Whether the content is in files that only a commit can name, or on its way there.
    fn leaves_memory(&self) -> bool {
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
    why: Arc<str>,
    /// Whether what is uncommitted may still be committed: not where another writer's version stands, or one of which
    /// nobody knows whether it is durable.
    may_commit: bool,
}

impl Refusal {
    /// For the user.
    pub(crate) fn why(&self) -> &Arc<str> {
        &self.why
    }
}

/// Who is to be woken.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wake {
    /// The committer.
    pub(crate) committer: bool,
    /// A drainer.
    pub(crate) drainer: bool,
    /// All who wait for a commit, a drain, a spill, a merge or an fsync to end.
    pub(crate) waiters: bool,
}

impl Wake {
    pub(crate) const NOBODY: Wake = Wake { committer: false, drainer: false, waiters: false };
    pub(crate) const WAITERS: Wake = Wake { waiters: true, ..Wake::NOBODY };
    const COMMITTER: Wake = Wake { committer: true, ..Wake::NOBODY };
}

/// What who wants everything committed waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything is.
    Nothing,
    /// Everything is, but the attempt has not ended; then to ask again.
    TheEnd,
    /// The attempt of this number.
    Attempt(u64),
}

/// How an attempt ended that somebody waits for.
#[derive(Clone, Debug)]
pub(crate) enum Ended {
    /// Not yet.
    NotYet,
    /// Well.
    Well,
    /// Badly, as said here.
    Badly(Option<StorageError>),
    /// The pond was closed before.
    Closed,
}

/// What a commit stores.
pub(crate) struct Attempt {
    /// Commits are numbered from 1 as they start; each covers all that was issued before its start.
    pub(crate) number: u64,
    /// The last batch that it stores.
    pub(crate) last_batch: u64,
}

/// The ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    batches: VecDeque<Batch>,
    next_number: u64,
    /// Nodes that factories changed since the last cut.
    factory_nodes: HashSet<NodeId>,
    /// Versions of their own that were made and not yet asked for, by the last operation in each.
    made_alone: HashMap<Lsn, Position>,
    /// Commits are numbered from 1 as they start; each covers all that was issued before its start.
    attempts_started: u64,
    /// The last commit that ended, well or badly.
    attempts_ended: u64,
    /// The last commit that ended well.
    last_success: u64,
    /// Why the last spill of what unlinked files hold failed; `None` once one has succeeded.
    spill_failure: Option<StorageError>,
    /// Drains that have ended, well or badly.
    drains_ended: u64,
    /// Whether a commit is wanted without waiting for the interval.
    requested: bool,
    /// Whether the pond is being closed, so that nothing gives way to other programs any more.
    closing: bool,
    /// While a commit is under way, when it stops giving way to other programs.
    hurried_from: Option<Instant>,
    /// Why the last commit or drain failed; `None` once a commit has succeeded.
    failure: Option<StorageError>,
    /// Commits that failed in a row.
    failures: u32,
    /// Before this, a failed commit is not tried again unless somebody waits for it.
    retry_at: Option<Instant>,
    /// Why no writes are taken.
    refusal: Option<Refusal>,
    /// Whether everybody is to end.
    stopped: bool,
}

/// Batches.
impl Ledger {
    /// Enters a cut of the tree, which was taken under the ledger's mutex; the number of its batch, if there is anything in it.
    pub(crate) fn enter_cut(&mut self, cut: Cut) -> Option<u64> {
        let touched = std::mem::take(&mut self.factory_nodes);
        if cut.rows.is_empty() {
            return None;
        }
        let by_factories = !touched.is_empty() && cut.rows.iter().all(|row| touched.contains(&row.node));
        self.enter(cut.rows, cut.cut_lsn, cut.bytes, false, by_factories);
        Some(self.next_number)
    }

    /// Enters a cut that is to be a version of its own.
    pub(crate) fn enter_cut_alone(&mut self, cut: Cut, origin: Origin) {
        if let Some(number) = self.enter_cut(cut)
            && let Some(batch) = self.batches.back_mut().filter(|batch| batch.number == number)
        {
            batch.alone = Some(Arc::new(origin));
        }
    }

    /// The version that was made of the cut that ended with this operation. Asked once.
    pub(crate) fn take_made_alone(&mut self, cut_lsn: Lsn) -> Option<Position> {
        self.made_alone.remove(&cut_lsn)
    }

    /// Enters a cut of the tree whose content is drained: until [`drain_ended`](Self::drain_ended) no commit takes the batch.
    pub(crate) fn enter_cut_to_drain(&mut self, cut: Cut) -> Option<Batch> {
        let number = self.enter_cut(cut)?;
        let batch = self.batches.back_mut().filter(|batch| batch.number == number)?;
        batch.content = Content::Draining;
        Some(batch.clone())
    }

    /// Notes that a batch's content is in files now, and what is left of its rows; or that it stays in its rows, and why.
    pub(crate) fn drain_ended(
        &mut self,
        batch: &Batch,
        result: Result<(Vec<Row>, DrainedContent), StorageError>,
    ) -> Wake {
        self.drains_ended += 1;
        let batch = self.batches.iter_mut().find(|entered| entered.number == batch.number);
        match result {
            Ok((rows, content)) => {
                if let Some(batch) = batch {
                    batch.rows = Arc::new(rows);
                    batch.content = Content::Drained(Arc::new(content));
                }
                Wake::WAITERS
            }
            Err(failure) => {
                if let Some(batch) = batch {
                    batch.content = Content::InRows;
                }
                // The commit decides how to go on: it stores the same rows in new files, or fails too.
                self.failure = Some(failure);
                Wake { waiters: true, ..self.request_commit() }
            }
        }
    }

    /// How many batches are being drained, of those up to this one.
    pub(crate) fn draining(&self, up_to: u64) -> usize {
        let up_to = self.batches.iter().take_while(|batch| batch.number <= up_to);
        up_to.filter(|batch| matches!(batch.content, Content::Draining)).count()
    }

    /// Enters rows that recovery found in the journal. Who opens the pond waits for their commit.
    pub(crate) fn adopt_recovered(&mut self, rows: Vec<Row>, cut_lsn: Lsn) {
        if !rows.is_empty() {
            // Content is not counted: the rows are in the journal, and that is what the count is for.
            self.enter(rows, cut_lsn, 0, true, false);
        }
        self.requested = true;
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
            alone: None,
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

    /// Notes which version these batches became, where somebody will ask.
    pub(crate) fn note_version(&mut self, batches: &[Batch], position: &Position) {
        if let Some(last) = batches.last().filter(|last| last.alone.is_some()) {
            self.made_alone.insert(last.cut_lsn, position.clone());
        }
    }
}

/// How storing goes.
impl Ledger {
    /// Asks for a commit without waiting for the interval.
    pub(crate) fn request_commit(&mut self) -> Wake {
        self.requested = true;
        Wake::COMMITTER
    }

    /// Asks for a commit of everything; `is_dirty`: whether there is something that was not cut.
    pub(crate) fn want_all_committed(&mut self, is_dirty: bool) -> (Wanted, Wake) {
        if !self.all_committed() || is_dirty {
            return (Wanted::Attempt(self.attempts_started + 1), self.request_commit());
        }
        // What has just landed those who run after commits hear of before the attempt ends.
        match self.attempts_ended == self.attempts_started {
            true => (Wanted::Nothing, Wake::NOBODY),
            false => (Wanted::TheEnd, Wake::NOBODY),
        }
    }

    /// How the attempt of this number ended.
    pub(crate) fn ended(&self, attempt: u64) -> Ended {
        if self.attempts_ended < attempt {
            return if self.stopped { Ended::Closed } else { Ended::NotYet };
        }
        if self.last_success >= attempt { Ended::Well } else { Ended::Badly(self.failure.clone()) }
    }

    /// A commit starts that was due then and is made at such intervals; `cut` is what was not cut yet. It may begin to write once
    /// none of its batches is [`draining`](Self::draining).
    pub(crate) fn begin_attempt(&mut self, cut: Cut, due: Instant, interval: Duration) -> Attempt {
        let patience = if self.requested { Duration::ZERO } else { patience(interval) };
        self.hurried_from = Some(due + patience);
        self.requested = false;
        self.attempts_started += 1;
        self.enter_cut(cut);
        Attempt { number: self.attempts_started, last_batch: self.next_number }
    }

    /// It has ended.
    pub(crate) fn end_attempt(
        &mut self,
        attempt: &Attempt,
        result: &Result<(), StorageError>,
        interval: Duration,
        now: Instant,
    ) -> Wake {
        match result {
            Ok(()) => {
                self.last_success = attempt.number;
                self.failure = None;
                self.failures = 0;
                self.retry_at = None;
            }
            Err(error) => {
                self.failure = Some(error.clone());
                self.failures += 1;
                self.retry_at = Some(now + pause_after(self.failures, interval));
            }
        }
        self.attempts_ended = attempt.number;
        self.hurried_from = None;
        Wake::WAITERS
    }

    /// A spill has ended. Whether this is the first failure after it went well.
    pub(crate) fn spill_ended(&mut self, result: Result<(), StorageError>) -> (bool, Wake) {
        let is_new = result.is_err() && self.spill_failure.is_none();
        self.spill_failure = result.err();
        (is_new, Wake::WAITERS)
    }

    /// Drains that have ended, well or badly.
    pub(crate) fn drains_ended(&self) -> u64 {
        self.drains_ended
    }

    /// Why the last commit or drain failed; `None` once a commit has succeeded.
    pub(crate) fn failure(&self) -> Option<&StorageError> {
        self.failure.as_ref()
    }

    /// Why the last spill failed; `None` once one has succeeded.
    pub(crate) fn spill_failure(&self) -> Option<&StorageError> {
        self.spill_failure.as_ref()
    }

    /// Why no writes are taken.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// No more writes, for the reason given; the first reason stays. Whether this is the first.
    pub(crate) fn refuse(&mut self, why: &str, may_commit: bool) -> bool {
        match &mut self.refusal {
            Some(refusal) => {
                refusal.may_commit &= may_commit;
                false
            }
            None => {
                self.refusal = Some(Refusal { why: why.into(), may_commit });
                true
            }
        }
    }

    /// Why what is uncommitted must not be committed any more.
    pub(crate) fn must_not_commit(&self) -> Option<&Arc<str>> {
        self.refusal.as_ref().filter(|refusal| !refusal.may_commit).map(|refusal| &refusal.why)
    }

    /// From now on nothing gives way: the pond is being closed.
    pub(crate) fn hurry(&mut self) {
        self.closing = true;
    }

    /// Everybody is to end; what is uncommitted stays so.
    pub(crate) fn stop(&mut self) -> Wake {
        self.stopped = true;
        Wake { committer: true, drainer: true, waiters: true }
    }

    /// Whether everybody is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

pub(crate) mod stored;
mod views;

#[cfg(test)]
mod tests;
