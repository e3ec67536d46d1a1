//! How long a store is waited for: for one request, and until it is given up.

use std::time::Duration;

/// How often and how long a request is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Times after the first.
    pub times: usize,
    /// Rest before the first of them; it doubles, and is stretched by chance by up to as much again.
    pub first: Duration,
    /// Longest rest.
    pub longest: Duration,
}

impl Default for Retries {
    /// Some ten seconds in all: a push or pull that fails is itself repeated by the Steward, with growing rests.
    fn default() -> Self {
        Retries { times: 5, first: Duration::from_millis(100), longest: Duration::from_secs(4) }
    }
}

/// What is said of a request that took too long.
pub(super) fn late(bytes: u64) -> String {
    format!("no answer within {} s", patience(bytes).as_secs())
}

/// How long a request may take: its answer, and its bytes at a rate that any usable line has.
pub(super) fn patience(bytes: u64) -> Duration {
    Duration::from_secs(30 + bytes / (64 << 10))
}
