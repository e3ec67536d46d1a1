//! Backpressure: how much content may wait in memory, and how writers are slowed down as it fills.
//!
//! Up to one half writers go on at once. Beyond it each write waits in proportion to how full the budget is and to its
//! size, so that writers come down to the rate at which content is stored instead of stopping dead; only when all of it is
//! taken do they wait until some is stored. Nothing but content waits.
//!
//! While fsyncs come, writers get no further ahead of them than a frame takes: an fsync makes all durable that was received
//! before it, of whatever file, so what a bulk copy may pile up meanwhile is what everybody else's fsync waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pond_tinyfs::{Errno, Error};

use crate::commit::committer::{Committer, LOOK_AGAIN};
use crate::commit::drain::DRAINERS;

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

/// Who waits for fsyncs to go ahead looks again so often.
const GLANCE: Duration = Duration::from_millis(5);

/// The bounds that follow from a budget, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// So much uncut content is drained.
    pub(crate) drain: u64,
    /// So much content of unlinked files is spilled.
    pub(crate) spill: u64,
    /// From here on what stores content gives way to no other program.
    pub(crate) hurry: u64,
    /// From here on writers are slowed down.
    pub(crate) slow: u64,
    /// From here on they wait.
    full: u64,
}

impl Room {
    pub(crate) fn new(budget: u64) -> Self {
        let full = budget.saturating_sub((DRAINERS as u64 * ENCODER).min(budget / 4)).max(1);
        let drain = DRAIN.min(full / 4).max(1);
        Room { drain, spill: SPILL.min(drain), hurry: full / 3, slow: full / 2, full }
    }

    /// So much uncut content is drained while so many drains are under way.
    pub(crate) fn drain_at(&self, draining: usize) -> u64 {
        if draining > 0 { (self.drain / DRAIN_ON).max(1) } else { self.drain }
    }

    /// How long a write of so many bytes waits while so much is taken.
    fn pause(&self, dirty: u64, bytes: u64) -> Duration {
        let over = dirty.saturating_sub(self.slow) as f64 / (self.full - self.slow).max(1) as f64;
        LONGEST_PAUSE.mul_f64(over.min(1.0) * bytes as f64 / (1 << 20) as f64)
    }
}

/// What a writer brings who was let in; until it is in the tree.
struct Admitted<'a> {
    bytes: u64,
    of: &'a AtomicU64,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Committer {
    /// Whether a write may proceed now. Wakes a drainer when much has piled up.
    pub(crate) fn has_room(&self) -> bool {
        self.wake_drainers();
        self.dirty_bytes() < self.room.slow && !self.is_tight() && !self.is_ahead_of_fsyncs()
    }

    /// Content in memory, and what writers bring who were let in.
    fn dirty_bytes(&self) -> u64 {
        self.fs.dirty_bytes() + self.admitted.load(Ordering::Relaxed)
    }

    /// Whether fsyncs come and so much is uncut that the next one would take long.
    fn is_ahead_of_fsyncs(&self) -> bool {
        self.fs.uncut_bytes() >= BACKLOG && self.fsyncs_come()
    }

    /// Whether an fsync is under way, or was just now.
    pub(crate) fn fsyncs_come(&self) -> bool {
        let ended = *self.last_fsync.lock();
        ended.is_some_and(|ended| ended.is_none_or(|ended| ended.elapsed() < FSYNCS_COME))
    }

    /// Does what brings so many bytes of content once there is room for them: of many who wait no more are let in at once than
    /// fit.
    pub(crate) fn when_room<T>(
        &self,
        bytes: u64,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            self.wait_for_room(bytes)?;
            let admitted = self.admitted.fetch_add(bytes, Ordering::Relaxed);
            let counted = Admitted { bytes, of: &self.admitted };
            // The first one is let in however much it brings.
            if admitted == 0 || self.fs.dirty_bytes() + admitted + bytes <= self.room.full {
                return work();
            }
            drop(counted);
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits until a write of so many bytes may proceed.
    pub(crate) fn wait_for_room(&self, bytes: u64) -> Result<(), Error> {
        if self.fs.is_read_only() {
            return Err(Errno::ROFS.into());
        }
        self.commit_where_tight();
        loop {
            if self.is_ahead_of_fsyncs() {
                let mut ledger = self.ledger.lock();
                if ledger.stop {
                    return Err(Errno::ROFS.into());
                }
                self.ended.wait_for(&mut ledger, GLANCE);
                continue;
            }
            let dirty = self.dirty_bytes();
            if dirty < self.room.full {
                // All who wait together wait as long as if one brought it all.
                let bytes = bytes + self.admitted.load(Ordering::Relaxed);
                std::thread::sleep(self.room.pause(dirty, bytes));
                return Ok(());
            }
            self.wait_until_stored()?;
        }
    }

    /// Waits until a drain, a spill or a commit has made room, where there is none.
    fn wait_until_stored(&self) -> Result<(), Error> {
        self.wake_drainers();
        let mut ledger = self.ledger.lock();
        if self.fs.is_read_only() || ledger.refusal.is_some() || ledger.stop {
            return Err(Errno::ROFS.into());
        }
        let resting = ledger.retry_at.is_some_and(|retry_at| Instant::now() < retry_at);
        if let (true, Some(failure)) = (resting, &ledger.failure) {
            return Err(failure.clone().into());
        }
        // One that is under way may make room.
        let attempt = ledger.attempts_ended + 1;
        let mut drains = ledger.drains_ended;
        while self.dirty_bytes() >= self.room.full && ledger.attempts_ended < attempt && !ledger.stop {
            // What drains cannot take, small rests and what fsyncs have cut, a commit stores.
            let drains_help = self.fs.uncut_bytes() >= self.room.drain && ledger.failure.is_none()
                || ledger.draining(u64::MAX) > 0;
            let spills_help = self.is_spilling() || ledger.spill_failure.is_none() && self.must_spill();
            if !drains_help && !spills_help && !ledger.requested && ledger.attempts_started < attempt {
                ledger.requested = true;
                self.wanted.notify_one();
            }
            // Not for ever: a file that is removed, or closed after that, makes room and tells nobody.
            self.ended.wait_for(&mut ledger, LOOK_AGAIN);
            if drains != ledger.drains_ended {
                drains = ledger.drains_ended;
                self.drain_wanted.notify_one();
            }
        }
        match &ledger.spill_failure {
            // They take all the room, so no commit makes any. With less than that, others get theirs by commits.
            Some(failure) if self.fs.unspilled_bytes() >= self.room.full => Err(failure.clone().into()),
            _ => Ok(()),
        }
    }

    fn wake_drainers(&self) {
        let (uncut, spill) = (self.fs.uncut_bytes(), self.must_spill());
        if uncut >= self.room.drain_at(1) || spill {
            let ledger = self.ledger.lock();
            let draining = ledger.draining(u64::MAX);
            // Not while the disk is full: nothing could be stored.
            let drain =
                uncut >= self.room.drain_at(draining) && ledger.failure.is_none() && draining < DRAINERS;
            if drain || spill && ledger.spill_failure.is_none() {
                self.drain_wanted.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_bounds_and_the_encoders_buffers_fit_the_budget() {
        for budget in [16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB] {
            let room = Room::new(budget);
            assert!(room.full + (DRAINERS as u64 * ENCODER).min(budget / 4) <= budget);
            assert!(room.drain <= room.hurry && room.hurry <= room.slow && room.slow < room.full);
        }
        assert_eq!(
            Room::new(256 * MIB),
            Room { drain: 48 * MIB, spill: 16 * MIB, hurry: 64 * MIB, slow: 96 * MIB, full: 192 * MIB }
        );
    }

    #[test]
    fn writers_slow_down_in_proportion() {
        let room = Room::new(256 * MIB);
        assert_eq!(room.pause(96 * MIB, MIB), Duration::ZERO);
        let half = room.pause(144 * MIB, MIB);
        assert_eq!(half, LONGEST_PAUSE / 2);
        assert_eq!(room.pause(192 * MIB, MIB), LONGEST_PAUSE);
        assert_eq!(room.pause(144 * MIB, MIB / 4), half / 4);
    }
}
