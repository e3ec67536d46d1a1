//! Two who think that they are the source: copies of one pond, and replicas that were promoted.

use std::fs;
use std::process::Command;

use pond_tests::{TestPond, run, succeed};

use crate::pair::{Commits, Pair, assert_identical};

#[test]
fn of_two_copies_that_push_one_wins_and_the_other_keeps_its_rows() {
    let pair = Pair::local();
    pair.begin();
    pair.commit("before");
    pair.source.umount();
    let copy = TestPond::new();
    succeed(Command::new("cp").arg("-a").arg(pair.source.directory()).arg(copy.directory()));

    pair.source.pond(["mkdir", "/first"]);
    pair.source.pond(["sync"]);
    copy.pond(["mkdir", "/second"]);
    let told = copy.try_pond(["sync"]).failure(1);
    assert!(told.contains("second writer"), "{told}");
    assert!(copy.pond(["list", "/"]).contains("second"), "its rows are kept");
    let told = copy.try_pond(["sync"]).failure(1);
    assert!(told.contains("second writer"), "and it stays stopped: {told}");

    // The winner has noticed nothing.
    pair.source.pond(["mkdir", "/third"]);
    pair.source.pond(["sync"]);
    pair.restore();
    pair.assert_identical();
    assert!(!pair.replica.pond(["list", "/"]).contains("second"));
}

#[test]
fn after_a_promotion_those_before_the_fork_cross_over_and_those_beyond_it_say_so() {
    let pair = Pair::local();
    pair.begin();
    let mut commits = Commits::of(&pair.source);
    while pair.source.version() < 60 {
        fs::write(pair.source.path(format!("file-{}", pair.source.version())), "x").unwrap();
        commits.commit();
    }
    pair.source.sync();
    let [before, promoted] = ["35", "40"].map(|version| pair.another(&["--version", version]));
    let beyond = pair.another(&[]);
    assert_eq!(version(&before), 35);
    assert_eq!(version(&promoted), 40);
    assert_eq!(version(&beyond), pair.source.version());

    let told = promoted.pond(["promote"]);
    assert!(told.contains("timeline 2"), "{told}");
    assert_eq!(promoted.status()["mode"], "source");
    promoted.pond(["mkdir", "/on-the-new-timeline"]);
    promoted.pond(["sync"]);

    before.pond(["sync"]);
    assert_identical(&promoted, &before);
    assert!(before.pond(["list", "/"]).contains("on-the-new-timeline"));

    let told = beyond.try_pond(["sync"]).failure(1);
    assert!(told.contains("diverged"), "{told}");
    let status = beyond.status();
    assert_eq!(status["replica"]["state"], "diverged", "{status}");
    assert!(beyond.pond(["list", "/"]).contains("file-59"), "it keeps serving what it has");

    // The old source keeps what it has and makes no more.
    fs::write(pair.source.path("too-late"), "x").unwrap();
    let told = pair.source.try_pond(["sync"]).failure(1);
    assert!(told.contains("timeline 2"), "{told}");
    assert!(told.contains("those above version 40 are here only"), "{told}");
    assert!(!told.contains("tried again"), "{told}");
    let refused = fs::write(pair.source.path("even-later"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let told =
        run(Command::new(pair.source.command().get_program()).args(["umount"]).arg(pair.source.mountpoint()));
    assert!(!told.stdout.contains("the next mount goes on"), "{told}");
    told.success();

    // Whoever asks without a mount is told, too.
    let status = pair.source.status();
    assert!(status["read_only_because"].as_str().unwrap().contains("timeline 2"), "{status}");
    let told = pair.source.try_pond(["status", "--check"]).failure(1);
    assert!(told.contains("no writes are taken") && told.contains("timeline 2"), "{told}");
    let told = pair.source.try_pond(["mkdir", "/even-later"]).failure(1);
    assert!(told.contains("it takes no writes") && told.contains("timeline 2"), "{told}");
    let told = pair.source.try_pond(["sync"]).failure(1);
    assert!(told.contains("timeline 2") && !told.contains("tried again"), "{told}");
    let told = pair.source.try_pond(["promote"]).failure(1);
    assert!(told.contains("it is a source already") && told.contains("timeline 2"), "{told}");

    pair.source.mount();
    let told = pair.source.try_pond(["mkdir", "/even-later"]).failure(1);
    assert!(told.contains("it takes no writes") && told.contains("timeline 2"), "{told}");
    assert!(pair.source.path("too-late").exists());
    let refused = fs::write(pair.source.path("even-later"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS), "also after the next mount");
    pair.source.umount();
}

#[test]
fn a_mounted_replica_and_a_source_are_not_promoted() {
    let pair = Pair::local();
    pair.begin();
    pair.restore();
    pair.replica.mount();
    let told = pair.replica.try_pond(["promote"]).failure(1);
    let at = pair.replica.mountpoint().display().to_string();
    let pond = format!("pond --pond {}", pair.replica.directory().display());
    assert!(told.contains(&format!("pond umount {at} && {pond} promote && {pond} mount {at}")), "{told}");
    // It is a replica as before, and follows.
    assert_eq!(pair.replica.status()["mode"], "replica");
    pair.commit("still followed");
    pair.wait();
    pair.replica.umount();
    pair.source.umount();
    pair.source.try_pond(["promote"]).failure(1);
    assert_eq!(pair.source.status()["mode"], "source");
}

#[test]
fn promoting_a_second_time_is_refused_before_the_store_hears_of_it() {
    let pair = Pair::local();
    pair.begin();
    pair.restore();
    pair.source.umount();
    pair.replica.pond(["promote"]);
    let told = pair.replica.try_pond(["promote"]).failure(1);
    assert!(told.contains("it is a source already"), "{told}");
    // Its own timeline is still the newest.
    pair.replica.pond(["mkdir", "/after"]);
    pair.replica.pond(["sync"]);
    assert_eq!(pair.replica.status()["read_only_because"], serde_json::Value::Null);
}

#[test]
fn a_promoted_replica_writes_and_is_replicated() {
    let pair = Pair::local();
    pair.begin();
    pair.commit("before");
    pair.restore();
    pair.source.umount();
    pair.replica.pond(["promote"]);
    pair.replica.mount();
    fs::write(pair.replica.path("new"), "from the new source").unwrap();
    pair.replica.sync();
    let third = pair.another(&[]);
    third.mount();
    assert_eq!(fs::read_to_string(third.path("new")).unwrap(), "from the new source");
    assert_eq!(fs::read_to_string(third.path("before")).unwrap(), "before");
    third.umount();
    pair.replica.umount();
    assert_identical(&pair.replica, &third);
}

fn version(pond: &TestPond) -> u64 {
    pond.status()["version"].as_u64().unwrap()
}
