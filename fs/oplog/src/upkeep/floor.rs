//! The floor: the oldest version that is kept. Rows that only older ones show may be gone.

use std::collections::BTreeMap;
use std::path::Path;

use pond_tinyfs::Lsn;

use crate::log::action::{Action, Txn};
use crate::log::delta::Entry;
use crate::log::delta::Log;
use crate::log::snapshot;
use crate::oplog::position_of;
use crate::upkeep::pin;
use crate::{At, Layout, OpLog, OpLogError, Origin, PondId, Position, Version};

/// Entries read at a time, looking for whose versions they are.
const READ_AT_ONCE: usize = 256;

/// The oldest version that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The version.
    pub version: Version,
    /// Last operation that it holds.
    pub cut_lsn: Lsn,
}

impl From<&Position> for Floor {
    fn from(position: &Position) -> Self {
        Floor { version: position.version, cut_lsn: position.cut_lsn }
    }
}

impl Floor {
    /// The actions that raise it. Delta's `txn` actions survive checkpoints.
    pub(crate) fn actions(&self, pond_id: PondId, now: i64) -> Vec<Action> {
        let txn = |app_id: String, version: u64| {
            Action::from(Txn { app_id, version: version as i64, last_updated: Some(now) })
        };
        vec![txn(floor_id(pond_id), self.cut_lsn.0), txn(floor_version_id(pond_id), self.version.0)]
    }

    /// The floor that a table's `txn` actions name, if it was ever raised.
    pub(crate) fn of(txns: &BTreeMap<String, i64>, pond_id: PondId) -> Option<Floor> {
        let number = |id: String| txns.get(&id).map(|number| number.unsigned_abs());
        Some(Floor {
            cut_lsn: Lsn(number(floor_id(pond_id))?),
            version: Version(number(floor_version_id(pond_id))?),
        })
    }
}

fn floor_id(pond_id: PondId) -> String {
    format!("{pond_id}/floor")
}

fn floor_version_id(pond_id: PondId) -> String {
    format!("{pond_id}/floor_version")
}

/// The floor of the newest version; `None` if all versions are kept.
pub(crate) fn of_table(log: &Log) -> Result<Option<Floor>, OpLogError> {
    Ok(snapshot::load(log, At::Tip)?.floor())
}

impl OpLog {
    /// The oldest version that is kept; `None` if all are.
    pub fn floor(&self) -> Option<Floor> {
        self.live().floor()
    }

    /// What the floor would be at a version.
    pub fn floor_at(&self, version: Version) -> Result<Floor, OpLogError> {
        let entry: Entry = self.log().read(version)?;
        let info = snapshot::commit_info(self.log(), version, &entry)?;
        Ok(Floor::from(&position_of(self.log(), version, &entry.digest, info)?))
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
            let entries = snapshot::read_entries(self.log(), portion)?;
            for (&version, entry) in portion.iter().zip(&entries).rev() {
                let info = snapshot::commit_info(self.log(), Version(version), entry)?;
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

    /// The oldest version that somebody has open to read.
    pub fn oldest_pin(&self) -> Result<Option<Version>, OpLogError> {
        Ok(pin::held(self.layout().root())?.into_iter().min())
    }

    /// Which version of the pond at `pond` is meant.
    pub fn resolve(pond: &Path, at: At) -> Result<Version, OpLogError> {
        let log = Log::new(&Layout::new(pond).data());
        snapshot::resolve(&log, &log.list()?, at)
    }
}
