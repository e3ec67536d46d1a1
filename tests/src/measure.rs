//! Figures of the benchmarks.

use std::time::Duration;

/// The middle one; of an even number the upper middle.
pub fn median(mut figures: Vec<Duration>) -> Duration {
    assert!(!figures.is_empty(), "a median of nothing");
    figures.sort_unstable();
    figures[figures.len() / 2]
}

/// `a` as a multiple of `b`.
pub fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

/// The resident memory of a process, bytes.
pub fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel shows VmRSS");
    let kib: u64 =
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("VmRSS is a number");
    kib * 1024
}
