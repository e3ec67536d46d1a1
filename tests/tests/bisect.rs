//! `pond bisect`: the first bad version is found in as few runs as halving takes, wherever it is looked for.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pond_tests::{TestPond, processes, wait_until};
use serde_json::Value;

/// A mounted pond with this many versions, of which each changes `counter`, every tenth `tenth/file`, and `BROKEN` removes `whole`.
const VERSIONS: u64 = 60;
const BROKEN: u64 = 43;

fn pond() -> TestPond {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    fs::create_dir(pond.path("tenth")).unwrap();
    fs::write(pond.path("whole"), "whole").unwrap();
    while pond.version() < VERSIONS {
        let next = pond.version() + 1;
        fs::write(pond.path("counter"), format!("{next}\n")).unwrap();
        if next.is_multiple_of(10) || next == BROKEN {
            fs::write(pond.path("tenth/file"), format!("{next}\n")).unwrap();
        }
        if next == BROKEN {
            fs::remove_file(pond.path("whole")).unwrap();
        }
        pond.sync();
    }
    pond
}

/// A file in which each run leaves a line, and what a run does.
fn noting(pond: &TestPond, script: &str) -> (PathBuf, String) {
    let runs = pond.host("runs");
    fs::write(&runs, "").unwrap();
    let noted = format!("cat counter >> {}; test $PWD = $POND_BISECT; {script}", runs.display());
    (runs, noted)
}

fn bisect(pond: &TestPond, options: &[&str], script: &str) -> (Vec<Value>, usize) {
    let (runs, script) = noting(pond, script);
    let command = ["--", "sh", "-ec", &script];
    let arguments = ["bisect", "--good", "2", "--bad", "60"].iter().chain(options).chain(&command);
    let facts = pond.json(arguments);
    (facts, fs::read_to_string(runs).unwrap().lines().count())
}

#[test]
fn the_first_bad_version_is_found_by_halving_mounted_or_not_and_nothing_is_left() {
    let pond = pond();
    for mounted in [true, false] {
        if !mounted {
            pond.umount();
        }
        // What a run writes, the next does not see.
        let (facts, runs) = bisect(&pond, &[], "test ! -e trace; echo > trace; rm counter; test -e whole");
        assert_eq!(facts[0]["first_bad"], BROKEN);
        assert_eq!(facts[0]["tried"].as_array().unwrap().len(), runs);
        assert!(runs <= 6, "{runs} runs");
        // As `pond show` tells it.
        assert_eq!(facts[1], pond.json(["show", &BROKEN.to_string()])[0]);
        assert!(facts[1]["changes"].to_string().contains("/whole"));
        // Seven versions changed it.
        let (facts, runs) = bisect(&pond, &["--path", "/tenth"], "test -e whole");
        assert_eq!(facts[0]["first_bad"], BROKEN);
        assert!(runs <= 3, "{runs} runs");
        // Some cannot be told.
        let (facts, _) = bisect(
            &pond,
            &[],
            "test $(cat counter) -gt 35 -o $(cat counter) -lt 25 || exit 125; test -e whole",
        );
        assert_eq!(facts[0]["first_bad"], BROKEN);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!("fuse.pond-scratch {}", pond.directory().display())));
    pond.mount();
    assert_eq!(pond.version(), VERSIONS);
}

#[test]
fn what_cannot_be_found_is_said() {
    let pond = pond();
    let try_bisect = |options: &[&str], command: &[&str]| {
        pond.try_pond(["bisect"].iter().chain(options).chain(&["--"]).chain(command))
    };
    let ends = ["--good", "2", "--bad", "60"];
    let script = "test $(cat counter) -gt 50 -o $(cat counter) -lt 40 || exit 125; test -e whole";
    let said = try_bisect(&ends, &["sh", "-ec", script]).failure(1);
    assert!(said.contains("it is one of 40 to 51"), "{said}");
    let said = try_bisect(&ends, &["sh", "-c", "exit 130"]).failure(1);
    assert!(said.contains("exited with 130"), "{said}");
    let said = try_bisect(&ends, &["no-such-program"]).failure(1);
    assert!(said.contains("cannot run no-such-program"), "{said}");
    let said = try_bisect(&["--good", "60", "--bad", "2"], &["true"]).failure(2);
    assert!(said.contains("must be older"), "{said}");
    let said = try_bisect(&["--good", "44", "--bad", "49", "--path", "tenth"], &["true"]).failure(1);
    assert!(said.contains("nothing changed at tenth between versions 44 and 49"), "{said}");
    // A process that is left behind does not keep the mount.
    let said =
        try_bisect(&["--good", "42", "--bad", "44"], &["sh", "-c", "sleep 1000 & test -e whole"]).success();
    assert!(said.contains("Version 43 is the first bad one"), "{said}");
    assert_eq!(pond.version(), VERSIONS);
}

#[test]
fn an_interrupt_ends_the_command_and_leaves_nothing_mounted() {
    let pond = pond();
    for group in [true, false] {
        let mut command = pond.command();
        command.args(["bisect", "--good", "2", "--bad", "60", "--", "sh", "-c", "echo run; sleep 1000"]);
        let mut child = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
        wait_until("a run has begun", Duration::from_secs(60), || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let ours = format!("fuse.pond-scratch {}", pond.directory().display());
            let sleeps = pond.processes().iter().any(|pid| {
                fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"sleep\x001000\x00")
            });
            (mounts.contains(&ours) && sleeps).then_some(())
        });
        // To all of its group, as a terminal does, or to it alone.
        let pid = child.id() as i32;
        processes::signal(if group { -pid } else { pid }, libc::SIGINT);
        let status = child.wait().unwrap();
        assert!(!status.success());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&format!("fuse.pond-scratch {}", pond.directory().display())));
    }
}

#[test]
fn a_replica_can_be_searched() {
    let source = pond();
    let store = source.host_directory("store");
    let remote = source.host("remote.yaml");
    fs::write(&remote, format!("storage_type: local\npath: {}\n", store.display())).unwrap();
    let remote = remote.to_str().unwrap();
    source.pond(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", remote]);
    source.sync();
    let replica = TestPond::new();
    replica.pond(["init", "--from-backup", remote]);
    replica.mount();
    let (facts, _) = bisect(&replica, &[], "test -e whole");
    assert_eq!(facts[0]["first_bad"], BROKEN);
    assert_eq!(facts[1]["version"], BROKEN);
}
