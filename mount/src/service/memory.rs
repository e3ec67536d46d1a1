//! A pond without a disk, for tests: a tree in memory, which has room or has not, as it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use pond_oplog::At;
use pond_tinyfs::{Errno, Error, Fold, MemoryPersistence, PersistenceLayer, Timestamp, TinyFs, root_row};

use crate::inodes::content::Content;
use crate::service::backing::{Backing, Done};

pub(crate) struct Memory {
    pub(crate) fs: TinyFs,
    pub(crate) follows: bool,
    pub(crate) room: AtomicBool,
    /// Writes that found no room.
    pub(crate) parked: AtomicU64,
    pub(crate) fsyncs: AtomicU64,
    looks: AtomicU64,
    /// Versions, by number.
    pub(crate) versions: Mutex<BTreeMap<u64, Arc<TinyFs>>>,
}

impl Memory {
    /// A new tree.
    pub(crate) fn new() -> Arc<Self> {
        Self::over(tree(Arc::new(MemoryPersistence::default())), false)
    }

    pub(crate) fn over(fs: TinyFs, follows: bool) -> Arc<Self> {
        Arc::new(Memory {
            fs,
            follows,
            room: AtomicBool::new(true),
            parked: AtomicU64::new(0),
            fsyncs: AtomicU64::new(0),
            looks: AtomicU64::new(0),
            versions: Mutex::default(),
        })
    }
}

/// A tree of nothing but a root.
pub(crate) fn tree(persistence: Arc<dyn PersistenceLayer>) -> TinyFs {
    let mut fold = Fold::new();
    fold.push(root_row(Timestamp::now(), 0, 0));
    TinyFs::new(fold.finish().unwrap(), persistence)
}

impl Backing for Memory {
    fn fs(&self) -> &TinyFs {
        &self.fs
    }

    fn follows(&self) -> bool {
        self.follows
    }

    fn fsync(&self, done: Done, _here: bool) {
        self.fsyncs.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || done(Ok(())));
    }

    fn has_room(&self) -> bool {
        self.room.load(Ordering::SeqCst)
    }

    fn when_room<T>(&self, _bytes: u64, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.parked.fetch_add(1, Ordering::SeqCst);
        while !self.has_room() {
            thread::sleep(Duration::from_millis(1));
        }
        work()
    }

    fn now(&self) -> Option<&TinyFs> {
        Some(&self.fs)
    }

    fn version(&self, at: At) -> Result<(u64, Arc<TinyFs>), Error> {
        let versions = self.versions.lock();
        let found = match at {
            At::Version(version) => versions.get_key_value(&version.0),
            At::Start => versions.first_key_value(),
            At::Timestamp(_) | At::Tip | At::Tag(_) => versions.last_key_value(),
        };
        found.map(|(number, fs)| (*number, fs.clone())).ok_or(Errno::NOENT.into())
    }

    fn versions(&self, count: usize) -> Result<Vec<u64>, Error> {
        let versions = self.versions.lock();
        Ok(versions.keys().skip(versions.len().saturating_sub(count)).copied().collect())
    }

    fn versions_changed(&self) -> Timestamp {
        Timestamp(self.versions.lock().len() as i64)
    }

    fn let_go_of_versions(&self) {}

    fn content(&self, file: Content) -> Vec<u8> {
        format!("{} {}\n", file.name(), self.looks.fetch_add(1, Ordering::SeqCst)).into_bytes()
    }
}
