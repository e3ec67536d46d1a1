//! Spill files: files without a name, for what unlinked files still need. They end with the process, as those do.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pond_tinyfs::{Location, MAX_EXTENT, StorageError};

/// From so many bytes on a spill file is closed on a thread of its own.
const LARGE: u64 = 64 << 20;

/// Numbers from here on are those of spill files; data files count from 0.
const FIRST: u32 = 1 << 31;

/// The spill files of an open pond.
pub(crate) struct Spills {
    directory: PathBuf,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    count: u32,
    files: HashMap<u32, Arc<File>>,
}

impl Spills {
    /// None yet; they will take their space from the filesystem of `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        Spills { directory: directory.to_path_buf(), open: Mutex::default() }
    }

    /// Whether a location lies in a spill file.
    pub(crate) fn holds(location: Location) -> bool {
        location.file >= FIRST
    }

    /// Makes one.
    pub(crate) fn create(&self) -> Result<u32, StorageError> {
        let file = tempfile::tempfile_in(&self.directory).map_err(|error| self.failed("make", error))?;
        let mut open = self.open.lock();
        let number = FIRST | open.count;
        open.count = (open.count + 1) % FIRST;
        open.files.insert(number, Arc::new(file));
        Ok(number)
    }

    /// Writes into one.
    pub(crate) fn write(&self, number: u32, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.get(number)?.write_all_at(data, offset).map_err(|error| self.failed("write", error))
    }

    /// Reads from one.
    pub(crate) fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        let mut bytes = vec![0; length as usize];
        let offset = u64::from(location.row) * MAX_EXTENT as u64 + u64::from(skip);
        self.get(location.file)?
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| self.failed("read", error))?;
        Ok(bytes.into())
    }

    /// Gives one back. Freeing the blocks of a large one takes long, and the caller's thread answers requests.
    pub(crate) fn close(&self, number: u32) {
        let Some(file) = self.open.lock().files.remove(&number) else { return };
        let large = file.metadata().is_ok_and(|metadata| metadata.len() > LARGE);
        if large {
            // Where no thread is to be had, the file is closed with what was to run on it.
            if let Err(error) =
                std::thread::Builder::new().name("pond-spill".into()).spawn(move || drop(file))
            {
                tracing::debug!(%error, "no thread to close a spill file on");
            }
        }
    }

    fn get(&self, number: u32) -> Result<Arc<File>, StorageError> {
        let found = self.open.lock().files.get(&number).cloned();
        found.ok_or_else(|| self.failed("find", io::ErrorKind::NotFound.into()))
    }

    fn failed(&self, action: &str, error: io::Error) -> StorageError {
        let directory = self.directory.display();
        let message = format!("cannot {action} a spill file for an unlinked file in {directory}: {error}");
        tracing::error!("{message}");
        let errno = match error.raw_os_error() {
            Some(errno @ (libc::ENOSPC | libc::EDQUOT)) => errno,
            _ => libc::EIO,
        };
        StorageError { message: message.into(), errno }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_where_they_were_put_and_leave_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let spills = Spills::new(directory.path());
        let number = spills.create().unwrap();
        spills.write(number, MAX_EXTENT as u64 + 5, b"hello").unwrap();
        let location = Location { file: number, row: 1 };
        assert!(Spills::holds(location));
        assert_eq!(&spills.read(location, 6, 4).unwrap()[..], b"ello");
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        spills.close(number);
        assert!(spills.read(location, 6, 4).is_err());
    }
}
