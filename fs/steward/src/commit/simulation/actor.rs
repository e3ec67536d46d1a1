//! Those who want something, in the simulation: writers, and who asks for fsyncs and commits.

use std::time::{Duration, Instant};

use super::world::{Fault, World};
use crate::commit::ledger::{Ended, Wake, Wanted};
use crate::pacing::backpressure::{Admission, GLANCE, Wait};
use crate::pacing::scheduler::LOOK_AGAIN;

/// What an actor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Nothing: others may come first.
    Ready,
    /// That time.
    Until(Instant),
    /// A call of the committer, or that time.
    Wanted(Instant),
    /// A call of a drainer.
    DrainWanted,
    /// A call of all who wait, or that time.
    Ended(Option<Instant>),
    /// Somebody who wants an fsync.
    Queue,
    /// Its fsync.
    Answer,
    /// It has ended.
    Done,
}

/// `Committer::commit_now`, step by step.
#[derive(Default)]
pub(super) struct CommitNow(Option<u64>);

impl CommitNow {
    /// What it waits for; `None` once it has ended, well or badly.
    pub(super) fn step(&mut self, world: &mut World) -> Option<Block> {
        let attempt = match self.0 {
            Some(attempt) => attempt,
            None => {
                let (wanted, wake) = world.ledger.want_all_committed(world.is_dirty);
                world.asked_for_commit(wake);
                match wanted {
                    Wanted::Nothing => return None,
                    Wanted::TheEnd => return Some(Block::Ended(None)),
                    Wanted::Attempt(attempt) => *self.0.insert(attempt),
                }
            }
        };
        match world.ledger.ended(attempt) {
            Ended::NotYet => Some(Block::Ended(None)),
            Ended::Well | Ended::Badly(_) | Ended::Closed => None,
        }
    }
}

/// Somebody who works with the pond.
pub(super) struct Client {
    /// How often it does what it does.
    pub(super) left: u64,
    kind: Kind,
    at: At,
    /// Since when it has waited.
    pub(super) since: Option<Instant>,
    /// Content that it wrote to an unlinked file.
    unlinked: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Writer { is_unlinked: bool, burst: u64 },
    Fsyncs { pause: Duration },
    Syncs,
}

enum At {
    Thinking,
    /// Asks to be let in.
    Asking {
        bytes: u64,
        has_committed: bool,
    },
    /// Has been told to go on.
    Admitted {
        bytes: u64,
    },
    /// Waits for a commit, where the disk has little room.
    Committing {
        bytes: u64,
        commit: CommitNow,
    },
    /// Waits for something to be stored.
    Storing {
        bytes: u64,
        begun: Result<u64, Wait>,
        drains: u64,
    },
    /// Writes.
    Writing {
        bytes: u64,
    },
    Syncing(CommitNow),
    InQueue,
}

impl Client {
    pub(super) fn any(world: &mut World) -> Self {
        let chance = &mut world.chance;
        let (kind, left) = match chance.below(6) {
            0 => (Kind::Syncs, 1 + chance.below(5)),
            1 => {
                let pause = chance.between(Duration::ZERO, Duration::from_millis(400));
                (Kind::Fsyncs { pause }, 1 + chance.below(40))
            }
            kind => {
                (Kind::Writer { is_unlinked: kind == 2, burst: 1 + chance.below(60) }, 1 + chance.below(300))
            }
        };
        Client { left, kind, at: At::Thinking, since: None, unlinked: 0 }
    }

    /// Whether it waits for an fsync: puts it into the queue.
    pub(super) fn answer(&mut self) {
        self.at = At::Thinking;
    }

    pub(super) fn step(&mut self, world: &mut World, me: usize, queue: &mut Vec<usize>) -> Block {
        match std::mem::replace(&mut self.at, At::Thinking) {
            At::Thinking => {
                self.since = None;
                if self.left == 0 {
                    // It closes its file.
                    world.content.unspilled = world.content.unspilled.saturating_sub(self.unlinked);
                    return Block::Done;
                }
                self.left -= 1;
                self.begin(world, me, queue)
            }
            At::Asking { bytes, has_committed } => self.ask(world, bytes, has_committed),
            At::Admitted { bytes } => self.enter(world, bytes),
            At::Committing { bytes, mut commit } => match commit.step(world) {
                Some(block) => {
                    self.at = At::Committing { bytes, commit };
                    block
                }
                None => {
                    self.at = At::Asking { bytes, has_committed: true };
                    Block::Ready
                }
            },
            At::Storing { bytes, begun, drains } => self.store(world, bytes, begun, drains),
            At::Writing { bytes } => {
                world.admitted -= bytes;
                self.write(world, bytes);
                Block::Ready
            }
            At::Syncing(mut commit) => match commit.step(world) {
                Some(block) => {
                    self.at = At::Syncing(commit);
                    block
                }
                None => {
                    Block::Until(world.now + world.chance.between(Duration::ZERO, Duration::from_secs(2)))
                }
            },
            At::InQueue => {
                self.at = At::InQueue;
                Block::Answer
            }
        }
    }

    fn begin(&mut self, world: &mut World, me: usize, queue: &mut Vec<usize>) -> Block {
        match self.kind {
            Kind::Syncs => {
                self.since = Some(world.now);
                self.at = At::Syncing(CommitNow::default());
                Block::Ready
            }
            Kind::Fsyncs { pause } => {
                world.change(0, false);
                self.at = At::InQueue;
                if !self.left.is_multiple_of(2) {
                    // Then it pauses.
                    self.at = At::Thinking;
                    return Block::Until(world.now + pause);
                }
                self.since = Some(world.now);
                queue.push(me);
                Block::Answer
            }
            Kind::Writer { burst, .. } => {
                let bytes = world.chance.below(world.largest) + 1;
                world.wake_drainers();
                let admission = world.bounds.admit(&world.gauges(), 0, false);
                if let Admission::Now | Admission::Refuse = admission {
                    self.write(world, bytes);
                    return match world.chance.one_in(burst) {
                        true => Block::Until(
                            world.now + world.chance.between(Duration::ZERO, Duration::from_secs(3)),
                        ),
                        false => Block::Until(world.now + Duration::from_micros(200)),
                    };
                }
                self.since = Some(world.now);
                self.at = At::Asking { bytes, has_committed: false };
                Block::Ready
            }
        }
    }

    fn ask(&mut self, world: &mut World, bytes: u64, has_committed: bool) -> Block {
        match world.bounds.admit(&world.gauges(), bytes, has_committed) {
            Admission::Now => {
                self.at = At::Admitted { bytes };
                Block::Ready
            }
            Admission::After(pause) => {
                self.at = At::Admitted { bytes };
                Block::Until(world.now + pause)
            }
            Admission::AfterOthers(_) if world.ledger.is_stopped() => Block::Ready,
            Admission::AfterOthers(longest) => {
                self.at = At::Asking { bytes, has_committed };
                Block::Ended(Some(world.now + longest))
            }
            Admission::UntilCommitted if world.ledger.failure().is_some() => {
                self.at = At::Asking { bytes, has_committed: true };
                Block::Ready
            }
            Admission::UntilCommitted => {
                self.at = At::Committing { bytes, commit: CommitNow::default() };
                Block::Ready
            }
            Admission::UntilStored => {
                world.wake_drainers();
                let begun = world.ledger.storing(world.now).begin(world.read_only);
                self.at = At::Storing { bytes, begun, drains: world.ledger.drains_ended() };
                Block::Ready
            }
            Admission::Refuse => Block::Ready,
        }
    }

    fn store(&mut self, world: &mut World, bytes: u64, begun: Result<u64, Wait>, drains: u64) -> Block {
        if drains != world.ledger.drains_ended() {
            world.call(Wake { drainer: true, ..Wake::NOBODY });
        }
        let next = match begun {
            Ok(commit) => world.ledger.storing(world.now).wait(&world.bounds, &world.content, commit),
            Err(why) => why,
        };
        match next {
            Wait::AskForCommit => {
                let wake = world.ledger.request_commit();
                world.asked_for_commit(wake);
            }
            Wait::On => {}
            Wait::Over => {
                self.at = At::Asking { bytes, has_committed: true };
                return Block::Ready;
            }
            Wait::ReadOnly | Wait::CommitFails | Wait::SpillFails => return Block::Ready,
        }
        self.at = At::Storing { bytes, begun, drains: world.ledger.drains_ended() };
        Block::Ended(Some(world.now + LOOK_AGAIN))
    }

    fn enter(&mut self, world: &mut World, bytes: u64) -> Block {
        let others = world.admitted;
        world.admitted += bytes;
        let counted = if world.fault == Some(Fault::OffByOne) { bytes - 1 } else { bytes };
        if world.bounds.lets_in(&world.content, others, counted) {
            let (taken, full) = (world.content.total(), world.bounds.full());
            let fits = others == 0 || taken + others + bytes <= full;
            world.must(fits, || {
                format!("the budget: {taken} bytes are taken of {full}, others bring {others}, and one with {bytes} was let in")
            });
            self.at = At::Writing { bytes };
            return Block::Until(world.now + world.chance.between(Duration::ZERO, Duration::from_millis(2)));
        }
        world.admitted -= bytes;
        self.at = At::Asking { bytes, has_committed: false };
        Block::Until(world.now + GLANCE)
    }

    fn write(&mut self, world: &mut World, bytes: u64) {
        let is_unlinked = matches!(self.kind, Kind::Writer { is_unlinked: true, .. });
        if world.change(bytes, is_unlinked) && is_unlinked {
            self.unlinked += bytes;
        }
    }
}
