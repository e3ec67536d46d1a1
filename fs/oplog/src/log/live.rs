//! The data files that make up the newest version, as the one writer of the table keeps them in mind.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::log::action::Add;
use crate::log::retained::Kept;
use crate::{Floor, TagName, Version};

/// A data file of the newest version.
#[derive(Clone, Debug)]
pub(crate) struct LiveFile {
    pub(crate) add: Add,
    /// Number that its extents' locations carry.
    pub(crate) number: u32,
    /// Bytes of its rows once decoded, where somebody has looked.
    pub(crate) decoded: Option<u64>,
}

/// The data files of the newest version, by name.
#[derive(Debug, Default)]
pub(crate) struct Live {
    files: Mutex<BTreeMap<String, LiveFile>>,
    floor: Mutex<Option<Floor>>,
    kept: Mutex<Vec<Kept>>,
    tags: Mutex<BTreeMap<TagName, Version>>,
}

impl Live {
    /// A version has this file.
    pub(crate) fn insert(&self, add: Add, number: u32) {
        self.files.lock().insert(add.path.clone(), LiveFile { add, number, decoded: None });
    }

    /// In one step these are no more and those are there.
    pub(crate) fn replace(&self, gone: &[String], come: Vec<(Add, u32)>) {
        let mut files = self.files.lock();
        for name in gone {
            files.remove(name);
        }
        for (add, number) in come {
            files.insert(add.path.clone(), LiveFile { add, number, decoded: None });
        }
    }

    /// Notes how many bytes a file has once decoded.
    pub(crate) fn note_decoded(&self, name: &str, bytes: u64) {
        if let Some(file) = self.files.lock().get_mut(name) {
            file.decoded = Some(bytes);
        }
    }

    /// Those for which `wanted` holds, in the order of their names, which is that of the transactions that made them.
    pub(crate) fn select(&self, mut wanted: impl FnMut(&LiveFile) -> bool) -> Vec<LiveFile> {
        self.files.lock().values().filter(|file| wanted(file)).cloned().collect()
    }

    /// Whether all of these are there.
    pub(crate) fn contains_all(&self, names: &[String]) -> bool {
        let files = self.files.lock();
        names.iter().all(|name| files.contains_key(name))
    }

    /// The oldest version that is kept, if not all are.
    pub(crate) fn floor(&self) -> Option<Floor> {
        *self.floor.lock()
    }

    /// That is another one now.
    pub(crate) fn set_floor(&self, floor: Option<Floor>) {
        *self.floor.lock() = floor;
    }

    /// The versions below the floor that are kept, ascending.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        self.kept.lock().clone()
    }

    /// Those are others now.
    pub(crate) fn set_kept(&self, kept: Vec<Kept>) {
        *self.kept.lock() = kept;
    }

    /// The versions that have names.
    pub(crate) fn tags(&self) -> BTreeMap<TagName, Version> {
        self.tags.lock().clone()
    }

    /// Those are others now.
    pub(crate) fn set_tags(&self, tags: BTreeMap<TagName, Version>) {
        *self.tags.lock() = tags;
    }

    /// How many files there are of each level for which `wanted` holds.
    pub(crate) fn levels(&self, mut wanted: impl FnMut(&LiveFile) -> bool) -> BTreeMap<u32, usize> {
        let mut levels = BTreeMap::new();
        for file in self.files.lock().values().filter(|file| wanted(file)) {
            *levels.entry(file.add.level()).or_default() += 1;
        }
        levels
    }

    /// Number of files, and their bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        let files = self.files.lock();
        (files.len() as u64, files.values().map(|file| file.add.size).sum())
    }
}
