//! The daemon dies instead of taking its n-th step to the disk (`POND_FAILPOINT`, see `fs/oplog/src/disk/recorder.rs`), n
//! as it comes: while it opens and recovers, under load, in the background, while it unmounts. What
//! must hold is the same as where it is killed at a random moment.
//!
//! `POND_FAILPOINT_ROUNDS` (default 6) deaths, and more as long as all of them were while it opened.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use pond_tests::command::{Finished, run};
use pond_tests::processes::{self, has_ended};
use pond_tests::scale::scaled;
use pond_tests::{Random, TestPond};

use crate::load::Load;

/// What the daemon says last.
const LAST_WORDS: &str = "POND_FAILPOINT: killed before step ";

/// Steps of a round, at most: enough for some commits.
const STEPS: u64 = 250;

/// Rounds beyond those that were asked for, at most.
pub const MORE_ROUNDS: u64 = 20;

/// Whether a suite that has done so many rounds does another: as many as were asked for, and more as long as they have
/// not shown what it is about.
pub fn goes_on(done: u64, asked_for: u64, shown: bool) -> bool {
    done < asked_for || (!shown && done < asked_for + MORE_ROUNDS)
}

/// Mounts, with a daemon that does not survive its step of this number.
pub fn mount_to_die(pond: &TestPond, step: u64, options: &str) -> Finished {
    let mut command = pond.command();
    command.env("POND_FAILPOINT", step.to_string()).arg("mount").arg(pond.mountpoint()).args(["-o", options]);
    run(&mut command)
}

/// The steps at which daemons of this pond have died, by the kind of file that the step was on. Those that died while they
/// opened it are not among them: until it serves, a daemon talks to its starter and not to the log.
pub fn deaths(pond: &TestPond) -> BTreeMap<&'static str, u64> {
    let log = fs::read(pond.directory().join("log")).unwrap_or_default();
    let mut deaths = BTreeMap::new();
    for line in String::from_utf8_lossy(&log).lines() {
        if let Some((_, path)) = line.split_once(LAST_WORDS).and_then(|(_, rest)| rest.split_once(" on ")) {
            *deaths.entry(kind(path)).or_default() += 1;
        }
    }
    deaths
}

fn kind(path: &str) -> &'static str {
    let is = |part: &str| path.contains(part);
    match () {
        () if is("/control") => "control table",
        () if is("/journal") => "journal",
        () if is("checkpoint") => "checkpoint",
        () if is("/_delta_log") => "log entry or checkpoint",
        () if is("/data") => "data file",
        () => "other",
    }
}

/// Fails where no daemon has died, which would make a suite that proves nothing.
pub fn expect_deaths(pond: &TestPond) {
    let deaths = deaths(pond);
    println!("died before steps on: {deaths:?}");
    let told = "this pond has no failpoints: build it with debug assertions (CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true)";
    assert!(!deaths.is_empty(), "{told}");
}

/// Whether the daemon ended by itself within half a minute: on a busy machine a killed process takes its time to be gone.
pub fn died(daemon: i32) -> bool {
    (0..6_000).any(|_| {
        thread::sleep(Duration::from_millis(5));
        has_ended(daemon)
    })
}

fn survives(writers: usize) {
    let rounds = scaled("POND_FAILPOINT_ROUNDS", 6);
    let mut random = crate::random();
    let pond = TestPond::with_patience(Duration::from_secs(300 + 30 * (rounds + MORE_ROUNDS)));
    pond.mount();
    let roots: Vec<_> = (0..writers).map(|writer| pond.path(format!("writer-{writer}"))).collect();
    for root in &roots {
        fs::create_dir(root).unwrap();
    }
    File::open(pond.mountpoint()).unwrap().sync_all().unwrap();
    let (mut recovering, mut working, mut unmounting) = (0, 0, 0);
    let mut round = 0;
    while goes_on(round, rounds, !deaths(&pond).is_empty()) {
        let mut loads: Vec<Load> = roots.iter().map(|root| Load::new(root, random.number())).collect();
        pond.kill();
        let options = *random.choose(&["commit=0.02", "commit=0.2"]);
        let mounted = mount_to_die(&pond, some_step(&mut random, STEPS), options).status.success();
        // One that dies while it opens does not serve.
        let Some(daemon) = mounted.then(|| daemon(&pond)).flatten() else {
            recovering += 1;
            round += 1;
            pond.mount();
            loads.iter().for_each(|load| {
                load.check();
            });
            continue;
        };
        match work(&mut loads, daemon, random.below(2_000)) {
            true => working += 1,
            false => {
                // It ends by itself, or dies on the way; it must not hang.
                let unmounted = run(pond.command().arg("umount").arg(pond.mountpoint()));
                unmounting += u64::from(!unmounted.status.success());
                processes::kill_and_wait(daemon);
            }
        }
        round += 1;
        // Several deaths in a row while it recovers.
        for step in 0..random.below(3) {
            let step = 1 + step + random.below(25);
            match mount_to_die(&pond, step, "commit=1").status.success() {
                true => kill(&pond),
                false => {
                    recovering += 1;
                    round += 1;
                }
            }
        }
        pond.mount();
        for load in &loads {
            let (made, promised, found) = load.check();
            println!("round {round}: {made} calls, {promised} promised, {found} found");
        }
    }
    println!("{recovering} deaths while opening, {working} under load, {unmounting} while unmounting");
    expect_deaths(&pond);
    pond.umount();
}

/// The daemon, if it is still there.
pub fn daemon(pond: &TestPond) -> Option<i32> {
    let status = fs::read_to_string(pond.path(".pond/status.json")).ok()?;
    let status: serde_json::Value = serde_json::from_str(&status).ok()?;
    i32::try_from(status["pid"].as_i64()?).ok()
}

/// Kills the daemon, if it is still there.
pub fn kill(pond: &TestPond) {
    if let Some(daemon) = daemon(pond) {
        processes::kill_and_wait(daemon);
    }
}

/// Runs loads until the daemon dies, or for so long; whether it died.
fn work(loads: &mut [Load], daemon: i32, milliseconds: u64) -> bool {
    let stop = AtomicBool::new(false);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for load in loads {
            let (stop, failed) = (&stop, &failed);
            scope.spawn(move || {
                if let Err(error) = load.run(stop) {
                    assert!(died(daemon), "a call failed before the daemon died: {error}");
                    failed.store(true, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..milliseconds.div_ceil(10) {
            if failed.load(Ordering::SeqCst) || has_ended(daemon) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Ordering::SeqCst);
    });
    failed.load(Ordering::SeqCst)
}

#[test]
fn what_fsync_promised_is_there_whatever_step_the_daemon_died_at() {
    survives(1);
}

#[test]
fn what_fsync_promised_to_several_is_there_whatever_step_the_daemon_died_at() {
    survives(3);
}

/// A step for the next round: among the first ones now and then.
pub fn some_step(random: &mut Random, most: u64) -> u64 {
    match random.below(5) {
        0 => 1 + random.below(30),
        _ => 30 + random.below(most),
    }
}
