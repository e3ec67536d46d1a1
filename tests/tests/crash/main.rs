//! The daemon is killed at random moments: what an fsync promised is there at the next mount, what is there is what was
//! done up to some moment, and a rename never leaves an empty file behind.
//!
//! `POND_CRASH_ROUNDS` kills in each test (default 20), at moments that follow from `POND_CRASH_SEED` (default: the time,
//! printed). The books are kept in this process: killing the daemon takes nothing from them.

mod databases;
mod failpoint;
mod load;
mod model;

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use load::Load;
use pond_tests::command::wait_for;
use pond_tests::scale::scaled;
use pond_tests::{Random, TestPond};

fn rounds() -> u64 {
    scaled("POND_CRASH_ROUNDS", 20)
}

fn random() -> Random {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed: u64 = scaled("POND_CRASH_SEED", now.as_nanos() as u64);
    println!("POND_CRASH_SEED={seed}");
    Random::new(seed)
}

fn pond() -> TestPond {
    TestPond::with_patience(Duration::from_secs(300 + 20 * rounds()))
}

/// Mounts after a kill, with a short or the default commit interval; one time in three the first try is killed in turn.
fn mount_again(pond: &TestPond, random: &mut Random) {
    if random.one_in(3) {
        let mut mounting = background(pond, &["mount", pond.mountpoint().to_str().unwrap(), "--foreground"]);
        thread::sleep(Duration::from_millis(random.below(120)));
        mounting.kill().unwrap();
        mounting.wait().unwrap();
    }
    let interval = *random.choose(&["commit=0.02", "commit=0.2", "commit=1"]);
    pond.mount_with(&["-o", interval]);
}

fn background(pond: &TestPond, arguments: &[&str]) -> Child {
    let mut command = pond.command();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs loads at once until the daemon is killed in the middle of them, or, one time in four, while it unmounts.
fn run_and_kill(pond: &TestPond, loads: &mut [Load], random: &mut Random) {
    let stop = AtomicBool::new(false);
    let killed = AtomicBool::new(false);
    thread::scope(|scope| {
        for load in loads {
            let (stop, killed) = (&stop, &killed);
            scope.spawn(move || {
                if let Err(error) = load.run(stop) {
                    assert!(
                        killed.load(Ordering::SeqCst),
                        "a call failed before the daemon was killed: {error}"
                    );
                }
            });
        }
        thread::sleep(Duration::from_millis(random.below(1_300)));
        if random.one_in(4) {
            stop.store(true, Ordering::SeqCst);
        } else {
            killed.store(true, Ordering::SeqCst);
            pond.kill();
        }
    });
    if stop.load(Ordering::SeqCst) {
        let daemon = pond.daemon();
        let mut unmounting = background(pond, &["umount", pond.mountpoint().to_str().unwrap()]);
        thread::sleep(Duration::from_millis(random.below(40)));
        pond_tests::processes::kill_and_wait(daemon);
        // It fails or succeeds, as it happens; but it must not hang.
        let ended = wait_for(&mut unmounting, Duration::from_secs(60));
        assert!(ended.is_some(), "`pond umount` hangs after its daemon was killed");
    }
}

fn survives(writers: usize) {
    let mut random = random();
    let pond = pond();
    pond.mount();
    let roots: Vec<_> = (0..writers).map(|writer| pond.path(format!("writer-{writer}"))).collect();
    for root in &roots {
        fs::create_dir(root).unwrap();
    }
    File::open(pond.mountpoint()).unwrap().sync_all().unwrap();
    for round in 0..rounds() {
        let mut loads: Vec<Load> = roots.iter().map(|root| Load::new(root, random.number())).collect();
        run_and_kill(&pond, &mut loads, &mut random);
        mount_again(&pond, &mut random);
        for load in &loads {
            let (made, promised, found) = load.check();
            println!("round {round}: {made} calls, {promised} promised, {found} found");
        }
    }
    pond.umount();
}

#[test]
fn what_fsync_promised_is_there_and_the_tree_is_one_that_was() {
    survives(1);
}

#[test]
fn what_fsync_promised_to_several_at_once_is_there() {
    survives(4);
}

#[test]
fn a_write_and_a_rename_with_the_file_still_open_never_leave_an_empty_target() {
    let mut random = random();
    let pond = pond();
    pond.mount();
    let (target, temporary) = (pond.path("target"), pond.path("temporary"));
    let mut before = random.bytes(5_000);
    fs::write(&target, &before).unwrap();
    pond.sync();
    for round in 0..rounds() {
        let length = *random.choose(&[10, 5_000, 200_000, 3_000_000]);
        let after = random.bytes(length);
        let mut file = File::create(&temporary).unwrap();
        file.write_all(&after).unwrap();
        fs::rename(&temporary, &target).unwrap();
        thread::sleep(Duration::from_millis(1_200));
        pond.kill();
        drop(file);
        pond.mount();
        let found = fs::read(&target).unwrap();
        // After more than the commit interval it should be the new content; a busy machine may delay the commit.
        assert!(found == after || found == before, "round {round}: {} bytes of {}", found.len(), after.len());
        if found == after {
            before = after;
        } else {
            println!("round {round}: the rename was not yet committed");
        }
    }
    pond.umount();
}

#[test]
fn rewriting_a_file_with_the_same_content_never_loses_the_committed_one() {
    let mut random = random();
    let pond = pond();
    pond.mount_with(&["-o", "commit=0.02"]);
    let (target, temporary) = (pond.path("target"), pond.path("temporary"));
    let content = random.bytes(300_000);
    fs::write(&target, &content).unwrap();
    pond.sync();
    for round in 0..rounds() {
        let daemon = pond.daemon();
        thread::scope(|scope| {
            // As editors and package managers do, until the mount dies beneath them.
            scope.spawn(|| {
                while fs::write(&temporary, &content).and_then(|()| fs::rename(&temporary, &target)).is_ok() {
                }
            });
            thread::sleep(Duration::from_millis(random.below(150)));
            pond_tests::processes::kill_and_wait(daemon);
        });
        pond.mount_with(&["-o", "commit=0.02"]);
        assert!(fs::read(&target).unwrap() == content, "round {round}");
    }
    pond.umount();
}

#[test]
fn operations_that_leave_nothing_to_commit_take_nothing_from_what_is_promised_later() {
    let pond = pond();
    pond.mount_with(&["-o", "commit=3600"]);
    // The last operations before a commit leave no rows: writes to a file that has no name any more.
    let mut nameless = File::create(pond.path("nameless")).unwrap();
    fs::remove_file(pond.path("nameless")).unwrap();
    fs::write(pond.path("committed"), "x").unwrap();
    for _ in 0..20 {
        nameless.write_all(b"x").unwrap();
    }
    pond.sync();
    drop(nameless);
    pond.umount();
    // Were the numbers of those operations given out again, recovery would take what they name for committed.
    pond.mount_with(&["-o", "commit=3600"]);
    let names: Vec<String> = (0..5).map(|number| format!("promised-{number}")).collect();
    for name in &names {
        let mut file = File::create(pond.path(name)).unwrap();
        file.write_all(name.as_bytes()).and_then(|()| file.sync_all()).unwrap();
    }
    pond.kill();
    pond.mount();
    for name in &names {
        assert_eq!(fs::read_to_string(pond.path(name)).unwrap(), *name);
    }
    pond.umount();
}
