//! What happened: versions newest first, and the rows of one.

use std::ops::RangeInclusive;
use std::path::Path;

use pond_tinyfs::{Lsn, Row};
use serde::Serialize;

use crate::files::digests::Digests;
use crate::files::load::{self, Source};
use crate::log::action::{Add, metric};
use crate::log::commits::{self, commit_info, position_of};
use crate::log::delta::Log;
use crate::log::{reading, snapshot};
use crate::{At, Layout, OpLogError, Origin, Position, Version};

/// Entries read at a time.
const CHUNK: usize = 256;

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommitInfo {
    /// Version, digest, time, transaction and cut.
    #[serde(flatten)]
    pub position: Position,
    /// Who asked for it.
    pub origin: Origin,
    /// Rows that it added.
    pub rows: u64,
    /// Data files that it added.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The versions of the pond at `pond`, newest first, at most `limit`.
pub fn history(pond: &Path, limit: Option<usize>) -> Result<Vec<CommitInfo>, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    let mut versions = kept(&log)?;
    versions.reverse();
    versions.truncate(limit.unwrap_or(usize::MAX));
    read(&log, &versions)
}

/// These versions of the pond at `pond`, oldest first, as far as they are kept; whatever was committed since.
pub fn history_of(pond: &Path, wanted: RangeInclusive<Version>) -> Result<Vec<CommitInfo>, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    let mut versions = kept(&log)?;
    versions.retain(|&version| wanted.contains(&Version(version)));
    read(&log, &versions)
}

/// The versions that the log has from the floor on, ascending.
fn kept(log: &Log) -> Result<Vec<u64>, OpLogError> {
    let floor = snapshot::newest_floor(log)?.map_or(0, |floor| floor.version.0);
    let mut versions = log.list()?.entries;
    versions.retain(|&version| version >= floor);
    Ok(versions)
}

fn read(log: &Log, versions: &[u64]) -> Result<Vec<CommitInfo>, OpLogError> {
    let mut commits = Vec::with_capacity(versions.len());
    for chunk in versions.chunks(CHUNK) {
        for (&version, entry) in chunk.iter().zip(commits::read_entries(log, chunk)?) {
            let version = Version(version);
            let info = commit_info(log, version, &entry)?;
            let number = |name: &str| info.operation_metrics.get(name).copied().unwrap_or_default();
            commits.push(CommitInfo {
                position: position_of(log, version, &entry.digest, info)?,
                origin: info.origin.clone().ok_or_else(|| OpLogError::CorruptEntry {
                    version,
                    path: log.entry_path(version),
                    why: "its commitInfo has no origin".into(),
                })?,
                rows: number(metric::ROWS),
                files: number(metric::FILES),
                bytes: number(metric::BYTES),
            });
        }
    }
    Ok(commits)
}

/// The rows that one version added, in `(lsn, seq)` order. Extents are stored; their locations mean nothing.
pub fn changes(pond: &Path, version: Version) -> Result<Vec<Row>, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    snapshot::resolve(&log, &log.list()?, At::Version(version))?;
    let entry = log.read(version)?;
    let to = position_of(&log, version, &entry.digest, commit_info(&log, version, &entry)?)?.cut_lsn;
    let adds = entry.actions.into_iter().filter_map(|action| action.add);
    let mut files: Vec<Add> = adds.filter(|add| !add.is_rewritten()).collect();
    let mut from = Lsn(0);
    if files.iter().any(|add| !log.table().join(&add.path).exists()) {
        // Merging has replaced them: the newest version's files hold the rows, among others. The entry itself says where they
        // begin; that of the version before may be gone.
        let first = files.iter().filter_map(reading::first_lsn).min();
        from = first.map_or(from, |first| Lsn(first.0.saturating_sub(1)));
        files = snapshot::load(&log, At::Tip)?.files.into_values().collect();
        files.retain(|add| {
            reading::first_lsn(add).is_none_or(|first| first <= to)
                && reading::last_lsn(add).is_none_or(|last| last > from)
        });
    }
    let mut rows = Vec::new();
    for add in files {
        let source =
            Source { file: 0, path: log.table().join(&add.path), size: add.size, digests: Digests::of(&add) };
        rows.extend(
            load::read_rows(&source, version)?.into_iter().filter(|row| from < row.lsn && row.lsn <= to),
        );
    }
    rows.sort_unstable_by_key(|row| (row.lsn, row.seq));
    Ok(rows)
}
