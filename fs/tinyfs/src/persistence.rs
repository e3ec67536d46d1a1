//! What TinyFS needs from whatever keeps its rows.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Advise, Location};

/// Why stored bytes could not be had. The text names the data file and the row.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct StorageError {
    /// What failed, on what, and why.
    pub message: Arc<str>,
    /// What to do next, where that is known.
    pub advice: Option<Arc<str>>,
    /// The errno that a reader gets: `EIO`, or `ENOSPC` for a full disk.
    pub errno: i32,
}

impl StorageError {
    /// With no advice.
    pub fn new(message: impl Into<Arc<str>>, errno: i32) -> Self {
        StorageError { message: message.into(), advice: None, errno }
    }
}

impl Advise for StorageError {
    fn advice(&self) -> Option<String> {
        self.advice.as_deref().map(str::to_owned)
    }
}

/// Figures for `statfs` and for refusing writes in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the backing filesystem in bytes.
    pub total: u64,
    /// Free bytes, the superuser's share included.
    pub free: u64,
    /// Bytes that a write may still take: what is free to this process less the reserve.
    pub available: u64,
}

/// Reads stored extents and knows the space that is left. Implementations are called from
/// any thread, also while other calls are under way.
pub trait PersistenceLayer: Send + Sync + 'static {
    /// The bytes `[skip, skip + length)` of a stored extent, verified against its checksum.
    /// May block on I/O.
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError>;

    /// The same where no I/O is needed; never blocks.
    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes>;

    /// The same of a spill file into which nobody writes any more, if possible without taking memory for it: also once the file
    /// was given back. May block on I/O, now and when the bytes are looked at.
    fn share(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        self.read(location, skip, length)
    }

    /// Makes ready, as far as that is possible, what [`Self::read_cached`] will soon be asked for. May block on I/O.
    fn prefetch(&self, _location: Location) {}

    /// Bytes that may be made ready ahead of their readers; 0 where nothing is gained by that.
    fn prefetch_budget(&self) -> u64 {
        0
    }

    /// The space left, or what it was some moments ago. Cheap: called on every write.
    fn space(&self) -> Space;

    /// The space left now: asked before a write is refused.
    fn space_now(&self) -> Space {
        self.space()
    }

    /// A spill file: a file without a name, for what an unlinked file still needs. It takes part in
    /// locations by the number returned; byte `n` of the file is byte `n % MAX_EXTENT` of row
    /// `n / MAX_EXTENT`.
    fn open_spill(&self) -> Result<u32, StorageError>;

    /// Writes into a spill file. May block on I/O.
    fn write_spill(&self, spill: u32, offset: u64, data: &[u8]) -> Result<(), StorageError>;

    /// Gives a spill file's space back.
    fn close_spill(&self, spill: u32);
}
