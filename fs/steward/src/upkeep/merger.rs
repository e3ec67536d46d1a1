//! Merging: small data files are joined. It has a thread of its own, and nothing that cleaning or pruning does makes it wait:
//! while a prune is under way, it merges the files that came since.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pond_oplog::{MergeLimits, OpLogError, Rewrite, TxnSeq};

use crate::commit::committer::Committer;
use crate::commit::merges::Merges;
use crate::pacing::scheduler::merge_time;
use crate::upkeep::cleaner::{Cleaner, NAP, PERIOD, REST};
use crate::upkeep::report::{MaintainEvent, MaintainReport};
use crate::{Role, StewardError};

/// Merges the data files of an open pond. Any thread may ask it; one works at a time.
pub(crate) struct Merger {
    cleaner: Arc<Cleaner>,
    committer: Arc<Committer>,
    merges: Arc<Merges>,
    /// Held by who merges, from choosing files until they are replaced. Taken after the cleaner's `turn`.
    merging: Mutex<()>,
}

impl Merger {
    pub(crate) fn new(cleaner: Arc<Cleaner>, committer: Arc<Committer>, merges: Arc<Merges>) -> Self {
        Merger { cleaner, committer, merges, merging: Mutex::default() }
    }

    /// The thread.
    pub(crate) fn run(&self) {
        /// Nobody waits for a thread that is gone.
        struct AtWork<'a>(&'a Merges);
        impl Drop for AtWork<'_> {
            fn drop(&mut self) {
                self.0.set_at_work(false);
            }
        }
        let at_work = AtWork(&self.merges);
        while !self.is_stopping() {
            let may = self.may_work();
            at_work.0.set_at_work(may);
            if may && let Err(error) = self.merge_due() {
                at_work.0.set_at_work(false);
                if !self.is_stopping() {
                    tracing::warn!(%error, "merging failed; it is tried again");
                    // Not with the cleaner's lock, which is held for as long as somebody prunes.
                    self.merges.rest(REST, &|| self.is_stopping());
                }
                continue;
            }
            self.merges.wait(PERIOD);
        }
    }

    /// Whether versions may be made in the background: the pond takes writes, and was not made a replica since it was opened.
    pub(crate) fn may_work(&self) -> bool {
        let Cleaner { fs, control, .. } = &*self.cleaner;
        !self.is_stopping() && control.role() == Role::Source && !fs.is_read_only()
    }

    /// Merges what is due.
    fn merge_due(&self) -> Result<(), StewardError> {
        let oplog = &self.cleaner.oplog;
        let pace = |bytes| self.pace(bytes);
        while !self.is_stopping() {
            let _merging = self.merging.lock();
            let limits = MergeLimits { since: self.merges.since(), ..MergeLimits::default() };
            if oplog.mergeable(&limits) == 0 {
                break;
            }
            let Some(rewrite) = oplog.prepare_merge(&limits, &pace)? else { break };
            self.put(rewrite)?;
        }
        Ok(())
    }

    /// Merges all there is; the number of files that were joined.
    pub(crate) fn merge_all(
        &self,
        tell: &dyn Fn(MaintainEvent),
        report: &mut MaintainReport,
    ) -> Result<u64, StewardError> {
        let oplog = &self.cleaner.oplog;
        let _merging = self.merging.lock();
        let limits = thorough();
        let mut merged = 0;
        // Each merge makes fewer of them; commits that go on would find it work for ever.
        for _ in 0..oplog.live_size().0 {
            let Some(rewrite) = oplog.prepare_merge(&limits, &|bytes| self.goes_on(tell, bytes))? else {
                break;
            };
            let (files, bytes) = rewrite.replaces();
            self.put(rewrite)?;
            merged += u64::from(files);
            report.merged_bytes += bytes;
        }
        report.merged_files += merged;
        Ok(merged)
    }

    /// Leaves the files alone that are there now, until what it gives is dropped; none of those to come is its holder's.
    pub(crate) fn only_new_files(&self) -> impl Drop {
        let _no_merge = self.merging.lock();
        self.merges.set_since(self.cleaner.oplog.position().txn_seq.next());
        Since(&self.merges)
    }

    /// Puts files in the place of others, between two commits, and tells the tree.
    pub(crate) fn put(&self, rewrite: Rewrite) -> Result<(), StewardError> {
        if self.is_stopping() {
            return Err(StewardError::Closed);
        }
        let Cleaner { oplog, fs, .. } = &*self.cleaner;
        let put = || -> Result<_, OpLogError> {
            let rewritten = oplog.commit_rewrite(rewrite)?;
            fs.relocated(&rewritten.moved);
            Ok((rewritten.position, rewritten.added))
        };
        Ok(self.committer.between_commits(put)?)
    }

    /// Keeps background work from taking the disk for itself, unless files pile up; false when it is to end.
    pub(crate) fn pace(&self, bytes: u64) -> bool {
        let small_files = self.cleaner.oplog.small_files(&MergeLimits::default());
        let until = Instant::now() + merge_time(bytes, small_files);
        while !self.is_stopping() && Instant::now() < until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(NAP));
        }
        !self.is_stopping()
    }

    /// Tells of progress; false when it is to end.
    pub(crate) fn goes_on(&self, tell: &dyn Fn(MaintainEvent), bytes: u64) -> bool {
        tell(MaintainEvent::Bytes(bytes));
        !self.is_stopping()
    }

    /// Nobody waits for a merge any more, and none begins that could not be broken off.
    pub(crate) fn begin_to_stop(&self) {
        self.merges.set_at_work(false);
        self.merges.ring();
    }

    /// No merge is under way when this returns.
    pub(crate) fn wait_until_ended(&self) {
        drop(self.merging.lock());
    }

    fn is_stopping(&self) -> bool {
        self.cleaner.is_stopping()
    }
}

/// While it lives merges concern new files only.
struct Since<'a>(&'a Merges);

impl Drop for Since<'_> {
    fn drop(&mut self) {
        self.0.set_since(TxnSeq(0));
    }
}

/// Joins whatever can be joined.
pub(crate) fn thorough() -> MergeLimits {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    MergeLimits { fan_in: 2, threads, ..MergeLimits::default() }
}

#[cfg(test)]
mod tests;
