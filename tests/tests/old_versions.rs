//! `.pond/versions`: what it shows is what there was, beside writers, merging and pruning, in mounts of all kinds.
//!
//! `POND_WALK_VERSIONS` versions (default 12) are walked by `POND_WALKERS` processes (default 4), `POND_WALKS` trees each (default 10), in
//! a pond of `POND_WALK_FILES` files (default 200). `POND_SECOND_FILES` files (default 20,000) are in the version that is entered second.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pond_tests::scale::scaled;
use pond_tests::tree::{self, Also, Tree};
use pond_tests::{Random, TestPond, succeed, wait_until};

/// What an old version has in common with what was there. Inode numbers are its own.
const SAME: Also = Also { mtime: true, ctime: true, inode: false };

/// Setuid and setgid are not shown.
fn without_privileges(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|node| node.mode &= !0o6000);
    tree
}

fn old(mountpoint: &Path, version: u64) -> std::path::PathBuf {
    mountpoint.join(format!(".pond/versions/{version}"))
}

/// Changes something of a tree: writes, links, renames, removes, permissions.
fn change(root: &Path, random: &mut Random, round: u64) {
    let directory = root.join(format!("d{}", random.below(4)));
    fs::create_dir_all(&directory).unwrap();
    let name = |random: &mut Random| directory.join(format!("f{}", random.below(6)));
    for _ in 0..4 {
        let (one, other) = (name(random), name(random));
        match random.below(7) {
            0 => drop(fs::remove_file(&one)),
            1 => drop(fs::hard_link(&one, &other)),
            2 => drop(fs::rename(&one, &other)),
            3 => drop(fs::rename(&directory, root.join(format!("moved{}", random.below(3))))),
            4 if one.exists() => {
                let mode = [0o644, 0o4755, 0o600, 0o2711][random.below(4) as usize];
                fs::set_permissions(&one, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            }
            _ if directory.exists() => fs::write(&one, random.bytes(10 + round as usize * 100)).unwrap(),
            _ => {}
        }
    }
}

#[test]
fn each_version_shows_what_was_there_also_in_a_mount_of_another_version() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let mut random = Random::new(5);
    let mut versions: Vec<(u64, Tree)> = Vec::new();
    for round in 0..scaled("POND_WALK_VERSIONS", 12) {
        change(pond.mountpoint(), &mut random, round);
        pond.sync();
        versions.push((pond.version(), without_privileges(tree::look_at(pond.mountpoint()))));
    }
    let check = |mountpoint: &Path, what: &str| {
        for (version, expected) in versions.iter().rev() {
            let seen = tree::look_at(&old(mountpoint, *version));
            tree::assert_same(&format!("{what}, version {version}"), expected, &seen, SAME);
        }
    };
    check(pond.mountpoint(), "the source's mount");
    let (middle, expected) = &versions[versions.len() / 2];
    let beside = pond.mount_beside("beside", &["--version", &middle.to_string()]);
    let seen = without_privileges(tree::look_at(&beside));
    tree::assert_same("a mount of that version", expected, &seen, SAME);
    check(&beside, "a mount of one version");
    pond.umount_at(&beside);
    pond.pond(["maintain"]);
    check(pond.mountpoint(), "after maintenance");
    pond.umount();
    let listed = pond.json(["list", "-R", &format!("@{middle}")]);
    assert_eq!(listed.len(), expected.len() - 1, "{listed:?}");
}

#[test]
fn a_version_is_kept_while_somebody_is_in_it_and_none_is_shown_below_the_floor() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let mut kept = Vec::new();
    for round in 0..6 {
        fs::write(pond.path("file"), format!("round {round}")).unwrap();
        pond.sync();
        kept.push(pond.version());
    }
    let mut open = File::open(old(pond.mountpoint(), kept[1]).join("file")).unwrap();
    pond.pond(["tag", "second", &kept[2].to_string()]);
    pond.pond(["control", "set", "retention", "1 versions"]);
    pond.pond(["maintain"]);
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "round 1");
    assert_eq!(fs::read_to_string(old(pond.mountpoint(), kept[1]).join("file")).unwrap(), "round 1");
    drop(open);
    let gone = fs::metadata(old(pond.mountpoint(), kept[0])).unwrap_err();
    assert_eq!(gone.raw_os_error(), Some(libc::ENOENT));
    let newest = pond.version();
    let listed: Vec<u64> = fs::read_dir(pond.path(".pond/versions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse().unwrap())
        .collect();
    assert!(listed.contains(&newest) && !listed.contains(&kept[0]), "{listed:?}");
    // What has a name stays, and is found by it.
    assert!(listed.contains(&kept[2]), "{listed:?}");
    assert_eq!(fs::read_to_string(pond.path(".pond/versions/tag:second/file")).unwrap(), "round 2");
    assert!(!pond.path(".pond/versions/tag:third").exists());
    pond.umount();
}

#[test]
fn a_replicas_mount_shows_old_versions_too() {
    let source = TestPond::mounted_with(&["-o", "commit=3600"]);
    let store = source.host_directory("store");
    let yaml = source.host("remote.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    let yaml = yaml.to_str().unwrap();
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml]);
    let mut random = Random::new(8);
    let mut versions = Vec::new();
    for round in 0..5 {
        change(source.mountpoint(), &mut random, round);
        source.sync();
        versions.push((source.version(), without_privileges(tree::look_at(source.mountpoint()))));
    }
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", yaml]);
    replica.mount();
    wait_until("the replica has all versions", Duration::from_secs(60), || {
        (replica.version() >= versions[4].0).then_some(())
    });
    for (version, expected) in &versions {
        let seen = tree::look_at(&old(replica.mountpoint(), *version));
        tree::assert_same(&format!("version {version}"), expected, &seen, SAME);
    }
    replica.umount();
    source.umount();
}

/// The digest of an archive of a tree, as `tar` makes it.
fn archived(place: &Path) -> String {
    let script = format!("cd '{}' && set -o pipefail && tar c --sort=name . | sha256sum", place.display());
    succeed(Command::new("bash").args(["-c", &script]))
}

#[test]
fn many_walk_versions_while_others_are_made_and_files_are_merged() {
    let (count, walkers) = (scaled("POND_WALK_VERSIONS", 12_u64), scaled("POND_WALKERS", 4));
    let (walks, files) = (scaled("POND_WALKS", 10), scaled("POND_WALK_FILES", 200_u64));
    let pond = TestPond::mounted_with(&["-o", "commit=0.5"]);
    let mut random = Random::new(3);
    for file in 0..files {
        fs::create_dir_all(pond.path(format!("d{}", file % 10))).unwrap();
        fs::write(pond.path(format!("d{}/f{file}", file % 10)), random.bytes(2000)).unwrap();
    }
    fs::hard_link(pond.path("d0/f0"), pond.path("d1/linked")).unwrap();
    let mut versions = Vec::new();
    for _ in 0..count {
        for _ in 0..5 {
            let file = random.below(files);
            fs::write(pond.path(format!("d{}/f{file}", file % 10)), random.bytes(3000)).unwrap();
        }
        pond.sync();
        let version = pond.version();
        versions.push((version, archived(&old(pond.mountpoint(), version))));
    }
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let walkers: Vec<_> = (0..walkers)
            .map(|walker| {
                let (pond, versions) = (&pond, &versions);
                scope.spawn(move || {
                    let mut random = Random::new(100 + walker);
                    for _ in 0..walks {
                        let (version, sum) = &versions[random.below(versions.len() as u64) as usize];
                        assert_eq!(&archived(&old(pond.mountpoint(), *version)), sum, "version {version}");
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut random = Random::new(4);
            while !ended.load(Ordering::Relaxed) {
                let file = random.below(files);
                fs::write(pond.path(format!("d{}/f{file}", file % 10)), random.bytes(1000)).unwrap();
                thread::sleep(Duration::from_millis(5));
            }
        });
        let walked: Vec<_> = walkers.into_iter().map(|walker| walker.join()).collect();
        ended.store(true, Ordering::Relaxed);
        walked.into_iter().for_each(|walked| walked.unwrap());
    });
    let memory = &pond.status()["memory"];
    println!("after {walkers} times {walks} walks through {count} versions of {files} files: {memory}");
    pond.umount();
}

#[test]
fn the_second_version_entered_takes_a_part_of_the_first() {
    let files = scaled("POND_SECOND_FILES", 20_000_u64);
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    for directory in 0..files / 1000 {
        fs::create_dir(pond.path(format!("d{directory}"))).unwrap();
        for file in 0..1000 {
            fs::write(pond.path(format!("d{directory}/f{file}")), "").unwrap();
        }
    }
    pond.sync();
    let first = pond.version();
    fs::write(pond.path("d0/f0"), "changed").unwrap();
    pond.sync();
    let second = pond.version();
    let enter = |version| {
        let start = Instant::now();
        assert_eq!(fs::read_dir(old(pond.mountpoint(), version).join("d0")).unwrap().count(), 1000);
        start.elapsed()
    };
    let (alone, after) = (enter(first), enter(second));
    println!("of {files} files: the first version entered took {alone:?}, the second {after:?}");
    assert!(after * 3 < alone, "the second took {after:?}, the first {alone:?}");
    pond.umount();
}
