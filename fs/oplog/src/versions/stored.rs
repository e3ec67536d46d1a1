//! The content of versions that are only read.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pond_tinyfs::{Location, PersistenceLayer, Space, StorageError};

use crate::disk::space::SpaceGauge;
use crate::files::content::DataFiles;
use crate::files::digests::Digests;
use crate::log::action::Add;
use crate::{CacheUse, DamageMet, Layout, Options, Pin, Version};

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

/// The content of one version, for its tree: as long as anybody has the tree, the version is pinned.
pub(crate) struct PinnedContent {
    pub(crate) stored: Arc<StoredContent>,
    pub(crate) _pins: Pins,
}

/// What keeps the files of a version from being cleaned away.
#[derive(Clone)]
pub(crate) struct Pins {
    /// Its own.
    own: (Version, Arc<Pin>),
    /// The oldest of those with whose nodes the tree was made: what was there then, or came since, stays while that is held.
    oldest: Option<(Version, Arc<Pin>)>,
}

impl Pins {
    /// A version's own.
    pub(crate) fn of(version: Version, pin: Pin) -> Self {
        Pins { own: (version, Arc::new(pin)), oldest: None }
    }

    /// The oldest version that is pinned.
    pub(crate) fn oldest(&self) -> Version {
        self.oldest.iter().fold(self.own.0, |oldest, (version, _)| oldest.min(*version))
    }

    /// The same, for a tree that has nodes of another version's.
    pub(crate) fn with(self, other: &Pins) -> Self {
        let others = [Some(&other.own), other.oldest.as_ref()];
        let oldest = others.into_iter().flatten().min_by_key(|(version, _)| *version).cloned();
        Pins { oldest, ..self }
    }
}

/// Nothing is written where versions are read, so nothing needs a spill file.
fn not_written() -> StorageError {
    StorageError::new("a version is only read", libc::EROFS)
}

impl PersistenceLayer for PinnedContent {
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        self.stored.files.read(location, skip, length)
    }

    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        self.stored.files.cached(location, skip, length)
    }

    fn prefetch(&self, location: Location) {
        self.stored.files.prefetch(location);
    }

    fn prefetch_budget(&self) -> u64 {
        self.stored.files.prefetch_budget()
    }

    fn space(&self) -> Space {
        self.stored.space.get()
    }

    fn open_spill(&self) -> Result<u32, StorageError> {
        Err(not_written())
    }

    fn write_spill(&self, _spill: u32, _offset: u64, _data: &[u8]) -> Result<(), StorageError> {
        Err(not_written())
    }

    fn close_spill(&self, _spill: u32) {}
}
