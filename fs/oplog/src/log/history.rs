//! What happened: versions newest first, and the rows of one.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;

use pond_tinyfs::{Lsn, Row};
use serde::Serialize;

use crate::files::digests::Digests;
use crate::files::load::{self, Source};
use crate::log::action::{Add, metric};
use crate::log::commits::{self, commit_info, origin_of, position_of};
use crate::log::delta::Log;
use crate::log::{reading, snapshot};
use crate::{At, Kept, Layout, OpLogError, Origin, Position, Retained, TagName, Version};

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

impl CommitInfo {
    fn of_kept(kept: &Kept) -> Self {
        let (position, origin) = (kept.position(), kept.origin().clone());
        CommitInfo { position, origin, rows: 0, files: 0, bytes: 0 }
    }
}

/// The versions of the pond at `pond`, newest first, at most `limit`. Of those below the floor what they added is no longer known.
pub fn history(pond: &Path, limit: Option<usize>) -> Result<Vec<CommitInfo>, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    let limit = limit.unwrap_or(usize::MAX);
    let (below, mut versions) = kept(&log)?;
    versions.reverse();
    versions.truncate(limit);
    let mut commits = read(&log, &versions)?;
    commits.extend(below.iter().rev().map(CommitInfo::of_kept));
    commits.truncate(limit);
    Ok(commits)
}

/// These versions of the pond at `pond`, oldest first, as far as they are kept; whatever was committed since.
pub fn history_of(pond: &Path, wanted: RangeInclusive<Version>) -> Result<Vec<CommitInfo>, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    let (below, mut versions) = kept(&log)?;
    versions.retain(|&version| wanted.contains(&Version(version)));
    let below = below.iter().filter(|kept| wanted.contains(&kept.version())).map(CommitInfo::of_kept);
    Ok(below.chain(read(&log, &versions)?).collect())
}

/// The versions of the pond at `pond` that have names, by these. Of those below the floor what they added is no longer known.
pub fn tagged(pond: &Path) -> Result<Vec<(TagName, CommitInfo)>, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    let tip = snapshot::load(&log, At::Tip)?;
    let below = tip.kept(&log)?;
    tip.tags()
        .into_iter()
        .map(|(tag, version)| match below.iter().find(|kept| kept.version() == version) {
            Some(kept) => Ok((tag, CommitInfo::of_kept(kept))),
            None => Ok((tag, read(&log, &[version.0])?.remove(0))),
        })
        .collect()
}

/// The versions below the floor that are kept, and those that the log has from there on, ascending.
fn kept(log: &Log) -> Result<(Vec<Kept>, Vec<u64>), OpLogError> {
    let mut versions = log.list()?.entries;
    let Some(Retained { floor, below }) = snapshot::retained(log)? else { return Ok((Vec::new(), versions)) };
    versions.retain(|&version| version >= floor.version.0);
    Ok((below, versions))
}

/// The commits that these operations are of, each the first kept one whose cut is not before it, with the kept version before that.
/// The operations ascend. Reads few entries beside those commits' own.
pub(crate) fn commits_with(
    log: &Log,
    lsns: &[Lsn],
) -> Result<Vec<(CommitInfo, Option<Version>)>, OpLogError> {
    if lsns.is_empty() {
        return Ok(Vec::new());
    }
    let (below, versions) = kept(log)?;
    let count = below.len() + versions.len();
    let version = |place: usize| match below.get(place) {
        Some(kept) => Some(kept.version()),
        None => versions.get(place - below.len()).copied().map(Version),
    };
    let mut known: HashMap<usize, CommitInfo> = HashMap::new();
    let mut at = |place: usize| -> Result<CommitInfo, OpLogError> {
        if let Some(kept) = below.get(place) {
            return Ok(CommitInfo::of_kept(kept));
        }
        if let Some(commit) = known.get(&place) {
            return Ok(commit.clone());
        }
        let missing = || OpLogError::MissingEntry { version: Version(0), path: log.entry_path(Version(0)) };
        let version = version(place).ok_or_else(missing)?;
        let commit = read(log, &[version.0])?.pop().ok_or_else(missing)?;
        known.insert(place, commit.clone());
        Ok(commit)
    };
    let (mut commits, mut from) = (Vec::with_capacity(lsns.len()), 0);
    for &lsn in lsns {
        // In steps that double, since the next is often near.
        let (mut low, mut step) = (from, 1);
        let mut high = low;
        while high < count && at(high)?.position.cut_lsn < lsn {
            low = high + 1;
            high = (high + step).min(count);
            step *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if at(middle)?.position.cut_lsn < lsn { low = middle + 1 } else { high = middle }
        }
        from = low.min(count.saturating_sub(1));
        commits.push((at(from)?, from.checked_sub(1).and_then(version)));
    }
    Ok(commits)
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
                origin: origin_of(log, version, info)?,
                rows: number(metric::ROWS),
                files: number(metric::FILES),
                bytes: number(metric::BYTES),
            });
        }
    }
    Ok(commits)
}

/// The rows that one version added, in `(lsn, seq)` order, or of a kept version below the floor what is left of the rows since the one
/// kept before it. Extents are stored; their locations mean nothing.
pub fn changes(pond: &Path, version: Version) -> Result<Vec<Row>, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    snapshot::resolve(&log, &log.list()?, At::Version(version))?;
    if let Some(Retained { floor, below }) = snapshot::retained(&log)?
        && version < floor.version
    {
        let cut = |kept: &Kept| kept.position().cut_lsn;
        let place = below.partition_point(|kept| kept.version() < version);
        let from = place.checked_sub(1).map_or(Lsn(0), |before| cut(&below[before]));
        let to = below.get(place).map_or(floor.cut_lsn, cut);
        return rows_between(&log, version, snapshot::load(&log, At::Tip)?.files.into_values(), from, to);
    }
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
    }
    rows_between(&log, version, files, from, to)
}

/// The rows in these files of operations after `from` up to `to`, sorted.
fn rows_between(
    log: &Log,
    version: Version,
    files: impl IntoIterator<Item = Add>,
    from: Lsn,
    to: Lsn,
) -> Result<Vec<Row>, OpLogError> {
    let files = files.into_iter().filter(|add| {
        reading::first_lsn(add).is_none_or(|first| first <= to)
            && reading::last_lsn(add).is_none_or(|last| last > from)
    });
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
