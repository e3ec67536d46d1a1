//! Looking back and bringing back: what a restore leaves is what a mount of that version shows, on a pond that is mounted and on one
//! that is not; and a replica tells of its history what its source tells.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::process::Command;

use pond_tests::tree::{self, Also, Tree};
use pond_tests::{Random, TestPond, succeed};
use serde_json::Value;

/// Versions that are restored.
const RESTORED: u64 = 5;

/// What a restored tree has in common with that of the version: all but inode numbers and the time of the restoring.
const SAME: Also = Also { mtime: true, ctime: false, inode: false };

/// One round of changes of every kind.
fn change(pond: &TestPond, random: &mut Random, round: u64) {
    let directory = pond.path(format!("directory-{}", random.below(4)));
    fs::create_dir_all(directory.join("inner")).unwrap();
    let file = directory.join(format!("file-{}", random.below(5)));
    let length = 1 + random.below(50_000) as usize;
    fs::write(&file, random.bytes(length)).unwrap();
    fs::write(directory.join("inner").join(format!("deep-{round}")), format!("round {round}\n")).unwrap();
    let sparse = File::options().create(true).truncate(false).write(true).open(pond.path("sparse")).unwrap();
    let bytes = random.bytes(3_000);
    sparse.write_all_at(&bytes, random.below(1 << 22)).unwrap();
    match random.below(8) {
        0 => fs::rename(&file, pond.path(format!("moved-{}", round % 3))).unwrap(),
        1 => drop(fs::hard_link(&file, pond.path(format!("hard-{}", round % 4)))),
        2 => drop(symlink(format!("target-{round}"), directory.join(format!("link-{}", round % 3)))),
        3 => fs::set_permissions(&file, fs::Permissions::from_mode(0o4711)).unwrap(),
        4 => drop(succeed(
            Command::new("setfattr").args(["-n", "user.round", "-v", &round.to_string()]).arg(&file),
        )),
        5 => drop(succeed(Command::new("chown").arg(format!("{}:{}", round + 1, round + 2)).arg(&file))),
        6 => drop(fs::remove_dir_all(&directory)),
        _ => drop(fs::rename(&directory, pond.path(format!("renamed-{}", round % 2)))),
    }
    if round.is_multiple_of(6) {
        succeed(Command::new("mkfifo").arg(pond.path(format!("fifo-{round}"))));
        fs::remove_file(pond.path("hard-0")).ok();
    }
}

/// A pond with versions that are known, and what mounts of some of them show.
fn history(seed: u64) -> (TestPond, Vec<(u64, Tree)>) {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let mut random = Random::new(seed);
    for round in 0..30 {
        change(&pond, &mut random, round);
        pond.sync();
    }
    let newest = pond.version();
    let versions: BTreeSet<u64> = (0..RESTORED).map(|_| 1 + random.below(newest)).chain([0]).collect();
    let mut shown = Vec::new();
    for version in versions {
        let mountpoint =
            pond.mount_beside(&format!("version-{version}"), &["--version", &version.to_string()]);
        shown.push((version, tree::look_at(&mountpoint)));
        pond.umount_at(&mountpoint);
    }
    (pond, shown)
}

#[test]
fn a_restored_tree_is_the_one_that_the_version_had_and_nothing_differs_afterwards() {
    let (pond, shown) = history(11);
    for mounted in [true, false] {
        if !mounted {
            pond.umount();
        }
        for (version, expected) in shown.iter().rev() {
            let path = format!("/@{version}");
            let planned = pond.json(["restore", &path, "--delete", "--dry-run"]);
            pond.pond(["restore", &path, "--delete"]);
            let what = format!("version {version} (left) and what it was restored to, mounted: {mounted}");
            if !mounted {
                pond.mount_with(&["-o", "commit=3600"]);
            }
            let now = tree::look_at(pond.mountpoint());
            if !mounted {
                pond.umount();
            }
            tree::assert_same(&what, expected, &now, SAME);
            assert_eq!(
                pond.json(["restore", &path, "--delete", "--dry-run"]),
                Vec::<Value>::new(),
                "{what}: {planned:?}"
            );
        }
    }
}

#[test]
fn what_was_deleted_comes_back_with_its_links_and_holes() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let (directory, other) = (pond.path("d"), pond.path("other"));
    fs::create_dir_all(directory.join("sub")).unwrap();
    fs::write(directory.join("a"), "content").unwrap();
    fs::hard_link(directory.join("a"), directory.join("sub/b")).unwrap();
    let sparse = File::create(directory.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 8 << 20).unwrap();
    fs::set_permissions(directory.join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(&other, "one").unwrap();
    pond.sync();
    let before = tree::look_at(&directory);
    fs::remove_dir_all(&directory).unwrap();
    fs::write(&other, "two").unwrap();
    pond.sync();

    pond.pond(["undelete", "d"]);
    tree::assert_same("before and after", &before, &tree::look_at(&directory), SAME);
    use std::os::unix::fs::MetadataExt;
    assert!(fs::metadata(directory.join("sparse")).unwrap().blocks() < 1000);
    assert_eq!(fs::read_to_string(&other).unwrap(), "two");
    let taken = pond.try_pond(["undelete", "d"]).failure(1);
    assert!(taken.contains("there is something at /d") && taken.contains("--to"), "{taken}");
    pond.pond(["undelete", "d", "--to", "again"]);
    tree::assert_same("before and beside", &before, &tree::look_at(&pond.path("again")), SAME);

    // A file of which another name lives stays the same file.
    fs::write(directory.join("a"), "other content").unwrap();
    pond.sync();
    let version = pond.version() - 1;
    pond.pond(["restore", &format!("/d/a@{version}")]);
    assert_eq!(fs::read_to_string(directory.join("sub/b")).unwrap(), "content");
    assert_eq!(fs::metadata(directory.join("a")).unwrap().nlink(), 2);
}

#[test]
fn a_replica_tells_of_its_history_what_its_source_tells_and_restores_nothing() {
    let (source, shown) = history(12);
    let store = source.host_directory("store");
    let yaml = source.host("remote.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml.to_str().unwrap()]);
    source.pond(["sync"]);
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", yaml.to_str().unwrap()]);
    for pair in shown.windows(2) {
        let [from, to] = [pair[0].0.to_string(), pair[1].0.to_string()];
        assert_eq!(replica.json(["diff", &from, &to]), source.json(["diff", &from, &to]));
        assert_eq!(replica.pond(["diff", &to, &from, "--stat"]), source.pond(["diff", &to, &from, "--stat"]));
    }
    assert_eq!(replica.json(["log", "--deleted"]), source.json(["log", "--deleted"]));
    assert_eq!(replica.json(["log", "sparse"]), source.json(["log", "sparse"]));
    let refused = replica.try_pond(["restore", &format!("/@{}", shown[0].0)]).failure(1);
    assert!(refused.contains("replica"), "{refused}");
}
