//! A persistence layer in memory, for tests: keeps rows, gives them back, and runs out of space on request.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    ExtentContent, ExtentRecord, Fold, FoldError, Location, MAX_EXTENT, PersistenceLayer, Placed, Record,
    Row, Space, StorageError, Tree,
};

/// Rows in memory.
#[derive(Default)]
pub struct MemoryPersistence {
    rows: Mutex<Vec<Row>>,
    extents: Mutex<Vec<Bytes>>,
    spills: Mutex<Spills>,
    capacity: Option<u64>,
}

#[derive(Default)]
struct Spills {
    last: u32,
    files: HashMap<u32, Vec<u8>>,
}

impl MemoryPersistence {
    /// With room for anything.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// With room for this many bytes.
    pub fn with_capacity(bytes: u64) -> Arc<Self> {
        Arc::new(MemoryPersistence { capacity: Some(bytes), ..Self::default() })
    }

    /// Keeps rows for good and tells where their bytes lie.
    pub fn store(&self, rows: &[Row]) -> Vec<Placed> {
        let mut placed = Vec::new();
        let mut extents = self.extents.lock();
        let mut kept = self.rows.lock();
        for row in rows {
            let mut row = row.clone();
            if let Record::Extent(ExtentRecord { offset, length, content }) = &mut row.record
                && let ExtentContent::Memory(bytes) = content
            {
                let location = Location { file: 0, row: extents.len() as u32 };
                extents.push(bytes.clone());
                *content = ExtentContent::Stored(location);
                let (node, lsn, seq) = (row.node, row.lsn, row.seq);
                placed.push(Placed { node, lsn, seq, offset: *offset, length: *length, location });
            }
            kept.push(row);
        }
        placed
    }

    /// How many spill files there are.
    pub fn spills(&self) -> usize {
        self.spills.lock().files.len()
    }

    /// Folds the rows that were kept, in an order that differs from theirs.
    pub fn load(&self) -> Result<Tree, FoldError> {
        let mut fold = Fold::new();
        for row in self.rows.lock().iter().rev() {
            fold.push(row.clone());
        }
        fold.finish()
    }
}

impl PersistenceLayer for MemoryPersistence {
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        self.read_cached(location, skip, length)
            .ok_or_else(|| StorageError::new(format!("no extent {location:?}"), libc::EIO))
    }

    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        if let Some(spill) = self.spills.lock().files.get(&location.file) {
            let start = location.row as usize * MAX_EXTENT + skip as usize;
            return spill.get(start..start + length as usize).map(Bytes::copy_from_slice);
        }
        let extents = self.extents.lock();
        let bytes = extents.get(location.row as usize)?;
        bytes.get(skip as usize..(skip + length) as usize)?;
        Some(bytes.slice(skip as usize..(skip + length) as usize))
    }

    fn space(&self) -> Space {
        const PLENTY: u64 = 1 << 50;
        let total = self.capacity.unwrap_or(PLENTY);
        let used: u64 = self.extents.lock().iter().map(|bytes| bytes.len() as u64).sum();
        let free = total.saturating_sub(used);
        Space { total, free, available: free }
    }

    fn open_spill(&self) -> Result<u32, StorageError> {
        let mut spills = self.spills.lock();
        spills.last += 1;
        let number = spills.last;
        spills.files.insert(number, Vec::new());
        Ok(number)
    }

    fn write_spill(&self, spill: u32, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        let mut spills = self.spills.lock();
        let file = spills
            .files
            .get_mut(&spill)
            .ok_or_else(|| StorageError::new(format!("no spill file {spill}"), libc::EIO))?;
        let (start, end) = (offset as usize, offset as usize + data.len());
        file.resize(file.len().max(end), 0);
        file[start..end].copy_from_slice(data);
        Ok(())
    }

    fn close_spill(&self, spill: u32) {
        self.spills.lock().files.remove(&spill);
    }
}
