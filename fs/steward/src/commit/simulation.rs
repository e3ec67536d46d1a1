//! A simulation of storing, with a clock of its own: the ledger, `pacing::backpressure` and `pacing::scheduler` as they are, asked
//! by writers in bursts, fsync storms, the committer, the drainers and the journal thread, on disks that are slow, stalled, full or
//! failing. It proves, as far as scenarios can, that nobody waits for ever, that the budget holds, and that a commit is never later
//! than promised.
//!
//! `POND_SIMULATION_SEEDS` is the number of scenarios, 300 unless set; `POND_SIMULATION_SEED` runs one again.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use self::actor::{Block, Client};
use self::storing::{Committing, DrainerAt, Journaling};
use self::world::{Fault, World};
use crate::pacing::backpressure::DRAINERS;

mod actor;
mod storing;
mod world;

/// Bad weather lasts so long; what comes after it is calm.
const STORMS: Duration = Duration::from_secs(60);

/// In the calm nobody waits longer than this: a commit that rests after failures does so for half a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(45);

/// A scenario has some ten thousand steps; one with so many goes round in circles.
const MOST_STEPS: usize = 1_000_000;

/// So many steps of a scenario are told when it fails.
const TOLD: usize = 40;

/// Who does something.
enum Actor {
    Committer(Option<Committing>),
    Drainer(Option<DrainerAt>),
    Journal(Option<Journaling>),
    Client(Client),
    Weather,
}

struct Scenario {
    world: World,
    actors: Vec<(Actor, Block)>,
    queue: Vec<usize>,
    steps: VecDeque<(Instant, usize, Block)>,
}

impl Scenario {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut world = World::new(seed, fault);
        let mut actors = vec![Actor::Committer(Some(Committing::Idle { due: world.due })), Actor::Weather];
        actors.push(Actor::Journal(Some(Journaling::Idle)));
        actors.extend((0..DRAINERS).map(|_| Actor::Drainer(Some(DrainerAt::Idle { has_spilled: false }))));
        for _ in 0..2 + world.chance.below(10) {
            actors.push(Actor::Client(Client::any(&mut world)));
        }
        let actors = actors.into_iter().map(|actor| (actor, Block::Ready)).collect();
        Scenario { world, actors, queue: Vec::new(), steps: VecDeque::new() }
    }

    /// Runs it to its end, or to the first promise that is broken.
    fn run(mut self) -> Result<(), String> {
        let mut taken = 0;
        while let Some(next) = self.next() {
            taken += 1;
            self.world.must(taken < MOST_STEPS, || "it goes round in circles".to_owned());
            let block = self.step(next);
            if self.steps.len() == TOLD {
                self.steps.pop_front();
            }
            self.steps.push_back((self.world.now, next, block));
            self.actors[next].1 = block;
            self.deliver();
            if let Some(promise) = self.world.broken() {
                return Err(self.tell(&promise));
            }
        }
        match self.waits_longer_than(Duration::ZERO) {
            Some(client) => Err(self.tell(&format!("actor {client} waits for ever"))),
            None => Ok(()),
        }
    }

    /// Whose turn it is: one of those who can go on, or else whose time comes first. `None` when all clients have ended, or nobody can go on.
    fn next(&mut self) -> Option<usize> {
        let has_ended =
            |(actor, block): &(Actor, Block)| !matches!(actor, Actor::Client(_)) || *block == Block::Done;
        if self.actors.iter().all(has_ended) {
            return None;
        }
        let time = |block: &Block, now| match *block {
            Block::Ready => Some(now),
            Block::Until(until) | Block::Wanted(until) | Block::Ended(Some(until)) => Some(until),
            Block::DrainWanted | Block::Ended(None) | Block::Queue | Block::Answer | Block::Done => None,
        };
        let now = self.world.now;
        let first = self.actors.iter().filter_map(|(_, block)| time(block, now)).min()?;
        let ready: Vec<usize> = (0..self.actors.len())
            .filter(|&actor| time(&self.actors[actor].1, now).is_some_and(|time| time <= first.max(now)))
            .collect();
        if first > now {
            self.world.now = first;
            if let Some(client) = self.waits_longer_than(LONGEST_WAIT) {
                self.world
                    .must(false, || format!("actor {client} has waited for {LONGEST_WAIT:?} in the calm"));
            }
        }
        Some(ready[self.world.chance.below(ready.len() as u64) as usize])
    }

    fn waits_longer_than(&self, longest: Duration) -> Option<usize> {
        let calm = self.world.began + STORMS;
        let too_long = |since: Instant| {
            self.world.is_calm && self.world.now.saturating_duration_since(since.max(calm)) >= longest
        };
        self.actors.iter().position(|(actor, block)| {
            matches!(actor, Actor::Client(client) if *block != Block::Done && client.since.is_some_and(too_long))
        })
    }

    fn step(&mut self, actor: usize) -> Block {
        let (world, queue) = (&mut self.world, &mut self.queue);
        let mut answered = Vec::new();
        let block = match &mut self.actors[actor].0 {
            Actor::Committer(at) => step(at, |at| at.step(world)),
            Actor::Drainer(at) => step(at, |at| at.step(world)),
            Actor::Journal(at) => step(at, |at| at.step(world, queue, &mut answered)),
            Actor::Client(client) => client.step(world, actor, queue),
            Actor::Weather => {
                if world.now >= world.began + STORMS {
                    world.calm();
                    Block::Done
                } else {
                    world.change_weather();
                    let until =
                        world.now + world.chance.between(Duration::from_millis(50), Duration::from_secs(10));
                    Block::Until(until.min(world.began + STORMS))
                }
            }
        };
        for client in answered {
            if let (Actor::Client(waited), block) = &mut self.actors[client] {
                waited.answer();
                *block = Block::Ready;
            }
        }
        block
    }

    /// Wakes those who were called.
    fn deliver(&mut self) {
        let wake = std::mem::take(&mut self.world.wake);
        let mut drainer = wake.drainer;
        for (_, block) in &mut self.actors {
            let is_called = match block {
                Block::Wanted(_) => wake.committer,
                Block::Ended(_) => wake.waiters,
                Block::DrainWanted => std::mem::take(&mut drainer),
                Block::Queue => !self.queue.is_empty(),
                _ => false,
            };
            if is_called {
                *block = Block::Ready;
            }
        }
    }

    /// What happened, for who has to find out why.
    fn tell(&self, promise: &str) -> String {
        let World { content, admitted, bounds, interval, weather, ledger, now, .. } = &self.world;
        let mut text = format!("{promise}\n");
        for (time, actor, block) in &self.steps {
            let name = match &self.actors[*actor].0 {
                Actor::Committer(_) => "committer",
                Actor::Drainer(_) => "drainer",
                Actor::Journal(_) => "journal",
                Actor::Client(_) => "client",
                Actor::Weather => "weather",
            };
            let until = match block {
                Block::Until(until) | Block::Wanted(until) | Block::Ended(Some(until)) => {
                    format!("{:?}", until.saturating_duration_since(*time))
                }
                _ => String::new(),
            };
            let kind = format!("{block:?}");
            let kind = kind.split('(').next().unwrap_or_default();
            let at = *time - self.world.began;
            writeln!(text, "{at:>14?} {actor:>3} {name:<9} {kind} {until}").unwrap();
        }
        let storing = ledger.storing(*now);
        write!(text, "{content:?} admitted {admitted} {bounds:?} {interval:?}\n{weather:?}\n{storing:?}")
            .unwrap();
        text
    }
}

fn step<T>(at: &mut Option<T>, next: impl FnOnce(T) -> (T, Block)) -> Block {
    let (after, block) = next(at.take().expect("each step leaves a state"));
    *at = Some(after);
    block
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|number| number.parse().ok())
}

#[test]
fn nobody_waits_for_ever_the_budget_holds_and_a_commit_is_never_later_than_promised() {
    let seeds = match number("POND_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("POND_SIMULATION_SEEDS").unwrap_or(300),
    };
    for seed in seeds {
        if let Err(why) = Scenario::new(seed, None).run() {
            panic!("POND_SIMULATION_SEED={seed}: {why}");
        }
    }
}

/// The first promise that a planted fault breaks.
fn found(fault: Fault) -> String {
    let broken = (0..300).find_map(|seed| Scenario::new(seed, Some(fault)).run().err());
    let broken = broken.unwrap_or_else(|| panic!("{fault:?} is not found"));
    broken.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_lost_wake_up_is_found() {
    let promise = found(Fault::LostWakeUp);
    assert!(promise.contains("wait"), "{promise}");
}

#[test]
fn an_off_by_one_in_the_budget_is_found() {
    let promise = found(Fault::OffByOne);
    assert!(promise.starts_with("the budget"), "{promise}");
}

#[test]
fn a_starved_commit_is_found() {
    let promise = found(Fault::StarvedCommit);
    assert!(promise.starts_with("a commit"), "{promise}");
}
