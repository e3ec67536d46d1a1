//! What an fsync costs: 4 KiB appends, each with `fdatasync`, by one writer and by four, and `pgbench`, on pond,
//! libfuse's `passthrough_ll` on ext4, and ext4 itself, in turn; and how many Delta versions they make meanwhile.
//!
//! `cargo bench -p pond-tests --bench fsync_cost`. `POND_BENCH_ROUNDS` sets the number of rounds, `POND_BENCH_SECONDS`
//! the length of the run that counts versions, `POND_PGBENCH_SCALE` and `POND_PGBENCH_SECONDS` the size of pgbench
//! (0 seconds leave it out). Lines are `name value unit`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pond_tests::TestPond;
use pond_tests::measure::{figure, median, middle};
use pond_tests::passthrough::Passthrough;
use pond_tests::postgres::Postgres;
use pond_tests::scale::scaled;

const PLACES: [&str; 3] = ["pond", "passthrough", "ext4"];

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

/// The same by several writers, each to a file of its own.
fn append_all(directory: &Path, writers: usize, how_long: Duration) -> Vec<Duration> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|n| scope.spawn(move || append(&directory.join(format!("file-{n}")), how_long)))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a writer")).collect()
    })
}

/// Transactions a second, as pgbench tells.
fn pgbench(postgres: &Postgres<'_>, seconds: u64) -> f64 {
    let told = postgres.run("pgbench", &["--client=4", "--time", &seconds.to_string()]);
    let tps = told.lines().find_map(|line| line.strip_prefix("tps = ")).expect("pgbench tells");
    tps.split(' ').next().and_then(|tps| tps.parse().ok()).expect("a number")
}

fn ratios(name: &str, [ours, passed, host]: [f64; 3], unit: &str) {
    for (place, value) in PLACES.iter().zip([ours, passed, host]) {
        figure(&format!("{name}_{place}"), value, unit);
    }
    figure(&format!("{name}_pond_to_passthrough"), ours / passed, "x");
}

fn main() {
    let pond = TestPond::with_patience(Duration::from_secs(4 * 3600));
    pond.mount();
    let passthrough = Passthrough::mount(&pond.host_directory("passthrough"));
    let ext4 = pond.host_directory("ext4");
    let places = [pond.mountpoint(), passthrough.mountpoint(), &ext4];
    let rounds = scaled("POND_BENCH_ROUNDS", 10u64);
    for writers in [1, 4] {
        let (mut rates, mut latencies): ([Vec<f64>; 3], [Vec<Duration>; 3]) = Default::default();
        for _ in 0..rounds {
            for (i, place) in places.iter().enumerate() {
                let times = append_all(place, writers, Duration::from_secs(1));
                rates[i].push(times.len() as f64);
                latencies[i].extend(times);
            }
        }
        ratios(&format!("fsync_{writers}_writers"), rates.map(middle), "1/s");
        let micros = |latencies| median(latencies).as_secs_f64() * 1e6;
        ratios(&format!("fsync_{writers}_writers_latency"), latencies.map(micros), "us");
    }

    let seconds = scaled("POND_BENCH_SECONDS", 20);
    let before = pond.version();
    append(&pond.path("minute"), Duration::from_secs(seconds));
    figure("fsync_versions", (pond.version() - before) as f64 / seconds as f64, "1/s");

    let seconds = scaled("POND_PGBENCH_SECONDS", 10u64);
    if seconds > 0 {
        let scale = scaled("POND_PGBENCH_SCALE", 5u64).to_string();
        // The server is not root, and what it makes must be its own.
        let for_postgres = Passthrough::mount_as(&pond.host_directory("for-postgres"), "postgres");
        let places = [pond.mountpoint(), for_postgres.mountpoint(), &ext4];
        let servers: Vec<Postgres<'_>> = places
            .iter()
            .zip(PLACES)
            .map(|(place, name)| {
                let data: PathBuf = place.join("postgres");
                let server = Postgres::at(&pond, data, pond.host_directory(&format!("socket-{name}")));
                server.run("initdb", &["--data-checksums", "--auth=trust", "--no-instructions"]);
                server.start();
                server.run("pgbench", &["--initialize", "--quiet", "--scale", &scale]);
                server.stop();
                server
            })
            .collect();
        let mut rates: [Vec<f64>; 3] = Default::default();
        let mut versions = 0;
        for _ in 0..rounds.div_ceil(3) {
            for (i, (server, rates)) in servers.iter().zip(&mut rates).enumerate() {
                server.start();
                let before = pond.version();
                rates.push(pgbench(server, seconds));
                // The first server's data is the pond's.
                if i == 0 {
                    versions += pond.version() - before;
                }
                server.stop();
            }
        }
        ratios("pgbench_4_clients", rates.map(middle), "1/s");
        figure("pgbench_versions", versions as f64 / (rounds.div_ceil(3) * seconds) as f64, "1/s");
    }
}
