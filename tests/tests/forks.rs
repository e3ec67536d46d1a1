//! Forks: ponds made from a version of another one, sharing its data files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pond_tests::tree::{self, Also};
use pond_tests::{Random, TestPond, run, succeed};

/// What a fork has in common with what it was made from.
const SAME: Also = Also { mtime: true, ctime: true, inode: true };

fn change(pond: &TestPond, random: &mut Random) {
    for _ in 0..random.below(4) + 1 {
        let path = pond.path(format!("d{}/file-{}", random.below(2), random.below(5)));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match random.one_in(5) {
            true => drop(fs::remove_file(path)),
            false => fs::write(path, random.bytes(60_000)).unwrap(),
        }
    }
    pond.sync();
}

fn at(pond: &TestPond, version: u64) -> tree::Tree {
    let mount = pond.mount_beside("then", &["--version", &version.to_string()]);
    let tree = tree::look_at(&mount);
    pond.umount_at(&mount);
    tree
}

/// A pond whose place is made by `pond fork`.
fn fork(pond: &TestPond, arguments: &[&str]) -> TestPond {
    let fork = TestPond::new();
    let directory = fork.directory().to_str().unwrap().to_owned();
    pond.pond([&["fork", &directory], arguments].concat());
    fork
}

fn data_files(pond: &Path) -> impl Iterator<Item = fs::Metadata> {
    let entries = fs::read_dir(pond.join("data")).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "parquet"))
        .map(|entry| entry.metadata().unwrap())
}

#[test]
fn a_fork_lives_on_by_itself_and_so_does_what_it_was_made_from() {
    let pond = TestPond::new();
    pond.mount_with(&["-o", "commit=3600"]);
    pond.pond(["control", "set", "keep_replaced", "0s"]);
    let mut random = Random::new(21);
    fs::create_dir(pond.path("d0")).unwrap();
    fs::write(pond.path("d0/once"), "kept").unwrap();
    fs::hard_link(pond.path("d0/once"), pond.path("twice")).unwrap();
    succeed(std::process::Command::new("setfattr").args(["-n", "user.a", "-v", "b"]).arg(pond.path("twice")));
    let mut trees = Vec::new();
    for _ in 0..8 {
        change(&pond, &mut random);
        trees.push((pond.version(), tree::look_at(pond.mountpoint())));
    }
    // Files that hold later rows than the version are written anew.
    pond.pond(["maintain"]);
    let (old, old_tree) = trees[3].clone();
    let first = fork(&pond, &["--version", &old.to_string()]);
    fs::write(pond.path("not yet committed"), "but part of the newest version then").unwrap();
    let now = tree::look_at(pond.mountpoint());
    let second = fork(&pond, &[]);
    assert!(data_files(second.directory()).all(|file| file.nlink() == 2), "all are shared");
    for (fork, tree) in [(&first, &old_tree), (&second, &now)] {
        fork.pond(["fsck"]);
        fork.mount_with(&["-o", "commit=3600"]);
        tree::assert_same("the fork", tree, &tree::look_at(fork.mountpoint()), SAME);
        assert_ne!(fork.status()["pond_id"], pond.status()["pond_id"]);
        assert_eq!(fork.version(), 0);
        fork.pond(["control", "set", "keep_replaced", "0s"]);
    }
    // All go their own ways.
    for _ in 0..6 {
        [&pond, &first, &second].into_iter().for_each(|pond| change(pond, &mut random));
    }
    let then: Vec<_> = [&pond, &first, &second].map(|pond| tree::look_at(pond.mountpoint())).into();
    for round in 0..2 {
        for (pond, tree) in [&pond, &first, &second].into_iter().zip(&then) {
            pond.pond(["control", "set", "retention", "2 versions"]);
            pond.pond(["maintain"]);
            pond.umount();
            pond.pond(["maintain"]);
            pond.pond(["fsck"]);
            pond.mount_with(&["-o", "commit=3600"]);
            tree::assert_same("after maintenance", tree, &tree::look_at(pond.mountpoint()), SAME);
        }
        assert!(round < 2);
    }
    // And the end of one is no loss to another.
    pond.umount();
    fs::remove_dir_all(pond.directory()).unwrap();
    for (fork, tree) in [&first, &second].into_iter().zip(&then[1..]) {
        fork.umount();
        fork.pond(["fsck"]);
        fork.mount();
        tree::assert_same("alone", tree, &tree::look_at(fork.mountpoint()), SAME);
        fork.umount();
    }
}

#[test]
fn no_factory_runs_in_a_fork_until_it_is_enabled_and_then_it_replicates() {
    let pond = TestPond::new();
    let store = pond.host_directory("store");
    let yaml = pond.host("remote.yaml");
    fs::write(&yaml, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    pond.mount_with(&["-o", "commit=3600"]);
    pond.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml.to_str().unwrap()]);
    change(&pond, &mut Random::new(3));
    let fork = fork(&pond, &[]);
    pond.umount();
    let pushed = || tree::look_at(&store).len();
    let before = pushed();
    fork.mount_with(&["-o", "commit=3600"]);
    change(&fork, &mut Random::new(4));
    assert_eq!(pushed(), before, "it is the other pond's store");
    assert!(fork.status()["factories"][0]["mode"].is_null(), "it does not run");
    let own = fork.host_directory("store");
    fs::write(fork.host("own.yaml"), format!("storage_type: local\npath: {}\n", own.display())).unwrap();
    let yaml = fork.host("own.yaml").to_str().unwrap().to_owned();
    fork.pond(["mknod", "remote", "/etc/system.d/20-own", "--config-path", &yaml]);
    fork.pond(["control", "set", "enabled_factories", "/etc/system.d/20-own"]);
    fork.sync();
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", &yaml]);
    replica.pond(["fsck"]);
    replica.mount();
    let same = Also { inode: false, ..SAME };
    tree::assert_same(
        "its replica",
        &tree::look_at(fork.mountpoint()),
        &tree::look_at(replica.mountpoint()),
        same,
    );
    tree::assert_same("its first version", &at(&fork, 0), &at(&replica, 0), same);
    assert_eq!(pushed(), before);
    [&replica, &fork].into_iter().for_each(TestPond::umount);
}

#[test]
fn a_fork_that_was_killed_at_any_step_is_made_anew_and_harms_nothing() {
    let pond = TestPond::new();
    pond.mount_with(&["-o", "commit=3600"]);
    let mut random = Random::new(5);
    for _ in 0..4 {
        change(&pond, &mut random);
    }
    let version = pond.version() - 1;
    pond.pond(["maintain"]);
    pond.umount();
    let whole = at(&pond, version);
    let mut deaths = 0;
    for step in 1.. {
        let fork = TestPond::new();
        let directory = fork.directory().to_str().unwrap().to_owned();
        let mut command = pond.command();
        command.env("POND_FAILPOINT", step.to_string());
        let died =
            !run(command.args(["fork", &directory, "--version", &version.to_string()])).status.success();
        deaths += u64::from(died);
        if died && fork.try_pond(["status"]).status.success() {
            // It was done, but for the last words.
        } else if died {
            pond.pond(["fork", &directory, "--version", &version.to_string()]);
        }
        fork.pond(["fsck"]);
        tree::assert_same("the fork", &whole, &at(&fork, 0), SAME);
        if !died {
            break;
        }
    }
    assert!(deaths > 10, "{deaths} deaths");
    pond.pond(["fsck"]);
    tree::assert_same("what it was made from", &whole, &at(&pond, version), SAME);
}
