//! Writing: a large file from its beginning to its end with a final fsync, on pond, libfuse's `passthrough_ll` on ext4,
//! and ext4 itself, in turn; and how many bytes random overwrites of 4 KiB cost on the disk for each byte written.
//!
//! `cargo bench -p pond-tests --bench throughput_write`. `POND_BENCH_MIB` sets the size of the file,
//! `POND_BENCH_ROUNDS` the number of rounds, `POND_BENCH_SECONDS` the length of the second part. Lines are
//! `name value unit`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use pond_tests::measure::{figure, median, ratio, written_to_disk};
use pond_tests::passthrough::Passthrough;
use pond_tests::scale::scaled;
use pond_tests::{Random, TestPond};

const MIB: usize = 1 << 20;
/// The file that is overwritten at random.
const OVERWRITTEN: u64 = 16 << 20;
/// Overwrites between two fsyncs.
const BETWEEN: u64 = 32;

/// Two of three blocks of 1 KiB repeat the first, if it shall compress.
fn content(compressible: bool) -> Vec<u8> {
    let mut bytes = Random::new(3).bytes(MIB);
    if compressible {
        for group in bytes.chunks_exact_mut(3 << 10) {
            let (first, rest) = group.split_at_mut(1 << 10);
            rest.chunks_exact_mut(1 << 10).for_each(|block| block.copy_from_slice(first));
        }
    }
    bytes
}

fn write(path: &Path, mib: u64, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    let mut file = File::create(path).expect("create");
    (0..mib).for_each(|_| file.write_all(bytes).expect("write"));
    file.sync_all().expect("fsync");
    start.elapsed()
}

fn main() {
    let pond = TestPond::with_patience(Duration::from_secs(4 * 3600));
    pond.mount();
    let passthrough = Passthrough::mount(&pond.host_directory("passthrough"));
    let ext4 = pond.host_directory("ext4");
    let places = [pond.mountpoint(), passthrough.mountpoint(), &ext4];
    let (mib, rounds) = (scaled("POND_BENCH_MIB", 4096u64), scaled("POND_BENCH_ROUNDS", 3u64));
    for (kind, compressible) in [("incompressible", false), ("compressible", true)] {
        let bytes = content(compressible);
        let mut times: [Vec<Duration>; 3] = Default::default();
        let versions = pond.version();
        // They stay until all are written: pond keeps what it stored, and on some disks (thin images, SSDs) blocks that were
        // written before take a third of the time.
        let name = |round: u64| format!("file-{round}");
        for round in 0..rounds {
            for (place, times) in places.iter().zip(&mut times) {
                times.push(write(&place.join(name(round)), mib, &bytes));
            }
        }
        for round in 0..rounds {
            places.iter().for_each(|place| fs::remove_file(place.join(name(round))).expect("it was written"));
        }
        let versions = pond.version() - versions;
        let spent: Duration = times[0].iter().sum();
        let [ours, passed, host] = times.map(median);
        for (name, took) in [("pond", ours), ("passthrough", passed), ("ext4", host)] {
            figure(&format!("write_{kind}_{name}"), mib as f64 / took.as_secs_f64(), "MiB/s");
        }
        figure(&format!("write_{kind}_pond_to_passthrough"), ratio(passed, ours), "x");
        figure(&format!("write_{kind}_versions"), versions as f64 / spent.as_secs_f64(), "1/s");
    }

    let path = pond.path("overwritten");
    let mut random = Random::new(9);
    fs::write(&path, random.bytes(OVERWRITTEN as usize)).expect("write");
    pond.sync();
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    let end = Instant::now() + Duration::from_secs(scaled("POND_BENCH_SECONDS", 10));
    let before = written_to_disk(pond.daemon());
    let mut count = 0;
    while Instant::now() < end {
        let offset = random.below(OVERWRITTEN / 4096) * 4096;
        file.write_all_at(&random.bytes(4096), offset).expect("write");
        count += 1;
        if count % BETWEEN == 0 {
            file.sync_data().expect("fdatasync");
        }
    }
    pond.sync();
    let on_disk = written_to_disk(pond.daemon()) - before;
    figure("overwrite_4k_rate", count as f64 / scaled("POND_BENCH_SECONDS", 10) as f64, "1/s");
    figure("overwrite_4k_amplification", on_disk as f64 / (count * 4096) as f64, "x");
}
