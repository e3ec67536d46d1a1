//! The committer: every commit interval, and whenever somebody asks, it turns what has changed into one version.
//!
//! A commit is a cut, a journal rotation, and one Delta commit of all batches in the ledger, and of the files into which
//! the content of some was drained ([`drain`](super::drain)). The cut is taken under the ledger's mutex; all I/O happens outside it, while reads, writes and fsyncs go on. A commit that fails leaves
//! the ledger as it is, tells those who wait, and is tried again, at growing intervals. Nothing else commits.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use pond_oplog::{CommitInfo, Committed, Drained, OpLogError, Origin, Position, TxnSeq, Version};
use pond_tinyfs::{Lsn, NodeId, Row, Space, StorageError, TinyFs};

use crate::StewardError;
use crate::commit::courtesy::patience;
use crate::commit::ledger::{Batch, Ledger, Refusal, rows_of};
use crate::commit::log::{CommitLog, for_waiters};
use crate::commit::merges::Merges;
use crate::commit::room::Room;
use crate::host::end_process::EndProcessOnPanic;
use crate::host::reserve::Reserve;

/// The longest time between two attempts of a commit that keeps failing.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// So often somebody looks who waits for what need not be told: that merging has ended, that a file has gone.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// So long a commit that somebody waits for waits for merges.
const MERGE_WAIT: Duration = Duration::from_millis(500);

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
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) log: Arc<dyn CommitLog>,
    pub(crate) reserve: Reserve,
    pub(crate) observer: Arc<dyn CommitObserver>,
    /// Held by each commit until the tree knows of it, and by those that maintenance makes.
    pub(crate) turn: Mutex<()>,
    origin: Origin,
    interval: Duration,
    pub(crate) room: Room,
    /// Bytes that writers bring who were let in, and that are not in the tree yet.
    pub(crate) admitted: AtomicU64,
    /// When the last fsync ended that had something to write; `Some(None)` while one is under way.
    pub(crate) last_fsync: Mutex<Option<Option<Instant>>>,
    pub(crate) merges: Arc<Merges>,
    pub(crate) ledger: Mutex<Ledger>,
    /// Wakes the committer's thread.
    pub(crate) wanted: Condvar,
    /// Wakes the drainers.
    pub(crate) drain_wanted: Condvar,
    /// Wakes those who wait for a commit or a drain to end.
    pub(crate) ended: Condvar,
}

impl Committer {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { fs, log, reserve, observer, origin, interval, dirty_budget, merges } = parts;
        log.keep_back(reserve.withheld());
        Committer {
            fs,
            log,
            reserve,
            observer,
            turn: Mutex::default(),
            origin,
            interval,
            room: Room::new(dirty_budget),
            admitted: AtomicU64::new(0),
            last_fsync: Mutex::new(None),
            merges,
            ledger: Mutex::default(),
            wanted: Condvar::new(),
            drain_wanted: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    /// The ledger, for the journal thread.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Commits what recovery found in the journal, before anything else and before [`run`](Self::run).
    pub(crate) fn commit_recovered(&self, rows: Vec<Row>, cut_lsn: Lsn) -> Result<(), StorageError> {
        {
            let mut ledger = self.ledger.lock();
            ledger.adopt_recovered(rows, cut_lsn);
            // Who opens the pond waits for it.
            ledger.requested = true;
        }
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
        let mut tick = Instant::now() + self.interval;
        loop {
            {
                let mut ledger = self.ledger.lock();
                loop {
                    if ledger.stop {
                        return;
                    }
                    if ledger.requested {
                        break;
                    }
                    let now = Instant::now();
                    if now >= tick {
                        tick = now + self.interval;
                        let resting = ledger.retry_at.is_some_and(|retry_at| now < retry_at);
                        if !resting && (self.fs.is_dirty() || !ledger.all_committed()) {
                            break;
                        }
                    }
                    self.wanted.wait_until(&mut ledger, tick);
                }
            }
            let due = Instant::now();
            self.wait_for_merges();
            tick = Instant::now() + self.interval;
            // Who waits is told through the ledger, and the observer has logged it.
            if let Err(error) = self.attempt(&self.origin, due) {
                tracing::debug!(%error, "the commit will be tried again");
            }
        }
    }

    /// Waits while files are made faster than they are merged. Fsyncs and drains go on.
    fn wait_for_merges(&self) {
        let mut waited = None;
        while let Some(since) = self.merges.at_work()
            && self.log.is_crowded(since)
        {
            waited.get_or_insert_with(Instant::now);
            self.merges.ring();
            let mut ledger = self.ledger.lock();
            if ledger.stop {
                break;
            }
            // Who waits for a commit waits for a merge, but not for a long one; and what is written is not at risk for longer than
            // a commit may take its time.
            let longest = if ledger.requested { MERGE_WAIT } else { MERGE_WAIT.max(patience(self.interval)) };
            if waited.is_some_and(|since| since.elapsed() >= longest) {
                break;
            }
            self.ended.wait_for(&mut ledger, LOOK_AGAIN);
        }
        if let Some(since) = waited {
            tracing::debug!(waited = ?since.elapsed(), "a commit waited for a merge");
        }
    }

    /// Ends the committer's thread and the drainers'; what is uncommitted stays so.
    pub(crate) fn stop(&self) {
        self.ledger.lock().stop = true;
        self.wanted.notify_all();
        self.drain_wanted.notify_all();
        self.ended.notify_all();
    }

    /// One version (or an older one) holds everything issued before the call.
    pub(crate) fn commit_now(&self) -> Result<Position, StewardError> {
        let mut ledger = self.ledger.lock();
        while ledger.all_committed() && !self.fs.is_dirty() {
            // What has just landed those who run after commits hear of before the attempt ends.
            if ledger.attempts_ended == ledger.attempts_started {
                return Ok(self.log.position());
            }
            self.ended.wait(&mut ledger);
        }
        let attempt = ledger.attempts_started + 1;
        ledger.requested = true;
        self.wanted.notify_one();
        while ledger.attempts_ended < attempt {
            if ledger.stop {
                return Err(StewardError::Closed);
            }
            self.ended.wait(&mut ledger);
        }
        if ledger.last_success >= attempt {
            return Ok(self.log.position());
        }
        let reason = ledger.failure.clone().unwrap_or_else(|| for_waiters(&"no commit succeeded", libc::EIO));
        Err(StewardError::NotCommitted { txn_seq: self.log.position().txn_seq.next(), reason })
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

    /// No more writes, for the reason given; the first reason stays.
    pub(crate) fn refuse_writes(&self, why: &str, may_commit: bool) {
        self.fs.set_read_only(true);
        let mut ledger = self.ledger.lock();
        let may_commit = may_commit && ledger.refusal.as_ref().is_none_or(|refusal| refusal.may_commit);
        let why = match ledger.refusal.take() {
            Some(first) => first.why,
            None => {
                tracing::warn!(why, "the pond takes no writes");
                why.into()
            }
        };
        ledger.refusal = Some(Refusal { why, may_commit });
    }

    /// Gives up the reserve. True if there is room now that was not there before.
    pub(crate) fn give_up_reserve(&self) -> bool {
        let made_room = self.reserve.give_up();
        self.log.keep_back(self.reserve.withheld());
        made_room
    }

    /// Makes the reserve again if it is gone and there is room.
    pub(crate) fn restore_reserve(&self) {
        let withheld = self.reserve.withheld();
        if withheld > 0 {
            // What the log tells is less what it keeps back for this very reserve.
            let space = self.log.space();
            self.reserve.restore(Space { available: space.available + withheld, ..space });
            self.log.keep_back(self.reserve.withheld());
        }
    }

    /// One commit of everything so far, which was due at that time. One at a time: the committer's thread calls it, and recovery before that.
    fn attempt(&self, origin: &Origin, due: Instant) -> Result<(), StorageError> {
        self.spill_unlinked();
        let (attempt, batches, refusal) = {
            let mut ledger = self.ledger.lock();
            let patience = if ledger.requested { Duration::ZERO } else { patience(self.interval) };
            ledger.hurried_from = Some(due + patience);
            ledger.requested = false;
            ledger.attempts_started += 1;
            ledger.take_cut(&self.fs);
            let attempt = ledger.attempts_started;
            let last = ledger.last_number();
            while ledger.draining(last) > 0 {
                self.ended.wait(&mut ledger);
            }
            (attempt, ledger.uncommitted(last), ledger.refusal.clone())
        };
        let result = match (batches.last(), refusal) {
            (None, _) => Ok(()),
            (Some(_), Some(Refusal { may_commit: false, why })) => Err(for_waiters(&why, libc::EIO)),
            (Some(last), _) => self.commit(&batches, last.cut_lsn, origin),
        };
        let mut ledger = self.ledger.lock();
        match &result {
            Ok(()) => {
                ledger.last_success = attempt;
                ledger.failure = None;
                ledger.failures = 0;
                ledger.retry_at = None;
            }
            Err(error) => {
                ledger.failure = Some(error.clone());
                ledger.failures += 1;
                let doublings = ledger.failures.min(8) - 1;
                let pause = (self.interval * (1 << doublings)).min(LONGEST_RETRY);
                ledger.retry_at = Some(Instant::now() + pause);
            }
        }
        ledger.attempts_ended = attempt;
        ledger.hurried_from = None;
        drop(ledger);
        self.ended.notify_all();
        result
    }

    fn commit(&self, batches: &[Batch], cut_lsn: Lsn, origin: &Origin) -> Result<(), StorageError> {
        let _turn = self.turn.lock();
        let txn_seq = self.log.position().txn_seq.next();
        self.observer.started(txn_seq);
        // A failure here is the journal's: the next fsync writes all uncommitted rows to a new segment.
        if let Err(error) = self.log.rotate() {
            tracing::error!(%error, "could not end the journal's segment");
        }
        let by_factories = batches.iter().all(|batch| batch.by_factories);
        let by_factory = Origin { kind: FACTORY_ORIGIN.into(), command: None };
        let origin = if by_factories { &by_factory } else { origin };
        let rows = rows_of(batches);
        let drained: Vec<&Drained> =
            batches.iter().filter_map(Batch::drained).flat_map(|content| &content.files).collect();
        let count = rows.iter().map(|rows| rows.len() as u64).sum::<u64>();
        self.keep_back_for(count);
        let mut result = self.log.commit(&rows, &drained, cut_lsn, origin);
        if result.as_ref().is_err_and(OpLogError::is_full) && self.give_up_reserve() {
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
            self.refuse_writes(&error.to_string(), false);
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
        self.ledger.lock().committed(batches);
        // Failing leaves a segment that recovery skips; the next release tries again.
        if let Err(error) = self.log.release(&committed.position) {
            tracing::warn!(%error, "could not remove journal segments that are no longer needed");
        }
        // Asks the disk anew, now that those segments are gone.
        self.log.keep_back(self.reserve.withheld());
        self.restore_reserve();
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
}

#[cfg(test)]
mod tests;
