//! Which version is meant, which are kept, and which somebody reads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use crate::disk::pin;
use crate::log::commits::{self, position_of};
use crate::log::delta::{Entry, Log};
use crate::log::snapshot;
use crate::{At, Floor, Kept, Layout, OpLog, OpLogError, Origin, Retained, TagName, Version};

/// Entries read at a time, looking for whose versions they are.
const READ_AT_ONCE: usize = 256;

impl OpLog {
    /// The oldest version that is kept; `None` if all are.
    pub fn floor(&self) -> Option<Floor> {
        self.live().floor()
    }

    /// What the floor would be at a version.
    pub fn floor_at(&self, version: Version) -> Result<Floor, OpLogError> {
        let entry: Entry = self.log().read(version)?;
        let info = commits::commit_info(self.log(), version, &entry)?;
        Ok(Floor::from(&position_of(self.log(), version, &entry.digest, info)?))
    }

    /// The versions below the floor that are kept, ascending.
    pub fn kept(&self) -> Vec<Kept> {
        self.live().kept()
    }

    /// The versions that have names.
    pub fn tags(&self) -> BTreeMap<TagName, Version> {
        self.live().tags()
    }

    /// What is kept now; `None` if all versions are.
    pub fn retained(&self) -> Option<Retained> {
        Some(Retained { floor: self.floor()?, below: self.kept() })
    }

    /// What is to be said of these versions if they are kept below the floor; ascending, as far as their log entries are there.
    pub fn describe(&self, versions: Range<Version>) -> Result<Vec<Kept>, OpLogError> {
        let mut there = self.log().list()?.entries;
        there.retain(|&version| versions.contains(&Version(version)));
        let mut described = Vec::with_capacity(there.len());
        for portion in there.chunks(READ_AT_ONCE) {
            for (&version, entry) in portion.iter().zip(commits::read_entries(self.log(), portion)?) {
                let version = Version(version);
                let info = commits::commit_info(self.log(), version, &entry)?;
                let position = position_of(self.log(), version, &entry.digest, info)?;
                described.push(Kept::new(&position, commits::origin_of(self.log(), version, info)?));
            }
        }
        Ok(described)
    }

    /// The oldest of the `count` newest versions that maintenance did not make; `None` if no more than those are kept.
    pub fn oldest_of(&self, count: u64) -> Result<Option<Version>, OpLogError> {
        let newest = self.position().version.0;
        let floor = self.floor().map_or(0, |floor| floor.version.0);
        let mut versions = self.log().list()?.entries;
        versions.retain(|&version| (floor..=newest).contains(&version));
        let maintenance = Origin::maintenance().kind;
        let mut left = count;
        for portion in versions.rchunks(READ_AT_ONCE) {
            let entries = commits::read_entries(self.log(), portion)?;
            for (&version, entry) in portion.iter().zip(&entries).rev() {
                let info = commits::commit_info(self.log(), Version(version), entry)?;
                if info.origin.as_ref().is_some_and(|origin| origin.kind == maintenance) {
                    continue;
                }
                left = left.saturating_sub(1);
                if left == 0 {
                    return Ok(Some(Version(version)));
                }
            }
        }
        Ok(None)
    }

    /// The newest version that was there at a time, microseconds since 1970 UTC; `None` if there was none.
    pub fn version_at(&self, timestamp: i64) -> Result<Option<Version>, OpLogError> {
        match snapshot::resolve(self.log(), &self.log().list()?, At::Timestamp(timestamp)) {
            Ok(version) => Ok(Some(version)),
            Err(OpLogError::NothingYet { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The versions that somebody has open to read.
    pub fn pins(&self) -> Result<Vec<Version>, OpLogError> {
        Ok(pin::held(self.layout().root())?.into_iter().collect())
    }

    /// Which version of the pond at `pond` is meant.
    pub fn resolve(pond: &Path, at: At) -> Result<Version, OpLogError> {
        let log = Log::new(&Layout::new(pond).data());
        snapshot::resolve(&log, &log.list()?, at)
    }
}
