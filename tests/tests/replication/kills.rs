//! Pusher and puller are killed at random moments: in the end the replica is identical, and nobody was taken for a second
//! writer.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pond_tests::scale::scaled;
use pond_tests::{Random, TestPond};

use crate::pair::Pair;

fn rounds() -> u64 {
    scaled("POND_KILL_ROUNDS", 5)
}

/// Moments that a printed seed repeats.
pub fn random() -> Random {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed: u64 = scaled("POND_KILL_SEED", now.as_nanos() as u64);
    println!("POND_KILL_SEED={seed}");
    Random::new(seed)
}

/// Files of all sizes, made and replaced until told to stop or the mount is gone.
fn write(pond: &TestPond, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::SeqCst) {
        let length = *random.choose(&[10, 3_000, 100_000, 1_000_000]);
        let content = random.bytes(length);
        if fs::write(pond.path(format!("file-{}", random.below(8))), content).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(random.below(20)));
    }
}

#[test]
fn a_pusher_that_is_killed_goes_on_where_it_was() {
    let mut random = random();
    let pair = Pair::local();
    pair.source.mount_with(&["-o", "commit=0.02"]);
    pair.add_remote();
    for round in 0..rounds() {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let seed = random.number();
            let (source, stopped) = (&pair.source, &stop);
            scope.spawn(move || write(source, seed, stopped));
            thread::sleep(Duration::from_millis(random.below(700)));
            pair.source.kill();
            stop.store(true, Ordering::SeqCst);
        });
        pair.source.mount_with(&["-o", "commit=0.02"]);
        let told = pair.source.try_pond(["sync"]);
        assert!(told.status.success(), "round {round}: {told}");
    }
    let version = pair.source.version();
    println!("{version} versions");
    pair.source.umount();
    pair.restore();
    pair.assert_identical();
}

#[test]
fn a_puller_that_is_killed_goes_on_where_it_was() {
    let mut random = random();
    let pair = Pair::local();
    pair.source.mount_with(&["-o", "commit=0.02"]);
    pair.add_remote();
    fs::write(pair.source.path("first"), random.bytes(2_000_000)).unwrap();
    pair.source.sync();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let seed = random.number();
        let (source, stopped) = (&pair.source, &stop);
        scope.spawn(move || write(source, seed, stopped));
        // Killed while it is made, several times, until it once gets through.
        let restore = ["init", "--from-backup", pair.yaml()];
        for _ in 0..rounds() {
            let mut command = pair.replica.command();
            command.args(restore).stdout(Stdio::null()).stderr(Stdio::null());
            let mut restoring = command.spawn().unwrap();
            thread::sleep(Duration::from_millis(random.below(200)));
            restoring.kill().unwrap();
            restoring.wait().unwrap();
        }
        let whole = pair.replica.try_pond(restore);
        assert!(whole.status.success() || whole.stderr.contains("already"), "{whole}");
        // And while it follows.
        for _ in 0..rounds() {
            pair.replica.mount();
            thread::sleep(Duration::from_millis(random.below(700)));
            pair.replica.kill();
        }
        stop.store(true, Ordering::SeqCst);
    });
    pair.source.sync();
    pair.replica.mount();
    pair.wait();
    pair.assert_same_trees();
    pair.replica.umount();
    pair.finish();
}
