//! The committer: every commit interval, and whenever somebody asks, it turns what has changed into one version.
//!
//! A commit is a cut, a journal rotation, and one Delta commit of all batches in the ledger, and of the files into which
//! the content of some was drained ([`drain`](super::drain)). The cut is taken under the ledger's mutex; all I/O happens outside
//! it, while reads, writes and fsyncs go on. A commit that fails leaves the ledger as it is, tells those who wait, and is tried
//! again, at growing intervals. Nothing else commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use pond_oplog::{CommitInfo, Committed, OpLogError, Origin, Position, TxnSeq, Version};
use pond_tinyfs::{
    Advise, Changes, ContentInMemory, Lsn, NodeId, NotPublished, PublishedChanges, Row, Stale, StorageError,
    TinyFs,
};

use crate::StewardError;
use crate::commit::disk_room::DiskRoom;
use crate::commit::ledger::stored::{files_of, rows_of, versions_of};
use crate::commit::ledger::{Batch, Ended, Ledger, Wake, Wanted};
use crate::commit::log::{CommitLog, for_waiters};
use crate::commit::merges::Merges;
use crate::host::end_process::EndProcessOnPanic;
use crate::host::processor;
use crate::host::reserve::Reserve;
use crate::pacing::backpressure::{Bounds, LastFsync};
use crate::pacing::scheduler::{CommitAction, CrowdAction, DrainAction, Drains, YieldAction};

/// Origin of a commit that holds only what factories wrote.
pub(crate) const FACTORY_ORIGIN: &str = "factory";

/// Is told how commits go, on the committer's thread; must be quick.
pub(crate) trait CommitObserver: Send + Sync {
    /// A transaction has started.
    fn started(&self, txn_seq: TxnSeq);
    /// Its version is durable.
    fn durable(&self, txn_seq: TxnSeq, version: Version);
    /// Memory knows the version.
    fn landed(&self, commit: &CommitInfo, by_factories: bool);
    /// It failed.
    fn failed(&self, txn_seq: TxnSeq, error: &StorageError);
}

/// Changes of a scratch that were made in the tree.
pub(crate) struct Published {
    /// The operation that all of it is.
    pub(crate) lsn: Lsn,
    /// What a kernel must be told that cached the tree.
    pub(crate) stale: Vec<Stale>,
}

/// What a committer works with.
pub(crate) struct Parts {
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) reserve: Reserve,
    pub(crate) observer: Arc<dyn CommitObserver>,
    pub(crate) origin: Origin,
    pub(crate) interval: Duration,
    /// Bytes of content accepted and not yet stored, and of what storing it takes.
    pub(crate) dirty_budget: u64,
    pub(crate) merges: Arc<Merges>,
}

/// The committer. One thread [`run`](Self::run)s it; any may ask it.
pub(crate) struct Committer {
    fs: Arc<TinyFs>,
    log: Arc<dyn CommitLog>,
    disk: DiskRoom,
    observer: Arc<dyn CommitObserver>,
    /// Held by each commit until the tree knows of it, and by those that maintenance makes.
    turn: Mutex<()>,
    origin: Origin,
    interval: Duration,
    bounds: Bounds,
    last_fsync: Mutex<LastFsync>,
    merges: Arc<Merges>,
    ledger: Mutex<Ledger>,
    /// Wakes the committer's thread.
    wanted: Condvar,
    /// Wakes the drainers.
    drain_wanted: Condvar,
    /// Wakes those who wait for a commit or a drain to end.
    ended: Condvar,
}

impl Committer {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { fs, log, reserve, observer, origin, interval, dirty_budget, merges } = parts;
        Committer {
            fs,
            disk: DiskRoom::new(log.clone(), reserve),
            log,
            observer,
            turn: Mutex::default(),
            origin,
            interval,
            bounds: Bounds::new(dirty_budget),
            last_fsync: Mutex::default(),
            merges,
            ledger: Mutex::default(),
            wanted: Condvar::new(),
            drain_wanted: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    /// The tree.
    pub(crate) fn fs(&self) -> &Arc<TinyFs> {
        &self.fs
    }

    /// The log.
    pub(crate) fn log(&self) -> &dyn CommitLog {
        &*self.log
    }

    /// Room on the disk.
    pub(crate) fn disk(&self) -> &DiskRoom {
        &self.disk
    }

    /// What follows from the budget.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The ledger.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Wakes them.
    pub(crate) fn wake(&self, wake: Wake) {
        if wake.committer {
            self.wanted.notify_one();
        }
        if wake.drainer {
            self.drain_wanted.notify_one();
        }
        if wake.waiters {
            self.ended.notify_all();
        }
    }

    /// Wakes a drainer where there is something for it to do.
    pub(crate) fn wake_drainers(&self, content: &ContentInMemory, fsyncs_come: bool) {
        if Drains::may_be_due(&self.bounds, content) {
            let next = self.ledger.lock().drains(*content, fsyncs_come).next(&self.bounds, true);
            if let DrainAction::Drain | DrainAction::Spill = next {
                self.drain_wanted.notify_one();
            }
        }
    }

    /// Waits until there may be something to drain or to spill.
    pub(crate) fn wait_for_drains(&self, ledger: &mut MutexGuard<'_, Ledger>) {
        self.drain_wanted.wait(ledger);
    }

    /// Waits until a commit, a drain, a spill, a merge or an fsync has ended, or for so long.
    pub(crate) fn wait_for_end(&self, ledger: &mut MutexGuard<'_, Ledger>, longest: Duration) {
        self.ended.wait_for(ledger, longest);
    }

    /// Notes when fsyncs are under way.
    pub(crate) fn note_fsync(&self, fsync: LastFsync) {
        *self.last_fsync.lock() = fsync;
    }

    /// Whether an fsync is under way, or was just now.
    pub(crate) fn fsyncs_come(&self) -> bool {
        self.last_fsync.lock().is_recent(Instant::now())
    }

    /// Commits what recovery found in the journal, before anything else and before [`run`](Self::run).
    pub(crate) fn commit_recovered(&self, rows: Vec<Row>, cut_lsn: Lsn) -> Result<(), StorageError> {
        self.ledger.lock().adopt_recovered(rows, cut_lsn);
        self.attempt(&Origin::recovery(), Instant::now())
    }

    /// Makes a version without rows, before [`run`](Self::run).
    pub(crate) fn commit_empty(&self, origin: &Origin) -> Result<Position, OpLogError> {
        let last = self.log.position();
        let txn_seq = last.txn_seq.next();
        self.observer.started(txn_seq);
        match self.log.commit(&[], &[], last.cut_lsn, origin) {
            Ok(committed) => {
                self.landed(&[], committed, 0, origin.clone(), false);
                Ok(self.log.position())
            }
            Err(error) => {
                self.observer.failed(txn_seq, &for_waiters(&error, error.errno()));
                Err(error)
            }
        }
    }

    /// The committer's thread. Ends after [`stop`](Self::stop).
    pub(crate) fn run(&self) {
        let _no_half_commit = EndProcessOnPanic("the committer");
        let mut due = Instant::now() + self.interval;
        loop {
            let mut ledger = self.ledger.lock();
            match ledger.commits(self.fs.is_dirty(), self.interval, due).next(Instant::now()) {
                CommitAction::End => return,
                CommitAction::WaitUntil(next) => {
                    due = next;
                    self.wanted.wait_until(&mut ledger, due);
                }
                CommitAction::Commit => {
                    drop(ledger);
                    let was_due = Instant::now();
                    self.wait_for_merges();
                    due = Instant::now() + self.interval;
                    // Who waits is told through the ledger, and the observer has logged it.
                    if let Err(error) = self.attempt(&self.origin, was_due) {
                        tracing::debug!(%error, "the commit will be tried again");
                    }
                }
            }
        }
    }

    /// Waits while files are made faster than they are merged. Fsyncs and drains go on.
    fn wait_for_merges(&self) {
        let mut began = None;
        while self.merges.at_work().is_some_and(|since| self.log.is_crowded(since)) {
            let since = *began.get_or_insert_with(Instant::now);
            self.merges.ring();
            let mut ledger = self.ledger.lock();
            let CrowdAction::WaitUntil(until) = ledger.crowd(since, self.interval).next(Instant::now())
            else {
                break;
            };
            self.ended.wait_until(&mut ledger, until);
        }
        if let Some(began) = began {
            tracing::debug!(waited = ?began.elapsed(), "a commit waited for a merge");
        }
    }

    /// Ends the committer's thread and the drainers'; what is uncommitted stays so.
    pub(crate) fn stop(&self) {
        let wake = self.ledger.lock().stop();
        self.wake(wake);
        self.drain_wanted.notify_all();
    }

    /// One version (or an older one) holds everything issued before the call.
    pub(crate) fn commit_now(&self) -> Result<Position, StewardError> {
        let mut ledger = self.ledger.lock();
        let attempt = loop {
            let (wanted, wake) = ledger.want_all_committed(self.fs.is_dirty());
            self.wake(wake);
            match wanted {
                Wanted::Nothing => return Ok(self.log.position()),
                Wanted::TheEnd => self.ended.wait(&mut ledger),
                Wanted::Attempt(attempt) => break attempt,
            }
        };
        loop {
            match ledger.ended(attempt) {
                Ended::NotYet => self.ended.wait(&mut ledger),
                Ended::Well => return Ok(self.log.position()),
                Ended::Closed => return Err(StewardError::Closed),
                Ended::Badly(reason) => {
                    let reason =
                        reason.unwrap_or_else(|| StorageError::new("no commit succeeded", libc::EIO));
                    let txn_seq = self.log.position().txn_seq.next();
                    return Err(StewardError::NotCommitted { txn_seq, reason });
                }
            }
        }
    }

    /// Makes a change on a factory's behalf that no cut splits. Commits that hold nothing else do not start writing
    /// factories again. `change` adds each node that it touches to the list.
    pub(crate) fn change_by_factory<T>(&self, change: impl FnOnce(&TinyFs, &mut Vec<NodeId>) -> T) -> T {
        let mut ledger = self.ledger.lock();
        let _no_half_change = EndProcessOnPanic("a factory's change of the tree");
        let mut nodes = Vec::new();
        let result = change(&self.fs, &mut nodes);
        ledger.note_factory_nodes(nodes);
        result
    }

    /// Makes the changes of a scratch of `version`: as one operation, which becomes a version of its own at the next commit.
    pub(crate) fn publish(
        &self,
        version: &TinyFs,
        changes: Changes,
        origin: Origin,
    ) -> Result<Published, NotPublished> {
        let mut ledger = self.ledger.lock();
        let _no_half_change = EndProcessOnPanic("what a transaction did");
        let PublishedChanges { lsn, stale, before, cut } = self.fs.publish_changes(version, changes)?;
        ledger.enter_cut(before);
        ledger.enter_cut_alone(cut, origin);
        Ok(Published { lsn, stale })
    }

    /// The version that published changes became, once they are committed; its operation tells which.
    pub(crate) fn version_of(&self, published: Lsn) -> Option<Position> {
        self.ledger.lock().take_made_alone(published)
    }

    /// No more writes, for the reason given; the first reason stays.
    pub(crate) fn refuse_writes(&self, why: &str, may_commit: bool) {
        self.fs.set_read_only(true);
        if self.ledger.lock().refuse(why, may_commit) {
            tracing::warn!(why, "the pond takes no writes");
        }
    }

    /// From now on nothing gives way: the pond is being closed.
    pub(crate) fn hurry(&self) {
        self.ledger.lock().hurry();
    }

    /// Sleeps for as long as others want the calling thread's processor more than anybody wants what it makes.
    pub(crate) fn give_way(&self) {
        let mut owed = processor::owed();
        while !owed.is_zero() {
            let next = {
                let ledger = self.ledger.lock();
                ledger.yielding(self.fs.content_in_memory(), owed).next(&self.bounds, Instant::now())
            };
            let YieldAction::Yield(nap) = next else { return };
            std::thread::sleep(nap);
            owed -= nap;
        }
    }

    /// Writes what unlinked files hold to files without names.
    pub(crate) fn spill_unlinked(&self) {
        let result = self.fs.spill().map_err(|error| for_waiters(&error, error.errno()));
        let failure = result.as_ref().err().cloned();
        let (is_new, wake) = self.ledger.lock().spill_ended(result);
        if let (true, Some(error)) = (is_new, failure) {
            tracing::warn!(%error, "what unlinked files hold stays in memory");
        }
        self.wake(wake);
    }

    /// One commit of everything so far, which was due at that time. One at a time: the committer's thread calls it, and
    /// recovery before that.
    fn attempt(&self, origin: &Origin, due: Instant) -> Result<(), StorageError> {
        if self.bounds.must_spill(&self.fs.content_in_memory()) {
            self.spill_unlinked();
        }
        let (attempt, batches, must_not) = {
            let mut ledger = self.ledger.lock();
            let attempt = ledger.begin_attempt(self.fs.cut(), due, self.interval);
            while ledger.draining(attempt.last_batch) > 0 {
                self.ended.wait(&mut ledger);
            }
            let batches = ledger.uncommitted(attempt.last_batch);
            (attempt, batches, ledger.must_not_commit().cloned())
        };
        let result = match must_not {
            Some(why) if !batches.is_empty() => Err(StorageError::new(why, libc::EIO)),
            _ => versions_of(&batches).try_for_each(|batches| self.commit(batches, origin)),
        };
        let wake = self.ledger.lock().end_attempt(&attempt, &result, self.interval, Instant::now());
        self.wake(wake);
        result
    }

    /// Makes one version of these batches.
    fn commit(&self, batches: &[Batch], origin: &Origin) -> Result<(), StorageError> {
        let Some(last) = batches.last() else { return Ok(()) };
        let cut_lsn = last.cut_lsn();
        let _turn = self.turn.lock();
        let txn_seq = self.log.position().txn_seq.next();
        self.observer.started(txn_seq);
        // A failure here is the journal's: the next fsync writes all uncommitted rows to a new segment.
        if let Err(error) = self.log.rotate() {
            tracing::error!(%error, "could not end the journal's segment");
        }
        let by_factories = batches.iter().all(Batch::by_factories);
        let by_factory = Origin::of(FACTORY_ORIGIN);
        let origin = last.alone().unwrap_or(if by_factories { &by_factory } else { origin });
        let rows = rows_of(batches);
        let drained = files_of(batches);
        let count = rows.iter().map(|rows| rows.len() as u64).sum::<u64>();
        self.disk.keep_back_for(count);
        let mut result = self.log.commit(&rows, &drained, cut_lsn, origin);
        if result.as_ref().is_err_and(OpLogError::is_full) && self.disk.give_up_reserve() {
            result = self.log.commit(&rows, &drained, cut_lsn, origin);
        }
        match result {
            Ok(committed) => {
                let drained: u64 = drained.iter().map(|drained| drained.rows()).sum();
                let count = count + drained;
                self.landed(batches, committed, count, origin.clone(), by_factories);
                Ok(())
            }
            Err(error) => {
                let for_waiters = self.could_not_store(&error);
                self.observer.failed(txn_seq, &for_waiters);
                Err(for_waiters)
            }
        }
    }

    /// Draws the consequences of an error of the log; what those see who wait.
    pub(crate) fn could_not_store(&self, error: &OpLogError) -> StorageError {
        if let OpLogError::SomeoneElse { .. } | OpLogError::Unconfirmed { .. } | OpLogError::ReadOnly { .. } =
            error
        {
            self.refuse_writes(&error.in_full(), false);
        } else if error.is_full() {
            tracing::warn!(%error, "the disk is full; changes stay in memory until there is room");
        } else if error.is_out_of_files() {
            tracing::warn!(%error, "too many files are open; changes stay in memory until some are closed");
        } else {
            let why = format!(
                "{error}; what is not yet committed is kept and tried again, mount anew once it is repaired"
            );
            self.refuse_writes(&why, true);
        }
        for_waiters(error, error.errno())
    }

    fn landed(&self, batches: &[Batch], committed: Committed, rows: u64, origin: Origin, by_factories: bool) {
        self.observer.durable(committed.position.txn_seq, committed.position.version);
        self.fs.stored(&committed.placed);
        {
            let mut ledger = self.ledger.lock();
            ledger.committed(batches);
            ledger.note_version(batches, &committed.position);
        }
        // Failing leaves a segment that recovery skips; the next release tries again.
        if let Err(error) = self.log.release(&committed.position) {
            tracing::warn!(%error, "could not remove journal segments that are no longer needed");
        }
        // Now that those segments are gone.
        self.disk.look();
        self.disk.restore_reserve();
        let commit = CommitInfo {
            position: committed.position,
            origin,
            rows,
            files: u64::from(committed.files),
            bytes: committed.bytes,
        };
        tracing::debug!(version = %commit.position.version, rows, bytes = commit.bytes, "committed");
        self.observer.landed(&commit, by_factories);
    }

    /// Makes a version that maintenance has prepared, between two commits: `commit` returns where history stands then, and how many
    /// files, of so many bytes, were added.
    pub(crate) fn between_commits(
        &self,
        commit: impl FnOnce() -> Result<(Position, (u32, u64)), OpLogError>,
    ) -> Result<(), OpLogError> {
        let _turn = self.turn.lock();
        self.disk.make_room_for_entry();
        let txn_seq = self.log.position().txn_seq.next();
        self.observer.started(txn_seq);
        match commit() {
            Ok((position, (files, bytes))) => {
                self.observer.durable(position.txn_seq, position.version);
                // Only what the journal's next segment says it builds on.
                if let Err(error) = self.log.release(&position) {
                    tracing::warn!(%error, "could not remove journal segments that are no longer needed");
                }
                let origin = Origin::maintenance();
                let commit = CommitInfo { position, origin, rows: 0, files: files.into(), bytes };
                // As with what factories write, the writing ones need not run; a push follows.
                self.observer.landed(&commit, true);
                // A commit may wait for it.
                self.wake(Wake::WAITERS);
                Ok(())
            }
            Err(error) => {
                if let OpLogError::Unconfirmed { .. } = &error {
                    self.refuse_writes(&error.in_full(), false);
                }
                self.observer.failed(txn_seq, &for_waiters(&error, error.errno()));
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
