//! Backpressure: how much content may wait in memory, and how writers are slowed down as it fills.
//!
//! Up to one half writers go on at once. Beyond it each write waits in proportion to how full the budget is and to its
//! size, so that writers come down to the rate at which content is stored instead of stopping dead; only when all of it is
//! taken do they wait until some is stored. Nothing but content waits.
//!
//! While fsyncs come, writers get no further ahead of them than a frame takes: an fsync makes all durable that was received
//! before it, of whatever file, so what a bulk copy may pile up meanwhile is what everybody else's fsync waits for.
//!
//! On a disk with little room left, what is free and what is owed no longer say whether a write fits: what a commit is
//! writing counts twice, on the disk and in memory, and so does what the journal holds. Only a commit tells how much is left,
//! so a write waits for one as soon as more is owed than half of what is free: the commits before ENOSPC grow smaller by
//! halves, and few are needed.

use std::time::{Duration, Instant};

use pond_tinyfs::{ContentInMemory, Space};

/// Threads that drain.
pub(crate) const DRAINERS: usize = 2;

/// So much content not yet in any cut is drained.
const DRAIN: u64 = 48 << 20;

/// Where a drain is under way much more is to come, and of that one part in so many is enough for another one: both drainers are always
/// at work then.
const DRAIN_ON: u64 = 2;

/// So much content of unlinked files that are still open leaves memory.
const SPILL: u64 = 16 << 20;

/// What a drain takes besides the content itself: row groups in Arrow's and in Parquet's form, one per core.
const ENCODER: u64 = 48 << 20;

/// How long 1 MiB waits when the budget is nearly all taken: a store that is slower than 50 MB/s stops writers
/// at times, a faster one slows them down.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// So much uncut content writers may pile up while an fsync is under way or was just now.
const BACKLOG: u64 = 8 << 20;

/// How long after an fsync the next one is expected.
const FSYNCS_COME: Duration = Duration::from_millis(50);

/// Who waits for fsyncs to go ahead, or for others who were let in, looks again so often.
pub(crate) const GLANCE: Duration = Duration::from_millis(5);

/// What a commit needs beside its rows, bytes: the log entry, and the ends of its data files.
const COMMIT_OVERHEAD: u64 = 64 << 10;

/// What a row needs beside its content, bytes.
const ROW_OVERHEAD: u64 = 256;

/// Where less than one part in so many is free, the disk is full.
const FULL_SHARE: u64 = 64;

/// The bounds that follow from a budget, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// So much uncut content is drained.
    drain: u64,
    /// So much content of unlinked files is spilled.
    spill: u64,
    /// From here on what stores content gives way to no other program.
    hurry: u64,
    /// From here on writers are slowed down.
    slow: u64,
    /// From here on they wait.
    full: u64,
}

/// What a writer is admitted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gauges {
    /// Content in memory.
    pub(crate) content: ContentInMemory,
    /// Bytes that writers bring who were let in, and that are not in the tree yet.
    pub(crate) admitted: u64,
    /// Bytes free on the disk for writers.
    pub(crate) available: u64,
    /// Whether an fsync is under way, or was just now; looked at only where [`Bounds::may_be_ahead_of_fsyncs`].
    pub(crate) fsyncs_come: bool,
    /// Whether the tree takes no changes.
    pub(crate) read_only: bool,
}

/// Whether a write may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// At once.
    Now,
    /// After so long.
    After(Duration),
    /// Others go first, fsyncs or those who were let in: it asks again when an fsync has ended, or after so long.
    AfterOthers(Duration),
    /// It asks again after a commit, which tells how much of the disk is left.
    UntilCommitted,
    /// It asks again once something was stored; [`Storing::wait`] says what to do meanwhile.
    UntilStored,
    /// No writes are taken.
    Refuse,
}

impl Gauges {
    /// Content in memory, and what writers bring who were let in.
    fn dirty(&self) -> u64 {
        self.content.total() + self.admitted
    }
}

impl Bounds {
    pub(crate) fn new(budget: u64) -> Self {
        let full = budget.saturating_sub((DRAINERS as u64 * ENCODER).min(budget / 4)).max(1);
        let drain = DRAIN.min(full / 4).max(1);
        Bounds { drain, spill: SPILL.min(drain), hurry: full / 3, slow: full / 2, full }
    }

    /// Whether drains are as large as they get, so that a few MiB more or less do not matter.
    pub(crate) fn are_ample(&self) -> bool {
        self.drain == DRAIN
    }

    /// From here on writers wait.
    #[cfg(test)]
    pub(crate) fn full(&self) -> u64 {
        self.full
    }

    /// Whether a write that brings so many bytes may go on. `has_committed`: it has waited for a commit already.
    pub(crate) fn admit(&self, gauges: &Gauges, bytes: u64, has_committed: bool) -> Admission {
        let dirty = gauges.dirty();
        if gauges.read_only {
            Admission::Refuse
        } else if !has_committed && is_short(&gauges.content, gauges.available) {
            Admission::UntilCommitted
        } else if gauges.fsyncs_come && self.may_be_ahead_of_fsyncs(&gauges.content) {
            Admission::AfterOthers(GLANCE)
        } else if dirty < self.slow {
            Admission::Now
        } else if dirty < self.full {
            // All who wait together wait as long as if one brought it all.
            Admission::After(self.pause(dirty, bytes + gauges.admitted))
        } else if gauges.content.total() < self.full {
            // There is room, and those take it who were let in: storing something is no use before they have written.
            Admission::AfterOthers(GLANCE)
        } else {
            Admission::UntilStored
        }
    }

    /// Whether a write may begin that was admitted, of many that were at the same time: no more than fit. `admitted`: what
    /// others bring who have begun. The first one is let in however much it brings, unless others took all the room while it
    /// paused.
    pub(crate) fn lets_in(&self, content: &ContentInMemory, admitted: u64, bytes: u64) -> bool {
        let taken = content.total() + admitted;
        taken + bytes <= self.full || admitted == 0 && taken < self.full
    }

    /// Whether so much is uncut that an fsync would take long.
    pub(crate) fn may_be_ahead_of_fsyncs(&self, content: &ContentInMemory) -> bool {
        content.uncut >= BACKLOG
    }

    /// So much uncut content is drained while so many drains are under way.
    pub(crate) fn drain_at(&self, draining: usize) -> u64 {
        if draining > 0 { (self.drain / DRAIN_ON).max(1) } else { self.drain }
    }

    /// Whether unlinked files hold so much that it has to leave memory.
    pub(crate) fn must_spill(&self, content: &ContentInMemory) -> bool {
        content.unspilled >= self.spill
    }

    /// Whether so much waits to be stored that what stores it gives way to no other program.
    pub(crate) fn is_hurried(&self, content: &ContentInMemory) -> bool {
        content.total() >= self.hurry
    }

    /// Whether so much waits to be stored that writers are slowed down.
    pub(crate) fn is_slow(&self, content: &ContentInMemory) -> bool {
        content.total() >= self.slow
    }

    /// How long a write of so many bytes waits while so much is taken.
    fn pause(&self, dirty: u64, bytes: u64) -> Duration {
        let over = dirty.saturating_sub(self.slow) as f64 / (self.full - self.slow).max(1) as f64;
        LONGEST_PAUSE.mul_f64(over.min(1.0) * bytes as f64 / (1 << 20) as f64)
    }
}

/// How storing goes, as who waits for it sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Storing {
    /// Whether no writes are taken any more.
    pub(crate) refuses: bool,
    /// Whether the pond is closed.
    pub(crate) stopped: bool,
    /// Whether the last commit or drain failed.
    pub(crate) is_failing: bool,
    /// Whether no commit is made for now, as one has failed and nobody waits for it.
    pub(crate) is_resting: bool,
    /// Whether the last spill failed.
    pub(crate) spill_failed: bool,
    /// Whether a commit was asked for.
    pub(crate) requested: bool,
    /// Commits that have started, and that have ended.
    pub(crate) started: u64,
    pub(crate) ended: u64,
    /// Drains under way.
    pub(crate) draining: usize,
}

/// What who waits for something to be stored does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Asks for a commit, then waits on.
    AskForCommit,
    /// Waits on.
    On,
    /// Asks again to be admitted.
    Over,
    /// Gives up, as no writes are taken.
    ReadOnly,
    /// Gives up, as commits fail.
    CommitFails,
    /// Gives up, as unlinked files hold everything and cannot be spilled.
    SpillFails,
}

impl Storing {
    /// The commit after which who begins to wait now asks again; or why it is no use to wait.
    pub(crate) fn begin(&self, read_only: bool) -> Result<u64, Wait> {
        if read_only || self.refuses || self.stopped {
            return Err(Wait::ReadOnly);
        }
        if self.is_resting && self.is_failing {
            return Err(Wait::CommitFails);
        }
        // One that is under way may make room.
        Ok(self.ended + 1)
    }

    /// What who waits for this commit, or for room before that, does next.
    pub(crate) fn wait(&self, bounds: &Bounds, content: &ContentInMemory, commit: u64) -> Wait {
        if content.total() < bounds.full || self.ended >= commit || self.stopped {
            // They take all the room, so no commit makes any. With less than that, others get theirs by commits.
            let held_by_unlinked = content.unspilled >= bounds.full;
            return if self.spill_failed && held_by_unlinked { Wait::SpillFails } else { Wait::Over };
        }
        // What drains cannot take, small rests and what fsyncs have cut, a commit stores.
        let drains_help = content.uncut >= bounds.drain && !self.is_failing || self.draining > 0;
        let spills_help =
            content.spilling >= bounds.spill || !self.spill_failed && bounds.must_spill(content);
        let may_ask = !self.requested && self.started < commit;
        if !drains_help && !spills_help && may_ask { Wait::AskForCommit } else { Wait::On }
    }
}

/// When fsyncs were under way last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LastFsync {
    /// None has come.
    #[default]
    None,
    /// One is under way.
    UnderWay,
    /// The last one that had something to write ended then.
    Ended(Instant),
}

impl LastFsync {
    /// Whether one is under way, or was just now.
    pub(crate) fn is_recent(&self, now: Instant) -> bool {
        match self {
            LastFsync::None => false,
            LastFsync::UnderWay => true,
            LastFsync::Ended(at) => now.saturating_duration_since(*at) < FSYNCS_COME,
        }
    }
}

/// Whether so much is owed of what is free that a write might be refused for which there is room. What unlinked files hold
/// does not count: no commit stores that.
pub(crate) fn is_short(content: &ContentInMemory, available: u64) -> bool {
    content.committable() > available / 2
}

/// Whether next to nothing is free, so that what makes room is worth its cost.
pub(crate) fn is_full(space: Space) -> bool {
    space.available < space.total / FULL_SHARE
}

/// Bytes that maintenance may write: most is left to writers, and where nothing is free a part of the reserve, which is there for
/// what makes room.
pub(crate) fn room_for_maintenance(space: Space, reserve: u64) -> u64 {
    space.available / 2 + reserve / 4
}

/// Bytes that a commit of so many rows needs beside their content, which the tree counts as owed.
pub(crate) fn commit_overhead(rows: u64) -> u64 {
    COMMIT_OVERHEAD + rows * ROW_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn gauges(uncut: u64) -> Gauges {
        let content = ContentInMemory { uncut, ..ContentInMemory::default() };
        Gauges { content, available: 1 << 40, ..Gauges::default() }
    }

    #[test]
    fn the_bounds_and_the_encoders_buffers_fit_the_budget() {
        for budget in [16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB] {
            let bounds = Bounds::new(budget);
            assert!(bounds.full + (DRAINERS as u64 * ENCODER).min(budget / 4) <= budget);
            assert!(bounds.drain <= bounds.hurry && bounds.hurry <= bounds.slow && bounds.slow < bounds.full);
        }
        assert_eq!(
            Bounds::new(256 * MIB),
            Bounds { drain: 48 * MIB, spill: 16 * MIB, hurry: 64 * MIB, slow: 96 * MIB, full: 192 * MIB }
        );
    }

    #[test]
    fn writers_slow_down_in_proportion() {
        let bounds = Bounds::new(256 * MIB);
        assert_eq!(bounds.pause(96 * MIB, MIB), Duration::ZERO);
        let half = bounds.pause(144 * MIB, MIB);
        assert_eq!(half, LONGEST_PAUSE / 2);
        assert_eq!(bounds.pause(192 * MIB, MIB), LONGEST_PAUSE);
        assert_eq!(bounds.pause(144 * MIB, MIB / 4), half / 4);
    }

    #[test]
    fn a_write_goes_on_at_once_then_later_then_when_something_is_stored() {
        let bounds = Bounds::new(256 * MIB);
        let admit = |uncut| bounds.admit(&gauges(uncut), MIB, false);
        assert_eq!(admit(96 * MIB - 1), Admission::Now);
        assert_eq!(admit(144 * MIB), Admission::After(LONGEST_PAUSE / 2));
        assert_eq!(admit(192 * MIB - 1), Admission::After(bounds.pause(192 * MIB - 1, MIB)));
        assert_eq!(admit(192 * MIB), Admission::UntilStored);
        let read_only = Gauges { read_only: true, ..gauges(0) };
        assert_eq!(bounds.admit(&read_only, MIB, false), Admission::Refuse);
    }

    #[test]
    fn who_was_let_in_counts_before_its_bytes_are_there() {
        let bounds = Bounds::new(256 * MIB);
        let others = Gauges { admitted: 48 * MIB, ..gauges(96 * MIB) };
        assert_eq!(
            bounds.admit(&others, 16 * MIB, false),
            Admission::After(bounds.pause(144 * MIB, 64 * MIB))
        );
        assert!(bounds.lets_in(&others.content, 48 * MIB, 48 * MIB));
        let all = Gauges { admitted: 96 * MIB, ..gauges(96 * MIB) };
        assert_eq!(
            bounds.admit(&all, MIB, false),
            Admission::AfterOthers(GLANCE),
            "nothing that is stored makes room"
        );
        assert!(!bounds.lets_in(&others.content, 48 * MIB, 48 * MIB + 1));
        assert!(bounds.lets_in(&others.content, 0, 1024 * MIB), "else it would never be");
        let full = gauges(192 * MIB).content;
        assert!(!bounds.lets_in(&full, 0, 1), "others came first, one after the other");
    }

    #[test]
    fn fsyncs_and_commits_on_a_short_disk_go_first() {
        let bounds = Bounds::new(256 * MIB);
        let fsyncs = |uncut| Gauges { fsyncs_come: true, ..gauges(uncut) };
        assert_eq!(bounds.admit(&fsyncs(8 * MIB - 1), MIB, false), Admission::Now);
        assert_eq!(bounds.admit(&fsyncs(8 * MIB), MIB, false), Admission::AfterOthers(GLANCE));
        let short = Gauges { available: 8 * MIB, ..gauges(5 * MIB) };
        assert_eq!(bounds.admit(&short, MIB, false), Admission::UntilCommitted);
        assert_eq!(
            bounds.admit(&short, MIB, true),
            Admission::Now,
            "only a tree that has no room refuses it"
        );
    }

    #[test]
    fn fsyncs_are_expected_for_a_while_after_each() {
        let now = Instant::now();
        assert!(!LastFsync::None.is_recent(now));
        assert!(LastFsync::UnderWay.is_recent(now));
        assert!(LastFsync::Ended(now).is_recent(now + Duration::from_millis(49)));
        assert!(!LastFsync::Ended(now).is_recent(now + FSYNCS_COME));
    }

    #[test]
    fn who_waits_for_room_asks_for_a_commit_only_where_nothing_else_makes_any() {
        let bounds = Bounds::new(256 * MIB);
        let storing = Storing { started: 3, ended: 3, ..Storing::default() };
        let commit = storing.begin(false).unwrap();
        let uncut = gauges(192 * MIB).content;
        assert_eq!(storing.wait(&bounds, &uncut, commit), Wait::On, "a drain takes it");
        let failing = Storing { is_failing: true, ..storing };
        assert_eq!(failing.wait(&bounds, &uncut, commit), Wait::AskForCommit);
        let asked = Storing { requested: true, ..failing };
        assert_eq!(asked.wait(&bounds, &uncut, commit), Wait::On);
        assert_eq!(Storing { started: 4, ..failing }.wait(&bounds, &uncut, commit), Wait::On);
        assert_eq!(Storing { started: 4, ended: 4, ..failing }.wait(&bounds, &uncut, commit), Wait::Over);
        assert_eq!(storing.wait(&bounds, &gauges(192 * MIB - 1).content, commit), Wait::Over);
    }

    #[test]
    fn it_is_no_use_to_wait_where_nothing_can_be_stored() {
        let bounds = Bounds::new(256 * MIB);
        assert_eq!(Storing::default().begin(true), Err(Wait::ReadOnly));
        assert_eq!(Storing { refuses: true, ..Storing::default() }.begin(false), Err(Wait::ReadOnly));
        let resting = Storing { is_failing: true, is_resting: true, ..Storing::default() };
        assert_eq!(resting.begin(false), Err(Wait::CommitFails));
        let spill_failed = Storing { spill_failed: true, ended: 1, ..Storing::default() };
        let content = ContentInMemory { unspilled: 192 * MIB, ..ContentInMemory::default() };
        assert_eq!(spill_failed.wait(&bounds, &content, 1), Wait::SpillFails);
    }
}
