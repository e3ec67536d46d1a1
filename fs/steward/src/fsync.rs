//! The journal thread: makes everything received so far durable, one `fdatasync` for all who ask at the same time.
//!
//! An fsync does not wait for a Delta commit: its rows go to the journal, each row once, those of a commit in flight
//! included. Only where much is pending, so that the journal would be written as long as the commit, a commit is
//! asked for instead.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use pond_oplog::JournalError;
use pond_tinyfs::{Error, StorageError};

use crate::StewardError;
use crate::commit::Committer;
use crate::commit_log::for_waiters;
use crate::drain::read_back;
use crate::end_process::EndProcessOnPanic;
use crate::ledger::{Batch, rows_of};

/// With more content than this not yet journaled, bytes, an fsync asks for a commit.
const LARGEST_FRAME: u64 = 8 << 20;

/// Is called once its fsync is done.
pub(crate) type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// The queue of fsyncs. One thread [`run`](Self::run)s it; any may ask it.
pub(crate) struct Fsync {
    committer: Arc<Committer>,
    queue: Mutex<Queue>,
    wanted: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Done>,
    stop: bool,
}

impl Fsync {
    pub(crate) fn new(committer: Arc<Committer>) -> Self {
        Fsync { committer, queue: Mutex::default(), wanted: Condvar::new() }
    }

    /// Calls `done` once everything received before this call survives power loss: at once and on this thread if it
    /// does already.
    pub(crate) fn fsync(&self, done: Done) {
        let pending = {
            let ledger = self.committer.ledger();
            self.committer.fs.is_dirty() || !ledger.all_durable()
        };
        if !pending {
            return done(Ok(()));
        }
        let mut queue = self.queue.lock();
        if queue.stop {
            drop(queue);
            return done(Err(for_waiters(&StewardError::Closed, libc::EIO).into()));
        }
        queue.waiting.push(done);
        drop(queue);
        self.wanted.notify_one();
    }

    /// The journal thread. Ends after [`stop`](Self::stop), when all who waited were answered.
    pub(crate) fn run(&self) {
        let _no_half_frame = EndProcessOnPanic("the journal thread");
        loop {
            let waiting = {
                let mut queue = self.queue.lock();
                while queue.waiting.is_empty() {
                    if queue.stop {
                        return;
                    }
                    self.wanted.wait(&mut queue);
                }
                std::mem::take(&mut queue.waiting)
            };
            let result = self.make_durable(Some(LARGEST_FRAME));
            for done in waiting {
                done(result.clone().map_err(Error::from));
            }
        }
    }

    /// Ends the journal thread.
    pub(crate) fn stop(&self) {
        self.queue.lock().stop = true;
        self.wanted.notify_one();
    }

    /// Everything issued before the call is in a durable frame or version. With more content than `largest_frame`,
    /// bytes, not yet journaled, or some that was drained, a commit is made instead; without that bound never. Only one
    /// thread may be in here.
    pub(crate) fn make_durable(&self, largest_frame: Option<u64>) -> Result<(), StorageError> {
        let committer = &self.committer;
        let (uncommitted, unjournaled, may_commit) = {
            let mut ledger = committer.ledger();
            ledger.take_cut(&committer.fs);
            if ledger.all_durable() {
                return Ok(());
            }
            let may_commit = ledger.refusal.as_ref().is_none_or(|refusal| refusal.may_commit);
            (ledger.uncommitted(u64::MAX), ledger.unjournaled(), may_commit)
        };
        // After a failure the old segment is not to be trusted: a new one begins with all uncommitted rows.
        let batches = if committer.log.must_restart() { uncommitted } else { unjournaled };
        let content: u64 = batches.iter().map(|batch| batch.bytes).sum();
        // No frame names a content file.
        let is_bulk = |largest| content > largest || batches.iter().any(Batch::leaves_memory);
        if may_commit && largest_frame.is_some_and(is_bulk) {
            return match committer.commit_now() {
                Ok(_) => Ok(()),
                Err(StewardError::NotCommitted { reason, .. }) => Err(reason),
                Err(error) => Err(for_waiters(&error, error.errno())),
            };
        }
        let journaled = self.write(batches)?;
        committer.ledger().journaled(&journaled);
        Ok(())
    }

    /// Writes a frame, into a new segment where the old one has failed; the batches that it holds.
    fn write(&self, mut batches: Vec<Batch>) -> Result<Vec<Batch>, StorageError> {
        let log = &self.committer.log;
        loop {
            let restart = log.must_restart();
            if restart {
                // All of them, also if the segment has failed only just now.
                batches = self.committer.ledger().uncommitted(u64::MAX);
            }
            // Where no commit can be made, what was drained goes into the journal after all.
            let drained = batches.iter().filter_map(Batch::drained);
            let persistence = &**self.committer.fs.persistence();
            let drained =
                drained.map(|content| read_back(content, persistence)).collect::<Result<Vec<_>, _>>()?;
            let mut rows = rows_of(&batches);
            rows.extend(drained.iter().map(Vec::as_slice));
            let result = if restart { log.restart(&rows) } else { log.append(&rows) };
            let Err(error) = result else { return Ok(batches) };
            tracing::error!(%error, "could not write the journal");
            let again = match error.is_full() {
                true => self.committer.give_up_reserve(),
                // A segment that failed is never tried again, but a new one is, once.
                false => !restart && log.must_restart(),
            };
            if !again {
                return Err(self.failed(&error));
            }
        }
    }

    fn failed(&self, error: &JournalError) -> StorageError {
        if !error.is_full() {
            let why = format!(
                "{error}; what is not yet committed is kept and tried again, mount anew once it is repaired"
            );
            self.committer.refuse_writes(&why, true);
        }
        for_waiters(error, error.errno())
    }
}

#[cfg(test)]
mod tests;
