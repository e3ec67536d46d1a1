//! The content of versions that are only read.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use pond_tinyfs::{Location, PersistenceLayer, Space, StorageError};

use crate::disk::space::SpaceGauge;
use crate::files::content::DataFiles;
use crate::files::digests::Digests;
use crate::log::action::Add;
use crate::{CacheUse, DamageMet, Layout, Options};

/// The data files of however many versions, and one cache for all of them: what versions have in common is decoded once.
pub(crate) struct StoredContent {
    files: DataFiles,
    /// Numbers of files, by name.
    numbers: Mutex<HashMap<String, u32>>,
    space: SpaceGauge,
}

impl StoredContent {
    pub(crate) fn new(layout: &Layout, options: &Options) -> Self {
        StoredContent {
            files: DataFiles::new(&layout.data(), options.cache_bytes, options.open_files),
            numbers: Mutex::default(),
            space: SpaceGauge::new(layout.root()),
        }
    }

    /// The number that extents in this file carry, in whichever version.
    pub(crate) fn number(&self, add: &Add) -> u32 {
        let mut numbers = self.numbers.lock();
        match numbers.get(&add.path) {
            Some(&number) => number,
            None => {
                let number = self.files.add(&add.path, Digests::of(add).as_ref());
                numbers.insert(add.path.clone(), number);
                number
            }
        }
    }

    pub(crate) fn cache_use(&self) -> CacheUse {
        self.files.cache_use()
    }

    pub(crate) fn damage_met(&self) -> DamageMet {
        self.files.damage_met()
    }
}

/// Nothing is written where versions are read, so nothing needs a spill file.
fn not_written() -> StorageError {
    StorageError { message: "a version is only read".into(), errno: libc::EROFS }
}

impl PersistenceLayer for StoredContent {
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        self.files.read(location, skip, length)
    }

    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        self.files.cached(location, skip, length)
    }

    fn prefetch(&self, location: Location) {
        self.files.prefetch(location);
    }

    fn prefetch_budget(&self) -> u64 {
        self.files.prefetch_budget()
    }

    fn space(&self) -> Space {
        self.space.get()
    }

    fn open_spill(&self) -> Result<u32, StorageError> {
        Err(not_written())
    }

    fn write_spill(&self, _spill: u32, _offset: u64, _data: &[u8]) -> Result<(), StorageError> {
        Err(not_written())
    }

    fn close_spill(&self, _spill: u32) {}
}
