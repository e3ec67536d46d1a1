//! What log entries say of their commits: of one, and of many that are read on all cores.

use pond_tinyfs::Lsn;

use crate::log::action::CommitInfo;
use crate::log::delta::{Entry, Log};
use crate::parallel::{parallel, threads};
use crate::{OpLogError, Origin, Position, TxnSeq, Version};

/// When a version was committed, microseconds since 1970 UTC.
pub(crate) fn timestamp_of(log: &Log, version: Version) -> Result<i64, OpLogError> {
    let entry = log.read(version)?;
    Ok(commit_info(log, version, &entry)?.timestamp.saturating_mul(1000))
}

/// What an entry of ours says of itself.
pub(crate) fn commit_info<'a>(
    log: &Log,
    version: Version,
    entry: &'a Entry,
) -> Result<&'a CommitInfo, OpLogError> {
    entry.commit_info().ok_or_else(|| OpLogError::CorruptEntry {
        version,
        path: log.entry_path(version),
        why: "it has no commitInfo".into(),
    })
}

/// Who asked for the commit of an entry of ours.
pub(crate) fn origin_of(log: &Log, version: Version, info: &CommitInfo) -> Result<Origin, OpLogError> {
    info.origin.clone().ok_or_else(|| OpLogError::CorruptEntry {
        version,
        path: log.entry_path(version),
        why: "its commitInfo has no origin".into(),
    })
}

/// Reads entries on all cores, in their order.
pub(crate) fn read_entries(log: &Log, versions: &[u64]) -> Result<Vec<Entry>, OpLogError> {
    let threads = threads();
    let read = |versions: &[u64]| -> Result<Vec<Entry>, OpLogError> {
        versions.iter().map(|&version| log.read(Version(version))).collect()
    };
    if versions.len() < 4 * threads {
        return read(versions);
    }
    let portions: Vec<&[u64]> = versions.chunks(versions.len().div_ceil(threads)).collect();
    let parts = parallel(&portions, threads, |versions| read(versions));
    let mut entries = Vec::with_capacity(versions.len());
    for part in parts {
        entries.extend(part?);
    }
    Ok(entries)
}

/// Where a table stands at the version of this entry.
pub(crate) fn position_of(
    log: &Log,
    version: Version,
    digest: &str,
    info: &CommitInfo,
) -> Result<Position, OpLogError> {
    let missing = |name: &str| OpLogError::CorruptEntry {
        version,
        path: log.entry_path(version),
        why: format!("its commitInfo has no {name}"),
    };
    Ok(Position {
        version,
        digest: digest.to_string(),
        timestamp: info.timestamp.saturating_mul(1000),
        txn_seq: TxnSeq(info.txn_seq.ok_or_else(|| missing("txn_seq"))?),
        cut_lsn: Lsn(info.cut_lsn.ok_or_else(|| missing("cut_lsn"))?),
        timeline: info.timeline.ok_or_else(|| missing("timeline"))?,
    })
}
