//! The floor: the oldest version that is kept. Rows that only older ones show may be gone.

use std::collections::BTreeMap;

use pond_tinyfs::Lsn;

use crate::log::action::{Action, Txn};
use crate::{PondId, Position, Version};

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
