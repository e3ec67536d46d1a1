//! Pins: whoever reads a version holds a file with a lock, so that cleaning spares what the version needs.
//!
//! The lock ends with the process that holds it, so that a pin whose lock nobody holds is dead, and removed.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::durable::{self, DurableFile};
use crate::{Layout, OpLogError, Version};

/// Held shared while a pin is made, and alone while files are removed that no pin needs: between the two nobody can look for files
/// that are about to go.
const GATE: &str = "gate";

fn gate(directory: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(GATE))
}

/// The versions that are pinned; while it lives, no pin is made.
pub(crate) struct Pins {
    pub(crate) versions: Vec<Version>,
    _gate: Option<File>,
}

impl Pins {
    /// Waits for pins that are being made.
    pub(crate) fn hold(pond: &Path) -> Result<Self, OpLogError> {
        let directory = Layout::new(pond).pins();
        let gate = match durable::ensure_directory(&directory).and_then(|()| gate(&directory)) {
            Ok(gate) => Some(gate),
            // On a full disk nobody can make a pin either, and cleaning is what makes room.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => None,
            Err(error) => return Err(OpLogError::io("open", &directory.join(GATE))(error)),
        };
        if let Some(gate) = &gate {
            gate.lock().map_err(OpLogError::io("lock", &directory.join(GATE)))?;
        }
        Ok(Pins { versions: held(pond)?, _gate: gate })
    }
}

/// Holds a version of a pond for as long as it lives.
#[derive(Debug)]
pub struct Pin {
    file: File,
    path: PathBuf,
}

impl Pin {
    /// Pins a version. To be held before the version's files are looked for.
    ///
    /// # Errors
    ///
    /// Where nothing can be written, as on a read-only filesystem: then nothing is cleaned there either.
    pub fn hold(pond: &Path, version: Version) -> Result<Pin, OpLogError> {
        let directory = Layout::new(pond).pins();
        durable::ensure_directory(&directory).map_err(OpLogError::io("create", &directory))?;
        let gate = gate(&directory).and_then(|gate| gate.lock_shared().map(|()| gate));
        let _gate = gate.map_err(OpLogError::io("lock", &directory))?;
        loop {
            let path = directory.join(format!("{version}-{}", Uuid::new_v4().simple()));
            let pin = Pin {
                file: DurableFile::create(&path).and_then(lock).map_err(OpLogError::io("lock", &path))?,
                path,
            };
            // Between its creation and its lock it looked dead, and somebody may have removed it.
            if pin.is_there() {
                return Ok(pin);
            }
        }
    }

    fn is_there(&self) -> bool {
        let ours = self.file.metadata().map(|metadata| metadata.ino());
        matches!((ours, fs::metadata(&self.path)), (Ok(ours), Ok(found)) if found.ino() == ours)
    }
}

fn lock(file: DurableFile) -> io::Result<File> {
    let file = file.file().try_clone()?;
    file.lock_shared()?;
    Ok(file)
}

impl Drop for Pin {
    fn drop(&mut self) {
        durable::discard(std::iter::once(self.path.as_path()));
    }
}

/// The versions that are pinned. Dead pins are removed.
pub(crate) fn held(pond: &Path) -> Result<Vec<Version>, OpLogError> {
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
    use super::*;

    #[test]
    fn a_pin_counts_while_it_is_held_and_dead_ones_go() {
        let pond = tempfile::tempdir().unwrap();
        assert_eq!(held(pond.path()).unwrap(), []);
        let first = Pin::hold(pond.path(), Version(7)).unwrap();
        let second = Pin::hold(pond.path(), Version(9)).unwrap();
        let dead = Layout::new(pond.path()).pins().join("3-0123");
        fs::write(&dead, b"").unwrap();
        let mut versions = held(pond.path()).unwrap();
        versions.sort();
        assert_eq!(versions, [Version(7), Version(9)]);
        assert!(!dead.exists());
        drop(first);
        assert_eq!(held(pond.path()).unwrap(), [Version(9)]);
        drop(second);
        let left = fs::read_dir(Layout::new(pond.path()).pins()).unwrap();
        assert_eq!(left.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), [GATE]);
    }
}
