//! What a small commit costs while history grows: from creating a file to the version that holds it.
//!
//! `cargo bench -p pond-tests --bench commit_cost`. `POND_BENCH_COMMITS` sets how long the long history is.
//! A pond with a short history and one with a long one commit in turn, so that whatever else the machine does
//! troubles both alike. The daemons are asked over their control sockets, so that starting a program is not measured.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use pond_tests::TestPond;
use pond_tests::measure::{median, ratio};
use pond_tests::scale::scaled;

/// Versions of the short history.
const SHORT: usize = 100;
/// Commits whose median is taken, of each.
const WINDOW: usize = 400;

struct Committer {
    pond: TestPond,
    requests: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Committer {
    fn new() -> Self {
        let pond = TestPond::mounted();
        let requests = UnixStream::connect(pond.directory().join("socket")).expect("the daemon listens");
        let answers = BufReader::new(requests.try_clone().expect("one more descriptor"));
        Committer { pond, requests, answers }
    }

    fn commit(&mut self, n: usize) -> Duration {
        fs::write(self.pond.path(format!("file{}", n % 100)), n.to_string()).expect("write");
        let start = Instant::now();
        self.requests.write_all(b"{\"request\":\"commit\"}\n").expect("ask");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("answer");
        let took = start.elapsed();
        assert!(answer.starts_with("{\"ok\""), "the daemon answered {answer}");
        took
    }

    /// A pond with at least that many versions.
    fn with_versions(versions: usize) -> Self {
        let mut committer = Committer::new();
        for n in 0..versions {
            committer.commit(n);
        }
        let made = committer.pond.version();
        assert!(made as usize >= versions, "{versions} commits made only {made} versions");
        committer
    }
}

fn main() {
    let long = scaled("POND_BENCH_COMMITS", 10_000);
    let mut short = Committer::with_versions(SHORT);
    let mut long = Committer::with_versions(long);
    let (from_short, from_long) = (short.pond.version(), long.pond.version());
    let (mut early, mut late) = (Vec::with_capacity(WINDOW), Vec::with_capacity(WINDOW));
    for n in 0..WINDOW {
        early.push(short.commit(n));
        late.push(long.commit(n));
    }
    let (early, late) = (median(early), median(late));
    println!(
        "commit, median of {WINDOW} in turn: {early:.2?} from version {from_short}, {late:.2?} from version {from_long}, \
         ratio {:.2}",
        ratio(late, early)
    );
}
