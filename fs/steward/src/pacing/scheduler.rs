//! The scheduler: what those who work in the background do next. Nothing here does it, or waits, or looks at a clock.
//!
//! The committer asks [`Commits`], and where merging is behind [`Crowd`]; the drainers ask [`Drains`]; whoever stores
//! what nobody waits for asks [`Yielding`] now and then; fsyncs ask [`Unjournaled`]; maintenance asks [`Cleaning`] and
//! [`Pruning`].

use std::time::{Duration, Instant};

use pond_tinyfs::ContentInMemory;

use crate::pacing::backpressure::{Bounds, DRAINERS};

/// The longest time between two attempts of a commit that keeps failing.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// So often somebody looks who waits for what need not be told: that merging has ended, that a file has gone.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// So long a commit that somebody waits for waits for merges.
const MERGE_WAIT: Duration = Duration::from_millis(500);

/// Who sleeps so that others get its processor looks so often whether somebody has begun to wait for it.
const NAP: Duration = Duration::from_millis(5);

/// A commit may take so much longer by giving way, and no more than so many commit intervals; then it is seen to its end.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3);
const PATIENT_INTERVALS: u32 = 3;

/// With more content than this not yet journaled, bytes, an fsync asks for a commit.
pub(crate) const LARGEST_FRAME: u64 = 16 << 20;

/// So much content, bytes, and so many rows the thread of who asks for an fsync journals.
pub(crate) const LITTLE: u64 = 64 << 10;
const FEW: usize = 512;

/// Background work reads and writes so many bytes a second.
const RATE: u64 = 32 << 20;

/// With so many small files merging no longer spares the disk.
const MANY_FILES: usize = 128;

/// A read that began before its file was replaced is over after this.
pub(crate) const READS: Duration = Duration::from_secs(10);

/// In the background cleaning is done so often, and old versions are looked for.
const CLEAN_PERIOD: Duration = Duration::from_secs(600);

/// Looking for old versions reads much of a large pond, and may take one part in so many of the time.
const LOOKING_SHARE: u32 = 20;

/// The floor rises in the background once so many versions more could go.
const PRUNE_VERSIONS: u64 = 64;

/// Or once so many bytes would be free, which are at least half of those that are written anew.
const PRUNE_BYTES: u64 = 16 << 20;

/// How long a commit gives way that is made at such intervals.
pub(crate) fn patience(interval: Duration) -> Duration {
    interval.saturating_mul(PATIENT_INTERVALS).min(LONGEST_PATIENCE)
}

/// How long a commit is not tried again after it has failed so many times in a row, unless somebody waits for it. The ledger
/// knows the count already, and a function of it can be asked again by the simulation: a backoff would be a second state.
pub(crate) fn pause_after(failures: u32, interval: Duration) -> Duration {
    let doublings = failures.clamp(1, 8) - 1;
    (interval * (1 << doublings)).min(LONGEST_RETRY)
}

/// What the committer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitAction {
    /// Commit everything so far.
    Commit,
    /// Wait until then, or until woken, then ask again.
    WaitUntil(Instant),
    /// End.
    End,
}

/// What the committer goes by while it waits for work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commits {
    /// Whether the pond is closed.
    pub(crate) stopped: bool,
    /// Whether somebody waits for a commit.
    pub(crate) requested: bool,
    /// Before this a failed commit is not tried again.
    pub(crate) retry_at: Option<Instant>,
    /// Whether there is anything that no version holds.
    pub(crate) has_changes: bool,
    /// Between the starts of two commits.
    pub(crate) interval: Duration,
    /// When the next one is due.
    pub(crate) due: Instant,
}

impl Commits {
    /// To commit, to wait until the next commit is due, or to end.
    pub(crate) fn next(&self, now: Instant) -> CommitAction {
        let is_resting = self.retry_at.is_some_and(|retry_at| now < retry_at);
        if self.stopped {
            CommitAction::End
        } else if self.requested || now >= self.due && !is_resting && self.has_changes {
            CommitAction::Commit
        } else if now >= self.due {
            CommitAction::WaitUntil(now + self.interval)
        } else {
            CommitAction::WaitUntil(self.due)
        }
    }
}

/// What a commit does that is due while files are made faster than they are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrowdAction {
    /// Commit.
    Commit,
    /// Wait until then, or until woken, then ask again.
    WaitUntil(Instant),
}

/// What the committer goes by while a commit is due and files are made faster than they are merged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    /// Whether the pond is closed.
    pub(crate) stopped: bool,
    /// Whether somebody waits for a commit.
    pub(crate) requested: bool,
    /// Since when the commit has waited.
    pub(crate) since: Instant,
    /// Between the starts of two commits.
    pub(crate) interval: Duration,
}

impl Crowd {
    /// To wait for a merge, or to commit. Who waits for a commit waits for a merge, but not for a long one; and what is written is not
    /// at risk for longer than a commit may take its time.
    pub(crate) fn next(&self, now: Instant) -> CrowdAction {
        let longest = if self.requested { MERGE_WAIT } else { MERGE_WAIT.max(patience(self.interval)) };
        if self.stopped || now.saturating_duration_since(self.since) >= longest {
            CrowdAction::Commit
        } else {
            CrowdAction::WaitUntil(now + LOOK_AGAIN)
        }
    }
}

/// What a drainer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DrainAction {
    /// Take a cut and write its content to files.
    Drain,
    /// Write what unlinked files hold to files without names.
    Spill,
    /// Wait until woken, then ask again.
    Wait,
    /// End.
    End,
}

/// What a drainer goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drains {
    /// Whether the pond is closed.
    pub(crate) stopped: bool,
    /// Whether what is uncommitted may still be committed.
    pub(crate) may_commit: bool,
    /// Whether the last commit or drain failed.
    pub(crate) is_failing: bool,
    /// Whether the last spill failed.
    pub(crate) spill_failed: bool,
    /// Drains under way.
    pub(crate) draining: usize,
    /// Content in memory.
    pub(crate) content: ContentInMemory,
    /// Whether an fsync is under way, or was just now.
    pub(crate) fsyncs_come: bool,
}

impl Drains {
    /// Whether so much may wait that [`next`](Self::next) is worth asking, which takes locks.
    pub(crate) fn may_be_due(bounds: &Bounds, content: &ContentInMemory) -> bool {
        content.uncut >= bounds.drain_at(1) || bounds.must_spill(content)
    }

    /// To drain, to spill, to wait, or to end. `has_spilled`: since this drainer last waited or drained. What could not be spilled is
    /// tried again once each time.
    pub(crate) fn next(&self, bounds: &Bounds, has_spilled: bool) -> DrainAction {
        let must_spill = bounds.must_spill(&self.content);
        if self.stopped {
            DrainAction::End
        } else if must_spill && !has_spilled {
            DrainAction::Spill
        } else if self.is_drain_due(bounds) {
            DrainAction::Drain
        } else if must_spill && !self.spill_failed {
            DrainAction::Spill
        } else {
            DrainAction::Wait
        }
    }

    fn is_drain_due(&self, bounds: &Bounds) -> bool {
        let is_enough = self.content.uncut >= bounds.drain_at(self.draining);
        // While the disk is full nothing could be stored. While fsyncs come, the next one would have to commit what was drained,
        // instead of journaling what is left.
        let goes_to_journal = self.fsyncs_come && !bounds.is_slow(&self.content);
        is_enough && self.draining < DRAINERS && !self.is_failing && self.may_commit && !goes_to_journal
    }
}

/// What a commit or a drain does while other programs want its processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum YieldAction {
    /// Sleep so long, so that others get the processor, then ask again.
    Yield(Duration),
    /// Go on with what is under way.
    GoOn,
}

/// What a commit or a drain goes by while other programs want its processor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Yielding {
    /// Whether the pond is closed, or about to be.
    pub(crate) is_closing: bool,
    /// Whether somebody waits for a commit.
    pub(crate) requested: bool,
    /// While a commit is under way, when it stops giving way.
    pub(crate) hurried_from: Option<Instant>,
    /// Content in memory.
    pub(crate) content: ContentInMemory,
    /// What others are owed.
    pub(crate) owed: Duration,
}

impl Yielding {
    /// To sleep for a part of what is owed, or to go on: nothing is owed, somebody waits for a commit or soon will for room, or it
    /// has taken long enough.
    pub(crate) fn next(&self, bounds: &Bounds, now: Instant) -> YieldAction {
        let is_late = self.hurried_from.is_some_and(|from| from <= now);
        let is_hurried = self.is_closing || self.requested || is_late || bounds.is_hurried(&self.content);
        if self.owed.is_zero() || is_hurried {
            YieldAction::GoOn
        } else {
            YieldAction::Yield(self.owed.min(NAP))
        }
    }
}

/// What may be done to make everything durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effort {
    /// A small frame, and nothing that takes longer.
    Little,
    /// A frame, or, with much to write, a commit.
    Any,
    /// A frame, however large: nothing can be committed.
    Frame,
}

/// What makes everything durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Durable {
    /// A frame.
    ByFrame,
    /// A commit.
    ByCommit,
    /// More than [`Effort::Little`].
    TooMuch,
}

/// What no frame holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unjournaled {
    /// Content, bytes.
    pub(crate) content: u64,
    /// Rows.
    pub(crate) rows: usize,
    /// Whether some content is in files that only a commit can name, or on its way there.
    pub(crate) leaves_memory: bool,
    /// Whether a commit can be made.
    pub(crate) may_commit: bool,
}

impl Unjournaled {
    /// What makes it durable: no frame names a content file, and with much content the journal would be written for as long as a
    /// commit.
    pub(crate) fn durable_by(&self, effort: Effort) -> Durable {
        match effort {
            Effort::Little if self.leaves_memory || self.content > LITTLE || self.rows > FEW => {
                Durable::TooMuch
            }
            Effort::Any if self.may_commit && (self.leaves_memory || self.content > LARGEST_FRAME) => {
                Durable::ByCommit
            }
            Effort::Little | Effort::Any | Effort::Frame => Durable::ByFrame,
        }
    }
}

/// How long merging in the background takes for so many bytes, so that it does not take the disk for itself; with so many
/// small files as fast as it can.
pub(crate) fn merge_time(bytes: u64, small_files: usize) -> Duration {
    if small_files < MANY_FILES {
        Duration::from_secs_f64(bytes as f64 / RATE as f64)
    } else {
        Duration::ZERO
    }
}

/// What cleaning in the background does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CleanAction {
    /// Look for old versions, let go of those that it is worth it for, then clean.
    Prune,
    /// Remove what nobody needs.
    Clean,
    /// Wait until then, then ask again.
    WaitUntil(Instant),
}

/// What cleaning in the background goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cleaning {
    /// When it was done last.
    pub(crate) cleaned: Option<Instant>,
    /// When it may look for old versions again.
    pub(crate) looks_again: Option<Instant>,
    /// Whether versions are made here, and can be let go of.
    pub(crate) is_source: bool,
    /// Whether next to nothing is free.
    pub(crate) is_full: bool,
    /// How long replaced files are kept.
    pub(crate) keep_replaced: Duration,
}

impl Cleaning {
    /// To prune and clean, only to clean, or to wait.
    pub(crate) fn next(&self, now: Instant) -> CleanAction {
        let period = if self.is_full { READS } else { CLEAN_PERIOD.min(self.keep_replaced.max(READS)) };
        match self.cleaned {
            Some(cleaned) if now < cleaned + period => CleanAction::WaitUntil(cleaned + period),
            _ if self.is_source && self.looks_again.is_none_or(|again| again <= now) => CleanAction::Prune,
            _ => CleanAction::Clean,
        }
    }
}

/// When to look for old versions again, where looking took so long.
pub(crate) fn looks_again(now: Instant, took: Duration) -> Instant {
    now + LOOKING_SHARE * took
}

/// What raising the floor would do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pruning {
    /// Versions that would be left.
    pub(crate) kept: u64,
    /// Versions that would go.
    pub(crate) gone: u64,
}

impl Pruning {
    /// Whether it is worth what is written anew, however much that is.
    pub(crate) fn is_worth_it(&self) -> bool {
        self.gone >= PRUNE_VERSIONS && self.gone >= self.kept / 4
    }

    /// Whether it is, where so many bytes would be free and so many be written.
    pub(crate) fn is_worth_writing(freed: u64, written: u64, is_full: bool) -> bool {
        let enough = if is_full { 1 } else { PRUNE_BYTES };
        freed >= enough && freed >= written / 2
    }
}

#[cfg(test)]
mod tests;
