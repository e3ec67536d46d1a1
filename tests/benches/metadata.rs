//! Metadata operations on 10,000 files: pond, libfuse's `passthrough_ll` on ext4, and ext4 itself, in turn.
//!
//! `cargo bench -p pond-tests --bench metadata`. Server and client run on CPU 0, rounds are interleaved, the table
//! shows medians in thousands of operations a second. `POND_BENCH_ROUNDS` sets the number of rounds.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pond_tests::TestPond;
use pond_tests::measure::{median, ratio};
use pond_tests::passthrough::Passthrough;
use pond_tests::scale::scaled;

const FILES: usize = 10_000;
const PHASES: [&str; 7] = ["create", "write 4 KiB", "stat", "readdir", "open+read", "rename", "unlink"];

/// One round of all phases in a new directory.
fn round(directory: &Path) -> [Duration; 7] {
    let base = directory.join("bench");
    fs::create_dir(&base).expect("the directory is new");
    let paths = |prefix: &str| (0..FILES).map(|n| base.join(format!("{prefix}{n}"))).collect::<Vec<_>>();
    let (old, new) = (paths("file"), paths("renamed"));
    let block = [7u8; 4096];
    let mut read = [0u8; 4096];
    let phase = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let times = [
        phase(&mut || old.iter().for_each(|path| drop(File::create(path).expect("create")))),
        phase(&mut || {
            for path in &old {
                let file = OpenOptions::new().write(true).open(path).expect("open");
                file.write_all_at(&block, 0).expect("write");
            }
        }),
        phase(&mut || {
            for path in &old {
                black_box(fs::metadata(path).expect("stat"));
            }
        }),
        phase(&mut || assert_eq!(fs::read_dir(&base).expect("readdir").count(), FILES)),
        phase(&mut || {
            old.iter().for_each(|path| File::open(path).expect("open").read_exact(&mut read).expect("read"));
        }),
        phase(&mut || old.iter().zip(&new).for_each(|(old, new)| fs::rename(old, new).expect("rename"))),
        phase(&mut || new.iter().for_each(|path| fs::remove_file(path).expect("unlink"))),
    ];
    fs::remove_dir(&base).expect("rmdir");
    times
}

/// This process, and whatever it starts, on CPU 0 from now on.
fn pin() {
    // SAFETY: an all-zero set is an empty one, and the pointer is to a live value of the size given.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    assert_eq!(pinned, 0, "cannot pin to CPU 0: {}", std::io::Error::last_os_error());
}

fn main() {
    // Built before it is pinned: compiling wants all CPUs.
    pond_tests::binary::pond_binary();
    pin();
    let pond = TestPond::mounted();
    let passthrough = Passthrough::mount(&pond.host_directory("passthrough"));
    let ext4 = pond.host_directory("ext4");
    let places = [pond.mountpoint(), passthrough.mountpoint(), &ext4];
    let mut times: [[Vec<Duration>; 7]; 3] = Default::default();
    for _ in 0..scaled("POND_BENCH_ROUNDS", 7) {
        for (place, times) in places.iter().zip(&mut times) {
            for (time, all) in round(place).into_iter().zip(times.iter_mut()) {
                all.push(time);
            }
        }
    }
    let [ours, passed, host] = times.map(|phases| phases.map(median));
    println!(
        "{:12} {:>9} {:>15} {:>9} {:>20}",
        "1,000/s", "pond", "passthrough_ll", "ext4", "pond/passthrough_ll"
    );
    for (i, phase) in PHASES.iter().enumerate() {
        let rate = |time: Duration| FILES as f64 / time.as_secs_f64() / 1000.0;
        println!(
            "{phase:12} {:9.1} {:15.1} {:9.1} {:20.2}",
            rate(ours[i]),
            rate(passed[i]),
            rate(host[i]),
            ratio(passed[i], ours[i])
        );
    }
}
