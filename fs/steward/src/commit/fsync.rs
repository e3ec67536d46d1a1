//! Fsyncs: everything received so far is made durable, by one `fdatasync` for all who ask at the same time.
//!
//! An fsync does not wait for a Delta commit: its rows go to the journal, each row once, those of a commit in flight
//! included. Only where much is pending, so that the journal would be written as long as the commit, a commit is
//! asked for instead.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};
use pond_oplog::JournalError;
use pond_tinyfs::{Error, StorageError};

use crate::StewardError;
use crate::commit::committer::Committer;
use crate::commit::ledger::stored::rows_of;
use crate::commit::ledger::{Batch, Wake};
use crate::commit::log::for_waiters;
use crate::host::end_process::EndProcessOnPanic;
use crate::pacing::backpressure::LastFsync;
use crate::pacing::scheduler::{Durable, Effort};

/// So many frames in a row a caller's thread writes: its own, and those of who asked meanwhile.
const ROUNDS: u32 = 16;

/// Is called once its fsync is done.
pub(crate) type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Everything is durable.
    Durable,
    /// It would have taken more than [`Effort::Little`].
    TooMuch,
}

/// The queue of fsyncs. One thread at a time works for all who wait: the journal thread, which [`run`](Self::run)s it, or a
/// caller's own, since handing a small frame to another processor takes as long as half of it.
pub(crate) struct Fsync {
    committer: Arc<Committer>,
    queue: Mutex<Queue>,
    wanted: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Done>,
    /// Whether some thread is at work. It looks at the queue again when it is done.
    busy: bool,
    stop: bool,
}

impl Fsync {
    pub(crate) fn new(committer: Arc<Committer>) -> Self {
        Fsync { committer, queue: Mutex::default(), wanted: Condvar::new() }
    }

    /// Calls `done` once everything received before this call survives power loss: at once and on this thread if it
    /// does already. With `here` the calling thread may write small frames itself.
    pub(crate) fn fsync(&self, done: Done, here: bool) {
        let pending = {
            let ledger = self.committer.ledger();
            self.committer.fs().is_dirty() || !ledger.all_durable()
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
        match (queue.busy, here) {
            (true, _) => {}
            (false, true) => self.work(queue, Effort::Little, ROUNDS),
            (false, false) => {
                drop(queue);
                self.wanted.notify_one();
            }
        }
    }

    /// The journal thread. Ends after [`stop`](Self::stop), when all who waited were answered.
    pub(crate) fn run(&self) {
        let _no_half_frame = EndProcessOnPanic("the journal thread");
        loop {
            let mut queue = self.queue.lock();
            while queue.busy || queue.waiting.is_empty() {
                if queue.stop && !queue.busy {
                    return;
                }
                self.wanted.wait(&mut queue);
            }
            self.work(queue, Effort::Any, u32::MAX);
        }
    }

    /// Answers those who wait, so many times; for the rest the journal thread is called.
    fn work<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, effort: Effort, rounds: u32) {
        let _no_half_frame = EndProcessOnPanic("an fsync");
        queue.busy = true;
        self.committer.note_fsync(LastFsync::UnderWay);
        for _ in 0..rounds {
            if queue.waiting.is_empty() {
                break;
            }
            let waiting = std::mem::take(&mut queue.waiting);
            drop(queue);
            let result = self.make_durable(effort);
            if matches!(result, Ok(Outcome::TooMuch)) {
                queue = self.queue.lock();
                let later = std::mem::replace(&mut queue.waiting, waiting);
                queue.waiting.extend(later);
                break;
            }
            // Writers that wait for it may go on.
            self.committer.wake(Wake::WAITERS);
            for done in waiting {
                done(result.clone().map(drop).map_err(Error::from));
            }
            queue = self.queue.lock();
        }
        queue.busy = false;
        self.committer.note_fsync(LastFsync::Ended(Instant::now()));
        let call = !queue.waiting.is_empty() || queue.stop;
        drop(queue);
        if call {
            self.wanted.notify_one();
        }
    }

    /// Ends the journal thread.
    pub(crate) fn stop(&self) {
        self.queue.lock().stop = true;
        self.wanted.notify_one();
    }

    /// Everything issued before the call is in a durable frame or version. [`Unjournaled`](crate::pacing::scheduler::Unjournaled) says
    /// by which. Only one thread may be in here.
    pub(crate) fn make_durable(&self, effort: Effort) -> Result<Outcome, StorageError> {
        let committer = &self.committer;
        // After a failure the old segment is not to be trusted: a new one begins with all uncommitted rows.
        let restart = committer.log().must_restart();
        if restart && effort == Effort::Little {
            return Ok(Outcome::TooMuch);
        }
        let (batches, unjournaled) = {
            let mut ledger = committer.ledger();
            ledger.enter_cut(committer.fs().cut());
            if ledger.all_durable() {
                return Ok(Outcome::Durable);
            }
            let batches = if restart { ledger.uncommitted(u64::MAX) } else { ledger.unjournaled() };
            let unjournaled = ledger.to_journal(&batches);
            (batches, unjournaled)
        };
        match unjournaled.durable_by(effort) {
            Durable::TooMuch => Ok(Outcome::TooMuch),
            Durable::ByCommit => match committer.commit_now() {
                Ok(_) => Ok(Outcome::Durable),
                Err(StewardError::NotCommitted { reason, .. }) => Err(reason),
                Err(error) => Err(for_waiters(&error, error.errno())),
            },
            Durable::ByFrame => {
                let journaled = self.write(batches)?;
                committer.ledger().journaled(&journaled);
                Ok(Outcome::Durable)
            }
        }
    }

    /// Writes a frame, into a new segment where the old one has failed; the batches that it holds.
    fn write(&self, mut batches: Vec<Batch>) -> Result<Vec<Batch>, StorageError> {
        let log = self.committer.log();
        loop {
            let restart = log.must_restart();
            if restart {
                // All of them, also if the segment has failed only just now.
                batches = self.committer.ledger().uncommitted(u64::MAX);
            }
            // Where no commit can be made, what was drained goes into the journal after all.
            let drained = batches.iter().filter_map(Batch::drained);
            let persistence = &**self.committer.fs().persistence();
            let drained =
                drained.map(|content| content.read_back(persistence)).collect::<Result<Vec<_>, _>>()?;
            let mut rows = rows_of(&batches);
            rows.extend(drained.iter().map(Vec::as_slice));
            let result = if restart { log.restart(&rows) } else { log.append(&rows) };
            let Err(error) = result else { return Ok(batches) };
            tracing::error!(%error, "could not write the journal");
            let again = match error.is_full() {
                true => self.committer.disk().give_up_reserve(),
                // A segment that failed is never tried again, but a new one is, once.
                false => !restart && log.must_restart(),
            };
            if !again {
                return Err(self.failed(&error));
            }
        }
    }

    fn failed(&self, error: &JournalError) -> StorageError {
        if !error.is_full() && !error.is_out_of_files() {
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
