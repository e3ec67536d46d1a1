//! The reserve: blocks of the host filesystem held back, so that a full disk leaves room for the journal and
//! for the commit of the deletes that free it.
//!
//! It is a preallocated file that is given up when a commit or an fsync meets ENOSPC and made again once there
//! is room. While it is given up, its size still counts as taken, so that writers do not eat it.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pond_oplog::durable;
use pond_tinyfs::Space;

/// Largest reserve, bytes.
const LARGEST: u64 = 64 << 20;

/// The reserve is one part in this many of the filesystem, where that is less than [`LARGEST`].
const SHARE: u64 = 100;

/// Below this a reserve is of no use; one data file and one log entry must fit.
const SMALLEST: u64 = 256 << 10;

/// Name of the file under `$POND`.
pub(crate) const RESERVE_FILE: &str = "reserve";

/// The reserve of one pond.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    /// Bytes that should be held back.
    wanted: u64,
    /// Whether the file has its blocks.
    held: Mutex<bool>,
}

impl Reserve {
    /// Makes the reserve of a pond on a filesystem of `total` bytes, if there is room for it. A pond works
    /// without one, if the host filesystem cannot preallocate: it then only recovers less easily from a full disk.
    pub(crate) fn new(pond: &Path, space: Space) -> Self {
        let wanted = (space.total / SHARE).min(LARGEST);
        let wanted = if wanted < SMALLEST { 0 } else { wanted };
        let reserve = Reserve { path: pond.join(RESERVE_FILE), wanted, held: Mutex::new(false) };
        let has_blocks =
            std::fs::metadata(&reserve.path).is_ok_and(|file| wanted > 0 && file.blocks() * 512 >= wanted);
        *reserve.held.lock() = has_blocks;
        reserve.restore(space);
        reserve
    }

    /// No reserve, for a pond that is only read.
    pub(crate) fn none(pond: &Path) -> Self {
        Reserve { path: pond.join(RESERVE_FILE), wanted: 0, held: Mutex::new(false) }
    }

    /// Gives the blocks back to the filesystem. True if that made room.
    pub(crate) fn give_up(&self) -> bool {
        let mut held = self.held.lock();
        if !*held {
            return false;
        }
        match durable::remove(&self.path) {
            Ok(()) => {
                tracing::warn!(bytes = self.wanted, "the disk is full: gave up the reserve");
                *held = false;
                true
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "could not give up the reserve");
                // Somebody else removed it; it is made again when there is room.
                *held = error.kind() != std::io::ErrorKind::NotFound;
                false
            }
        }
    }

    /// Makes the reserve again if it was given up and there is room for it twice over.
    pub(crate) fn restore(&self, space: Space) {
        let mut held = self.held.lock();
        if *held || self.wanted == 0 || space.available < 2 * self.wanted {
            return;
        }
        match preallocate(&self.path, self.wanted) {
            Ok(()) => *held = true,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "could not make the reserve");
                // Half a reserve would be counted twice, as taken blocks and as withheld.
                if let Err(error) = durable::remove(&self.path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %self.path.display(), %error, "could not remove the unfinished reserve");
                }
            }
        }
    }

    /// Bytes that should be held back, whether they are or not.
    pub(crate) fn size(&self) -> u64 {
        self.wanted
    }

    /// Bytes that writers must leave alone although the host filesystem counts them as free.
    pub(crate) fn withheld(&self) -> u64 {
        if *self.held.lock() { 0 } else { self.wanted }
    }
}

fn preallocate(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = durable::make_empty_file(path)?;
    let length = libc::off_t::try_from(bytes).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open for as long as `file` lives.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        // What cannot set blocks aside takes them for bytes that are written.
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => {
            std::io::copy(&mut std::io::repeat(0).take(bytes), &mut &file)?;
            file.sync_all()
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn space(total: u64, available: u64) -> Space {
        Space { total, free: available, available }
    }

    #[test]
    fn the_reserve_is_given_up_once_and_made_again_when_there_is_room() {
        let pond = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(pond.path(), space(100 * MIB, 50 * MIB));
        let path = pond.path().join(RESERVE_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().blocks() * 512, MIB);
        assert_eq!(reserve.withheld(), 0);

        assert!(reserve.give_up());
        assert!(!path.exists());
        assert_eq!(reserve.withheld(), MIB);
        assert!(!reserve.give_up());

        reserve.restore(space(100 * MIB, MIB));
        assert!(!path.exists());
        reserve.restore(space(100 * MIB, 2 * MIB));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), MIB);
        assert_eq!(reserve.withheld(), 0);
    }

    #[test]
    fn a_reserve_left_by_an_earlier_process_is_kept() {
        let pond = tempfile::tempdir().unwrap();
        drop(Reserve::new(pond.path(), space(100 * MIB, 50 * MIB)));
        let reserve = Reserve::new(pond.path(), space(100 * MIB, 0));
        assert_eq!(reserve.withheld(), 0);
        assert!(reserve.give_up());
    }

    #[test]
    fn a_tiny_filesystem_has_no_reserve() {
        let pond = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(pond.path(), space(10 * MIB, 10 * MIB));
        assert_eq!(reserve.withheld(), 0);
        assert!(!reserve.give_up());
    }
}
