//! How much disk space a pond takes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pond_oplog::Layout;

use crate::Sizes;
use crate::host::reserve::RESERVE_FILE;

/// It is measured anew once this many times as long has passed as that took: measuring looks at every file.
const MEASURING_SHARE: u32 = 20;

/// A pond's disk space, as it was last measured.
#[derive(Default)]
pub(crate) struct DiskUse(Mutex<Measured>);

#[derive(Default)]
struct Measured {
    sizes: Sizes,
    /// When, and how long it took.
    when: Option<(Instant, Duration)>,
}

impl DiskUse {
    /// Disk space as it is now, or was some moments ago.
    pub(crate) fn of(&self, pond: &Path) -> Sizes {
        let mut measured = self.0.lock();
        if measured.when.is_none_or(|(when, took)| when.elapsed() >= MEASURING_SHARE * took) {
            let started = Instant::now();
            measured.sizes = measure(pond);
            measured.when = Some((Instant::now(), started.elapsed()));
        }
        measured.sizes
    }
}

/// The disk space of a pond.
fn measure(pond: &Path) -> Sizes {
    let layout = Layout::new(pond);
    Sizes {
        data: size_of(&layout.data()),
        journal: size_of(&layout.journal()),
        control: size_of(&layout.control()),
        mirror: size_of(&layout.mirror()),
        reserve: std::fs::metadata(pond.join(RESERVE_FILE)).map_or(0, |file| file.blocks() * 512),
    }
}

/// Bytes in the files under a directory. Files that come and go meanwhile may be counted or not.
fn size_of(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => directories.push(entry.path()),
                Ok(metadata) => bytes += metadata.len(),
                Err(_) => {}
            }
        }
    }
    bytes
}
