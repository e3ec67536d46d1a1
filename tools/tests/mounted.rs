//! Commands on a pond that is mounted, and mounting itself.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::mounted::Mounted;
use common::{Bed, stderr};

#[test]
fn commands_see_and_change_what_the_mount_shows() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    fs::write(mounted.at("a"), "one").unwrap();
    assert_eq!(bed.ok(["cat", "a"]), "one");
    bed.ok(["mkdir", "-p", "d/e"]);
    assert!(mounted.at("d/e").is_dir());
    bed.write("host", "from outside");
    bed.ok(["copy", &bed.host("host"), "d/e"]);
    assert_eq!(fs::read_to_string(mounted.at("d/e/host")).unwrap(), "from outside");
    bed.ok(["mv", "d/e/host", "a"]);
    assert_eq!(fs::read_to_string(mounted.at("a")).unwrap(), "from outside");
    bed.ok(["copy", "a", &bed.host("out")]);
    assert_eq!(fs::read_to_string(bed.path("out")).unwrap(), "from outside");
    let paths: Vec<_> = bed.json(["list", "**"]).iter().map(|entry| entry["path"].clone()).collect();
    assert_eq!(paths, ["/a", "/d", "/d/e"]);
    bed.ok(["rm", "-r", "d"]);
    assert!(!mounted.at("d").exists());
    // The way it is on a pond that is not mounted, too.
    symlink("/a", mounted.at("link")).unwrap();
    assert_eq!(bed.ok(["cat", "link"]), "from outside");
    symlink(bed.path("host"), mounted.at("out")).unwrap();
    assert!(bed.fails(1, ["cat", "out"]).contains("No such file"));
}

#[test]
fn factories_write_neither_into_the_mount_nor_into_the_pond() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    fs::create_dir(mounted.at("inbox")).unwrap();
    symlink(mounted.at("inbox"), bed.path("alias")).unwrap();
    bed.ok(["sync"]);
    let version = bed.version();
    let refused = |factory: &str, yaml: String, why: &str| {
        let file = bed.write("factory.yaml", yaml);
        let text =
            bed.fails(1, ["mknod", factory, "/etc/system.d/x", "--config-path", file.to_str().unwrap()]);
        assert!(text.contains(why), "{text}");
    };
    for place in
        [mounted.at("log"), mounted.at("inbox/log"), bed.path("alias/log"), bed.path("alias/not/yet")]
    {
        refused("exec-log", format!("path: {}\n", place.display()), "own mount");
        refused("remote", format!("storage_type: local\npath: {}\n", place.display()), "own mount");
        assert!(!place.exists());
    }
    for place in [bed.pond().join("data"), bed.pond().join("store")] {
        refused("remote", format!("storage_type: local\npath: {}\n", place.display()), "own directory");
    }
    assert!(!bed.pond().join("data/backups").exists() && !bed.pond().join("store").exists());
    assert!(!mounted.at("etc").exists());
    assert_eq!(bed.version(), version, "what was refused made a version");
    assert!(bed.fails(1, ["promote"]).contains("source already"));

    // A link may lead elsewhere later on.
    let link = bed.path("later");
    symlink(bed.path(""), &link).unwrap();
    let file = bed.write("factory.yaml", format!("path: {}\n", link.join("commits").display()));
    bed.ok(["mknod", "exec-log", "/etc/system.d/log", "--config-path", file.to_str().unwrap()]);
    bed.ok(["sync"]);
    fs::remove_file(&link).unwrap();
    symlink(mounted.at("inbox"), &link).unwrap();
    fs::write(mounted.at("a"), "more").unwrap();
    assert!(bed.fails(1, ["sync"]).contains("own mount"));
    assert!(!mounted.at("inbox/commits").exists());
}

#[test]
fn a_store_of_another_pond_is_told_before_a_node_is_made() {
    let (bed, other) = (common::Bed::new(), common::Bed::new());
    let yaml = format!("storage_type: local\npath: {}\n", bed.path("store").display());
    let file = bed.write("remote.yaml", yaml);
    let node = ["mknod", "remote", "/etc/system.d/r", "--config-path", file.to_str().unwrap()];
    bed.ok(node);
    bed.ok(["sync"]);
    let text = other.fails(1, node);
    assert!(text.contains("another pond") || text.contains("belongs to"), "{text}");
    assert!(other.json(["list"]).is_empty());
}

#[test]
fn status_is_of_this_moment_and_says_by_its_exit_code_whether_all_is_well() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    bed.ok(["status", "--check"]);
    let before = bed.json(["status"])[0].clone();
    fs::write(mounted.at("a"), vec![7; 100_000]).unwrap();
    bed.ok(["sync"]);
    let after = bed.json(["status"])[0].clone();
    let data = |status: &serde_json::Value| status["sizes"]["data"].as_u64().unwrap();
    assert!(data(&after) > data(&before) && data(&after) >= after["history"]["live_bytes"].as_u64().unwrap());
    assert!(after["sizes"]["reserve"].as_u64().unwrap() > 0);
    assert!(after["budgets"]["dirty"].as_u64().unwrap() >= 16 << 20);
    assert_eq!(fs::read(mounted.at("a")).unwrap().len(), 100_000);
    let memory = bed.json(["status"])[0]["memory"].clone();
    assert!(memory["resident"].as_u64().unwrap() > 1 << 20, "{memory}");
    assert_eq!(memory["content"], 0, "{memory}");
    assert!(bed.ok(["status"]).contains("of cached pages"));
    // SAFETY: the daemon is this test's.
    unsafe { libc::kill(after["pid"].as_i64().unwrap() as i32, libc::SIGKILL) };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while bed.run(["status", "--check"]).status.success() {
        assert!(std::time::Instant::now() < deadline, "a killed daemon counts as well");
    }
    let text = bed.fails(1, ["status", "--check"]);
    assert!(text.contains("is dead"), "{text}");
    assert!(bed.ok(["status"]).contains("its daemon has died"));
    bed.ok(["mount", mounted.mountpoint.to_str().unwrap()]);
    bed.ok(["status", "--check"]);
}

#[test]
fn a_copy_that_would_meet_itself_or_the_pond_ends() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    // The mountpoint and the pond lie below what is copied.
    let home = bed.path("");
    bed.write("letter", "dear");
    let text = bed.fails(1, ["copy", &format!("host:{}", home.display()), "/home"]);
    assert!(text.contains("what is being copied to") && text.contains("the pond's own directory"), "{text}");
    assert_eq!(fs::read_to_string(mounted.at("home/letter")).unwrap(), "dear");
    assert!(!mounted.at("home/pond").exists());
    assert!(!mounted.at("home/mnt/home/letter").exists());
    // However it is named.
    symlink(bed.pond(), bed.path("alias")).unwrap();
    for source in [bed.pond(), bed.pond().join("data"), bed.path("alias/data")] {
        let text = bed.fails(1, ["copy", &format!("host:{}", source.display()), "/again"]);
        assert!(text.contains("the pond's own directory"), "{text}");
        assert!(!mounted.at("again").exists());
    }
    let text = bed.fails(1, ["copy", "/home", &format!("host:{}", bed.pond().join("copy").display())]);
    assert!(text.contains("the pond's own directory"), "{text}");
    assert!(!bed.pond().join("copy").exists());
    let within = mounted.at("home/deeper");
    assert!(bed.fails(1, ["copy", "/home", &format!("host:{}", within.display())]).contains("within it"));
    assert!(!within.exists());
}

#[test]
fn sync_makes_a_version_that_can_be_read() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    fs::write(mounted.at("a"), "one").unwrap();
    let first = bed.json(["sync"])[0]["version"].as_u64().unwrap();
    fs::write(mounted.at("a"), "two").unwrap();
    bed.ok(["sync"]);
    assert_eq!(bed.ok(["cat", &format!("a@{first}")]), "one");
    let status = &bed.json(["status"])[0];
    assert_eq!(status["mounted"], true);
    assert_eq!(status["mountpoint"], mounted.mountpoint.to_str().unwrap());
    assert!(status["version"].as_u64().unwrap() > first);
    let table = bed.ok(["status"]);
    assert!(table.contains("mounted:      on ") && table.contains("log:"), "{table}");
    assert!(bed.ok(["log"]).contains("mount"));
    let changes = bed.json(["show", &first.to_string()])[0]["changes"].clone();
    assert!(changes.as_array().unwrap().iter().any(|change| change["paths"][0]["path"] == "/a"));
}

#[test]
fn factories_and_settings_work_over_the_socket() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    let log = bed.path("commits");
    let configuration = bed.write("exec-log.yaml", format!("path: {}\n", log.display()));
    let (node, file) = ("/etc/system.d/log", configuration.to_str().unwrap());
    bed.ok(["mknod", "exec-log", node, "--config-path", file]);
    assert!(mounted.at("etc/system.d/log").exists());
    assert_eq!(bed.json(["sync"])[0]["factories"][0]["failed"], false);
    assert!(fs::read_to_string(&log).unwrap().lines().count() >= 2);
    bed.ok(["run", node]);
    assert!(bed.ok(["factories"]).contains(node));
    assert!(bed.fails(1, ["control", "set", "factory_mode:nix", "push"]).contains("exec-log"));
    bed.ok(["control", "set", "factory_mode:exec-log", "pull"]);
    assert_eq!(bed.ok(["control", "get", "factory_mode:exec-log"]), "pull\n");
    let text = bed.fails(1, ["mknod", "no-such", "/x", "--config-path", file]);
    assert!(text.contains("no-such") && text.contains("exec-log"), "{text}");
    assert!(bed.fails(1, ["run", "/etc"]).contains("not a factory"));
}

#[test]
fn umount_waits_for_everything_and_names_who_is_busy() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    fs::write(mounted.at("a"), "one").unwrap();
    let mut busy = Command::new("sleep").arg("60").current_dir(&mounted.mountpoint).spawn().unwrap();
    let text = bed.fails(1, ["umount", mounted.mountpoint.to_str().unwrap()]);
    busy.kill().unwrap();
    busy.wait().unwrap();
    assert!(text.contains("busy") && text.contains(&busy.id().to_string()), "{text}");
    assert_eq!(fs::read_to_string(mounted.at("a")).unwrap(), "one");
    assert!(mounted.umount().contains("holds everything"));
    assert!(!mounted.at("a").exists());
    assert_eq!(bed.json(["status"])[0]["mounted"], false);
    assert_eq!(bed.ok(["cat", "a"]), "one");
    let text = bed.fails(1, ["umount", mounted.mountpoint.to_str().unwrap()]);
    assert!(text.contains("no pond is mounted"), "{text}");
}

#[test]
fn a_second_mount_of_a_pond_is_refused_and_an_old_version_is_not() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    fs::write(mounted.at("a"), "one").unwrap();
    let first = bed.json(["sync"])[0]["version"].as_u64().unwrap();
    fs::write(mounted.at("a"), "two").unwrap();
    let other = bed.path("other");
    let other_text = other.to_str().unwrap();
    let text = bed.fails(1, ["mount", other_text]);
    assert!(text.contains("in use") || text.contains("already"), "{text}");
    let ready = &bed.json(["mount", other_text, "--version", &first.to_string()])[0];
    assert_eq!((ready["version"].as_u64(), ready["read_only"].as_bool()), (Some(first), Some(true)));
    let old = fs::read_to_string(other.join("a"));
    let written = fs::write(other.join("a"), "three").map_err(|error| error.raw_os_error());
    bed.ok(["umount", other_text]);
    assert_eq!(old.unwrap(), "one");
    assert_eq!(written, Err(Some(libc::EROFS)));
    let text = bed.fails(1, ["mount", other_text, "--version", "999"]);
    assert!(text.contains("999"), "{text}");
}

#[test]
fn mount_8_can_call_us() {
    let mounted = Mounted::new();
    mounted.umount();
    let bed = &mounted.bed;
    let helper = |name: &str| {
        let link = bed.path(name);
        symlink(env!("CARGO_BIN_EXE_pond"), &link).unwrap();
        let mut command = Command::new(link);
        command.env_remove("POND").env_remove("POND_LOG").stdin(Stdio::null());
        command
    };
    let mountpoint = mounted.mountpoint.to_str().unwrap();
    let source = bed.pond();
    let mut mount = helper("mount.fuse.pond");
    let output =
        mount.args([source.to_str().unwrap(), mountpoint, "-o", "rw,nosuid,_netdev"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    fs::write(mounted.at("a"), "one").unwrap();
    let output = helper("umount.fuse.pond").arg(mountpoint).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!mounted.at("a").exists());
    assert_eq!(bed.ok(["cat", "a"]), "one");
    let output = helper("mount.pond")
        .args([source.to_str().unwrap(), mountpoint, "-o", "frobnicate"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("frobnicate"), "{}", stderr(&output));
}

#[test]
fn a_foreground_mount_says_when_it_is_ready_and_ends_by_a_signal() {
    let mounted = Mounted::new();
    mounted.umount();
    let bed = &mounted.bed;
    let mut command = bed.command();
    command
        .args(["mount", "-f", mounted.mountpoint.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut daemon = command.process_group(0).spawn().unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("Mounted version"));
    fs::write(mounted.at("a"), "one").unwrap();
    // SAFETY: a signal to our own child, which has not been waited for.
    unsafe { libc::kill(daemon.id().cast_signed(), libc::SIGTERM) };
    assert!(daemon.wait().unwrap().success());
    assert_eq!(bed.ok(["cat", "a"]), "one");
}

#[test]
fn what_a_killed_daemon_had_made_durable_is_told_of_and_recovered() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    let file = fs::File::create(mounted.at("a")).unwrap();
    (&file).write_all(b"one").unwrap();
    file.sync_all().unwrap();
    drop(file);
    let pid = bed.json(["status"])[0]["pid"].as_i64().unwrap();
    // SAFETY: a signal to the daemon that this test has started.
    unsafe { libc::kill(i32::try_from(pid).unwrap(), libc::SIGKILL) };
    let start = Instant::now();
    while fs::metadata(mounted.at("a")).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(bed.json(["status"])[0]["mounted"], false);
    assert!(mounted.umount().contains("daemon had died"));
    bed.ok(["sync"]);
    let output = bed.run(["cat", "a"]);
    assert_eq!((output.stdout.as_slice(), stderr(&output).as_str()), (b"one".as_slice(), ""));
}

#[test]
fn watching_shows_each_change() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    let mut watch =
        bed.command().args(["status", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut version = || {
        let status: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        status["version"].as_u64().unwrap()
    };
    assert_eq!(version(), 0);
    fs::write(mounted.at("a"), "one").unwrap();
    let start = Instant::now();
    while version() == 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn what_cannot_be_mounted_says_why() {
    let mounted = Mounted::new();
    mounted.umount();
    let bed = &mounted.bed;
    let file = bed.write("file", "x");
    assert!(bed.fails(1, ["mount", file.to_str().unwrap()]).contains("not a directory"));
    assert!(bed.fails(1, ["mount", bed.path("no/such").to_str().unwrap()]).contains("does not exist"));
    assert!(bed.fails(1, ["mount", bed.pond().join("in").to_str().unwrap()]).contains("within each other"));
    assert!(bed.fails(2, ["mount", "/nowhere", "-o", "frobnicate"]).contains("frobnicate"));
    let beside = bed.write("other/letter", "x");
    let output = common::pond()
        .arg("--pond")
        .arg(beside.parent().unwrap())
        .arg("mount")
        .arg(&mounted.mountpoint)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not a pond"), "{}", stderr(&output));
}

/// A remote in a directory of the host, and its configuration's file.
fn remote(bed: &Bed) -> (PathBuf, PathBuf) {
    let store = bed.path("store");
    fs::create_dir(&store).unwrap();
    let text = format!("storage_type: local\npath: {}\nsync_interval: 0.1\n", store.display());
    (store, bed.write("remote.yaml", text))
}

#[test]
fn umount_tells_what_is_still_to_be_pushed() {
    let mounted = Mounted::new();
    let bed = &mounted.bed;
    let (store, yaml) = remote(bed);
    bed.ok(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml.to_str().unwrap()]);
    bed.ok(["sync"]);
    // The store is gone, and a file in its place.
    fs::rename(&store, bed.path("elsewhere")).unwrap();
    fs::write(&store, "").unwrap();
    // One operation, so that it is one version whenever it is committed.
    fs::create_dir(mounted.at("a")).unwrap();
    let text = mounted.umount();
    assert!(
        text.contains("Still to be pushed by /etc/system.d/10-remote: 1 version; the next mount"),
        "{text}"
    );

    fs::remove_file(&store).unwrap();
    fs::rename(bed.path("elsewhere"), &store).unwrap();
    bed.ok(["mount", mounted.mountpoint.to_str().unwrap()]);
    bed.ok(["sync"]);
    let text = mounted.umount();
    assert!(!text.contains("pushed"), "{text}");
}

#[test]
fn umount_of_a_mount_that_follows_asks_its_own_daemon() {
    let source = Bed::new();
    let (_, yaml) = remote(&source);
    source.ok(["mknod", "remote", "/etc/system.d/10-remote", "--config-path", yaml.to_str().unwrap()]);
    source.ok(["sync"]);
    let bed = Bed::empty();
    bed.ok(["init", "--from-backup", yaml.to_str().unwrap()]);
    let mounted = Mounted { mountpoint: bed.path("mnt"), bed };
    let (bed, mountpoint) = (&mounted.bed, mounted.mountpoint.to_str().unwrap());
    let version = bed.json(["mount", mountpoint])[0]["version"].as_u64().unwrap();
    // A fixed version of the same pond, whose end is not the other's.
    let fixed = bed.path("fixed");
    bed.ok(["mount", fixed.to_str().unwrap(), "--version", "0"]);
    let report = &bed.json(["umount", fixed.to_str().unwrap()])[0];
    assert_eq!((&report["followed"], &report["version"]), (&false.into(), &serde_json::Value::Null));
    assert_eq!(bed.json(["status"])[0]["mounted"], true);

    // Waiting goes on while the mount ends, and then says that nobody follows.
    let waiting = bed
        .command()
        .args(["status", "--wait-version", &(version + 1).to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let report = &bed.json(["umount", mountpoint])[0];
    assert_eq!((&report["followed"], &report["version"]), (&true.into(), &version.into()));
    assert_eq!(report["owed"], serde_json::json!([]));
    let waited = waiting.wait_with_output().unwrap();
    assert!(stderr(&waited).contains("nobody follows the source"), "{}", stderr(&waited));
    assert_eq!(bed.json(["status"])[0]["mounted"], false);
}
