//! What every full disk has in common: a tree that was there before, somebody who goes on looking at it, the end of the
//! room, deletes, room again, and the same tree after a remount.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pond_tests::disk::{Disk, available};
use pond_tests::scale::scaled;
use pond_tests::tree::{Also, assert_same, look_at};
use pond_tests::{Random, TestPond, wait_until};

use crate::fillers::{Filled, assert_unharmed};

/// How long filling the disk may take before something is taken to be stuck.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The longest that a writer may wait for the news, and anybody for anything, where time is measured.
const IN_TIME: Duration = Duration::from_secs(5);

/// Plays it: `fill` gets the pond and the size of its disk in MiB.
pub fn play(what: &str, fill: impl FnOnce(&TestPond, u64) -> Filled) {
    let mebibytes = scaled("POND_DISK_MIB", 64);
    let disk = Disk::new(mebibytes);
    // What is removed later to make room: a user would grow the disk, since history keeps what is deleted.
    disk.fill((mebibytes << 20) * 2 / 3);
    let mut pond = TestPond::with_patience(3 * PATIENCE);
    pond.put_in(disk.path().join("pond"));
    pond.mount();
    plant(&pond);
    pond.sync();
    let Room { told, most, .. } = Room::of(&pond, &disk);
    assert!(told <= most, "the pond promises what the disk does not have");

    let watching = AtomicBool::new(true);
    let (filled, longest) = thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&pond, &watching));
        let filled = fill(&pond, mebibytes);
        // Not only until the disk is full, but while it is.
        thread::sleep(Duration::from_secs(1));
        watching.store(false, Ordering::Relaxed);
        (filled, watcher.join().expect("the watcher found nothing wrong"))
    });
    println!(
        "{what}: ENOSPC {:.0?} after the last success; ls, cat and df took at most {longest:.0?}",
        filled.waited
    );
    // Only where it was asked for: a test must not fail because the machine is busy.
    if env::var_os("POND_DISK_MIB").is_some() {
        assert!(filled.waited < IN_TIME && longest < IN_TIME, "somebody waited for too long");
    }

    // What was accepted is committed, for which there must still be room, and nothing is promised that is not there.
    pond.sync();
    assert_unharmed(&filled);
    let Room { told, most, .. } = Room::of(&pond, &disk);
    println!("{what}: statfs says {} KiB, the disk has {} KiB", told >> 10, most >> 10);
    assert!(told <= most, "the pond promises {told} bytes of {most}");
    assert!(told < 4 << 20, "ENOSPC, and {told} bytes left");

    // Everything may be removed. Deletes take room as well: as many as the reserve has room for are committed now.
    let (gone, kept) = filled.accepted.split_at(filled.accepted.len().div_ceil(2));
    let (now, later) = gone.split_at(gone.len().min(500));
    let remove = |files: &[(PathBuf, u64)]| {
        files.iter().for_each(|(path, _)| fs::remove_file(path).expect("rm works on a full disk"));
    };
    remove(now);
    fs::rename(pond.path("before/file"), pond.path("before/renamed")).expect("so does mv");
    pond.sync();
    let full = look_at(pond.mountpoint());
    pond.remount();
    assert_same("remounted on a full disk", &full, &look_at(pond.mountpoint()), Also::ALL);
    remove(later);
    let kept = Filled { waited: filled.waited, accepted: kept.to_vec(), may_be_longer: filled.may_be_longer };

    disk.make_room();
    wait_until("writes are accepted again", Duration::from_secs(60), || {
        fs::write(pond.path("after"), "there is room").ok()
    });
    fs::write(pond.path("much"), Random::new(15).bytes(4 << 20)).expect("there is room for much");
    pond.sync();
    let Room { told, least, most } = Room::of(&pond, &disk);
    println!("{what}: with room again statfs says {} KiB, the disk has {} KiB", told >> 10, most >> 10);
    assert!(
        told <= most && least.saturating_sub(told) < (mebibytes << 20) / 50,
        "{told} bytes are told of, {least} to {most} are there"
    );
    let roomy = look_at(pond.mountpoint());
    pond.remount();
    assert_same("remounted with room", &roomy, &look_at(pond.mountpoint()), Also::ALL);
    assert_unharmed(&kept);
    pond.kill();
    pond.mount();
    assert_same("after a kill", &roomy, &look_at(pond.mountpoint()), Also::ALL);
    pond.umount();
}

/// What the pond tells of free bytes, and the least and the most that its disk had just before and after: the daemon
/// writes and removes files of its own accord.
struct Room {
    told: u64,
    least: u64,
    most: u64,
}

impl Room {
    fn of(pond: &TestPond, disk: &Disk) -> Self {
        let (before, told, after) = (disk.free(), available(pond.mountpoint()), disk.free());
        Room { told, least: before.min(after), most: before.max(after) }
    }
}

/// A small tree of everything.
fn plant(pond: &TestPond) {
    let at = |name: &str| pond.path("before").join(name);
    fs::create_dir(pond.path("before")).unwrap();
    fs::write(at("file"), Random::new(16).bytes(100_000)).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::hard_link(at("file"), at("link")).unwrap();
    symlink("file", at("symlink")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
}

/// Looks at the tree again and again; the longest that one look took.
fn watch(pond: &TestPond, go_on: &AtomicBool) -> Duration {
    let file = Random::new(16).bytes(100_000);
    let mut longest = Duration::ZERO;
    while go_on.load(Ordering::Relaxed) {
        let start = Instant::now();
        assert_eq!(fs::read_dir(pond.path("before")).expect("ls").count(), 5);
        assert!(fs::read(pond.path("before/link")).expect("cat") == file, "what was there before is damaged");
        available(pond.mountpoint());
        longest = longest.max(start.elapsed());
        thread::sleep(Duration::from_millis(20));
    }
    longest
}
