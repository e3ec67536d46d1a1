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
    CleanOptions, CleanReport, Doubt, Floor, MergeLimits, OpLog, OpLogError, PruneReport, Rewrite, TxnSeq,
    Version,
};
use pond_tinyfs::TinyFs;
use serde::{Deserialize, Serialize};

use crate::commit::committer::Committer;
use crate::commit::merges::Merges;
use crate::control::settings::{KEEP_REPLACED_KEY, RETENTION_KEY, Retention, parse_retention};
use crate::control::table::Control;
use crate::factories::runner::Runner;
use crate::pacing::scheduler::{Action, Cleaning, Pruning, READS, looks_again, merge_time};
use crate::{Role, StewardError};

/// So often background work that keeps its pace looks whether it is to end.
const NAP: Duration = Duration::from_millis(20);

/// So often the threads look whether there is something to do, without being woken.
const PERIOD: Duration = Duration::from_secs(10);

/// What failed is tried again after this.
const REST: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 30_000 });

/// So many times `pond maintain` prunes and merges in turn at most: commits and time go on.
const ROUNDS: usize = 8;

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
    /// Why what is old stays for now, if it does.
    #[serde(default)]
    pub doubt: Option<String>,
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
    pub(crate) post_commit: Arc<Runner>,
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
    /// Until then nobody looks again for what pruning would free.
    looks_again: Option<Instant>,
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
                    // Not with the other thread's lock, which it holds for as long as it prunes.
                    self.merges.rest(REST, &|| self.is_stopping());
                }
                continue;
            }
            self.merges.wait(PERIOD);
        }
    }

    /// The thread that prunes and cleans; on a replica that is followed it only cleans.
    pub(crate) fn run_cleaning(&self, is_followed: bool) {
        let may_work = || match is_followed {
            true => !self.is_stopping() && self.control.role() == Role::Replica,
            false => self.may_work(),
        };
        while !self.is_stopping() {
            // A jump of the clock counts from when it was seen.
            self.oplog.clock().now();
            let turn = self.turn.try_lock().filter(|_| may_work());
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
        let until = Instant::now() + merge_time(bytes, self.oplog.small_files(&MergeLimits::default()));
        while !self.is_stopping() && Instant::now() < until {
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(NAP));
        }
        !self.is_stopping()
    }

    fn clean_due(&self, turn: &mut Turn) -> Result<(), StewardError> {
        let cleaning = Cleaning {
            cleaned: turn.cleaned,
            looks_again: turn.looks_again,
            is_source: self.control.role() == Role::Source,
            is_full: self.committer.disk().is_full(),
            keep_replaced: self.keep_replaced(),
        };
        let action = cleaning.next(Instant::now());
        if let Action::WaitUntil(_) = action {
            return Ok(());
        }
        turn.cleaned = Some(Instant::now());
        if action == Action::Prune
            && let Some(wanted) = self.wanted_floor(None)?
        {
            let started = Instant::now();
            let is_worth_it = self.is_worth_it(wanted)?;
            turn.looks_again = Some(looks_again(Instant::now(), started.elapsed()));
            if is_worth_it {
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

    /// Whether raising the floor that far in the background is worth what is written anew.
    fn is_worth_it(&self, wanted: Floor) -> Result<bool, StewardError> {
        let kept = self.oplog.position().version.0 - wanted.version.0;
        let gone = wanted.version.0 - self.oplog.floor().map_or(0, |floor| floor.version.0);
        if (Pruning { kept, gone }).is_worth_it() {
            return Ok(true);
        }
        let would = self.oplog.would_prune(wanted, &MergeLimits::default(), &|bytes| self.pace(bytes))?;
        let written = would.bytes.saturating_sub(would.freed);
        Ok(Pruning::is_worth_writing(would.freed, written, self.committer.disk().is_full()))
    }

    /// Does all there is to do.
    pub(crate) fn run(
        &self,
        options: &MaintainOptions,
        tell: &dyn Fn(MaintainEvent),
    ) -> Result<MaintainReport, StewardError> {
        let _turn = self.turn.lock();
        let mut report = MaintainReport { dry_run: options.dry_run, ..MaintainReport::default() };
        let is_source = self.control.role() == Role::Source;
        let reads = if options.alone { Duration::ZERO } else { READS };
        if is_source && options.dry_run {
            self.would_shrink(options, tell, &mut report)?;
        }
        let mut may_try_again = true;
        loop {
            let shrunk = match is_source && !options.dry_run {
                true => self.shrink(reads, tell, &mut report),
                false => Ok(()),
            };
            tell(MaintainEvent::Step(MaintainStep::Clean));
            let is_full = shrunk.as_ref().is_err_and(is_full);
            if is_full {
                self.wait_for_reads(reads);
            }
            let cleaned = self.clean(reads, options.dry_run)?;
            add_cleaned(&mut report.cleaned, cleaned);
            if !(is_full && may_try_again && cleaned.files > 0) {
                shrunk?;
                break;
            }
            may_try_again = false;
        }
        self.committer.disk().restore_reserve();
        report.floor = self.oplog.floor().map(|floor| floor.version);
        (report.live_files, report.live_bytes) = self.oplog.live_size();
        report.doubt = self.doubt();
        Ok(report)
    }

    fn would_shrink(
        &self,
        options: &MaintainOptions,
        tell: &dyn Fn(MaintainEvent),
        report: &mut MaintainReport,
    ) -> Result<(), StewardError> {
        tell(MaintainEvent::Step(MaintainStep::Prune));
        if let Some(wanted) = self.wanted_floor(options.retention.as_deref())?.or(self.oplog.floor()) {
            let pace = |bytes| self.goes_on(tell, bytes);
            report.pruned = self.oplog.would_prune(wanted, &MergeLimits::default(), &pace)?;
        }
        tell(MaintainEvent::Step(MaintainStep::Merge));
        (report.merged_files, report.merged_bytes) = self.oplog.would_merge(&thorough());
        Ok(())
    }

    /// Prunes and merges until there is nothing more to do of either, and writes a checkpoint. Pruning comes first: it makes room, and
    /// what it drops need not be merged. Where a process ended after it had raised the floor, the rest is done now.
    fn shrink(
        &self,
        reads: Duration,
        tell: &dyn Fn(MaintainEvent),
        report: &mut MaintainReport,
    ) -> Result<(), StewardError> {
        self.committer.commit_now()?;
        for round in 0..ROUNDS {
            tell(MaintainEvent::Step(MaintainStep::Prune));
            let floor = self.wanted_floor(None)?.or(self.oplog.floor());
            let pruned = floor.map_or(Ok(0), |floor| self.prune_all(floor, reads, tell, report))?;
            if round > 0 && pruned == 0 {
                break;
            }
            tell(MaintainEvent::Step(MaintainStep::Merge));
            let merged = self.merge_all(tell, report)?;
            // What was joined may be worth pruning where its parts were not.
            if merged == 0 || floor.is_none() {
                break;
            }
        }
        tell(MaintainEvent::Step(MaintainStep::Checkpoint));
        report.checkpoint = self.oplog.checkpoint_unless_there()?.or(report.checkpoint);
        Ok(())
    }

    /// Prunes all that is worth it, as far as there is room, and makes room as it goes; the files that were written anew.
    fn prune_all(
        &self,
        wanted: Floor,
        reads: Duration,
        tell: &dyn Fn(MaintainEvent),
        report: &mut MaintainReport,
    ) -> Result<u64, StewardError> {
        let mut files = 0;
        loop {
            let pruned = self.prune(wanted, &|bytes| self.goes_on(tell, bytes))?;
            let all = &mut report.pruned;
            all.files += pruned.files;
            all.bytes += pruned.bytes;
            all.freed += pruned.freed;
            all.rows += pruned.rows;
            all.no_room = pruned.no_room;
            files += pruned.files;
            if pruned.no_room == 0 || self.is_stopping() {
                return Ok(files);
            }
            if pruned.files > 0 {
                self.wait_for_reads(reads);
            }
            let cleaned = self.clean(reads, false)?;
            add_cleaned(&mut report.cleaned, cleaned);
            if cleaned.files == 0 {
                return Ok(files);
            }
        }
    }

    /// Merges all there is; the number of files that were joined.
    fn merge_all(
        &self,
        tell: &dyn Fn(MaintainEvent),
        report: &mut MaintainReport,
    ) -> Result<u64, StewardError> {
        let _merging = self.merging.lock();
        let limits = thorough();
        let mut merged = 0;
        // Each merge makes fewer of them; commits that go on would find it work for ever.
        for _ in 0..self.oplog.live_size().0 {
            let Some(rewrite) = self.oplog.prepare_merge(&limits, &|bytes| self.goes_on(tell, bytes))? else {
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

    /// Tells of progress; false when it is to end.
    fn goes_on(&self, tell: &dyn Fn(MaintainEvent), bytes: u64) -> bool {
        tell(MaintainEvent::Bytes(bytes));
        !self.is_stopping()
    }

    /// Waits until reads are over of what was just replaced, if only they keep it.
    fn wait_for_reads(&self, reads: Duration) {
        let until = Instant::now() + reads;
        while self.keep_replaced() <= reads && Instant::now() < until && !self.is_stopping() {
            std::thread::sleep(NAP);
        }
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
        Ok(self.put_rewrite(rewrite)?)
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
            self.put_floor(wanted)?;
        }
        let prepare = || {
            let room = self.committer.disk().for_maintenance();
            self.oplog.prepare_prune(wanted, &MergeLimits::default(), room, pace)
        };
        let mut prepared = prepare();
        if prepared.as_ref().is_err_and(OpLogError::is_full) && self.committer.disk().give_up_reserve() {
            prepared = prepare();
        }
        let Some((rewrite, report)) = prepared? else { return Ok(PruneReport::default()) };
        if report.files > 0 {
            self.put(rewrite)?;
        }
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

    /// Why nothing is deleted by its age, where the clock was set or there is a setting that goes by age.
    pub(crate) fn doubt(&self) -> Option<String> {
        let retention = self.control.get(RETENTION_KEY).unwrap_or_default();
        let by_age = matches!(parse_retention(&retention), Ok(Retention::Age(_)));
        let why = match self.oplog.clock().now().doubt? {
            // Somebody has set it back to what it was.
            Doubt::Jumped(apart) if apart.abs() < 1_000_000 => "the clock was set, and set back".to_owned(),
            Doubt::Jumped(apart) => {
                let by = apart.unsigned_abs() / 1_000_000;
                let by = if by < 172_800 { format!("{by} s") } else { format!("{} days", by / 86_400) };
                format!("the clock was set {by} {}", if apart > 0 { "ahead" } else { "back" })
            }
            Doubt::Opened if by_age => "nobody has said yet that the clock is right".to_owned(),
            Doubt::Opened => return None,
        };
        Some(format!(
            "{why}: nothing is deleted for being old until it is synchronized, or nobody has set it for an hour while this pond was open"
        ))
    }

    fn keep_replaced(&self) -> Duration {
        self.control.duration(KEEP_REPLACED_KEY)
    }

    /// The version up to which every remote has everything; `None` without remotes, and on a replica, which sends nothing.
    fn watermark(&self) -> Result<Option<Version>, StewardError> {
        if self.control.role() == Role::Replica {
            return Ok(None);
        }
        let nodes = &self.post_commit.nodes;
        // What is not known may be one.
        let may_be =
            |factory: &str| nodes.registry.is_remote(factory) || nodes.registry.get(factory).is_err();
        let remotes = nodes.status()?.into_iter().filter(|node| may_be(&node.factory));
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
        let version = match retention {
            Retention::Everything => return Ok(None),
            Retention::Versions(count) => match self.oplog.oldest_of(count)? {
                Some(version) => version,
                None => return Ok(None),
            },
            Retention::Age(age) => {
                // In doubt nothing is old.
                let Some(now) = self.oplog.clock().now().certain() else { return Ok(None) };
                let micros = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
                match self.oplog.version_at(now.saturating_sub(micros))? {
                    // What was committed while the clock was behind looks older than it is.
                    Some(version) => version.min(self.oplog.newest_of_age(age)),
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

/// Joins whatever can be joined.
fn thorough() -> MergeLimits {
    MergeLimits { fan_in: 2, threads: cores(), ..MergeLimits::default() }
}

fn is_full(error: &StewardError) -> bool {
    matches!(error.errno(), libc::ENOSPC | libc::EDQUOT)
}

/// What waits is what the last one left.
fn add_cleaned(all: &mut CleanReport, cleaned: CleanReport) {
    *all = CleanReport {
        files: all.files + cleaned.files,
        bytes: all.bytes + cleaned.bytes,
        entries: all.entries + cleaned.entries,
        checkpoints: all.checkpoints + cleaned.checkpoints,
        ..cleaned
    };
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

impl Maintenance {
    /// Puts files in the place of others, between two commits, and tells the tree.
    fn put_rewrite(&self, rewrite: Rewrite) -> Result<(), OpLogError> {
        self.committer.between_commits(|| {
            let rewritten = self.oplog.commit_rewrite(rewrite)?;
            self.fs.relocated(&rewritten.moved);
            Ok((rewritten.position, rewritten.added))
        })
    }

    fn put_floor(&self, floor: Floor) -> Result<(), OpLogError> {
        self.committer.between_commits(|| Ok((self.oplog.commit_floor(floor)?, (0, 0))))
    }
}

#[cfg(test)]
mod tests;
