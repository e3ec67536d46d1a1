//! A small ext4 of its own in a file, so that a disk can be full without troubling the machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{run, succeed};
use crate::tools::{need_root, tool};

/// A mounted ext4; unmounted when dropped, after everything that uses it.
pub struct Disk {
    _base: tempfile::TempDir,
    root: PathBuf,
}

impl Disk {
    /// Makes and mounts one of so many MiB.
    pub fn new(mebibytes: u64) -> Self {
        need_root();
        let base = tempfile::Builder::new().prefix("pond-disk-").tempdir().expect("a temporary directory");
        let image = base.path().join("image");
        File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("a sparse image");
        // No blocks reserved for root: full must mean full. No journal: it would take a quarter of it.
        succeed(Command::new(tool("mkfs.ext4")).args(["-q", "-m", "0", "-O", "^has_journal"]).arg(&image));
        let root = base.path().join("disk");
        fs::create_dir(&root).expect("a mountpoint");
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&root));
        Disk { _base: base, root }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Bytes that root may still write.
    pub fn free(&self) -> u64 {
        available(&self.root)
    }

    /// Takes all but `spare` bytes with a file that [`Disk::make_room`] removes.
    pub fn fill(&self, spare: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler()).expect("a filler");
        let mut chunk = vec![0x55; 1 << 20];
        while self.free() > spare {
            chunk.truncate((self.free() - spare).next_multiple_of(1024).min(1 << 20) as usize);
            match file.write(&chunk).and_then(|_| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => break,
                Err(error) => panic!("cannot fill the disk: {error}"),
            }
        }
    }

    /// Removes what [`Disk::fill`] wrote.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("the filler can be removed");
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }
}

/// Bytes that may still be written to the filesystem at `path`, as `statfs` tells.
#[track_caller]
pub fn available(path: &Path) -> u64 {
    let c_path = crate::tree::c_path(path);
    // SAFETY: the path is NUL-terminated and the result is written before it is read.
    let stat = unsafe {
        let mut stat = std::mem::zeroed::<libc::statvfs>();
        let told = libc::statvfs(c_path.as_ptr(), &mut stat);
        assert_eq!(told, 0, "{}: {}", path.display(), io::Error::last_os_error());
        stat
    };
    stat.f_bavail * stat.f_frsize
}

impl Drop for Disk {
    fn drop(&mut self) {
        let ended = run(Command::new("umount").arg("-l").arg(&self.root));
        if !ended.status.success() {
            eprintln!("{ended}");
        }
    }
}
