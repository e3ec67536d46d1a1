//! Those who store, in the simulation: the committer, the drainers and the journal thread. Each does what its thread does, step
//! by step, and asks the same functions what to do next.

use std::time::{Duration, Instant};

use pond_tinyfs::StorageError;

use super::actor::{Block, CommitNow};
use super::world::{Fault, World, failure};
use crate::commit::ledger::{Attempt, Batch, DrainedContent, Wake};
use crate::pacing::backpressure::{DRAINERS, LastFsync};
use crate::pacing::scheduler::{
    CommitAction, CrowdAction, DrainAction, Durable, Effort, LOOK_AGAIN, YieldAction, patience,
};

/// So long something is written before the writer looks whether it should give way.
const PIECE: Duration = Duration::from_millis(50);

/// What a check allows beyond what is promised: naps, and pieces that were begun.
const SLACK: Duration = Duration::from_millis(20);

/// Something that is written.
pub(super) struct Work {
    left: u64,
    has_begun: bool,
    owed: Duration,
    yielded: Duration,
}

impl Work {
    fn of(bytes: u64) -> Self {
        Work { left: bytes, has_begun: false, owed: Duration::ZERO, yielded: Duration::ZERO }
    }

    /// Until when the next piece is written, or others have the processor; `None` once all is written.
    fn step_giving_way(&mut self, world: &mut World, is_commit: bool) -> Option<Instant> {
        let mut yielding = world.ledger.yielding(world.content, self.owed);
        if is_commit && world.fault == Some(Fault::StarvedCommit) {
            (yielding.hurried_from, yielding.requested) = (None, false);
        }
        if let YieldAction::Yield(nap) = yielding.next(&world.bounds, world.now) {
            self.owed -= nap;
            self.yielded += nap;
            return Some(world.now + nap);
        }
        if world.weather.is_contended {
            self.owed = world.chance.between(Duration::ZERO, Duration::from_millis(200));
        }
        self.step(world)
    }

    /// The same without looking at others.
    fn step(&mut self, world: &mut World) -> Option<Instant> {
        if self.has_begun && self.left == 0 {
            return None;
        }
        let most = ((world.weather.speed as f64 * PIECE.as_secs_f64()) as u64).max(1);
        let piece = self.left.min(most);
        self.left -= piece;
        let latency = if self.has_begun { Duration::ZERO } else { world.weather.latency };
        self.has_begun = true;
        Some(world.now + latency + Duration::from_secs_f64(piece as f64 / world.weather.speed as f64))
    }
}

/// Writes what unlinked files hold.
pub(super) struct Spill(Option<Work>);

impl Spill {
    pub(super) fn new() -> Self {
        Spill(None)
    }

    /// `None` once it has ended.
    fn step(&mut self, world: &mut World) -> Option<Block> {
        match &mut self.0 {
            // One at a time.
            None if world.spill_busy => Some(Block::Until(world.now + Duration::from_millis(1))),
            None => {
                world.spill_busy = true;
                world.content.spilling = std::mem::take(&mut world.content.unspilled);
                self.0 = Some(Work::of(world.content.spilling));
                Some(Block::Ready)
            }
            Some(work) => {
                if let Some(until) = work.step(world) {
                    return Some(Block::Until(until));
                }
                world.spill_busy = false;
                let bytes = std::mem::take(&mut world.content.spilling);
                let result = match world.weather.spills_fail {
                    true => Err(failure(libc::EIO)),
                    false => Ok(()),
                };
                if result.is_err() {
                    world.content.unspilled += bytes;
                }
                let (_, wake) = world.ledger.spill_ended(result);
                world.call(wake);
                None
            }
        }
    }
}

/// The committer's thread.
pub(super) enum Committing {
    Idle { due: Instant },
    Crowded { was_due: Instant, since: Option<Instant> },
    Spilling { was_due: Instant, spill: Spill },
    Waiting { attempt: Attempt },
    Storing { attempt: Attempt, batches: Vec<Batch>, work: Work },
}

impl Committing {
    pub(super) fn step(self, world: &mut World) -> (Self, Block) {
        match self {
            Committing::Idle { due } => {
                let commits = world.ledger.commits(world.is_dirty, world.interval, due);
                match commits.next(world.now) {
                    CommitAction::End => (self, Block::Done),
                    CommitAction::WaitUntil(due) => (Committing::Idle { due }, Block::Wanted(due)),
                    CommitAction::Commit => {
                        (Committing::Crowded { was_due: world.now, since: None }, Block::Ready)
                    }
                }
            }
            Committing::Crowded { was_due, since } if world.weather.is_crowded => {
                let since = since.unwrap_or(world.now);
                match world.ledger.crowd(since, world.interval).next(world.now) {
                    CrowdAction::WaitUntil(until) => {
                        (Committing::Crowded { was_due, since: Some(since) }, Block::Ended(Some(until)))
                    }
                    CrowdAction::Commit => Self::begin(world, was_due),
                }
            }
            Committing::Crowded { was_due, .. } => Self::begin(world, was_due),
            Committing::Spilling { was_due, mut spill } => match spill.step(world) {
                Some(block) => (Committing::Spilling { was_due, spill }, block),
                None => Self::cut(world, was_due),
            },
            Committing::Waiting { attempt } => {
                if world.ledger.draining(attempt.last_batch) > 0 {
                    return (Committing::Waiting { attempt }, Block::Ended(None));
                }
                let batches = world.ledger.uncommitted(attempt.last_batch);
                match (batches.is_empty(), world.ledger.must_not_commit().is_some()) {
                    (true, _) => Self::end(world, &attempt, Ok(())),
                    (false, true) => Self::end(world, &attempt, Err(failure(libc::EIO))),
                    (false, false) => {
                        let work = Work::of(world.bytes_of(&batches));
                        (Committing::Storing { attempt, batches, work }, Block::Ready)
                    }
                }
            }
            Committing::Storing { attempt, batches, mut work } => {
                if let Some(until) = work.step_giving_way(world, true) {
                    return (Committing::Storing { attempt, batches, work }, Block::Until(until));
                }
                let (yielded, most) = (work.yielded, patience(world.interval) + SLACK);
                world.must(yielded <= most, || format!("a commit gave way for {yielded:?}, not {most:?}"));
                let bytes = world.bytes_of(&batches);
                let result = world.store(bytes);
                if result.is_ok() {
                    world.content.cut -= bytes;
                    world.ledger.committed(&batches);
                }
                Self::end(world, &attempt, result)
            }
        }
    }

    fn begin(world: &mut World, was_due: Instant) -> (Self, Block) {
        world.due = world.now + world.interval;
        // One that was under way is waited for, and one that failed rests.
        let merges = patience(world.interval).max(Duration::from_millis(500)) + LOOK_AGAIN + SLACK;
        if let Some(change) = world.oldest_change {
            let from = change.max(world.attempt_ended).max(world.retry_at.unwrap_or(change));
            let (late, most) = (world.now.saturating_duration_since(from), world.interval + merges);
            world.must(late <= most, || format!("a commit began {late:?} after a change, not {most:?}"));
        }
        if let Some(asked) = world.requested_at {
            let late = world.now - asked.max(world.attempt_ended);
            let most = Duration::from_millis(500) + LOOK_AGAIN + SLACK;
            world.must(late <= most, || {
                format!("a commit began {late:?} after it was asked for, not {most:?}")
            });
        }
        match world.bounds.must_spill(&world.content) {
            true => (Committing::Spilling { was_due, spill: Spill::new() }, Block::Ready),
            false => Self::cut(world, was_due),
        }
    }

    fn cut(world: &mut World, was_due: Instant) -> (Self, Block) {
        (world.oldest_change, world.requested_at) = (None, None);
        let cut = world.cut();
        let attempt = world.ledger.begin_attempt(cut, was_due, world.interval);
        (Committing::Waiting { attempt }, Block::Ready)
    }

    fn end(world: &mut World, attempt: &Attempt, result: Result<(), StorageError>) -> (Self, Block) {
        let wake = world.ledger.end_attempt(attempt, &result, world.interval, world.now);
        let is_lost = world.fault == Some(Fault::LostWakeUp);
        world.call(if is_lost { Wake { waiters: false, ..wake } } else { wake });
        world.attempt_ended = world.now;
        // By doubling it comes to half a minute.
        world.retry_at = result.is_err().then(|| world.now + Duration::from_secs(30));
        if result.is_err() {
            world.oldest_change.get_or_insert(world.now);
        }
        (Committing::Idle { due: world.due }, Block::Ready)
    }
}

/// A drainer's thread.
pub(super) enum DrainerAt {
    Idle { has_spilled: bool },
    Spilling(Spill),
    Draining { batch: Batch, work: Work },
}

impl DrainerAt {
    pub(super) fn step(self, world: &mut World) -> (Self, Block) {
        match self {
            DrainerAt::Idle { has_spilled } => {
                let fsyncs_come = world.last_fsync.is_recent(world.now);
                let drains = world.ledger.drains(world.content, fsyncs_come);
                match drains.next(&world.bounds, has_spilled) {
                    DrainAction::End => (self, Block::Done),
                    DrainAction::Spill => (DrainerAt::Spilling(Spill::new()), Block::Ready),
                    DrainAction::Drain => {
                        let cut = world.cut();
                        let Some(batch) = world.ledger.enter_cut_to_drain(cut) else {
                            return (DrainerAt::Idle { has_spilled: false }, Block::Ready);
                        };
                        let draining = world.ledger.draining(u64::MAX);
                        world.must(draining <= DRAINERS, || format!("{draining} drains at once"));
                        let work = Work::of(world.bytes_of(std::slice::from_ref(&batch)));
                        (DrainerAt::Draining { batch, work }, Block::Ready)
                    }
                    DrainAction::Wait => (DrainerAt::Idle { has_spilled: false }, Block::DrainWanted),
                }
            }
            DrainerAt::Spilling(mut spill) => match spill.step(world) {
                Some(block) => (DrainerAt::Spilling(spill), block),
                None => (DrainerAt::Idle { has_spilled: true }, Block::Ready),
            },
            DrainerAt::Draining { batch, work } if world.weather.drains_stall => {
                let until = world.now + Duration::from_millis(100);
                (DrainerAt::Draining { batch, work }, Block::Until(until))
            }
            DrainerAt::Draining { batch, mut work } => {
                if let Some(until) = work.step_giving_way(world, false) {
                    return (DrainerAt::Draining { batch, work }, Block::Until(until));
                }
                let bytes = world.bytes_of(std::slice::from_ref(&batch));
                let result = world.store(bytes).map(|()| {
                    world.content.cut -= bytes;
                    (batch.rows().to_vec(), DrainedContent::new(Vec::new(), Vec::new()))
                });
                let wake = world.ledger.drain_ended(&batch, result);
                world.asked_for_commit(wake);
                (DrainerAt::Idle { has_spilled: false }, Block::Ready)
            }
        }
    }
}

/// The journal thread. Who waits for it is answered by what it did.
pub(super) enum Journaling {
    Idle,
    Cutting { answers: Vec<usize> },
    Committing { answers: Vec<usize>, commit: CommitNow },
    Writing { answers: Vec<usize>, batches: Vec<Batch> },
}

impl Journaling {
    /// `queue`: who waits for an fsync; `answered`: whose fsync has ended.
    pub(super) fn step(
        self,
        world: &mut World,
        queue: &mut Vec<usize>,
        answered: &mut Vec<usize>,
    ) -> (Self, Block) {
        match self {
            Journaling::Idle if queue.is_empty() => {
                if world.last_fsync == LastFsync::UnderWay {
                    world.last_fsync = LastFsync::Ended(world.now);
                }
                (Journaling::Idle, Block::Queue)
            }
            Journaling::Idle => {
                world.last_fsync = LastFsync::UnderWay;
                (Journaling::Cutting { answers: std::mem::take(queue) }, Block::Ready)
            }
            Journaling::Cutting { answers } => {
                let is_from = world.is_dirty;
                let cut = world.cut();
                world.ledger.enter_cut(cut);
                world.must(!is_from || !world.ledger.all_durable(), || "a cut was lost".to_owned());
                if world.ledger.all_durable() {
                    return Self::answer(world, answers, answered);
                }
                let batches = world.ledger.unjournaled();
                match world.ledger.to_journal(&batches).durable_by(Effort::Any) {
                    Durable::ByCommit => {
                        (Journaling::Committing { answers, commit: CommitNow::default() }, Block::Ready)
                    }
                    Durable::ByFrame | Durable::TooMuch => {
                        let until = world.now + world.time_for(world.ledger.to_journal(&batches).content);
                        (Journaling::Writing { answers, batches }, Block::Until(until))
                    }
                }
            }
            Journaling::Committing { answers, mut commit } => match commit.step(world) {
                Some(block) => (Journaling::Committing { answers, commit }, block),
                None => Self::answer(world, answers, answered),
            },
            Journaling::Writing { answers, batches } => {
                world.ledger.journaled(&batches);
                Self::answer(world, answers, answered)
            }
        }
    }

    fn answer(world: &mut World, answers: Vec<usize>, answered: &mut Vec<usize>) -> (Self, Block) {
        world.call(Wake::WAITERS);
        answered.extend(answers);
        (Journaling::Idle, Block::Ready)
    }
}
