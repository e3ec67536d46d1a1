//! How a replica fares: kept in `$POND/replica.json`, so that it can be shown also while nobody has the pond open.

use std::fmt;
use std::io;
use std::path::Path;

use pond_oplog::{Timeline, Version, durable};
use serde::{Deserialize, Serialize};

use crate::StewardError;
use crate::control::row::now;

/// Name of the file under `$POND`.
pub(crate) const STATUS_FILE: &str = "replica.json";

/// The name under which the file is written before it is replaced.
const TEMPORARY_FILE: &str = ".replica.json.tmp";

/// What a replica is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    /// Nothing was fetched yet.
    #[default]
    Uninitialized,
    /// It finds out what there is to be fetched.
    Preparing,
    /// It fetches its first history.
    Copying,
    /// It has a history and fetches what came since.
    CatchingUp,
    /// It is equal to the store's HEAD.
    Synchronized,
    /// It holds versions that are not part of the history it follows.
    Diverged,
    /// The last attempt failed; `error` says why. It is tried again.
    Failed,
    /// It begins anew, from a base.
    Reinitializing,
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What a pull or an init reports of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaProgress {
    /// What it is about.
    pub state: ReplicaState,
    /// The timeline that is followed, once that is known.
    pub timeline: Option<Timeline>,
    /// The version that is to be reached, once that is known.
    pub target_version: Option<Version>,
    /// Versions applied in this run.
    pub versions_done: u64,
    /// Versions that this run is to apply.
    pub versions_total: u64,
    /// Bytes fetched in this run.
    pub bytes_done: u64,
    /// Bytes that this run is to fetch.
    pub bytes_total: u64,
    /// When the first version that is not yet applied was committed, microseconds since 1970 UTC; `None` where that
    /// is not known or nothing is missing.
    pub first_missing_timestamp: Option<i64>,
    /// What went wrong, with `diverged` and `failed`.
    pub error: Option<String>,
}

/// How a replica fares.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// What it is about.
    pub state: ReplicaState,
    /// Since when, microseconds since 1970 UTC.
    pub since: i64,
    /// The timeline that it follows.
    pub timeline: Option<Timeline>,
    /// The version that it is to reach: the store's newest, as last seen.
    pub target_version: Option<Version>,
    /// The newest version that it holds.
    pub applied_version: Option<Version>,
    /// Versions applied in the last run.
    #[serde(default)]
    pub versions_done: u64,
    /// Versions that the last run was to apply.
    #[serde(default)]
    pub versions_total: u64,
    /// Bytes fetched in the last run.
    #[serde(default)]
    pub bytes_done: u64,
    /// Bytes that the last run was to fetch.
    #[serde(default)]
    pub bytes_total: u64,
    /// Milliseconds behind the source: 0 when equal to HEAD, else since the first missing version was committed.
    #[serde(default)]
    pub lag_ms: u64,
    /// When the first version that is not yet applied was committed, microseconds since 1970 UTC.
    pub first_missing_timestamp: Option<i64>,
    /// Why the last run failed.
    pub error: Option<String>,
    /// The manifest that was last applied, from which the chain goes on.
    pub last_manifest: Option<ManifestMark>,
    /// What is to be known of its history: where it begins, if versions before that were not to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A manifest that was checked and applied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManifestMark {
    /// Its version.
    pub version: Version,
    /// BLAKE3-256 of its bytes, lowercase hex.
    pub digest: String,
}

impl ReplicaStatus {
    /// Takes a report over.
    pub(crate) fn take(&mut self, progress: ReplicaProgress) {
        let ReplicaProgress {
            state,
            timeline,
            target_version,
            versions_done,
            versions_total,
            bytes_done,
            bytes_total,
            first_missing_timestamp,
            error,
        } = progress;
        if self.state != state || self.since == 0 {
            self.since = now();
        }
        *self = ReplicaStatus {
            state,
            since: self.since,
            // What was known once stays known: a run that fails early has not found it out.
            timeline: timeline.or(self.timeline),
            target_version: target_version.or(self.target_version),
            applied_version: self.applied_version,
            versions_done,
            versions_total,
            bytes_done,
            bytes_total,
            lag_ms: 0,
            // Likewise: what is missing is not there because a run could not say since when.
            first_missing_timestamp: match state {
                ReplicaState::Synchronized => first_missing_timestamp,
                _ => first_missing_timestamp.or(self.first_missing_timestamp),
            },
            error,
            last_manifest: self.last_manifest.take(),
            note: self.note.take(),
        };
    }

    /// Whether the difference between the two is more than how far a run has got.
    pub(crate) fn differs(&self, other: &ReplicaStatus) -> bool {
        self.state != other.state
            || self.timeline != other.timeline
            || self.target_version != other.target_version
            || self.error != other.error
            || self.last_manifest != other.last_manifest
    }

    /// Milliseconds behind the source, for a replica that shows `shown`.
    pub(crate) fn lag_ms(&self, shown: Option<Version>) -> u64 {
        let reached = self.target_version.is_some() && shown >= self.target_version;
        match (self.state, self.first_missing_timestamp) {
            (ReplicaState::Synchronized, _) | (_, None) => 0,
            _ if reached => 0,
            (_, Some(committed)) => u64::try_from((now() - committed) / 1000).unwrap_or(0),
        }
    }

    /// Reads the file; `None` if there is none, or none that makes sense: power loss may leave it empty. All of it is
    /// found out again by the next pull, from the log and the store.
    pub(crate) fn read(pond: &Path) -> Result<Option<Self>, StewardError> {
        let path = pond.join(STATUS_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StewardError::io("read", &path, error)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(mut status) => {
                status.lag_ms = status.lag_ms(status.applied_version);
                Ok(Some(status))
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the replica's state is not readable, the next pull makes it anew");
                Ok(None)
            }
        }
    }

    /// Replaces the file in one step; only with `durably` does that survive power loss.
    pub(crate) fn write(&self, pond: &Path, durably: bool) -> Result<(), StewardError> {
        let path = pond.join(STATUS_FILE);
        let written =
            serde_json::to_vec_pretty(self).map_err(io::Error::from).and_then(|bytes| match durably {
                true => pond_oplog::write_durably(&path, &bytes, pond_oplog::Existing::Replace),
                false => durable::replace_unsynced(&path, &pond.join(TEMPORARY_FILE), &bytes),
            });
        written.map_err(|error| StewardError::io("write", &path, error))
    }

    /// Removes the file of a pond that is no replica any more.
    pub(crate) fn remove(pond: &Path) -> Result<(), StewardError> {
        let path = pond.join(STATUS_FILE);
        match durable::remove(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(StewardError::io("remove", &path, error)),
        }
    }
}

/// How the replica at `pond` fared when it last said so; `None` if it is none. Reads one small file and takes no lock.
pub fn replica_status(pond: &Path) -> Result<Option<ReplicaStatus>, StewardError> {
    ReplicaStatus::read(pond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_was_reported() {
        let pond = tempfile::tempdir().unwrap();
        assert_eq!(replica_status(pond.path()).unwrap(), None);
        let mut status = ReplicaStatus::default();
        status.take(ReplicaProgress {
            state: ReplicaState::CatchingUp,
            timeline: Some(Timeline(2)),
            target_version: Some(Version(9)),
            ..ReplicaProgress::default()
        });
        for durably in [true, false] {
            status.versions_done += 1;
            status.write(pond.path(), durably).unwrap();
            assert_eq!(replica_status(pond.path()).unwrap(), Some(status.clone()));
        }
        assert_eq!(std::fs::read_dir(pond.path()).unwrap().count(), 1);
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(pond.path().join(STATUS_FILE)).unwrap()).unwrap();
        assert_eq!((json["state"].as_str(), json["target_version"].as_u64()), (Some("catching_up"), Some(9)));

        assert_eq!(ReplicaState::CatchingUp.to_string(), "catching_up");

        // A run that fails before it has seen the store does not forget what an earlier one saw.
        let since = status.since;
        status.take(ReplicaProgress { state: ReplicaState::CatchingUp, ..ReplicaProgress::default() });
        assert_eq!((status.timeline, status.target_version), (Some(Timeline(2)), Some(Version(9))));
        assert_eq!(status.since, since);
        // As power loss may leave it.
        for left in ["", "{"] {
            std::fs::write(pond.path().join(STATUS_FILE), left).unwrap();
            assert_eq!(replica_status(pond.path()).unwrap(), None);
        }
    }

    #[test]
    fn a_run_that_fails_does_not_end_the_lag() {
        let hour = 3_600_000_000;
        let mut status = ReplicaStatus::default();
        let report = |state, first_missing_timestamp| ReplicaProgress {
            state,
            target_version: Some(Version(5)),
            first_missing_timestamp,
            ..ReplicaProgress::default()
        };
        status.take(report(ReplicaState::CatchingUp, Some(now() - hour)));
        for state in [ReplicaState::Failed, ReplicaState::Preparing, ReplicaState::Diverged] {
            status.take(ReplicaProgress { target_version: None, ..report(state, None) });
            assert!(status.lag_ms(Some(Version(4))) >= 3_600_000, "{state}");
            assert_eq!(status.lag_ms(Some(Version(5))), 0, "{state}");
        }
        // What is missing later is missing since then.
        status.take(report(ReplicaState::Synchronized, None));
        status
            .take(ReplicaProgress { target_version: Some(Version(6)), ..report(ReplicaState::Failed, None) });
        assert_eq!(status.lag_ms(Some(Version(5))), 0);
        status.take(ReplicaProgress {
            target_version: Some(Version(6)),
            ..report(ReplicaState::CatchingUp, Some(now() - hour))
        });
        assert!(status.lag_ms(Some(Version(5))) < 2 * 3_600_000);
    }

    #[test]
    fn lag_counts_from_the_first_missing_version_until_the_target_is_shown() {
        let hour = 3_600_000_000;
        let mut status = ReplicaStatus {
            state: ReplicaState::CatchingUp,
            target_version: Some(Version(5)),
            first_missing_timestamp: Some(now() - hour),
            ..ReplicaStatus::default()
        };
        assert!(status.lag_ms(Some(Version(4))) >= 3_600_000);
        assert!(status.lag_ms(None) >= 3_600_000);
        assert_eq!(status.lag_ms(Some(Version(5))), 0);
        status.state = ReplicaState::Failed;
        assert!(status.lag_ms(Some(Version(4))) >= 3_600_000);
        status.state = ReplicaState::Synchronized;
        assert_eq!(status.lag_ms(Some(Version(4))), 0);
        // A source whose clock is ahead of ours.
        let ahead = ReplicaStatus {
            state: ReplicaState::CatchingUp,
            first_missing_timestamp: Some(now() + hour),
            ..ReplicaStatus::default()
        };
        assert_eq!(ahead.lag_ms(None), 0);
    }
}
