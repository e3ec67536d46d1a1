//! What a small commit costs while history grows: from creating a file to the version that holds it.
//!
//! `cargo bench -p pond-tests --bench commit_cost`. `POND_BENCH_COMMITS` sets how many versions are made.
//! The daemon is asked over its control socket, so that starting a program is not measured.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pond_tests::TestPond;
use pond_tests::measure::{median, ratio};
use pond_tests::scale::scaled;

/// Commits whose median is taken.
const WINDOW: usize = 200;

fn main() {
    let commits: usize = scaled("POND_BENCH_COMMITS", 10_200);
    assert!(commits >= 2 * WINDOW, "two windows of {WINDOW} commits are compared");
    let pond = TestPond::mounted();
    let socket = UnixStream::connect(pond.directory().join("socket")).expect("the daemon listens");
    let mut answers = BufReader::new(socket.try_clone().expect("one more descriptor"));
    let mut requests = socket;
    let mut times: Vec<Duration> = Vec::with_capacity(commits);
    let mut answer = String::new();
    for n in 0..commits {
        fs::write(pond.path(format!("file{}", n % 100)), n.to_string()).expect("write");
        let start = Instant::now();
        requests.write_all(b"{\"request\":\"commit\"}\n").expect("ask");
        answer.clear();
        answers.read_line(&mut answer).expect("answer");
        times.push(start.elapsed());
        assert!(answer.starts_with("{\"ok\""), "the daemon answered {answer}");
    }
    let made = pond.version();
    assert!(made as usize >= commits, "{commits} commits made only {made} versions");
    let early = median(times[WINDOW / 2..WINDOW * 3 / 2].to_vec());
    let late = median(times[commits - WINDOW..].to_vec());
    println!(
        "commit, median: {early:.2?} around version {WINDOW}, {late:.2?} around version {made}, ratio {:.2}",
        ratio(late, early)
    );
}
