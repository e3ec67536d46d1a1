//! Mounting and unmounting, in all the ways that people and machines do it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pond_tests::helpers::Helpers;
use pond_tests::tools::tool;
use pond_tests::tree::{self, Also};
use pond_tests::{TestPond, pond_binary, run, succeed, unmount, wait_until};
use serde_json::Value;

/// The line of a mount in /proc/self/mounts: type and options.
fn mounted_as(mountpoint: &Path) -> Option<(String, Vec<String>)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.rfind(|line| line[1] == mountpoint.to_str().unwrap())?;
    Some((line[2].to_owned(), line[3].split(',').map(str::to_owned).collect()))
}

#[test]
fn what_was_written_is_there_after_the_next_mount() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    let before = tree::look_at(pond.mountpoint());
    pond.umount();
    assert!(mounted_as(pond.mountpoint()).is_none());
    assert!(pond.mountpoint().exists(), "the mountpoint that was made stays");
    pond.mount();
    tree::assert_same("after the remount", &before, &tree::look_at(pond.mountpoint()), Also::ALL);
    assert_eq!(fs::metadata(pond.directory()).unwrap().mode() & 0o777, 0o700);
    pond.umount();
}

#[test]
fn mount_returns_and_lets_go_of_its_output() {
    let pond = TestPond::new();
    let mut command = pond.command();
    let mount = command.arg("mount").arg(pond.mountpoint()).stdin(Stdio::null());
    let mut child = mount.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The end of both pipes comes only once nobody, the daemon included, holds them.
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    wait_until("`pond mount` closes its output", Duration::from_secs(60), || {
        reader.is_finished().then_some(())
    });
    assert!(child.wait().unwrap().success(), "{}", reader.join().unwrap());
    assert_eq!(fs::read_dir(pond.mountpoint()).unwrap().count(), 0);
    // It runs in a session of its own, with its working directory out of anybody's way.
    let daemon = pond.daemon();
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), Path::new("/"));
    pond.umount();
}

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
fn the_usual_options_are_in_force() {
    let pond = TestPond::mounted();
    let script = pond.path("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o4755)).unwrap();
    succeed(Command::new("mknod").arg(pond.path("null")).args(["c", "1", "3"]));
    let (kind, options) = mounted_as(pond.mountpoint()).unwrap();
    assert_eq!(kind, "fuse.pond");
    for expected in ["rw", "allow_other", "default_permissions"] {
        assert!(options.iter().any(|option| option == expected), "{expected} is not in {options:?}");
    }
    assert!(run(&mut Command::new(&script)).status.success());
    assert!(fs::write(pond.path("null"), "into a device").is_ok());
    pond.umount();

    pond.mount_with(&["-o", "ro,nosuid,nodev,noexec"]);
    let (_, options) = mounted_as(pond.mountpoint()).unwrap();
    for expected in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.iter().any(|option| option == expected), "{expected} is not in {options:?}");
    }
    let errno = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    assert_eq!(errno(fs::write(pond.path("new"), "")), Some(libc::EROFS));
    assert_eq!(errno(Command::new(&script).status().map(drop)), Some(libc::EACCES));
    assert_eq!(errno(File::open(pond.path("null")).map(drop)), Some(libc::EACCES));
    pond.umount();

    pond.mount_with(&["--read-only"]);
    assert_eq!(errno(fs::remove_file(&script)), Some(libc::EROFS));
    assert_eq!(errno(fs::write(&script, "")), Some(libc::EROFS));
    pond.umount();

    pond.mount_with(&["--private"]);
    let (_, options) = mounted_as(pond.mountpoint()).unwrap();
    assert!(!options.iter().any(|option| option == "allow_other"), "{options:?}");
    pond.umount();
}

#[test]
fn a_read_only_mount_changes_nothing_in_the_pond() {
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    pond.umount();
    let before = tree::look_at(&pond.directory().join("data"));
    pond.mount_with(&["--read-only"]);
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content");
    pond.umount();
    tree::assert_same("the table", &before, &tree::look_at(&pond.directory().join("data")), Also::ALL);
}

/// Runs a program that must succeed and has nothing to say about it.
#[track_caller]
fn silent(command: &mut Command) {
    let finished = run(command);
    assert!(
        finished.status.success() && finished.stdout.is_empty() && finished.stderr.is_empty(),
        "{finished}"
    );
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
fn a_pond_is_never_mounted_over_itself_also_where_neither_exists_yet() {
    let pond = TestPond::new();
    let real = pond.host_directory("real");
    std::os::unix::fs::symlink(&real, pond.host("link")).unwrap();
    std::os::unix::fs::symlink(pond.host("nowhere"), pond.host("dangling")).unwrap();
    for (directory, mountpoint) in [
        ("x", "x"),
        ("x/deep/pond", "x"),
        ("link/x", "real/x"),
        ("real/x/pond", "link/x"),
        ("absent/../x", "x"),
        ("real/absent/../../x/y", "x"),
        ("link/x/../x/y", "real/x"),
        ("x/", "./x"),
        ("dangling", "nowhere"),
        ("dangling/pond", "nowhere"),
    ] {
        let mut command = pond.marked(pond_binary());
        command.current_dir(real.parent().unwrap());
        let told = run(command.args(["--pond", directory, "mount", mountpoint])).failure(1);
        assert!(told.contains("within each other") || told.contains("leads nowhere"), "{told}");
        assert!(!pond.host("x").exists() && !pond.host("nowhere").exists() && !pond.host("absent").exists());
        assert_eq!(fs::read_dir(&real).unwrap().count(), 0, "{directory} {mountpoint}");
    }
    // Beside each other they may be made both at once.
    let mut command = pond.marked(pond_binary());
    command.current_dir(real.parent().unwrap());
    succeed(command.args(["--pond", "real/absent/../pond", "mount", "link/mnt"]));
    assert!(real.join("pond/data").exists() && !real.join("absent").exists());
    pond.umount_at(&real.join("mnt"));
}

#[test]
fn a_command_in_a_mount_works_on_the_pond_mounted_there_unless_another_is_named() {
    let (here, default) = (TestPond::new(), TestPond::new());
    here.mount();
    let home = default.host_directory("home");
    let default_pond = home.join("pond");
    succeed(default.marked(pond_binary()).arg("--pond").arg(&default_pond).arg("init"));
    let asked = |place: &Path, name: Option<&Path>, variable: Option<&Path>| {
        let mut command = here.marked(pond_binary());
        command.current_dir(place).env("XDG_DATA_HOME", &home);
        command.envs(variable.map(|pond| ("POND", pond)));
        command.args(name.iter().flat_map(|pond| ["--pond".as_ref(), pond.as_os_str()]));
        let told = succeed(command.args(["--json", "status"]));
        let status: Value = serde_json::from_str(&told).unwrap();
        status["path"].as_str().unwrap().to_owned()
    };
    let path = |pond: &Path| pond.to_str().unwrap().to_owned();
    let below = here.path("a/b");
    fs::create_dir_all(&below).unwrap();
    let bound = here.host_directory("bound");
    succeed(here.marked("mount").arg("--bind").arg(here.path("a")).arg(&bound));
    for place in [here.mountpoint(), &below, &bound.join("b")] {
        assert_eq!(asked(place, None, None), path(here.directory()));
        assert_eq!(asked(place, None, Some(&default_pond)), path(&default_pond));
        assert_eq!(asked(place, Some(&default_pond), Some(here.directory())), path(&default_pond));
    }
    assert_eq!(asked(&home, None, None), path(&default_pond));
    unmount(here.marked("umount").arg(&bound));
    here.umount();
    assert_eq!(
        asked(here.mountpoint(), None, None),
        path(&default_pond),
        "nothing is mounted there any more"
    );
}

#[test]
fn a_mount_by_fstab_makes_no_pond_unless_told_and_pond_mount_says_so_first() {
    let _helpers = Helpers::install();
    let pond = TestPond::new();
    fs::create_dir(pond.mountpoint()).unwrap();
    let mount = |options: &str| {
        let mut mount = pond.marked("mount");
        run(mount.args(["-t", "fuse.pond", "-o", options]).arg(pond.directory()).arg(pond.mountpoint()))
    };
    for empty_directory in [false, true] {
        let told = mount("defaults");
        assert!(!told.status.success() && told.stderr.contains("no pond"), "{told}");
        let told = pond.try_mount_at(pond.mountpoint(), &["--no-create"]).failure(1);
        assert!(told.contains("no pond"), "{told}");
        match empty_directory {
            true => assert_eq!(fs::read_dir(pond.directory()).unwrap().count(), 0),
            false => fs::create_dir(pond.directory()).unwrap(),
        }
    }
    mount("create").success();
    unmount(pond.command().arg("umount").arg(pond.mountpoint()));
    mount("defaults").success();
    unmount(pond.command().arg("umount").arg(pond.mountpoint()));

    let other = TestPond::new();
    let told = other.try_mount_at(other.mountpoint(), &[]).success();
    assert!(told.starts_with("Made a pond in "), "{told}");
    other.umount();
    let told = other.try_mount_at(other.mountpoint(), &["--read-only"]).success();
    assert!(!told.contains("Made") && !told.contains("commit"), "{told}");
    other.umount();
}

#[test]
fn mount_and_umount_of_the_system_find_pond_by_its_type() {
    let _helpers = Helpers::install();
    for kind in ["fuse.pond", "pond"] {
        let pond = TestPond::new();
        // As with any filesystem, the mountpoint must be there.
        fs::create_dir(pond.mountpoint()).unwrap();
        let mut mount = pond.marked("mount");
        mount.args(["-t", kind, "-o", "create,rw,nosuid,_netdev,nofail,commit=2,x-systemd.automount"]);
        silent(mount.arg(pond.directory()).arg(pond.mountpoint()));
        let (shown, options) = mounted_as(pond.mountpoint()).unwrap();
        assert_eq!(shown, "fuse.pond");
        assert!(options.iter().any(|option| option == "nosuid"), "{options:?}");
        fs::write(pond.path("file"), "content").unwrap();
        unmount(pond.marked("umount").arg(pond.mountpoint()));
        assert!(mounted_as(pond.mountpoint()).is_none());
        // umount(8) asks the kernel alone, whatever helper there is; the next mount waits for the daemon's end.
        let mut again = pond.marked("mount");
        silent(again.args(["-t", kind, "-o", "ro"]).arg(pond.directory()).arg(pond.mountpoint()));
        assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content");
        unmount(pond.marked("umount").arg(pond.mountpoint()));
    }
}

#[test]
fn a_mount_is_made_read_only_and_writable_again_while_it_is_used() {
    let _helpers = Helpers::install();
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    fs::write(pond.path("file"), "content").unwrap();
    let reader = File::open(pond.path("file")).unwrap();
    let remount = |options: &str| run(pond.marked("mount").args(["-o", options]).arg(pond.mountpoint()));
    let options = || mounted_as(pond.mountpoint()).unwrap().1;
    let errno = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    for round in 0..2 {
        let writer = File::create(pond.path("open")).unwrap();
        let told = remount("remount,ro");
        assert!(!told.status.success() && told.stderr.contains("open for writing"), "{told}");
        fs::write(pond.path("still"), "writable").unwrap();
        drop(writer);

        let told = remount("remount,ro");
        assert!(told.status.success() && told.stdout.is_empty() && told.stderr.is_empty(), "{told}");
        assert!(options().contains(&"ro".to_owned()), "{:?}", options());
        assert_eq!(errno(fs::write(pond.path("new"), "")), Some(libc::EROFS));
        assert_eq!(errno(fs::remove_file(pond.path("file"))), Some(libc::EROFS));
        assert_eq!(pond.status()["mounted_read_only"], true);
        // Whatever was written before is in a version.
        let newest = pond.version().to_string();
        let then = pond.mount_beside(&format!("then-{round}"), &["--version", &newest]);
        assert_eq!(fs::read_to_string(then.join("still")).unwrap(), "writable");
        pond.umount_at(&then);
        let configuration = pond.host("exec-log.yaml");
        fs::write(&configuration, "path: /dev/null\n").unwrap();
        let arguments = ["mknod", "exec-log", "/etc/node", "--config-path", configuration.to_str().unwrap()];
        let told = pond.try_pond(arguments).failure(1);
        assert!(told.contains("read-only"), "{told}");

        remount("remount,rw,noatime,nodev").success();
        fs::write(pond.path("new"), "").unwrap();
        assert_eq!(pond.status()["mounted_read_only"], false);
        for expected in ["rw", "noatime", "nodev"] {
            assert!(options().contains(&expected.to_owned()), "{expected} is not in {:?}", options());
        }
    }
    remount("remount,ro").success();
    // The daemon is asked to take its leave all the same.
    let daemon = pond.daemon();
    drop(reader);
    let told = wait_until("the mount is not busy", Duration::from_secs(10), || {
        let told = run(pond.command().arg("umount").arg(pond.mountpoint()));
        told.status.success().then_some(told.stdout)
    });
    assert!(told.contains("holds everything"), "{told}");
    assert!(pond_tests::processes::has_ended(daemon));
}

#[test]
fn what_was_mounted_read_only_becomes_writable_but_the_past_does_not() {
    let _helpers = Helpers::install();
    let pond = TestPond::mounted();
    fs::write(pond.path("file"), "content").unwrap();
    pond.umount();
    pond.mount_with(&["-o", "ro"]);
    let remount = |place: &Path| run(pond.marked("mount").args(["-o", "remount,rw"]).arg(place));
    let reader = File::open(pond.path("file")).unwrap();
    let told = remount(pond.mountpoint());
    assert!(!told.status.success() && told.stderr.contains("busy"), "{told}");
    drop(reader);
    wait_until("the mount is writable", Duration::from_secs(10), || {
        let told = remount(pond.mountpoint());
        assert!(told.status.success() || told.stderr.contains("busy"), "{told}");
        told.status.success().then_some(())
    });
    fs::write(pond.path("file"), "changed").unwrap();
    let then = pond.mount_beside("then", &["--version", "0"]);
    let told = remount(&then);
    assert!(!told.status.success() && told.stderr.contains("stays read-only"), "{told}");
    pond.umount_at(&then);
    pond.umount();
    assert_eq!(pond.pond(["cat", "/file"]), "changed");
}

#[test]
fn options_that_every_filesystem_takes_are_taken_and_sync_means_it() {
    let pond = TestPond::new();
    pond.mount_with(&["-o", "sync,noatime,lazytime,discard,iversion,silent,commit=3600"]);
    let (_, options) = mounted_as(pond.mountpoint()).unwrap();
    for expected in ["sync", "noatime"] {
        assert!(options.iter().any(|option| option == expected), "{expected} is not in {options:?}");
    }
    fs::write(pond.path("file"), "not fsynced").unwrap();
    pond.kill();
    pond.mount();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "not fsynced");
    pond.umount();
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
fn a_mount_from_fstab_needs_no_more_than_its_name() {
    let _helpers = Helpers::install();
    let pond = TestPond::new();
    fs::create_dir(pond.mountpoint()).unwrap();
    pond.pond(["init"]);
    let fstab = pond.host("fstab");
    let (directory, mountpoint) = (pond.directory().display(), pond.mountpoint().display());
    fs::write(&fstab, format!("{directory} {mountpoint} fuse.pond defaults,nodev,noauto 0 0\n")).unwrap();
    silent(pond.marked("mount").arg("--fstab").arg(&fstab).arg(pond.mountpoint()));
    fs::write(pond.path("file"), "content").unwrap();
    unmount(pond.marked("umount").arg(pond.mountpoint()));
    succeed(pond.marked("mount").arg("--fstab").arg(&fstab).arg(pond.mountpoint()));
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "content");
    unmount(pond.marked("umount").arg(pond.mountpoint()));
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
fn what_a_mount_hides_is_warned_of() {
    let pond = TestPond::new();
    fs::create_dir_all(pond.mountpoint().join("notes")).unwrap();
    let mountpoint = pond.mountpoint().to_str().unwrap();
    let said = run(pond.command().args(["--json", "mount", mountpoint]));
    assert!(said.stderr.contains("is not empty: what is in it (notes) is hidden until"), "{said}");
    let facts: Value = serde_json::from_str(&said.success()).unwrap();
    assert!(facts["notes"][0].as_str().unwrap().contains("is not empty"), "{facts}");
    pond.umount();
    let said = pond.try_pond(["mount", "-o", "nonempty", mountpoint]);
    assert_eq!(said.stderr, "");
    said.success();
    pond.umount();
    fs::remove_dir(pond.mountpoint().join("notes")).unwrap();
    assert_eq!(pond.try_pond(["mount", mountpoint]).stderr, "");
    pond.umount();
}

/// What a shell has open when it mounts another pond, and where it stands, is not the daemons'.
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

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    let pond = TestPond::new();
    // A place of the user's own, a program that the user may run, and a /dev/fuse that the user may open, the
    // last in a mount namespace of this script's.
    let home = pond.host_directory("home");
    pond.pond(["init"]);
    let program = pond.host("pond-program");
    fs::copy(pond_binary(), &program).unwrap();
    succeed(Command::new("chown").arg("nobody").arg(&home));
    let script = r#"
        mknod -m 666 "$HOME_OF_USER.fuse" c 10 229
        mount --bind "$HOME_OF_USER.fuse" /dev/fuse
        echo user_allow_other > "$HOME_OF_USER.conf"
        touch /etc/fuse.conf
        mount --bind "$HOME_OF_USER.conf" /etc/fuse.conf
        exec setpriv --reuid nobody --regid nogroup --clear-groups sh -e -u -x -c '
            refused() { if "$@"; then echo "not refused: $*"; exit 9; fi; }
            cd "$HOME_OF_USER"
            export POND=$HOME_OF_USER/pond
            "$PROGRAM" mount mnt
            grep -q "$HOME_OF_USER/mnt fuse.pond.*nosuid,nodev" /proc/self/mounts
            echo content > mnt/file
            test "$(stat -c %U mnt/file)" = nobody
            refused chown root mnt/file
            "$PROGRAM" sync
            "$PROGRAM" umount mnt
            refused grep -q "$HOME_OF_USER" /proc/self/mounts
            refused "$PROGRAM" --pond "$PONDS_OF_ROOT" status 2> said
            grep -q "is another user" said
            "$PROGRAM" mount mnt -o allow_other
            test "$(cat mnt/file)" = content
            pid=$(sed -n "s/.*\"pid\": *\([0-9]*\).*/\1/p" mnt/.pond/status.json)
            kill -9 $pid
            while grep -qs "State:.[RSD]" /proc/$pid/status; do sleep 0.05; done
            sleep 0.2
            "$PROGRAM" mount mnt
            test "$(cat mnt/file)" = content
            "$PROGRAM" umount mnt
        '"#;
    let mut command = pond.in_namespace(script);
    command.env("HOME_OF_USER", &home).env("PROGRAM", &program).env("PONDS_OF_ROOT", pond.directory());
    let finished = run(&mut command);
    println!("{finished}");
    finished.success();
}

#[test]
fn the_virtual_files_tell_position_lag_and_status() {
    let pond = TestPond::mounted_with(&["-o", "commit=0.1"]);
    let names = |path: &Path| fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert!(names(pond.mountpoint()).is_empty(), ".pond is listed");
    let virtual_directory = pond.path(".pond");
    for own in ["status.json", "log"] {
        assert_eq!(
            fs::metadata(virtual_directory.join(own)).unwrap().mode() & 0o077,
            0,
            "others may read {own}"
        );
    }
    for name in ["position", "lag", "status.json", "log"] {
        assert!(names(&virtual_directory).iter().any(|found| found == name), "{name}");
    }
    assert_eq!(fs::read_to_string(pond.path(".pond/lag")).unwrap(), "0\n");
    let (first, _) = pond.position().unwrap();
    for number in 1..=5 {
        fs::write(pond.path("file"), number.to_string()).unwrap();
        let what = format!("version {} is shown", first + number);
        wait_until(&what, Duration::from_secs(20), || (pond.version() >= first + number).then_some(()));
    }
    pond.sync();
    let (version, digest) = pond.position().unwrap();
    let entry = pond.directory().join(format!("data/_delta_log/{version:020}.json"));
    assert_eq!(tree::digest(&entry).unwrap(), digest, "the digest is that of the log entry");
    assert!(!pond.directory().join(format!("data/_delta_log/{:020}.json", version + 1)).exists());
    let status: Value = serde_json::from_slice(&fs::read(pond.path(".pond/status.json")).unwrap()).unwrap();
    assert_eq!(status["version"].as_u64(), Some(version));
    assert_eq!(status["digest"].as_str(), Some(&*digest));
    assert_eq!(pond.status()["pond_id"], status["pond_id"]);
    // The name belongs to pond.
    let errno = |result: std::io::Result<()>| result.err().and_then(|error| error.raw_os_error());
    assert!(errno(fs::remove_dir(&virtual_directory)).is_some());
    assert!(errno(fs::write(pond.path(".pond/position"), "1/x")).is_some());
    assert!(errno(fs::rename(pond.path("file"), pond.path(".pond"))).is_some());
    assert!(errno(fs::write(pond.path(".pond/new"), "")).is_some());
    pond.umount();
}

#[test]
fn a_mount_of_a_version_or_of_a_time_shows_the_tree_as_it_was_and_takes_no_writes() {
    let pond = TestPond::mounted_with(&["-o", "commit=3600"]);
    let mut states = Vec::new();
    for round in 0..4 {
        fs::write(pond.path("file"), format!("round {round}")).unwrap();
        fs::write(pond.path(format!("only-{round}")), "").unwrap();
        if round > 0 {
            fs::remove_file(pond.path(format!("only-{}", round - 1))).unwrap();
        }
        pond.sync();
        std::thread::sleep(Duration::from_millis(20));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = format!("@{}.{:06}", now.as_secs(), now.subsec_micros());
        states.push((pond.version(), now, tree::look_at(pond.mountpoint())));
        std::thread::sleep(Duration::from_millis(20));
    }
    let compare = |(version, time, expected): &(u64, String, tree::Tree)| {
        for (number, arguments) in
            [["--version", &version.to_string()], ["--timestamp", time]].iter().enumerate()
        {
            let mountpoint = pond.mount_beside(&format!("{version}-{number}"), arguments);
            tree::assert_same(&arguments.join(" "), expected, &tree::look_at(&mountpoint), Also::ALL);
            let position = fs::read_to_string(mountpoint.join(".pond/position")).unwrap();
            assert!(position.starts_with(&format!("{version}/")), "{position}");
            let error = fs::write(mountpoint.join("new"), "").expect_err("the past takes writes");
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            pond.umount_at(&mountpoint);
        }
    };
    // While the pond is mounted for writing, and when it is not.
    compare(&states[1]);
    pond.umount();
    states.iter().for_each(compare);
}

#[test]
fn commits_come_about_once_a_second_and_none_when_nothing_changes() {
    let pond = TestPond::mounted();
    let first = pond.version();
    let started = std::time::Instant::now();
    let mut number = 0;
    while started.elapsed() < Duration::from_secs(6) {
        number += 1;
        fs::write(pond.path("file"), number.to_string()).unwrap();
    }
    pond.sync();
    let (made, took) = (pond.version() - first, started.elapsed());
    // On a busy machine a commit that nobody waits for gives way for up to three intervals more.
    assert!((2..=took.as_secs() + 3).contains(&made), "{made} versions in {took:?} of writing");
    let quiet = pond.version();
    std::thread::sleep(Duration::from_millis(2_500));
    assert_eq!(pond.version(), quiet, "versions are made of nothing");
    fs::read(pond.path("file")).unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(pond.version(), quiet, "reading makes versions");
    pond.umount();
}

#[test]
fn a_32_bit_program_without_support_for_large_files_lists_and_stats_with_inode32() {
    let pond = TestPond::mounted();
    let program = pond.host("list");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/list.c");
    succeed(Command::new(tool("cc")).arg("-m32").arg(source).arg("-o").arg(&program));
    fs::create_dir(pond.path("many")).unwrap();
    for n in 0..3000 {
        fs::write(pond.path(format!("many/file {n}")), "").unwrap();
    }
    let list = || run(Command::new(&program).arg(pond.path("many")));
    let refused = list();
    assert!(!refused.status.success(), "it lists without the option: {refused:?}");
    assert!(refused.stderr.contains("Value too large for defined data type"), "{refused:?}");
    pond.umount();

    pond.mount_with(&["-o", "inode32"]);
    let listed = list();
    assert_eq!((&*listed.stdout, &*listed.stderr), ("3002\n", ""), "{listed:?}");
    for n in (0..3000).step_by(2) {
        fs::remove_file(pond.path(format!("many/file {n}"))).unwrap();
        fs::write(pond.path(format!("many/new {n}")), "").unwrap();
    }
    assert_eq!(list().stdout, "3002\n");
}
