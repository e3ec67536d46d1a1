//! Keeping a pond small: merging data files, letting go of old versions, cleaning up.
//!
//! A thread does what is due, with bounded I/O, and `pond maintain` all there is. Files are written while
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
use crate::post_commit::PostCommit;
use crate::settings::{KEEP_REPLACED_KEY, RETENTION_KEY, Retention, parse_duration, parse_retention};
use crate::{Role, StewardError};

/// Background work reads and writes so many bytes a second.
const RATE: u64 = 32 << 20;

/// With so many small files merging no longer spares the disk.
const MANY_FILES: usize = 192;

/// Replaced files stay this long where the setting `keep_replaced` says nothing.
const KEEP_REPLACED: Duration = Duration::from_secs(24 * 3600);

/// A read that began before its file was replaced is over after this.
const READS: Duration = Duration::from_secs(10);

/// In the background cleaning is done so often, and old versions are looked for.
const CLEAN_PERIOD: Duration = Duration::from_secs(600);

/// So often the thread looks whether there is something to do, without being woken.
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
    pub(crate) turn: Mutex<Turn>,
    pub(crate) bell: Arc<Bell>,
    pub(crate) stopping: AtomicBool,
}

/// Wakes the thread.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    /// There may be something to do.
    pub(crate) fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_one();
    }

    fn wait(&self, most: Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.changed.wait_for(&mut rung, most);
        }
        *rung = false;
    }
}

/// What only who works has.
#[derive(Default)]
pub(crate) struct Turn {
    cleaned: Option<Instant>,
    rest_until: Option<Instant>,
}

impl Maintenance {
    /// The thread.
    pub(crate) fn run_thread(&self) {
        while !self.is_stopping() {
            self.run_due();
            self.bell.wait(PERIOD);
        }
    }

    /// Does what is due. Fails quietly: it is tried again.
    fn run_due(&self) {
        let Some(mut turn) = self.turn.try_lock() else { return };
        let resting = turn.rest_until.is_some_and(|until| Instant::now() < until);
        if resting || self.is_stopping() || self.control.role() != Role::Source || self.fs.is_read_only() {
            return;
        }
        turn.rest_until = None;
        if let Err(error) = self.due(&mut turn) {
            tracing::warn!(%error, "maintenance failed; it is tried again");
            turn.rest_until = Some(Instant::now() + REST);
        }
    }

    /// Merges what is due, of files that this transaction or later ones made.
    fn merge_due(&self, since: TxnSeq) -> Result<(), StewardError> {
        let limits = MergeLimits { since, ..MergeLimits::default() };
        let pace = |bytes| self.pace(bytes);
        while self.oplog.mergeable(&limits) > 0 && !self.is_stopping() {
            let Some(rewrite) = self.oplog.prepare_merge(&limits, &pace)? else { break };
            self.put(rewrite)?;
        }
        Ok(())
    }

    /// Keeps background work from taking the disk for itself, unless files pile up; false when it is to end.
    fn pace(&self, bytes: u64) -> bool {
        if self.oplog.mergeable(&MergeLimits::default()) < MANY_FILES {
            std::thread::sleep(Duration::from_secs_f64(bytes as f64 / RATE as f64));
        }
        !self.is_stopping()
    }

    fn due(&self, turn: &mut Turn) -> Result<(), StewardError> {
        self.merge_due(TxnSeq(0))?;
        let period = CLEAN_PERIOD.min(self.keep_replaced().max(READS));
        if turn.cleaned.is_none_or(|cleaned| cleaned.elapsed() >= period) {
            turn.cleaned = Some(Instant::now());
            if let Some(wanted) = self.wanted_floor(None)? {
                let newest = self.oplog.position().version.0;
                let kept = newest - wanted.version.0;
                let gain = wanted.version.0 - self.oplog.floor().map_or(0, |floor| floor.version.0);
                // What is dropped must be worth what is written anew.
                if gain >= PRUNE_VERSIONS && gain >= kept / 4 {
                    // It may take long, and the files of commits meanwhile are none of its own.
                    let since = self.oplog.position().txn_seq.next();
                    let pace = |bytes| {
                        if let Err(error) = self.merge_due(since) {
                            tracing::warn!(%error, "merging while old versions are let go of failed");
                        }
                        self.pace(bytes)
                    };
                    self.prune(wanted, &pace)?;
                }
            }
            let cleaned = self.clean(READS, false)?;
            tracing::debug!(?cleaned, "cleaned");
        }
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
                while let Some(rewrite) = self.oplog.prepare_merge(&limits, &pace)? {
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
        self.bell.ring();
        drop(self.turn.lock());
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
        };
        Ok(self.oplog.clean(&options)?)
    }

    fn keep_replaced(&self) -> Duration {
        let set = self.control.get(KEEP_REPLACED_KEY).filter(|text| !text.is_empty());
        let parsed = set.map(|text| {
            parse_duration(&text).inspect_err(|why| {
                tracing::warn!(text, why, "the setting {KEEP_REPLACED_KEY} is not understood")
            })
        });
        parsed.and_then(Result::ok).unwrap_or(KEEP_REPLACED)
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
