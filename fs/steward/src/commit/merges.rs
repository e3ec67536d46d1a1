//! What the committer and the thread that merges know of each other: when there may be something to merge, and when commits wait
//! because merging is behind.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pond_oplog::TxnSeq;

/// With so many small files live commits wait for a merge.
pub(crate) const CROWDED: usize = 192;

/// Where merging stands.
#[derive(Default)]
pub(crate) struct Merges {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rung: bool,
    /// Whether somebody merges: only then is it worth waiting.
    at_work: bool,
    since: TxnSeq,
}

impl Merges {
    /// There may be something to merge.
    pub(crate) fn ring(&self) {
        self.state.lock().rung = true;
        self.changed.notify_one();
    }

    /// Waits for a ring.
    pub(crate) fn wait(&self, most: Duration) {
        let mut state = self.state.lock();
        if !state.rung {
            self.changed.wait_for(&mut state, most);
        }
        state.rung = false;
    }

    /// Waits until the time is over, whoever rings, or `ended` says so after a ring.
    pub(crate) fn rest(&self, pause: Duration, ended: &dyn Fn() -> bool) {
        let until = Instant::now() + pause;
        let mut state = self.state.lock();
        while !ended() && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    /// Whether somebody merges from now on.
    pub(crate) fn set_at_work(&self, at_work: bool) {
        self.state.lock().at_work = at_work;
    }

    /// Only files that this transaction or later ones made are merged for now.
    pub(crate) fn set_since(&self, since: TxnSeq) {
        self.state.lock().since = since;
    }

    /// That transaction.
    pub(crate) fn since(&self) -> TxnSeq {
        self.state.lock().since
    }

    /// The same where somebody merges, so that waiting for it ends.
    pub(crate) fn at_work(&self) -> Option<TxnSeq> {
        let state = self.state.lock();
        state.at_work.then_some(state.since)
    }
}
