//! What the Steward asks of the log when it commits and journals. A trait, so that tests can make each step
//! fail; [`OpLog`] is the real one.

use pond_oplog::{
    Committed, Drained, JournalError, MergeLimits, OpLog, OpLogError, Origin, Position, TxnSeq,
};
use pond_tinyfs::{Advise, Errno, Lsn, PersistenceLayer, Placed, Row, Space, StorageError};

use crate::commit::merges::CROWDED;

/// The log as the committer and the journal thread see it.
pub(crate) trait CommitLog: Send + Sync + 'static {
    /// One Delta commit of these rows and drained files.
    fn commit(
        &self,
        rows: &[&[Row]],
        drained: &[&Drained],
        cut_lsn: Lsn,
        origin: &Origin,
    ) -> Result<Committed, OpLogError>;
    /// Writes the content of these rows into files for a commit to come; where it lies now.
    fn drain(&self, rows: &[Row]) -> Result<(Vec<Drained>, Vec<Placed>), OpLogError>;
    /// The newest version.
    fn position(&self) -> Position;
    /// Appends a frame to the journal and makes it durable.
    fn append(&self, rows: &[&[Row]]) -> Result<(), JournalError>;
    /// A new journal segment with all uncommitted rows, after a failure.
    fn restart(&self, rows: &[&[Row]]) -> Result<(), JournalError>;
    /// Whether `restart` is due.
    fn must_restart(&self) -> bool;
    /// Ends the journal's segment.
    fn rotate(&self) -> Result<(), JournalError>;
    /// Deletes journal segments that the table has overtaken.
    fn release(&self, position: &Position) -> Result<(), JournalError>;
    /// The space left on the host filesystem, less what [`keep_back`](Self::keep_back) keeps.
    fn space(&self) -> Space;
    /// Counts so many bytes as taken although they are free.
    fn keep_back(&self, bytes: u64);
    /// Whether so many small files are live that commits should wait for a merge, and files which this transaction or later
    /// ones made can be merged.
    fn is_crowded(&self, since: TxnSeq) -> bool;
}

impl CommitLog for OpLog {
    fn commit(
        &self,
        rows: &[&[Row]],
        drained: &[&Drained],
        cut_lsn: Lsn,
        origin: &Origin,
    ) -> Result<Committed, OpLogError> {
        OpLog::commit_drained(self, rows, drained, cut_lsn, origin)
    }

    fn drain(&self, rows: &[Row]) -> Result<(Vec<Drained>, Vec<Placed>), OpLogError> {
        OpLog::drain(self, rows)
    }

    fn position(&self) -> Position {
        OpLog::position(self)
    }

    fn append(&self, rows: &[&[Row]]) -> Result<(), JournalError> {
        self.journal().append(rows)
    }

    fn restart(&self, rows: &[&[Row]]) -> Result<(), JournalError> {
        self.journal().restart(rows)
    }

    fn must_restart(&self) -> bool {
        self.journal().must_restart()
    }

    fn rotate(&self) -> Result<(), JournalError> {
        self.journal().rotate()
    }

    fn release(&self, position: &Position) -> Result<(), JournalError> {
        self.journal().release(position)
    }

    fn space(&self) -> Space {
        PersistenceLayer::space(self)
    }

    fn keep_back(&self, bytes: u64) {
        self.set_reserve(bytes);
    }

    fn is_crowded(&self, since: TxnSeq) -> bool {
        // Files that are too large to be merged count for the first glance only, which is the cheap one.
        self.live_size().0 > CROWDED as u64
            && self.small_files(&MergeLimits::default()) > CROWDED
            && self.mergeable(&MergeLimits { since, ..MergeLimits::default() }) > 0
    }
}

/// An error as those see it who wait for a commit or an fsync: a full disk is told apart, everything else is EIO.
pub(crate) fn for_waiters(error: &impl Advise, errno: i32) -> StorageError {
    let errno = if Errno(errno).is_full() { errno } else { libc::EIO };
    StorageError { message: error.to_string().into(), advice: error.advice().map(Into::into), errno }
}
