//! Keeping a source small: letting go of old versions, merging data files, cleaning up.
//!
//! Two threads do what is due, with bounded I/O, and `pond maintain` all there is. Files are written while commits go on;
//! what puts them in place is a commit of its own, between two of the committer's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pond_oplog::{MergeLimits, OpLog, OpLogError, PruneReport, Retained, Version};
use pond_tinyfs::Errno;

use crate::commit::committer::Committer;
use crate::commit::merges::Merges;
use crate::pacing::scheduler::{CleanAction, Pruning, looks_again};
use crate::upkeep::cleaner::{Cleaner, Turn, reads};
use crate::upkeep::merger::{Merger, thorough};
use crate::upkeep::report::{MaintainEvent, MaintainOptions, MaintainReport, MaintainStep};
use crate::upkeep::retention;
use crate::{Role, StewardError};

/// So many times `pond maintain` prunes and merges in turn at most: commits and time go on.
const ROUNDS: usize = 8;

/// Maintains an open pond that makes versions. Any thread may ask it; one works at a time.
pub(crate) struct Maintenance {
    pub(crate) cleaner: Arc<Cleaner>,
    pub(crate) merger: Merger,
    committer: Arc<Committer>,
}

impl Maintenance {
    pub(crate) fn new(cleaner: Arc<Cleaner>, committer: Arc<Committer>, merges: Arc<Merges>) -> Self {
        let merger = Merger::new(cleaner.clone(), committer.clone(), merges);
        Maintenance { cleaner, merger, committer }
    }

    fn oplog(&self) -> &OpLog {
        &self.cleaner.oplog
    }

    /// The thread that prunes and cleans.
    pub(crate) fn run_cleaning(&self) {
        self.cleaner.each_period(&|| self.merger.may_work(), &|turn| self.clean_due(turn));
    }

    fn clean_due(&self, turn: &mut Turn) -> Result<(), StewardError> {
        let action = self.cleaner.due(turn, true);
        if let CleanAction::WaitUntil(_) = action {
            return Ok(());
        }
        let started = Instant::now();
        if action == CleanAction::Prune
            && let Some(wanted) = self.wanted(None)?
        {
            let is_worth_it = self.is_worth_it(&wanted)?;
            turn.looks_again = Some(looks_again(Instant::now(), started.elapsed()));
            if is_worth_it {
                let started = Instant::now();
                let pruned = self.prune(&wanted, &|bytes| self.merger.pace(bytes))?;
                tracing::debug!(?pruned, took = ?started.elapsed(), "pruned");
            }
        }
        self.cleaner.clean_in_background()
    }

    fn wanted(&self, instead: Option<&str>) -> Result<Option<Retained>, StewardError> {
        retention::wanted(self.oplog(), &self.cleaner.control, self.cleaner.watermark()?, instead)
    }

    /// Whether letting go of all but that in the background is worth what is written anew.
    fn is_worth_it(&self, wanted: &Retained) -> Result<bool, StewardError> {
        let kept = self.oplog().position().version.0 - wanted.floor.version.0;
        let gone = wanted.floor.version.0 - self.oplog().floor().map_or(0, |floor| floor.version.0);
        if (Pruning { kept, gone }).is_worth_it() {
            return Ok(true);
        }
        let pace = |bytes| self.merger.pace(bytes);
        let would = self.oplog().would_prune(wanted, &MergeLimits::default(), &pace)?;
        let written = would.bytes.saturating_sub(would.freed);
        Ok(Pruning::is_worth_writing(would.freed, written, self.cleaner.is_full()))
    }

    /// Does all there is to do.
    pub(crate) fn run(
        &self,
        options: &MaintainOptions,
        tell: &dyn Fn(MaintainEvent),
    ) -> Result<MaintainReport, StewardError> {
        // It may have been made a replica since it was opened.
        if self.cleaner.control.role() == Role::Replica {
            return self.cleaner.maintain(options, tell);
        }
        let _turn = self.cleaner.turn.lock();
        let mut report = MaintainReport { dry_run: options.dry_run, ..MaintainReport::default() };
        let reads = reads(options);
        if options.dry_run {
            self.would_shrink(options, tell, &mut report)?;
        }
        let mut may_try_again = true;
        loop {
            let shrunk = match options.dry_run {
                true => Ok(()),
                false => self.shrink(reads, tell, &mut report),
            };
            tell(MaintainEvent::Step(MaintainStep::Clean));
            let is_full = shrunk.as_ref().is_err_and(is_full);
            // What this run replaced is to go in this run, where nothing but reads keeps it.
            if is_full || report.pruned.files + report.merged_files > 0 {
                self.cleaner.wait_for_reads(reads);
            }
            let cleaned = self.cleaner.clean(reads, options.dry_run)?;
            report.add_cleaned(cleaned);
            if !(is_full && may_try_again && cleaned.files > 0) {
                shrunk?;
                break;
            }
            may_try_again = false;
        }
        self.committer.disk().restore_reserve();
        self.cleaner.say_what_is_left(&mut report);
        report.doubt = self.cleaner.doubt(options.retention.as_deref());
        Ok(report)
    }

    fn would_shrink(
        &self,
        options: &MaintainOptions,
        tell: &dyn Fn(MaintainEvent),
        report: &mut MaintainReport,
    ) -> Result<(), StewardError> {
        tell(MaintainEvent::Step(MaintainStep::Prune));
        if let Some(wanted) = self.wanted(options.retention.as_deref())?.or(self.oplog().retained()) {
            let pace = |bytes| self.merger.goes_on(tell, bytes);
            report.pruned = self.oplog().would_prune(&wanted, &MergeLimits::default(), &pace)?;
        }
        tell(MaintainEvent::Step(MaintainStep::Merge));
        (report.merged_files, report.merged_bytes) = self.oplog().would_merge(&thorough());
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
            let wanted = self.wanted(None)?.or(self.oplog().retained());
            let pruned =
                wanted.as_ref().map_or(Ok(0), |wanted| self.prune_all(wanted, reads, tell, report))?;
            if round > 0 && pruned == 0 {
                break;
            }
            tell(MaintainEvent::Step(MaintainStep::Merge));
            let merged = self.merger.merge_all(tell, report)?;
            // What was joined may be worth pruning where its parts were not.
            if merged == 0 || wanted.is_none() {
                break;
            }
        }
        tell(MaintainEvent::Step(MaintainStep::Checkpoint));
        report.checkpoint = self.oplog().checkpoint_unless_there()?.or(report.checkpoint);
        Ok(())
    }

    /// Prunes all that is worth it, as far as there is room, and makes room as it goes; the files that were written anew.
    fn prune_all(
        &self,
        wanted: &Retained,
        reads: Duration,
        tell: &dyn Fn(MaintainEvent),
        report: &mut MaintainReport,
    ) -> Result<u64, StewardError> {
        let mut files = 0;
        loop {
            let pruned = self.prune(wanted, &|bytes| self.merger.goes_on(tell, bytes))?;
            report.add_pruned(pruned);
            files += pruned.files;
            if pruned.no_room == 0 || self.cleaner.is_stopping() {
                return Ok(files);
            }
            if pruned.files > 0 {
                self.cleaner.wait_for_reads(reads);
            }
            let cleaned = self.cleaner.clean(reads, false)?;
            report.add_cleaned(cleaned);
            if cleaned.files == 0 {
                return Ok(files);
            }
        }
    }

    /// Says what is kept, then drops what no kept version shows.
    fn prune(&self, wanted: &Retained, pace: &dyn Fn(u64) -> bool) -> Result<PruneReport, StewardError> {
        if self.cleaner.is_stopping() {
            return Err(StewardError::Closed);
        }
        let _what_is_there_is_pruned = self.merger.only_new_files();
        if self.oplog().retained().as_ref() != Some(wanted) {
            // Somebody may have begun to read since, while it was found out what there is to gain.
            let reached = self.oplog().floor().map_or(Version(0), |floor| floor.version);
            let goes = |pin: &Version| *pin >= reached && !wanted.keeps(*pin);
            if self.oplog().pins()?.iter().any(goes) {
                return Ok(PruneReport::default());
            }
            self.committer.between_commits(|| Ok((self.oplog().commit_floor(wanted)?, (0, 0))))?;
        }
        // Which may be more, if a version was given a name since.
        let Some(wanted) = &self.oplog().retained() else { return Ok(PruneReport::default()) };
        let prepare = || {
            let room = self.committer.disk().for_maintenance();
            self.oplog().prepare_prune(wanted, &MergeLimits::default(), room, pace)
        };
        let mut prepared = prepare();
        if prepared.as_ref().is_err_and(OpLogError::is_full) && self.committer.disk().give_up_reserve() {
            prepared = prepare();
        }
        let Some((rewrite, report)) = prepared? else { return Ok(PruneReport::default()) };
        if report.files > 0 {
            self.merger.put(rewrite)?;
        }
        Ok(report)
    }

    /// Ends what is under way, and lets nothing begin any more.
    pub(crate) fn stop(&self) {
        self.cleaner.begin_to_stop();
        self.merger.begin_to_stop();
        self.cleaner.stop();
        self.merger.wait_until_ended();
    }
}

fn is_full(error: &StewardError) -> bool {
    Errno(error.errno()).is_full()
}
