//! What an fsync costs: 4 KiB appends, each with `fdatasync`, on pond and on ext4 in turn, and how many Delta
//! versions a minute of them makes.
//!
//! `cargo bench -p pond-tests --bench fsync_cost`. `POND_BENCH_SECONDS` sets the length of the second part.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use pond_tests::TestPond;
use pond_tests::measure::{median, ratio};
use pond_tests::scale::scaled;

/// Appends for some time and returns what each took.
fn append(path: &Path, how_long: Duration) -> Vec<Duration> {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("open");
    let block = [3u8; 4096];
    let end = Instant::now() + how_long;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all(&block).expect("write");
        file.sync_data().expect("fdatasync");
        times.push(start.elapsed());
    }
    times
}

fn main() {
    let pond = TestPond::mounted();
    let ext4 = pond.host_directory("ext4");
    let (mut ours, mut host) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        host.extend(append(&ext4.join("file"), Duration::from_millis(500)));
        ours.extend(append(&pond.path("file"), Duration::from_millis(500)));
    }
    let (ours, host) = (median(ours), median(host));
    println!(
        "append of 4 KiB with fdatasync, median: pond {ours:.0?}, ext4 {host:.0?}, ratio {:.2}",
        ratio(ours, host)
    );

    let seconds = scaled("POND_BENCH_SECONDS", 60);
    let before = pond.version();
    let count = append(&pond.path("minute"), Duration::from_secs(seconds)).len();
    println!("{count} of them in {seconds} s made {} versions", pond.version() - before);
}
