//! What shipping a pond and bringing it back costs, beside the programs that people use for it, on the same files in
//! one run: push against `tar | zstd -3 -T0`, init against `zstd -d | tar x` and `sync`, both against restic.
//!
//! `cargo bench -p pond-tests --bench replication`. `POND_BENCH_TREE` is what is copied (default: /usr, as far as
//! `POND_BENCH_MIB`, default 2048, goes); `POND_BENCH_ROUNDS` (default 3) sets of runs, interleaved, give the medians.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use pond_tests::TestPond;
use pond_tests::bench::HOURS;
use pond_tests::bench::backup::{LEVEL, Times, prepare, run_all};
use pond_tests::measure::{median, ratio};
use pond_tests::scale::scaled;

fn main() {
    let pond = TestPond::with_patience(HOURS);
    let base = pond.host_directory("bench");
    let tree = PathBuf::from(env::var_os("POND_BENCH_TREE").unwrap_or_else(|| "/usr".into()));
    let bytes = prepare(&base, &tree, scaled("POND_BENCH_MIB", 2048_u64));
    println!("{:.0} MiB of files from {}", bytes as f64 / 1048576.0, tree.display());

    let rounds: Vec<Times> = (0..scaled("POND_BENCH_ROUNDS", 3)).map(|round| run_all(&base, round)).collect();
    let middle = |of: fn(&Times) -> Duration| median(rounds.iter().map(of).collect());
    let (push, tar) = (middle(|times| times.push), middle(|times| times.tar));
    let (init, untar) = (middle(|times| times.init), middle(|times| times.untar));
    let (backup, restore) = (middle(|times| times.backup), middle(|times| times.restore));
    println!("push {push:.2?}, tar | zstd {LEVEL} -T0 {tar:.2?}: {:.2} of its throughput", ratio(tar, push));
    println!(
        "init {init:.2?}, zstd -d | tar x and sync {untar:.2?}: {:.2} of its throughput",
        ratio(untar, init)
    );
    println!(
        "push and init {:.2?}, restic backup {backup:.2?} and restore {restore:.2?}: {:.2} times as fast",
        push + init,
        ratio(backup + restore, push + init)
    );
}
