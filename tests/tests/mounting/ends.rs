//! How mounts end: told to, by umount, by signals, and after their daemon died.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use pond_tests::helpers::Helpers;
use pond_tests::{TestPond, pond_binary, run, unmount, wait_until};
use serde_json::Value;

use crate::mounted_as;

#[test]
fn a_mount_in_the_foreground_commits_everything_when_it_is_told_to_end() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let pond = TestPond::new();
        let mounted = pond.mount_in_foreground(&["-o", "commit=3600"]);
        assert_eq!(pond.daemon(), mounted.pid());
        fs::write(pond.path("file"), "not yet committed").unwrap();
        mounted.end_by(signal);
        assert!(mounted_as(pond.mountpoint()).is_none(), "it is still mounted");
        let newest: Vec<Value> = pond.json(["log", "-n", "1"]);
        assert!(newest[0]["version"].as_u64() > Some(0), "{newest:?}");
        assert_eq!(pond.pond(["cat", "/file"]), "not yet committed");
    }
}

#[test]
fn a_daemon_commits_everything_when_it_is_told_to_end() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
        fs::write(pond.path("file"), "not yet committed").unwrap();
        let daemon = pond.daemon();
        pond_tests::processes::signal(daemon, signal);
        pond_tests::processes::wait_for_end(daemon, Duration::from_secs(60));
        assert!(mounted_as(pond.mountpoint()).is_none(), "it is still mounted");
        assert_eq!(pond.pond(["cat", "/file"]), "not yet committed");
    }
}

#[test]
fn a_mount_that_is_cancelled_while_it_waits_never_happens() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGKILL] {
        let pond = TestPond::new();
        pond.pond(["init"]);
        // Somebody has the pond open, and no mount shows it.
        let lock = File::options().read(true).write(true).open(pond.directory().join("lock")).unwrap();
        lock.lock().unwrap();
        for arguments in [&[][..], &["-o", "commit=2"]] {
            let messages = pond.host("messages");
            let stderr = File::create(&messages).unwrap();
            let mut mount = pond.command();
            mount.arg("mount").arg(pond.mountpoint()).args(arguments).stdin(Stdio::null()).stderr(stderr);
            let mut mount = mount.spawn().unwrap();
            wait_until("the mount says that it waits", Duration::from_secs(60), || {
                fs::read_to_string(&messages).unwrap().contains("waiting until").then_some(())
            });
            pond_tests::processes::signal(mount.id() as i32, signal);
            mount.wait().unwrap();
            wait_until("its daemon has ended", Duration::from_secs(60), || {
                pond.processes().is_empty().then_some(())
            });
        }
        drop(lock);
        assert!(mounted_as(pond.mountpoint()).is_none() && !pond.mountpoint().exists());
        // Nobody is in the way of the next.
        let told = pond.try_mount_at(pond.mountpoint(), &[]);
        assert!(!told.stderr.contains("waiting"), "{told}");
        told.success();
        pond.umount();
    }
}

#[test]
fn the_helper_of_umount_commits_everything_before_it_returns() {
    let _helpers = Helpers::install();
    let pond = TestPond::new();
    // As umount(8) calls it, with and without its options.
    for options in [&[][..], &["-n"], &["-r", "-t", "fuse.pond"]] {
        pond.mount_with(&["-o", "commit=3600"]);
        let content = format!("content {options:?}");
        fs::write(pond.path("file"), &content).unwrap();
        let daemon = pond.daemon();
        unmount(pond.marked("/sbin/umount.fuse.pond").arg(pond.mountpoint()).args(options));
        assert!(pond_tests::processes::has_ended(daemon), "the daemon still runs");
        assert!(mounted_as(pond.mountpoint()).is_none());
        assert_eq!(pond.pond(["cat", "/file"]), content);
    }
}

#[test]
fn a_dead_mount_is_detached_by_the_next() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    pond.sync();
    // The kernel now has everything about the root in its cache, and would answer for the dead.
    fs::metadata(pond.mountpoint()).unwrap();
    pond.kill();
    assert!(fs::read(pond.path("file")).is_err());
    pond.mount();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content");
    pond.umount();
    assert!(mounted_as(pond.mountpoint()).is_none(), "the dead mount is still beneath");
}

#[test]
fn a_dead_mount_can_be_unmounted() {
    let pond = TestPond::mounted();
    pond.kill();
    pond.umount();
    assert!(mounted_as(pond.mountpoint()).is_none());
}

#[test]
fn a_busy_mount_is_not_unmounted_and_whoever_keeps_it_busy_is_named() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    let mut reader = pond.marked("sleep").arg("600").current_dir(pond.mountpoint()).spawn().unwrap();
    let told = pond.try_pond(["umount", pond.mountpoint().to_str().unwrap()]).failure(1);
    assert!(
        told.contains("busy") && told.contains(&reader.id().to_string()) && told.contains("sleep"),
        "{told}"
    );
    fs::write(pond.path("file"), "still mounted, still writable").unwrap();
    reader.kill().unwrap();
    reader.wait().unwrap();
    pond.umount();
    assert_eq!(pond.pond(["cat", "/file"]), "still mounted, still writable");
}

#[test]
fn no_daemon_keeps_a_mount_busy_or_is_named_as_who_does() {
    let (pond, other) = (TestPond::mounted(), TestPond::new());
    fs::write(pond.path("file"), "content").unwrap();
    let script = format!(
        "exec 7<{}; {:?} --pond {} mount {}",
        pond.path("file").display(),
        pond_tests::pond_binary(),
        other.directory().display(),
        other.mountpoint().display()
    );
    run(other.marked("sh").args(["-c", &script])).success();
    pond.umount();

    // In the foreground, started from what the mount then hides.
    fs::create_dir_all(pond.mountpoint()).unwrap();
    let mut daemon = pond.command();
    let mut daemon = daemon
        .args(["mount", "-f", "."])
        .current_dir(pond.mountpoint())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is mounted", Duration::from_secs(30), || pond.path(".pond").exists().then_some(()));
    let reader = fs::File::open(pond.path("file")).unwrap();
    let told = pond.try_pond(["umount", pond.mountpoint().to_str().unwrap()]).failure(1);
    assert!(told.contains(&format!("{} mounting", std::process::id())), "{told}");
    assert!(!told.contains(" pond (") && !told.contains(&format!("  {} ", daemon.id())), "{told}");
    drop(reader);
    pond.umount();
    assert!(daemon.wait().unwrap().success());
    other.umount();
}

#[test]
fn the_status_of_a_pond_whose_daemon_is_stopped_is_told_without_it() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    pond.sync();
    let (version, daemon) = (pond.version(), pond.daemon());
    pond_tests::processes::signal(daemon, libc::SIGSTOP);
    let told = pond.try_pond(["status"]);
    let json = run(pond.command().args(["--json", "status"]));
    pond_tests::processes::signal(daemon, libc::SIGCONT);
    assert_eq!(told.status.code(), Some(1), "{told}");
    assert!(told.stderr.contains("is stopped") && told.stderr.contains(&daemon.to_string()), "{told}");
    assert!(told.stdout.contains(pond.mountpoint().to_str().unwrap()), "{told}");
    let status: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((status["version"].as_u64(), status["mounted"].as_bool()), (Some(version), Some(true)));
    assert_eq!(status["state"], "not_answering");
    assert!(pond.status()["unanswered"].is_null());
    pond.umount();
}

#[test]
fn umount_does_not_wait_for_mount_namespaces_that_keep_a_copy_and_names_who_is_in_them() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/mnt")).unwrap();
    let mut keeper = pond.in_namespace("exec sleep 600").spawn().unwrap();
    let pid = keeper.id().to_string();
    wait_until("it sleeps in a namespace of its own", Duration::from_secs(20), || {
        let sleeps = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == "sleep\n";
        (sleeps && namespace(&pid) != namespace("self")).then_some(())
    });
    // From the namespace of the daemon, and from another one, where the daemon itself keeps the mount.
    let umount = pond.try_pond(["umount", pond.mountpoint().to_str().unwrap()]);
    assert!(umount.stderr.contains(&format!("{pid} sleep")), "{umount}");
    umount.success();
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    pond.mount();
    let mut command = pond.in_namespace(r#"exec "$PROGRAM" umount "$KEPT""#);
    let umount = run(command.env("PROGRAM", pond_binary()));
    assert!(umount.stderr.contains(&format!("{} pond", pond.daemon())), "{umount}");
    umount.success();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content");
    pond.umount();
}

#[test]
fn umount_of_what_is_no_mount_says_so() {
    let pond = TestPond::new();
    fs::create_dir(pond.mountpoint()).unwrap();
    let told = pond.try_pond(["umount", pond.mountpoint().to_str().unwrap()]).failure(1);
    assert!(told.contains(pond.mountpoint().to_str().unwrap()), "{told}");
}
