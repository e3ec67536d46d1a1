//! A disk that fails under a mounted pond: writers hear of it, `pond status` says why the pond takes no more writes, reads go on,
//! and what was acknowledged is there when the disk is.
//!
//! The disk is an ext4 of the test's own. It fails in two ways that the kernel offers: going read-only, as ext4 does when
//! its device reports an error (`remount,abort`), and refusing everything with EIO (`FS_IOC_SHUTDOWN`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pond_tests::tools::tool;
use pond_tests::{Random, TestPond, run, succeed, wait_until};

/// A mounted ext4 with a journal, which can fail.
struct Disk {
    base: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let base = tempfile::Builder::new().prefix("pond-failing-").tempdir().unwrap();
        let disk = Disk { base };
        File::create(disk.image()).and_then(|file| file.set_len(256 << 20)).unwrap();
        succeed(Command::new(tool("mkfs.ext4")).args(["-q", "-m", "0"]).arg(disk.image()));
        fs::create_dir(disk.root()).unwrap();
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.base.path().join("image")
    }

    fn root(&self) -> PathBuf {
        self.base.path().join("disk")
    }

    fn mount(&self) {
        succeed(Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.root()));
    }

    /// From here on the filesystem is read-only, as after an error of its device.
    fn becomes_read_only(&self) {
        succeed(Command::new("mount").args(["-o", "remount,abort"]).arg(self.root()));
    }

    /// From here on everything is EIO, and what was not synced is lost.
    fn dies(&self) {
        const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let root = File::open(self.root()).unwrap();
        // SAFETY: the descriptor is open, and the argument points to a live number.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN as _, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    /// Another disk with the same bytes, so to speak.
    fn is_replaced(&self) {
        wait_until("the failed disk can be unmounted", Duration::from_secs(30), || {
            run(Command::new("umount").arg(self.root())).status.success().then_some(())
        });
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let ended = run(Command::new("umount").arg("-l").arg(self.root()));
        if !ended.status.success() {
            eprintln!("{ended}");
        }
    }
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Files of which each was fsync'd: some are in versions, the last only in the journal.
fn acknowledged(pond: &TestPond, random: &mut Random) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for number in 0..12 {
        let (name, content) = (format!("file-{number}"), random.bytes(50_000 + number * 1000));
        write_synced(&pond.path(&name), &content).unwrap();
        if number % 4 == 0 {
            pond.sync();
        }
        files.push((name, content));
    }
    files
}

fn assert_there(pond: &TestPond, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        assert!(fs::read(pond.path(name)).unwrap() == *content, "{name} is damaged");
    }
}

/// `pond umount` does not give up what is not committed; who wants that ends the daemon.
fn gives_up(pond: &TestPond) {
    let told = run(pond.command().arg("umount").arg(pond.mountpoint())).failure(1);
    assert!(told.contains("could not be committed"), "{told}");
    // SAFETY: signals the test's own daemon.
    unsafe { libc::kill(pond.daemon(), libc::SIGTERM) };
    wait_until("the daemon has ended", Duration::from_secs(30), || pond.processes().is_empty().then_some(()));
}

/// The disk fails, writers are told, the status says why; with another disk all that was acknowledged is there.
fn fails(fail: impl Fn(&Disk), reads_go_on: bool) {
    let disk = Disk::new();
    // Long, so that the journal, not a commit, meets the failure first.
    let pond = TestPond::in_directory(disk.root().join("pond"));
    pond.mount_with(&["-o", "commit=60"]);
    let mut random = Random::new(4);
    let files = acknowledged(&pond, &mut random);
    fail(&disk);

    let error = write_synced(&pond.path("refused"), b"never acknowledged").unwrap_err();
    assert!(matches!(error.raw_os_error(), Some(libc::EIO | libc::EROFS)), "{error}");
    wait_until("the pond is read-only", Duration::from_secs(20), || {
        (pond.status()["state"] == "read-only").then_some(())
    });
    let status = pond.status();
    let why = status["read_only_because"].as_str().unwrap();
    println!("{why}");
    assert!(why.contains(pond.directory().to_str().unwrap()), "it does not name the file: {why}");
    assert!(pond.pond(["status"]).contains(why), "`pond status` does not say why");
    let error = fs::write(pond.path("later"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    let error = fs::remove_file(pond.path("file-0")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
    assert!(fs::read_dir(pond.mountpoint()).unwrap().count() >= files.len());
    if reads_go_on {
        assert_there(&pond, &files);
    }
    gives_up(&pond);
    disk.is_replaced();
    let report = pond.try_pond(["fsck"]);
    println!("{report}");
    pond.mount();
    assert_there(&pond, &files);
    write_synced(&pond.path("after"), b"goes on").unwrap();
    pond.remount();
    assert_eq!(fs::read(pond.path("after")).unwrap(), b"goes on");
    pond.umount();
    pond.pond(["fsck"]);
}

#[test]
fn a_disk_that_becomes_read_only_makes_the_pond_read_only_and_reads_go_on() {
    fails(Disk::becomes_read_only, true);
}

#[test]
fn a_disk_that_dies_makes_the_pond_read_only_and_loses_nothing_acknowledged() {
    fails(Disk::dies, false);
}

#[test]
fn a_commit_that_meets_the_failure_first_says_so_too() {
    let disk = Disk::new();
    let pond = TestPond::in_directory(disk.root().join("pond"));
    pond.mount();
    let content = Random::new(5).bytes(300_000);
    write_synced(&pond.path("file"), &content).unwrap();
    pond.sync();
    disk.becomes_read_only();
    // Nobody waits for this one: the periodic commit finds out.
    fs::write(pond.path("unsynced"), "x").unwrap();
    wait_until("the pond is read-only", Duration::from_secs(20), || {
        (pond.status()["state"] == "read-only").then_some(())
    });
    let why = pond.status()["read_only_because"].as_str().unwrap().to_owned();
    assert!(why.contains("read-only") || why.contains("Read-only"), "{why}");
    assert!(fs::read(pond.path("file")).unwrap() == content);
    assert!(pond.try_pond(["sync"]).failure(1).contains("could not be committed"));
    // A check runs beside it, where no lock file can be written.
    pond.pond(["fsck"]);
    gives_up(&pond);
    disk.is_replaced();
    pond.mount();
    assert!(fs::read(pond.path("file")).unwrap() == content);
    pond.umount();
}

#[test]
fn a_pond_on_a_read_only_disk_can_be_read_and_says_why_it_cannot_be_written() {
    let disk = Disk::new();
    let pond = TestPond::in_directory(disk.root().join("pond"));
    pond.mount();
    fs::write(pond.path("file"), "content").unwrap();
    pond.umount();
    disk.becomes_read_only();
    let told = pond.try_mount_at(pond.mountpoint(), &[]).failure(1);
    println!("{told}");
    assert!(
        told.contains("Read-only file system") && told.contains(pond.directory().to_str().unwrap()),
        "{told}"
    );
    let old = pond.mount_beside("old", &["--read-only"]);
    assert_eq!(fs::read_to_string(old.join("file")).unwrap(), "content");
    pond.umount_at(&old);
    pond.pond(["fsck"]);
}
