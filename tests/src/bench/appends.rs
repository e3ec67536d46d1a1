//! What an fsync costs: small appends, each made durable before the next.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Contender, Figure, Group, Row};

const APPENDS: Group = Group { title: "4 KiB appends, each with fdatasync", baseline: "passthrough_ll" };
const ONE: Row = Row { group: &APPENDS, name: "1 writer", unit: "/s" };
const FOUR: Row = Row { group: &APPENDS, name: "4 writers, a file each", unit: "/s" };

/// One writer and then four, each for some time.
pub fn synced(contender: &Contender, how_long: Duration) -> Vec<Figure> {
    [(ONE, 1), (FOUR, 4)].map(|(row, writers)| (row, rate(contender, writers, how_long))).to_vec()
}

/// Appends a second of all writers together.
fn rate(contender: &Contender, writers: u64, how_long: Duration) -> f64 {
    contender.settle();
    let paths: Vec<_> = (0..writers).map(|n| contender.directory().join(format!("appended-{n}"))).collect();
    let start = Instant::now();
    let count: u64 = thread::scope(|scope| {
        let started: Vec<_> = paths.iter().map(|path| scope.spawn(|| append(path, how_long))).collect();
        started.into_iter().map(|writer| writer.join().expect("a writer")).sum()
    });
    let took = start.elapsed();
    paths.iter().for_each(|path| fs::remove_file(path).expect("unlink"));
    count as f64 / took.as_secs_f64()
}

/// How many appends there were.
fn append(path: &Path, how_long: Duration) -> u64 {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("open");
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < how_long {
        file.write_all(&[3; 4096]).expect("write");
        file.sync_data().expect("fdatasync");
        count += 1;
    }
    count
}
