//! What is around the decisions in the simulation: time, chance, a tree that only counts, and a disk with its weather.

use std::time::{Duration, Instant};

use pond_tinyfs::{ContentInMemory, Cut, Lsn, Row, StorageError, Timestamp, root_row};

use crate::commit::ledger::{Batch, Ledger, Wake};
use crate::pacing::backpressure::{Bounds, Gauges, LastFsync};
use crate::pacing::scheduler::{DrainAction, Drains};

/// The same numbers for the same seed.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    /// Below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }

    pub(super) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + Duration::from_nanos(self.below((most - least).as_nanos() as u64 + 1))
    }
}

/// What is wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Those who wait for a commit are not woken when one has ended.
    LostWakeUp,
    /// One byte of each write that was let in is not counted.
    OffByOne,
    /// A commit gives way however late it is.
    StarvedCommit,
}

/// What the disk and the processor are like for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// What every write to the disk takes.
    pub(super) latency: Duration,
    /// Bytes a second.
    pub(super) speed: u64,
    /// Bytes free.
    pub(super) free: u64,
    /// Why commits and drains fail.
    pub(super) errno: Option<i32>,
    /// Whether spills fail.
    pub(super) spills_fail: bool,
    /// Until then drains get no further.
    pub(super) drains_stall: bool,
    /// Whether other programs want the processor.
    pub(super) is_contended: bool,
    /// Whether merging is behind.
    pub(super) is_crowded: bool,
}

/// The world of one scenario.
pub(super) struct World {
    pub(super) chance: Chance,
    pub(super) fault: Option<Fault>,
    pub(super) now: Instant,
    pub(super) began: Instant,
    pub(super) interval: Duration,
    pub(super) bounds: Bounds,
    /// So much content the largest write brings.
    pub(super) largest: u64,
    pub(super) ledger: Ledger,
    pub(super) content: ContentInMemory,
    pub(super) admitted: u64,
    pub(super) is_dirty: bool,
    pub(super) read_only: bool,
    pub(super) last_fsync: LastFsync,
    pub(super) weather: Weather,
    pub(super) is_calm: bool,
    /// When the oldest change was made that no attempt covers.
    pub(super) oldest_change: Option<Instant>,
    pub(super) attempt_ended: Instant,
    /// When the commit that failed last may be tried again.
    pub(super) retry_at: Option<Instant>,
    /// Since when somebody has waited for a commit that has not started.
    pub(super) requested_at: Option<Instant>,
    pub(super) spill_busy: bool,
    /// When the next commit is due.
    pub(super) due: Instant,
    /// Who is to be woken by what was done since that was asked last.
    pub(super) wake: Wake,
    lsn: u64,
    row: Row,
    broken: Option<String>,
}

pub(super) const MIB: u64 = 1 << 20;

impl World {
    pub(super) fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut chance = Chance::new(seed);
        // Small ones meet every bound to the byte, large ones the bounds that are constants.
        let (budget, largest) = match chance.below(3) {
            0 => (32 + chance.below(200), 1 + chance.below(12)),
            1 => (MIB * (1 + chance.below(32)), 4096 + chance.below(MIB)),
            _ => (MIB * (64 + chance.below(300)), MIB),
        };
        let interval = [20, 200, 1000, 5000][chance.below(4) as usize];
        let now = Instant::now();
        World {
            chance,
            fault,
            now,
            began: now,
            interval: Duration::from_millis(interval),
            bounds: Bounds::new(budget),
            largest,
            ledger: Ledger::default(),
            content: ContentInMemory::default(),
            admitted: 0,
            is_dirty: false,
            read_only: false,
            last_fsync: LastFsync::None,
            weather: Weather::fine(),
            is_calm: false,
            oldest_change: None,
            attempt_ended: now,
            retry_at: None,
            requested_at: None,
            spill_busy: false,
            due: now + Duration::from_millis(interval),
            wake: Wake::NOBODY,
            lsn: 1,
            row: root_row(Timestamp(0), 0, 0),
            broken: None,
        }
    }

    /// A promise that was broken; the first counts.
    pub(super) fn must(&mut self, holds: bool, promise: impl FnOnce() -> String) {
        if !holds {
            self.broken.get_or_insert_with(promise);
        }
    }

    pub(super) fn broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    pub(super) fn call(&mut self, wake: Wake) {
        self.wake.committer |= wake.committer;
        self.wake.drainer |= wake.drainer;
        self.wake.waiters |= wake.waiters;
    }

    /// The same; where the committer is called somebody waits for a commit.
    pub(super) fn asked_for_commit(&mut self, wake: Wake) {
        if wake.committer {
            self.requested_at.get_or_insert(self.now);
        }
        self.call(wake);
    }

    pub(super) fn gauges(&self) -> Gauges {
        Gauges {
            content: self.content,
            admitted: self.admitted,
            available: self.weather.free,
            fsyncs_come: self.last_fsync.is_recent(self.now),
            read_only: self.read_only,
        }
    }

    /// As the committer does it.
    pub(super) fn wake_drainers(&mut self) {
        if Drains::may_be_due(&self.bounds, &self.content) {
            let fsyncs_come = self.last_fsync.is_recent(self.now);
            let next = self.ledger.drains(self.content, fsyncs_come).next(&self.bounds, true);
            self.wake.drainer |= matches!(next, DrainAction::Drain | DrainAction::Spill);
        }
    }

    /// A change of the tree that brings so much, to a file that is linked or not; false where the disk has no room for it.
    pub(super) fn change(&mut self, bytes: u64, is_unlinked: bool) -> bool {
        if self.read_only || bytes > 0 && self.content.total() + bytes > self.weather.free {
            return false;
        }
        match is_unlinked {
            true => self.content.unspilled += bytes,
            false => {
                self.content.uncut += bytes;
                self.is_dirty = true;
                self.lsn += 1;
                self.oldest_change.get_or_insert(self.now);
            }
        }
        // What others bring who were let in fits as well; of one alone the last byte may be beyond.
        let (taken, most) = (self.content.total() + self.admitted, self.bounds.full() + self.largest);
        self.must(taken < most, || format!("the budget: {taken} bytes are taken, and {most} are too many"));
        true
    }

    /// As `TinyFs` does it, but that all rows are one.
    pub(super) fn cut(&mut self) -> Cut {
        let bytes = std::mem::take(&mut self.content.uncut);
        self.content.cut += bytes;
        let row = Row { lsn: Lsn(self.lsn), ..self.row.clone() };
        let rows = if std::mem::take(&mut self.is_dirty) { vec![row] } else { Vec::new() };
        Cut { rows, cut_lsn: Lsn(self.lsn), bytes }
    }

    /// Content of these batches that is in memory.
    pub(super) fn bytes_of(&self, batches: &[Batch]) -> u64 {
        let in_memory = batches.iter().filter(|batch| batch.drained().is_none());
        in_memory.map(|batch| self.ledger.to_journal(std::slice::from_ref(batch)).content).sum()
    }

    /// Writes so much to the disk, if that goes well.
    pub(super) fn store(&mut self, bytes: u64) -> Result<(), StorageError> {
        let is_full = (bytes > self.weather.free).then_some(libc::ENOSPC);
        match self.weather.errno.or(is_full) {
            None => {
                self.weather.free -= bytes;
                Ok(())
            }
            Some(errno) => {
                if errno != libc::ENOSPC {
                    self.read_only = true;
                    let may_commit = errno == libc::EIO;
                    self.ledger.refuse("the disk fails", may_commit);
                }
                Err(failure(errno))
            }
        }
    }

    /// How long writing so much takes.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        self.weather.latency + Duration::from_secs_f64(bytes as f64 / self.weather.speed as f64)
    }

    /// Other weather; nothing fails any more in the end.
    pub(super) fn change_weather(&mut self) {
        let budget = self.bounds.full();
        let chance = &mut self.chance;
        let mut weather = Weather::fine();
        weather.latency = chance.between(Duration::from_micros(200), Duration::from_millis(300));
        weather.speed = (budget / (1 + chance.below(20))).max(1);
        if chance.one_in(4) {
            weather.free = chance.below(2 * budget);
        }
        if chance.one_in(5) {
            weather.errno = Some(libc::ENOSPC);
        } else if chance.one_in(60) {
            weather.errno = Some(if chance.one_in(2) { libc::EIO } else { libc::EEXIST });
        }
        weather.spills_fail = chance.one_in(5);
        weather.drains_stall = chance.one_in(5);
        weather.is_contended = chance.one_in(2);
        weather.is_crowded = chance.one_in(5);
        self.weather = weather;
    }

    pub(super) fn calm(&mut self) {
        self.weather = Weather::fine();
        self.is_calm = true;
    }
}

impl Weather {
    pub(super) fn fine() -> Self {
        Weather {
            latency: Duration::from_millis(1),
            speed: 1 << 30,
            free: 1 << 50,
            errno: None,
            spills_fail: false,
            drains_stall: false,
            is_contended: false,
            is_crowded: false,
        }
    }
}

pub(super) fn failure(errno: i32) -> StorageError {
    StorageError::new("the simulated disk", errno)
}
