//! What is kept of a history: all versions from the floor on, and some below it, each alone.
//!
//! Those below are listed in the table's configuration, which every checkpoint holds and every replica gets: their log entries go,
//! and with them what else would tell where they stood. They are read from the newest version's files, by the rows up to their cut.
//! Programs of formats before [`FORMAT`] do not know the list: they read the other versions, and must not write, since they would
//! drop rows that only these show.

use std::collections::BTreeMap;

use pond_tinyfs::Lsn;
use serde::{Deserialize, Serialize};

use crate::log::action::{CommitInfo, Metadata};
use crate::{Floor, Origin, PondId, Position, Timeline, TxnSeq, Version};

/// The format of ponds that keep versions below the floor.
pub(crate) const FORMAT: u32 = 2;

/// The property of the table that lists them, as JSON.
pub(crate) const PROPERTY: &str = "pond.kept";

/// A version below the floor that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    version: Version,
    digest: String,
    /// Milliseconds since 1970 UTC.
    timestamp: i64,
    txn_seq: TxnSeq,
    cut_lsn: u64,
    timeline: Timeline,
    origin: Origin,
}

impl Kept {
    /// A version that is to be kept once it lies below the floor.
    pub fn new(position: &Position, origin: Origin) -> Self {
        Kept {
            version: position.version,
            digest: position.digest.clone(),
            timestamp: position.timestamp / 1000,
            txn_seq: position.txn_seq,
            cut_lsn: position.cut_lsn.0,
            timeline: position.timeline,
            origin,
        }
    }

    /// Its number.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it stood in history.
    pub fn position(&self) -> Position {
        Position {
            version: self.version,
            digest: self.digest.clone(),
            timestamp: self.timestamp.saturating_mul(1000),
            txn_seq: self.txn_seq,
            cut_lsn: Lsn(self.cut_lsn),
            timeline: self.timeline,
        }
    }

    /// Who asked for it.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What its log entry said of it, as far as that is kept.
    pub(crate) fn commit_info(&self, pond_id: Option<PondId>) -> CommitInfo {
        CommitInfo {
            timestamp: self.timestamp,
            pond_id,
            timeline: Some(self.timeline),
            txn_seq: Some(self.txn_seq.0),
            cut_lsn: Some(self.cut_lsn),
            origin: Some(self.origin.clone()),
            ..CommitInfo::default()
        }
    }
}

/// The versions below the floor that a table lists, ascending; why the list cannot be understood.
pub(crate) fn listed(metadata: &Metadata) -> Result<Vec<Kept>, String> {
    let Some(text) = metadata.configuration.get(PROPERTY) else { return Ok(Vec::new()) };
    let kept: Vec<Kept> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let in_order = kept.windows(2).all(|pair| {
        let (one, next) = (&pair[0], &pair[1]);
        one.version < next.version && one.timestamp < next.timestamp && one.cut_lsn <= next.cut_lsn
    });
    if in_order { Ok(kept) } else { Err("the versions are not in their order".into()) }
}

/// The table's properties that list these, where they are not those that it lists already.
pub(crate) fn properties(kept: &[Kept], before: &[Kept]) -> serde_json::Result<BTreeMap<String, String>> {
    match kept == before {
        true => Ok(BTreeMap::new()),
        false => Ok(BTreeMap::from([(PROPERTY.to_owned(), serde_json::to_string(kept)?)])),
    }
}

/// What is kept of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// All versions from here on.
    pub floor: Floor,
    /// And these below, ascending.
    pub below: Vec<Kept>,
}

impl From<Floor> for Retained {
    fn from(floor: Floor) -> Self {
        Retained { floor, below: Vec::new() }
    }
}

impl Retained {
    /// Whether a version is.
    pub fn keeps(&self, version: Version) -> bool {
        version >= self.floor.version || self.below.iter().any(|kept| kept.version() == version)
    }

    /// The last operations of the versions below the floor, ascending.
    pub(crate) fn cuts(&self) -> Vec<Lsn> {
        self.below.iter().map(|kept| Lsn(kept.cut_lsn)).collect()
    }
}
