//! Reading large files: pond, libfuse's `passthrough_ll` on ext4, and ext4 itself, in turn.
//!
//! `cargo bench -p pond-tests --bench throughput_read`. Two files, one whose content compresses to about a third and
//! one that does not compress, are read whole (cold, warm, by four readers of a quarter each) and in single blocks
//! of 4 KiB (cold). Cold is after a remount, with the kernel's caches dropped. Rounds are interleaved; the table
//! shows medians. `POND_BENCH_MIB` sets the size of each file, `POND_BENCH_ROUNDS` the number of rounds,
//! `POND_BENCH_READS` the single blocks that each reader reads.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pond_tests::command::succeed;
use pond_tests::measure::{median, ratio, resident};
use pond_tests::passthrough::Passthrough;
use pond_tests::scale::scaled;
use pond_tests::{Random, TestPond};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;
const PHASES: [&str; 5] = ["cold", "warm", "cold, 4 readers", "4 KiB, cold", "4 KiB, cold, 4 readers"];

/// Writes `mib` MiB; of every three blocks of 1 KiB two repeat the first word for word if it shall compress.
fn write(path: &Path, mib: usize, compressible: bool) {
    let mut file = File::create(path).expect("the directory is ours");
    let mut random = Random::new(1);
    for _ in 0..mib {
        let mut bytes: Vec<u8> = (0..MIB / 8).flat_map(|_| random.number().to_le_bytes()).collect();
        if compressible {
            for group in bytes.chunks_exact_mut(3 << 10) {
                let (first, rest) = group.split_at_mut(1 << 10);
                rest.chunks_exact_mut(1 << 10).for_each(|block| block.copy_from_slice(first));
            }
        }
        file.write_all(&bytes).expect("write");
    }
    file.sync_all().expect("fsync");
}

/// Runs `read` with `readers` numbers at once, and says how long all of them took.
fn timed(readers: u64, read: impl Fn(u64) + Sync) -> Duration {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for reader in 0..readers {
            let read = &read;
            scope.spawn(move || read(reader));
        }
    });
    start.elapsed()
}

/// Each of `readers` reads a part of the file from its beginning to its end.
fn sequential(path: &Path, readers: u64) -> Duration {
    let length = fs::metadata(path).expect("it was written").len() / readers;
    timed(readers, |reader| {
        let file = File::open(path).expect("open");
        let mut buffer = vec![0; MIB];
        let mut position = reader * length;
        while position < (reader + 1) * length {
            let read = file.read_at(&mut buffer, position).expect("read");
            assert_ne!(read, 0, "{} ends at {position}", path.display());
            black_box(&buffer);
            position += read as u64;
        }
    })
}

/// Each of `readers` reads `count` blocks anywhere in the file.
fn random(path: &Path, readers: u64, count: u64, seed: u64) -> Duration {
    let blocks = fs::metadata(path).expect("it was written").len() / BLOCK as u64;
    timed(readers, |reader| {
        let file = File::open(path).expect("open");
        let mut buffer = [0; BLOCK];
        let mut random = Random::new(seed << 8 | reader);
        for _ in 0..count {
            file.read_exact_at(&mut buffer, random.below(blocks) * BLOCK as u64).expect("read");
            black_box(&buffer);
        }
    })
}

fn drop_caches() {
    succeed(Command::new("sync").arg("-f").arg("."));
    fs::write("/proc/sys/vm/drop_caches", "3").expect("we are root");
}

fn main() {
    let pond = TestPond::with_patience(Duration::from_secs(4 * 3600));
    pond.mount();
    let passthrough = Passthrough::mount(&pond.host_directory("passthrough"));
    let (mib, rounds) = (scaled("POND_BENCH_MIB", 4096usize), scaled("POND_BENCH_ROUNDS", 3u64));
    let reads = scaled("POND_BENCH_READS", 2000u64);
    let places = [pond.mountpoint(), passthrough.mountpoint(), passthrough.backing()];
    println!("{:22} {:>9} {:>15} {:>9} {:>20}", "", "pond", "passthrough_ll", "ext4", "pond/passthrough_ll");
    for (name, compressible) in [("compressible", true), ("incompressible", false)] {
        write(&passthrough.backing().join(name), mib, compressible);
        write(&pond.path(name), mib, compressible);
        pond.sync();
        let mut times: [[Vec<Duration>; 3]; 5] = Default::default();
        let mut memory = 0;
        for round in 0..rounds {
            for (i, place) in places.iter().enumerate() {
                let path = place.join(name);
                let cold = || {
                    if i == 0 {
                        pond.remount();
                    }
                    drop_caches();
                };
                cold();
                times[0][i].push(sequential(&path, 1));
                times[1][i].push(sequential(&path, 1));
                cold();
                times[2][i].push(sequential(&path, 4));
                cold();
                times[3][i].push(random(&path, 1, reads, round));
                cold();
                times[4][i].push(random(&path, 4, reads, round));
                if i == 0 {
                    memory = memory.max(resident(pond.daemon()));
                }
            }
        }
        println!("{name} (MiB/s; reads/s), daemon's memory {} MiB", memory >> 20);
        for (phase, times) in PHASES.iter().zip(times) {
            let amount = match *phase {
                "4 KiB, cold" => reads as f64,
                "4 KiB, cold, 4 readers" => (4 * reads) as f64,
                _ => mib as f64,
            };
            let [ours, passed, host] = times.map(median);
            let rate = |time: Duration| amount / time.as_secs_f64();
            println!(
                "  {phase:22} {:7.0} {:15.0} {:9.0} {:20.2}",
                rate(ours),
                rate(passed),
                rate(host),
                ratio(passed, ours)
            );
        }
        for place in [pond.mountpoint(), passthrough.backing()] {
            fs::remove_file(place.join(name)).expect("it was written");
        }
    }
}
