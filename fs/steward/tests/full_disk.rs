//! A pond on a filesystem that fills up: writers are told, nothing committed is harmed, and work goes on once there is
//! room.

mod common;

use std::path::Path;
use std::process::Command;

use common::{by_hand, open, read, write};
use pond_steward::{State, Steward};
use pond_tinyfs::{Caller, NodeId};

/// A small filesystem, unmounted in the end.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        Small(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap().success());
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_full_disk_harms_nothing_and_work_goes_on_once_there_is_room() {
    let small = Small::new("64m");
    let pond = small.path().join("pond");
    Steward::init(&pond).unwrap();
    let steward = open(&pond, by_hand());
    assert!(pond.join("reserve").exists());
    for i in 0..20 {
        write(&steward, &format!("kept-{i}"), &noise(i, 1 << 20)).unwrap();
    }
    steward.commit_now().unwrap();

    let other = small.path().join("other");
    std::fs::write(&other, vec![0; 4 << 20]).unwrap();

    // The pond itself fills it, until writers are told.
    let mut told = None;
    for i in 0..100 {
        if let Err(error) = write(&steward, &format!("more-{i}"), &noise(i + 100, 1 << 20)) {
            told = Some(error.errno());
            break;
        }
        steward.commit_now().unwrap();
    }
    assert_eq!(told, Some(libc::ENOSPC));
    assert_ne!(steward.status().state, State::ReadOnly);
    steward.commit_now().unwrap();

    steward.fs().unlink(&Caller::root(), NodeId::ROOT, b"more-0").unwrap();
    steward.commit_now().unwrap();

    // Something else takes what is left, between the accepted write and its commit, and the reserve as well.
    std::fs::remove_file(&other).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    write(&steward, "accepted", &noise(999, 100_000)).unwrap();
    match std::fs::remove_file(pond.join("reserve")) {
        // Given up already.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => {}
    }
    let ballast = small.path().join("ballast");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!filled.success(), "the disk is full now");
    let version = steward.position().version;
    assert_eq!(steward.commit_now().unwrap_err().errno(), libc::ENOSPC);
    assert_eq!(steward.status().state, State::Retrying);
    assert_eq!(steward.position().version, version);
    assert_eq!(steward.fsync_wait().unwrap_err().errno(), libc::ENOSPC);
    assert_eq!(read(&steward, "accepted").unwrap(), noise(999, 100_000));

    // Room again.
    std::fs::remove_file(&ballast).unwrap();
    steward.fsync_wait().unwrap();
    steward.commit_now().unwrap();
    assert_eq!(steward.status().state, State::Clean);
    steward.close().unwrap();

    let steward = open(&pond, by_hand());
    for i in 0..20 {
        assert_eq!(read(&steward, &format!("kept-{i}")).unwrap(), noise(i, 1 << 20));
    }
    assert_eq!(read(&steward, "accepted").unwrap(), noise(999, 100_000));
    assert_eq!(read(&steward, "more-0"), None);
    steward.close().unwrap();
}

#[test]
fn the_reserve_lets_deletes_be_committed_on_a_full_disk() {
    let small = Small::new("64m");
    let pond = small.path().join("pond");
    Steward::init(&pond).unwrap();
    let steward = open(&pond, by_hand());
    write(&steward, "a", b"x").unwrap();
    steward.commit_now().unwrap();
    let ballast = small.path().join("ballast");
    Command::new("dd")
        .args(["if=/dev/zero", "bs=4k", "status=none"])
        .arg(format!("of={}", ballast.display()))
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    // Writers are told what the disk had free a moment ago.
    std::thread::sleep(std::time::Duration::from_millis(150));
    assert_eq!(write(&steward, "b", &[1; 5000]).unwrap_err().errno(), libc::ENOSPC);
    steward.fs().unlink(&Caller::root(), NodeId::ROOT, b"a").unwrap();
    steward.fsync_wait().unwrap();
    steward.commit_now().unwrap();
    assert!(!pond.join("reserve").exists());
    // Closing and opening on the full disk works as well.
    steward.close().unwrap();
    let steward = open(&pond, by_hand());
    assert_eq!(read(&steward, "a"), None);
    assert_eq!(write(&steward, "b", &[1; 5000]).unwrap_err().errno(), libc::ENOSPC);

    std::fs::remove_file(&ballast).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(150));
    write(&steward, "b", &[1; 5000]).unwrap();
    steward.commit_now().unwrap();
    assert!(pond.join("reserve").exists());
    steward.close().unwrap();
}
