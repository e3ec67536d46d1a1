//! Factories: what stands under `/etc/system.d/` runs after each commit, once for each, mounted or not, and a failure
//! is told and made up for, and harms no commit.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pond_tests::{TestPond, wait_until};
use serde_json::Value;

fn make_exec_log(pond: &TestPond, node: &str, log: &Path) {
    let configuration = pond.host("exec-log.yaml");
    fs::write(&configuration, format!("path: {}\n", log.display())).unwrap();
    pond.pond(["mknod", "exec-log", node, "--config-path", configuration.to_str().unwrap()]);
}

/// The versions that the log has lines about, in the order of the lines.
fn logged(log: &Path) -> Vec<u64> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let line =
        |line: &str| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(|text| line(text)["version"].as_u64().unwrap()).collect()
}

/// One line a version, in order, without a gap, up to the present one.
fn assert_complete(pond: &TestPond, log: &Path) {
    let (logged, newest) = (logged(log), pond.status()["version"].as_u64().unwrap());
    assert_eq!(logged.last(), Some(&newest), "{logged:?}");
    let all: Vec<u64> = (logged[0]..=newest).collect();
    assert_eq!(logged, all);
}

#[test]
fn exec_log_writes_one_line_for_each_commit() {
    let pond = TestPond::mounted_with(&["-o", "commit=0.1"]);
    let log = pond.host("commits");
    make_exec_log(&pond, "/etc/system.d/10-log", &log);
    assert!(pond.path("etc/system.d/10-log").exists(), "the node is visible in the mount");
    let first = pond.version();
    for number in 0..10 {
        fs::write(pond.path(format!("file-{number}")), "x").unwrap();
        wait_until("a commit", Duration::from_secs(20), || (pond.version() > first + number).then_some(()));
    }
    pond.sync();
    assert_complete(&pond, &log);
    assert!(logged(&log).len() >= 10);
    pond.remount();
    fs::write(pond.path("after"), "x").unwrap();
    pond.sync();
    assert_complete(&pond, &log);
    pond.umount();
    assert_complete(&pond, &log);
    // Commands on a pond that nobody has mounted commit too.
    pond.pond(["mkdir", "/made-by-a-command"]);
    pond.pond(["sync"]);
    assert_complete(&pond, &log);
}

#[test]
fn several_run_in_the_order_of_their_names_and_each_gets_all_commits() {
    let pond = TestPond::new();
    pond.pond(["init"]);
    let logs = ["20-b", "10-a"].map(|name| pond.host(name));
    make_exec_log(&pond, "/etc/system.d/20-b", &logs[0]);
    make_exec_log(&pond, "/etc/system.d/10-a", &logs[1]);
    pond.mount();
    fs::write(pond.path("file"), "x").unwrap();
    pond.sync();
    logs.iter().for_each(|log| assert_complete(&pond, log));
    let status = pond.status();
    let order: Vec<&str> =
        status["factories"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(order, ["/etc/system.d/10-a", "/etc/system.d/20-b"]);
    pond.umount();
}

#[test]
fn a_factory_that_fails_is_told_of_and_catches_up_and_no_commit_fails() {
    let pond = TestPond::mounted();
    let log = pond.host("not-there-yet/commits");
    make_exec_log(&pond, "/etc/system.d/10-log", &log);
    let before = pond.version();
    fs::write(pond.path("file"), "x").unwrap();
    let told = pond.try_pond(["sync"]).failure(1);
    assert!(told.contains("/etc/system.d/10-log"), "{told}");
    assert!(pond.version() > before, "the commit stands");
    let failed = pond.status()["factories"][0]["failed"].as_bool();
    assert_eq!(failed, Some(true));
    fs::create_dir(pond.host("not-there-yet")).unwrap();
    pond.sync();
    assert_complete(&pond, &log);
    assert_eq!(pond.status()["factories"][0]["failed"].as_bool(), Some(false));
    pond.umount();
}

#[test]
fn a_configuration_that_makes_no_sense_makes_no_node() {
    let pond = TestPond::mounted();
    let configuration = pond.host("bad.yaml");
    fs::write(&configuration, "path: not/absolute\n").unwrap();
    let configuration = configuration.to_str().unwrap();
    let node = "/etc/system.d/10-log";
    let told = pond.try_pond(["mknod", "exec-log", node, "--config-path", configuration]).failure(1);
    assert!(told.contains("absolute"), "{told}");
    let told = pond.try_pond(["mknod", "no-such-kind", node, "--config-path", configuration]).failure(1);
    assert!(told.contains("no-such-kind") && told.contains("exec-log"), "{told}");
    assert!(!pond.path("etc/system.d/10-log").exists());
    pond.umount();
}

#[test]
fn a_node_runs_when_told_to() {
    let pond = TestPond::mounted();
    let log = pond.host("commits");
    // Not under /etc/system.d: it runs only by hand.
    make_exec_log(&pond, "/tools/log", &log);
    fs::write(pond.path("file"), "x").unwrap();
    pond.sync();
    assert!(!log.exists());
    pond.pond(["run", "/tools/log"]);
    assert_complete(&pond, &log);
    pond.umount();
}
