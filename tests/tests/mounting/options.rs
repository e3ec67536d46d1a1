//! Options of a mount, on the command line and in fstab.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pond_tests::helpers::Helpers;
use pond_tests::tools::tool;
use pond_tests::{TestPond, run, succeed, unmount, wait_until};

use crate::mounted_as;

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
