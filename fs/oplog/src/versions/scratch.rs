//! Content that is written to a version and thrown away: bytes in a file without a name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pond_tinyfs::{Location, PersistenceLayer, Space, StorageError, TinyFs};

use crate::disk::space::SpaceGauge;
use crate::disk::spill::Spills;
use crate::{Layout, OpLogError, View};

/// Left to the pond itself of what is free on its disk: so many bytes, or this part of the disk where that is less.
const LEFT: u64 = 64 << 20;
const LEFT_PART: u64 = 100;

/// How the names begin that files have for a moment where the filesystem cannot make any without.
const MOMENTARY: &str = ".tmp";

/// What a version holds, and what was written over it.
struct ScratchContent {
    /// Reads the version, and keeps it from being cleaned away.
    version: Arc<dyn PersistenceLayer>,
    written: Spills,
    space: SpaceGauge,
}

impl View {
    /// A tree that begins as this version, can be changed, and is nobody else's. What is written there goes to a file without a name in
    /// the pond's directory, as [`TinyFs::spill`] is called; it ends with the process, however that ends. The version is pinned for
    /// as long as anybody has the tree.
    ///
    /// # Errors
    ///
    /// Where the pond's directory cannot be written to.
    pub fn scratch(&self, pond: &Path) -> Result<Arc<TinyFs>, OpLogError> {
        let directory = prepare(pond)?;
        let space = SpaceGauge::new(&directory);
        space.set_reserve(LEFT.min(space.get().total / LEFT_PART));
        let version = self.fs().persistence().clone();
        let content = ScratchContent { version, written: Spills::new(&directory), space };
        Ok(Arc::new(self.fs().scratch(Arc::new(content))))
    }
}

/// The directory for such files, without any that a killed process left there in the moment in which it had a name.
fn prepare(pond: &Path) -> Result<PathBuf, OpLogError> {
    let directory = Layout::new(pond).mirror();
    fs::create_dir_all(&directory).map_err(OpLogError::io("create", &directory))?;
    for entry in fs::read_dir(&directory).map_err(OpLogError::io("list", &directory))? {
        let name = entry.map_err(OpLogError::io("list", &directory))?.file_name();
        if !name.to_string_lossy().starts_with(MOMENTARY) {
            continue;
        }
        // Where somebody is just making one, its name goes a moment earlier.
        let path = directory.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpLogError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    // Told now, rather than when something is written.
    tempfile::tempfile_in(&directory).map_err(OpLogError::io("make a file in", &directory))?;
    Ok(directory)
}

impl PersistenceLayer for ScratchContent {
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        match Spills::holds(location) {
            true => self.written.read(location, skip, length),
            false => self.version.read(location, skip, length),
        }
    }

    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        // The host's page cache holds what was written; it is not asked whether it does.
        if Spills::holds(location) { None } else { self.version.read_cached(location, skip, length) }
    }

    fn share(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        match Spills::holds(location) {
            true => self.written.share(location, skip, length),
            false => self.version.read(location, skip, length),
        }
    }

    fn prefetch(&self, location: Location) {
        if !Spills::holds(location) {
            self.version.prefetch(location);
        }
    }

    fn prefetch_budget(&self) -> u64 {
        self.version.prefetch_budget()
    }

    fn space(&self) -> Space {
        self.space.get()
    }

    fn space_now(&self) -> Space {
        self.space.refresh();
        self.space.get()
    }

    fn open_spill(&self) -> Result<u32, StorageError> {
        Ok(self.written.create())
    }

    fn write_spill(&self, spill: u32, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        let written = self.written.write(spill, offset, data);
        if written.is_err() {
            self.space.refresh();
        }
        written
    }

    fn close_spill(&self, spill: u32) {
        self.written.close(spill);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_files_have_for_a_moment_are_cleaned_away() {
        let pond = tempfile::tempdir().unwrap();
        let mirror = Layout::new(pond.path()).mirror();
        fs::create_dir(&mirror).unwrap();
        for name in [".tmpAbC123", "derived", "x.tmp"] {
            fs::write(mirror.join(name), name).unwrap();
        }
        assert_eq!(prepare(pond.path()).unwrap(), mirror);
        let mut left: Vec<_> =
            fs::read_dir(&mirror).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["derived", "x.tmp"]);
    }
}
