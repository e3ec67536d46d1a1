//! Waiting for something to become true, with a bound.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Looks again and again until `ready` gives something; panics with `what` after `limit`.
#[track_caller]
pub fn wait_until<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}
