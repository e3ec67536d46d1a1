//! Pins: whoever reads a version holds a lock on one byte of a file, so that cleaning spares what the version needs.
//!
//! The file is empty and is made with the pond, and byte N + 1 stands for version N: a pin takes no room on the disk, and needs a
//! descriptor for reading only, so that one is possible on a full disk and on a read-only filesystem. The locks are those of open
//! file descriptions (`F_OFD_SETLK`): they end with the pin, or with the process. Programs before this one made a file for
//! each pin instead, locked whole; those are heeded too.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::disk::durable;
use crate::{Layout, OpLogError, Version};

/// The file whose bytes are locked.
const LOCKS: &str = "locks";

/// Locked shared while a pin is made, and alone while files are removed that no pin needs: between the two nobody can look for files
/// that are about to go.
const GATE: i64 = 0;

/// The file of which earlier programs lock the whole for that.
const OLD_GATE: &str = "gate";

fn path_of(pond: &Path) -> PathBuf {
    Layout::new(pond).pins().join(LOCKS)
}

/// Where version N is pinned.
fn byte_of(version: Version) -> io::Result<i64> {
    let byte = version.0.checked_add(1).and_then(|byte| i64::try_from(byte).ok());
    byte.ok_or_else(|| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// A range of bytes, as the kernel takes it; with a length of 0 it has no end.
fn range(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    // SAFETY: a flock is integers only, and 0 is what the kernel wants in those that are not set here.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    (lock.l_start, lock.l_len) = (start, length);
    lock
}

fn call(file: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open, and `lock` outlives the call.
        if unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut *lock) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Makes the file in which versions are pinned, where there is none yet.
pub(crate) fn ensure(pond: &Path) -> Result<(), OpLogError> {
    let (directory, path) = (Layout::new(pond).pins(), path_of(pond));
    let make = || {
        if path.try_exists()? {
            return Ok(());
        }
        durable::ensure_directory(&directory)?;
        durable::make_empty_file(&path)?;
        durable::sync_directory(&directory)
    };
    make().map_err(OpLogError::io("create", &path))
}

/// The same for who writes: a disk without room for it must not keep anybody from making some.
pub(crate) fn ensure_if_there_is_room(pond: &Path) -> Result<(), OpLogError> {
    match ensure(pond) {
        Err(error) if error.is_full() => {
            tracing::warn!(%error, "versions cannot be pinned yet");
            Ok(())
        }
        result => result,
    }
}

/// The versions that are pinned; while it lives, no pin is made.
pub(crate) struct Pins {
    pub(crate) versions: Vec<Version>,
    _gates: Vec<File>,
}

impl Pins {
    /// Waits for pins that are being made.
    pub(crate) fn hold(pond: &Path) -> Result<Self, OpLogError> {
        // On a disk without room for the file nobody can make a pin either, and cleaning is what makes room.
        ensure_if_there_is_room(pond)?;
        let mut gates = Vec::new();
        let open = |path: &Path| match fs::OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpLogError::io("open", path)(error)),
        };
        let path = path_of(pond);
        if let Some(gate) = open(&path)? {
            let alone = &mut range(libc::F_WRLCK, GATE, 1);
            call(&gate, libc::F_OFD_SETLKW, alone).map_err(OpLogError::io("lock", &path))?;
            gates.push(gate);
        }
        let path = Layout::new(pond).pins().join(OLD_GATE);
        if let Some(gate) = open(&path)? {
            gate.lock().map_err(OpLogError::io("lock", &path))?;
            gates.push(gate);
        }
        Ok(Pins { versions: held(pond)?, _gates: gates })
    }
}

/// Holds a version of a pond for as long as it lives.
#[derive(Debug)]
pub struct Pin {
    /// `None` on a filesystem on which nobody can remove anything.
    _file: Option<File>,
}

impl Pin {
    /// Pins a version. To be held before the version's files are looked for.
    ///
    /// # Errors
    ///
    /// In a pond that no program wrote to since there are pins of this kind: where the file for them cannot be made, unless that is
    /// because the filesystem is read-only.
    pub fn hold(pond: &Path, version: Version) -> Result<Pin, OpLogError> {
        let path = path_of(pond);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match ensure(pond) {
                Ok(()) => File::open(&path),
                Err(error) if error.errno() == libc::EROFS => return Ok(Pin { _file: None }),
                Err(error) => return Err(OpLogError::NoPin { path, source: Box::new(error) }),
            },
            opened => opened,
        };
        let file = file.map_err(OpLogError::io("open", &path))?;
        let lock = || {
            call(&file, libc::F_OFD_SETLKW, &mut range(libc::F_RDLCK, GATE, 1))?;
            call(&file, libc::F_OFD_SETLKW, &mut range(libc::F_RDLCK, byte_of(version)?, 1))?;
            call(&file, libc::F_OFD_SETLK, &mut range(libc::F_UNLCK, GATE, 1))
        };
        lock().map_err(OpLogError::io("lock", &path))?;
        Ok(Pin { _file: Some(file) })
    }
}

/// The versions that are pinned.
pub(crate) fn held(pond: &Path) -> Result<Vec<Version>, OpLogError> {
    let path = path_of(pond);
    let mut versions = held_by_files(pond)?;
    match File::open(&path) {
        Ok(file) => versions.extend(locked(&file).map_err(OpLogError::io("look for locks on", &path))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(OpLogError::io("open", &path)(error)),
    }
    Ok(versions)
}

/// The versions whose bytes are locked. The kernel names any one lock of a range, so that what is left on both sides of it is asked for next.
fn locked(file: &File) -> io::Result<Vec<Version>> {
    let mut versions = Vec::new();
    let mut ranges = vec![(GATE + 1, i64::MAX)];
    while let Some((start, end)) = ranges.pop() {
        if start >= end {
            continue;
        }
        let mut lock = range(libc::F_WRLCK, start, end - start);
        call(file, libc::F_OFD_GETLK, &mut lock)?;
        if lock.l_type == libc::F_UNLCK as libc::c_short {
            continue;
        }
        let first = lock.l_start.max(start);
        let last = if lock.l_len == 0 { end } else { lock.l_start.saturating_add(lock.l_len).min(end) };
        // Of several at once the oldest one is what counts.
        versions.push(Version(first.unsigned_abs() - 1));
        ranges.extend([(start, first), (last, end)]);
    }
    Ok(versions)
}

/// The versions that earlier programs have pinned, by a file for each that is locked. Dead pins are removed.
fn held_by_files(pond: &Path) -> Result<Vec<Version>, OpLogError> {
    let directory = Layout::new(pond).pins();
    let names = match fs::read_dir(&directory) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(OpLogError::io("list", &directory)(error)),
    };
    let mut versions = Vec::new();
    for name in names {
        let name = name.map_err(OpLogError::io("list", &directory))?.file_name();
        let Some(version) = name.to_str().and_then(|name| name.split_once('-')?.0.parse().ok()) else {
            continue;
        };
        let path = directory.join(&name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(OpLogError::io("open", &path)(error)),
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => versions.push(Version(version)),
            Err(TryLockError::Error(error)) => return Err(OpLogError::io("lock", &path)(error)),
            Ok(()) => match durable::remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OpLogError::io("remove", &path)(error));
                }
                _ => {}
            },
        }
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use pond_tinyfs::Advise;

    fn sorted(pond: &Path) -> Vec<u64> {
        let mut versions: Vec<u64> = held(pond).unwrap().into_iter().map(|version| version.0).collect();
        versions.sort();
        versions
    }

    #[test]
    fn a_pin_counts_while_it_is_held() {
        let pond = tempfile::tempdir().unwrap();
        assert!(sorted(pond.path()).is_empty());
        ensure(pond.path()).unwrap();
        assert!(sorted(pond.path()).is_empty());
        let mut pins: Vec<Pin> =
            [7, 0, 900, 9, 8, 1 << 60].map(|n| Pin::hold(pond.path(), Version(n)).unwrap()).into();
        let again = Pin::hold(pond.path(), Version(7)).unwrap();
        let held: std::collections::BTreeSet<u64> = sorted(pond.path()).into_iter().collect();
        assert_eq!(held, [0, 7, 8, 9, 900, 1 << 60].into());
        pins.remove(0);
        assert!(sorted(pond.path()).contains(&7));
        drop(again);
        drop(pins);
        assert!(sorted(pond.path()).is_empty());
        let left = fs::read_dir(Layout::new(pond.path()).pins()).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [LOCKS]);
    }

    #[test]
    fn a_pin_needs_a_descriptor_for_reading_only() {
        let pond = tempfile::tempdir().unwrap();
        ensure(pond.path()).unwrap();
        let file = File::open(path_of(pond.path())).unwrap();
        fs::set_permissions(path_of(pond.path()), fs::Permissions::from_mode(0o400)).unwrap();
        let _pin = Pin::hold(pond.path(), Version(3)).unwrap();
        assert_eq!(locked(&file).unwrap(), [Version(3)]);
    }

    #[test]
    fn no_pin_is_made_while_files_are_removed() {
        let pond = tempfile::tempdir().unwrap();
        let first = Pin::hold(pond.path(), Version(5)).unwrap();
        let pins = Pins::hold(pond.path()).unwrap();
        assert_eq!(pins.versions, [Version(5)]);
        drop(first);
        let (made, is_made) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| made.send(Pin::hold(pond.path(), Version(6)).unwrap()).unwrap());
            assert!(is_made.recv_timeout(Duration::from_millis(100)).is_err());
            drop(pins);
            let _pin = is_made.recv().unwrap();
            assert_eq!(sorted(pond.path()), [6]);
        });
    }

    #[test]
    fn pins_of_earlier_programs_count_while_they_are_locked_and_dead_ones_go() {
        let pond = tempfile::tempdir().unwrap();
        let directory = Layout::new(pond.path()).pins();
        fs::create_dir(&directory).unwrap();
        for name in ["3-0123", "7-4567", OLD_GATE] {
            fs::write(directory.join(name), b"").unwrap();
        }
        let file = File::open(directory.join("7-4567")).unwrap();
        file.lock_shared().unwrap();
        let _new = Pin::hold(pond.path(), Version(9)).unwrap();
        assert_eq!(sorted(pond.path()), [7, 9]);
        assert!(!directory.join("3-0123").exists());
        assert_eq!(Pins::hold(pond.path()).unwrap().versions.len(), 2);
        drop(file);
        assert_eq!(sorted(pond.path()), [9]);
    }

    #[test]
    fn without_a_pin_there_is_an_error_that_says_what_to_do() {
        let pond = Pin::hold(Path::new("/proc/self"), Version(1));
        // It has no such directory and takes none, but it is not read-only.
        assert!(matches!(pond, Err(OpLogError::NoPin { .. })), "{pond:?}");
        let advice = pond.unwrap_err().advice().unwrap();
        assert!(advice.contains("pond maintain"), "{advice}");
    }
}
