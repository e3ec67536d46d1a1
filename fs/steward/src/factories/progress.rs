//! How far commits and post-commit work have got: what the committer tells and the post-commit thread waits for.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use parking_lot::{Condvar, Mutex};
use pond_oplog::{CommitInfo, Origin, Position, Timeline, TxnSeq, Version, history};
use pond_tinyfs::NodeId;

use crate::commit::committer::FACTORY_ORIGIN;

/// So many commits are kept in memory, so that post-commit work need not read the log.
const RECENT: usize = 256;

/// Time until a failed run is repeated; it doubles with each failure, up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest time between two attempts of a run that keeps failing.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// How far things have got.
pub(crate) struct Progress {
    state: Mutex<State>,
    /// Wakes the post-commit thread.
    wanted: Condvar,
    /// Wakes those who wait for the post-commit thread.
    handled: Condvar,
}

struct State {
    tip: Tip,
    /// The newest commits, oldest first.
    recent: VecDeque<CommitInfo>,
    nodes: BTreeMap<NodeId, Work>,
    /// The tip that the last pass began with.
    passed: Option<Version>,
    /// Passes asked for, and the last one that was answered.
    asked: u64,
    answered: u64,
    stop: bool,
    ended: bool,
}

/// Where history stands for post-commit work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tip {
    /// The newest version.
    pub(crate) version: Version,
    /// Its transaction.
    pub(crate) txn_seq: TxnSeq,
    /// The newest version that holds more than what factories wrote.
    pub(crate) others: Version,
    /// The timeline of the newest version.
    pub(crate) timeline: Timeline,
}

impl Tip {
    fn at(position: &Position, others: Version) -> Self {
        let Position { version, txn_seq, timeline, .. } = *position;
        Tip { version, txn_seq, others, timeline }
    }
}

/// The newest version up to `tip` that holds more than what factories wrote.
pub(crate) fn newest_by_others(pond: &Path, tip: Version) -> Version {
    let maintenance = Origin::maintenance().kind;
    match history(pond, Some(64)) {
        Ok(commits) => commits
            .iter()
            .map(|commit| (commit.position.version, &commit.origin.kind))
            .find(|(version, kind)| *version <= tip && *kind != FACTORY_ORIGIN && **kind != maintenance)
            .map_or(tip, |(version, _)| version),
        Err(error) => {
            // A writing factory then runs once more than needed.
            tracing::warn!(%error, "could not tell which commits are factories' own");
            tip
        }
    }
}

/// How a node's work stands.
#[derive(Clone, Default, Debug)]
pub(crate) struct Work {
    /// The version up to which it is done.
    pub(crate) watermark: Option<Version>,
    /// Runs that failed in a row.
    pub(crate) failures: u32,
    /// Before this it is not tried again, unless somebody asks.
    pub(crate) retry_at: Option<Instant>,
    /// What the last run said.
    pub(crate) message: Option<String>,
    /// Since when it runs; `None` if it does not.
    pub(crate) running: Option<Instant>,
}

impl Work {
    /// The versions still to be handled.
    pub(crate) fn owed(&self, goal: Version) -> Option<RangeInclusive<Version>> {
        let first = self.watermark.map_or(Version(0), Version::next);
        (first <= goal).then_some(first..=goal)
    }
}

/// A pass of the post-commit thread.
pub(crate) struct Pass {
    /// Whether somebody waits for it: then failed runs are repeated before their time.
    pub(crate) asked_for: bool,
    /// Whether that is somebody who syncs, and not the end of all.
    pub(crate) syncs: bool,
    number: u64,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(position: &Position, others: Version) -> Self {
        let tip = Tip::at(position, others);
        Progress {
            state: Mutex::new(State {
                tip,
                recent: VecDeque::new(),
                nodes: BTreeMap::new(),
                passed: None,
                asked: 0,
                answered: 0,
                stop: false,
                ended: false,
            }),
            wanted: Condvar::new(),
            handled: Condvar::new(),
        }
    }

    /// A commit has landed.
    pub(crate) fn landed(&self, commit: &CommitInfo, by_factories: bool) {
        let mut state = self.state.lock();
        let others = if by_factories { state.tip.others } else { commit.position.version };
        state.tip = Tip::at(&commit.position, others);
        if state.recent.len() == RECENT {
            state.recent.pop_front();
        }
        state.recent.push_back(commit.clone());
        drop(state);
        self.wanted.notify_one();
    }

    /// Versions that were made elsewhere have come in.
    pub(crate) fn advanced(&self, position: &Position) {
        let mut state = self.state.lock();
        state.tip = Tip::at(position, position.version);
        // Whoever needs them reads them from the log.
        state.recent.clear();
        drop(state);
        self.wanted.notify_one();
    }

    pub(crate) fn tip(&self) -> Tip {
        self.state.lock().tip
    }

    /// These commits, if all are in memory.
    pub(crate) fn recent(&self, versions: &RangeInclusive<Version>) -> Option<Vec<CommitInfo>> {
        let state = self.state.lock();
        let first = state.recent.front()?.position.version;
        let last = state.recent.back()?.position.version;
        if *versions.start() < first || last < *versions.end() {
            return None;
        }
        let wanted = state.recent.iter().filter(|commit| versions.contains(&commit.position.version));
        Some(wanted.cloned().collect())
    }

    /// How a node's work stands; `watermark` says how far it was when the pond was opened.
    pub(crate) fn work(&self, node: NodeId, watermark: impl FnOnce() -> Option<Version>) -> Work {
        let mut state = self.state.lock();
        let new = || Work { watermark: watermark(), ..Work::default() };
        state.nodes.entry(node).or_insert_with(new).clone()
    }

    /// A node's run begins.
    pub(crate) fn started(&self, node: NodeId) {
        self.state.lock().nodes.entry(node).or_default().running = Some(Instant::now());
    }

    /// A node's work is done up to a version; `None` if the run was about something else.
    pub(crate) fn succeeded(&self, node: NodeId, watermark: Option<Version>, message: &str) {
        let mut state = self.state.lock();
        let work = state.nodes.entry(node).or_default();
        work.watermark = work.watermark.max(watermark);
        work.failures = 0;
        work.retry_at = None;
        work.running = None;
        work.message = Some(message.to_owned());
    }

    /// A node's run has failed.
    pub(crate) fn failed(&self, node: NodeId, message: &str) {
        let mut state = self.state.lock();
        let work = state.nodes.entry(node).or_default();
        work.failures += 1;
        work.running = None;
        work.retry_at = Some(Instant::now() + pause_after(work.failures));
        work.message = Some(message.to_owned());
    }

    /// Waits until a pass is due: there is a new version, a failed run is to be repeated, or somebody asks. `None` when
    /// the thread is to end.
    pub(crate) fn next_pass(&self) -> Option<Pass> {
        let mut state = self.state.lock();
        loop {
            let asked_for = state.answered < state.asked;
            if state.stop && !asked_for {
                state.ended = true;
                self.handled.notify_all();
                return None;
            }
            let started = Instant::now();
            let retry_at = state.nodes.values().filter_map(|work| work.retry_at).min();
            let retry = retry_at.is_some_and(|retry_at| retry_at <= started);
            if asked_for || retry || state.passed != Some(state.tip.version) {
                state.passed = Some(state.tip.version);
                let syncs = asked_for && !state.stop;
                return Some(Pass { asked_for, syncs, number: state.asked, started });
            }
            match retry_at {
                Some(retry_at) => {
                    self.wanted.wait_until(&mut state, retry_at);
                }
                None => self.wanted.wait(&mut state),
            }
        }
    }

    /// A pass is over that looked at these nodes.
    pub(crate) fn passed(&self, pass: &Pass, nodes: &[NodeId]) {
        let mut state = self.state.lock();
        state.answered = pass.number;
        for (node, work) in &mut state.nodes {
            // Its time had come and it was not run: it is gone, or no longer due.
            if !nodes.contains(node) || work.retry_at.is_some_and(|retry_at| retry_at <= pass.started) {
                work.retry_at = None;
            }
        }
        drop(state);
        self.handled.notify_all();
    }

    /// Makes a pass due, because settings have changed.
    pub(crate) fn look_again(&self) {
        self.state.lock().passed = None;
        self.wanted.notify_one();
    }

    /// Waits until post-commit work for all versions so far was tried.
    pub(crate) fn handle_now(&self) {
        let mut state = self.state.lock();
        state.asked += 1;
        let asked = state.asked;
        self.wanted.notify_one();
        while state.answered < asked && !state.ended {
            self.handled.wait(&mut state);
        }
    }

    /// One last pass, then the end of the thread. False if that took longer than `grace`.
    pub(crate) fn finish(&self, grace: Duration) -> bool {
        let mut state = self.state.lock();
        state.asked += u64::from(!state.stop);
        state.stop = true;
        self.wanted.notify_one();
        let deadline = Instant::now() + grace;
        while !state.ended {
            if self.handled.wait_until(&mut state, deadline).timed_out() {
                return state.ended;
            }
        }
        true
    }
}

/// How long a run that has failed so many times in a row is not repeated.
fn pause_after(failures: u32) -> Duration {
    let pauses = ExponentialBuilder::new().with_min_delay(FIRST_RETRY).with_max_delay(LONGEST_RETRY);
    let before = failures.saturating_sub(1) as usize;
    pauses.without_max_times().build().nth(before).unwrap_or(LONGEST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_keeps_failing_is_repeated_after_pauses_that_double_up_to_five_minutes() {
        let seconds: Vec<u64> = (1..12).map(|failures| pause_after(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(pause_after(100_000), LONGEST_RETRY);
    }
}
