//! Keeping a pond small: merging data files, letting go of old versions, cleaning up.
//!
//! Two threads do what is due, with bounded I/O, and `pond maintain` all there is. One merges, and nothing that the other one
//! does makes it wait: while that one prunes, it merges the files that came since. Files are written while
//! commits go on; what puts them in place is a commit of its own, between two of the committer's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pond_oplog::{
    CleanOptions, CleanReport, CommitInfo, Floor, MergeLimits, OpLog, OpLogError, Origin, PruneReport,
    Rewrite, TxnSeq, Version,
};
use pond_tinyfs::TinyFs;
use serde::{Deserialize, Serialize};

use crate::commit::Committer;
use crate::control::Control;
use crate::factory::REMOTE;
use crate::merges::Merges;
use crate::post_commit::PostCommit;
use crate::settings::{self, KEEP_REPLACED_KEY, RETENTION_KEY, Retention, parse_retention};
use crate::{Role, StewardError};

/// Background work reads and writes so many bytes a second.
const RATE: u64 = 32 << 20;

/// With so many small files merging no longer spares the disk.
const MANY_FILES: usize = 128;

/// A read that began before its file was replaced is over after this.
const READS: Duration = Duration::from_secs(10);

/// So often background work that keeps its pace looks whether it is to end.
const NAP: Duration = Duration::from_millis(20);

/// In the background cleaning is done so often, and old versions are looked for.
const CLEAN_PERIOD: Duration = Duration::from_secs(600);

/// So often the threads look whether there is something to do, without being woken.
const PERIOD: Duration = Duration::from_secs(10);

/// What failed is tried again after this.
const REST: Duration = Duration::from_secs(30);

/// The floor rises in the background once so many versions more could go.
const PRUNE_VERSIONS: u64 = 64;

/// How much `pond maintain` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintainOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Whether nobody reads through this process, so that no read is under way.
    pub alone: bool,
    /// With `dry_run`: as if the setting `retention` were this.
    pub retention: Option<String>,
}

/// What maintenance did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintainReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Data files that were joined.
    pub merged_files: u64,
    /// Their bytes.
    pub merged_bytes: u64,
    /// The oldest version that is kept, where older ones are not.
    pub floor: Option<Version>,
    /// What letting go of old versions dropped.
    pub pruned: PruneReport,
    /// The version of the checkpoint that was written.
    pub checkpoint: Option<Version>,
    /// What was removed.
    pub cleaned: CleanReport,
    /// Data files of the newest version.
    pub live_files: u64,
    /// Their bytes.
    pub live_bytes: u64,
}

/// How maintenance goes, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintainEvent {
    /// A step begins.
    Step(MaintainStep),
    /// So many bytes more were read or written.
    Bytes(u64),
}

/// A step of maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintainStep {
    /// Joining files.
    Merge,
    /// Letting go of old versions.
    Prune,
    /// Writing a checkpoint.
    Checkpoint,
    /// Removing what is not needed.
    Clean,
}

/// Maintains an open pond. Any thread may ask it; one works at a time.
pub(crate) struct Maintenance {
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) control: Arc<Control>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) post_commit: Arc<PostCommit>,
    /// Held by who prunes, cleans, or does everything.
    pub(crate) turn: Mutex<Turn>,
    /// Held by who merges, from choosing files until they are replaced. Taken after `turn`.
    pub(crate) merging: Mutex<()>,
    pub(crate) merges: Arc<Merges>,
    pub(crate) stopping: AtomicBool,
    pub(crate) stopped: Condvar,
}

/// What only who works has.
#[derive(Default)]
pub(crate) struct Turn {
    cleaned: Option<Instant>,
}

impl Maintenance {
    /// The thread that merges.
    pub(crate) fn run_merges(&self) {
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
                    self.rest(REST);
                }
                continue;
            }
            self.merges.wait(PERIOD);
        }
    }

    /// The thread that prunes and cleans.
    pub(crate) fn run_cleaning(&self) {
        while !self.is_stopping() {
            let turn = self.turn.try_lock().filter(|_| self.may_work());
            let done = turn.map_or(Ok(()), |mut turn| self.clean_due(&mut turn));
            match done {
                Err(error) if !self.is_stopping() => {
                    tracing::warn!(%error, "maintenance failed; it is tried again");
                    self.rest(REST);
                }
                _ => self.rest(PERIOD),
            }
        }
    }

    fn may_work(&self) -> bool {
        !self.is_stopping() && self.control.role() == Role::Source && !self.fs.is_read_only()
    }

    /// Waits, unless it is to end.
    fn rest(&self, pause: Duration) {
        let mut turn = self.turn.lock();
        if !self.is_stopping() {
            self.stopped.wait_for(&mut turn, pause);
        }
    }

    /// Merges what is due.
    fn merge_due(&self) -> Result<(), StewardError> {
        let pace = |bytes| self.pace(bytes);
        while !self.is_stopping() {
            let _merging = self.merging.lock();
            let limits = MergeLimits { since: self.merges.since(), ..MergeLimits::default() };
            if self.oplog.mergeable(&limits) == 0 {
                break;
            }
            let Some(rewrite) = self.oplog.prepare_merge(&limits, &pace)? else { break };
            self.put(rewrite)?;
        }
        Ok(())
    }

    /// Keeps background work from taking the disk for itself, unless files pile up; false when it is to end.
    fn pace(&self, bytes: u64) -> bool {
        if self.oplog.small_files(&MergeLimits::default()) < MANY_FILES {
            let until = Instant::now() + Duration::from_secs_f64(bytes as f64 / RATE as f64);
            while !self.is_stopping() && Instant::now() < until {
                std::thread::sleep(until.saturating_duration_since(Instant::now()).min(NAP));
            }
        }
        !self.is_stopping()
    }

    fn clean_due(&self, turn: &mut Turn) -> Result<(), StewardError> {
        let period = CLEAN_PERIOD.min(self.keep_replaced().max(READS));
        if turn.cleaned.is_some_and(|cleaned| cleaned.elapsed() < period) {
            return Ok(());
        }
        turn.cleaned = Some(Instant::now());
        if let Some(wanted) = self.wanted_floor(None)? {
            let newest = self.oplog.position().version.0;
            let kept = newest - wanted.version.0;
            let gain = wanted.version.0 - self.oplog.floor().map_or(0, |floor| floor.version.0);
            // What is dropped must be worth what is written anew.
            if gain >= PRUNE_VERSIONS && gain >= kept / 4 {
                let started = Instant::now();
                let pruned = self.prune(wanted, &|bytes| self.pace(bytes))?;
                tracing::debug!(?pruned, took = ?started.elapsed(), "pruned");
            }
        }
        let started = Instant::now();
        let cleaned = self.clean(READS, false)?;
        tracing::debug!(?cleaned, took = ?started.elapsed(), "cleaned");
        Ok(())
    }

    /// Does all there is to do.
    pub(crate) fn run(
        &self,
        options: &MaintainOptions,
        tell: &dyn Fn(MaintainEvent),
    ) -> Result<MaintainReport, StewardError> {
        let at = |step| tell(MaintainEvent::Step(step));
        let _turn = self.turn.lock();
        let mut report = MaintainReport { dry_run: options.dry_run, ..MaintainReport::default() };
        let is_source = self.control.role() == Role::Source;
        let pace = |bytes| {
            tell(MaintainEvent::Bytes(bytes));
            !self.is_stopping()
        };
        if is_source {
            at(MaintainStep::Merge);
            let limits = MergeLimits { fan_in: 2, threads: cores(), ..MergeLimits::default() };
            if options.dry_run {
                (report.merged_files, report.merged_bytes) = self.oplog.would_merge(&limits);
            } else {
                self.committer.commit_now()?;
                let _merging = self.merging.lock();
                // Each merge makes fewer of them; commits that go on would find it work for ever.
                for _ in 0..self.oplog.live_size().0 {
                    let Some(rewrite) = self.oplog.prepare_merge(&limits, &pace)? else { break };
                    let (files, bytes) = rewrite.replaces();
                    self.put(rewrite)?;
                    report.merged_files += u64::from(files);
                    report.merged_bytes += bytes;
                }
            }
            at(MaintainStep::Prune);
            // Where a process ended after it had raised the floor, the rest is done now.
            let setting = options.retention.as_deref().filter(|_| options.dry_run);
            if let Some(wanted) = self.wanted_floor(setting)?.or(self.oplog.floor()) {
                report.pruned = match options.dry_run {
                    true => self.oplog.would_prune(wanted, &MergeLimits::default(), &pace)?,
                    false => self.prune(wanted, &pace)?,
                };
            }
            at(MaintainStep::Checkpoint);
            if !options.dry_run {
                report.checkpoint = Some(self.oplog.checkpoint()?);
            }
        }
        at(MaintainStep::Clean);
        let reads = if options.alone { Duration::ZERO } else { READS };
        report.cleaned = self.clean(reads, options.dry_run)?;
        report.floor = self.oplog.floor().map(|floor| floor.version);
        (report.live_files, report.live_bytes) = self.oplog.live_size();
        Ok(report)
    }

    /// Ends what is under way, and lets nothing begin any more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.merges.set_at_work(false);
        self.merges.ring();
        drop(self.turn.lock());
        self.stopped.notify_all();
        drop(self.merging.lock());
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn put(&self, rewrite: Rewrite) -> Result<(), StewardError> {
        if self.is_stopping() {
            return Err(StewardError::Closed);
        }
        Ok(self.committer.put_rewrite(&self.oplog, rewrite)?)
    }

    /// Raises the floor, then drops what only versions below it show.
    fn prune(&self, wanted: Floor, pace: &dyn Fn(u64) -> bool) -> Result<PruneReport, StewardError> {
        if self.is_stopping() {
            return Err(StewardError::Closed);
        }
        // The files that are there now are left alone by merges until it is done, and those to come are none of its own.
        let _since = {
            let _no_merge = self.merging.lock();
            self.merges.set_since(self.oplog.position().txn_seq.next());
            Since(&self.merges)
        };
        let floor = self.oplog.floor();
        if floor.is_none_or(|floor| floor.version < wanted.version) {
            self.committer.put_floor(&self.oplog, wanted)?;
        }
        let Some((rewrite, report)) = self.oplog.prepare_prune(wanted, &MergeLimits::default(), pace)? else {
            return Ok(PruneReport::default());
        };
        self.put(rewrite)?;
        Ok(report)
    }

    fn clean(&self, reads: Duration, dry_run: bool) -> Result<CleanReport, StewardError> {
        let in_use = |files: &std::collections::HashSet<u32>| self.fs.files_in_use(files);
        let options = CleanOptions {
            keep_replaced: self.keep_replaced(),
            reads,
            watermark: self.watermark()?,
            in_use: &in_use,
            // A replica's log is a copy of its source's.
            entries: self.control.role() == Role::Source,
            dry_run,
            stop: &|| self.is_stopping(),
        };
        Ok(self.oplog.clean(&options)?)
    }

    fn keep_replaced(&self) -> Duration {
        settings::duration(&self.control, KEEP_REPLACED_KEY)
    }

    /// The version up to which every remote has everything; `None` without remotes.
    fn watermark(&self) -> Result<Option<Version>, StewardError> {
        let remotes = self.post_commit.status()?.into_iter().filter(|node| node.factory == REMOTE);
        // One that has nothing yet may need anything.
        Ok(remotes.map(|node| node.watermark.unwrap_or(Version(0))).min())
    }

    /// The floor that the setting `retention`, or `instead` of it, asks for, as far as remotes and readers let it rise; `None` where
    /// everything is kept, or it is there already.
    fn wanted_floor(&self, instead: Option<&str>) -> Result<Option<Floor>, StewardError> {
        let text = instead.map(str::to_owned).or_else(|| self.control.get(RETENTION_KEY)).unwrap_or_default();
        let retention = parse_retention(&text).map_err(|why| StewardError::BadSetting {
            key: RETENTION_KEY.to_owned(),
            value: text.clone(),
            why,
        })?;
        let newest = self.oplog.position();
        let version = match retention {
            Retention::Everything => return Ok(None),
            Retention::Versions(count) => Version((newest.version.0 + 1).saturating_sub(count)),
            Retention::Age(age) => {
                let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
                match self.oplog.version_at(chrono::Utc::now().timestamp_micros().saturating_sub(age))? {
                    Some(version) => version,
                    None => return Ok(None),
                }
            }
        };
        let bounds = [self.watermark()?, self.oplog.oldest_pin()?];
        let version = bounds.into_iter().flatten().fold(version, Version::min);
        let reached = self.oplog.floor().map_or(Version(0), |floor| floor.version);
        match version > reached {
            true => Ok(Some(self.oplog.floor_at(version)?)),
            false => Ok(None),
        }
    }
}

/// While it lives merges concern new files only.
struct Since<'a>(&'a Merges);

impl Drop for Since<'_> {
    fn drop(&mut self) {
        self.0.set_since(TxnSeq(0));
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

impl Committer {
    /// Puts files in the place of others, between two commits, and tells the tree.
    fn put_rewrite(&self, oplog: &OpLog, rewrite: Rewrite) -> Result<(), OpLogError> {
        self.between_commits(|| {
            let rewritten = oplog.commit_rewrite(rewrite)?;
            self.fs.relocated(&rewritten.moved);
            Ok((rewritten.position, rewritten.added))
        })
    }

    fn put_floor(&self, oplog: &OpLog, floor: Floor) -> Result<(), OpLogError> {
        self.between_commits(|| Ok((oplog.commit_floor(floor)?, (0, 0))))
    }

    fn between_commits(
        &self,
        commit: impl FnOnce() -> Result<(pond_oplog::Position, (u32, u64)), OpLogError>,
    ) -> Result<(), OpLogError> {
        let _turn = self.turn.lock();
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
                self.ended.notify_all();
                Ok(())
            }
            Err(error) => {
                if let OpLogError::Unconfirmed { .. } = &error {
                    self.refuse_writes(&error.to_string(), false);
                }
                self.observer.failed(txn_seq, &crate::commit_log::for_waiters(&error, error.errno()));
                Err(error)
            }
        }
    }
}
