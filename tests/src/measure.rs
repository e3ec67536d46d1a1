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

/// The middle one of numbers; of an even number of them the upper middle.
pub fn middle(mut figures: Vec<f64>) -> f64 {
    assert!(!figures.is_empty(), "a middle of nothing");
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Prints a figure as a line of `name value unit`, for people and programs alike.
pub fn figure(name: &str, value: f64, unit: &str) {
    println!("{name:45} {value:12.2} {unit}");
}

/// Bytes that a process has had written to disks.
pub fn written_to_disk(pid: i32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("the process runs, and we are root");
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("the kernel counts");
    line.parse().expect("a number")
}

/// The resident memory of a process, bytes.
pub fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the kernel shows VmRSS");
    let kib: u64 =
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("VmRSS is a number");
    kib * 1024
}

/// The processor time that a process has needed so far, its own and the kernel's for it.
pub fn processor_time(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name, in parentheses, may hold anything.
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    // `utime` and `stime` are the fields 14 and 15 of proc(5), and the first after the name is the third.
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    // SAFETY: takes a number and gives one.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / a_second as f64)
}
