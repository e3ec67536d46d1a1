//! A version to be: its numbers, each of which only grows, and its log entry.

use std::collections::BTreeMap;

use pond_tinyfs::Lsn;

use crate::log::action::{Action, CommitInfo, Txn};
use crate::log::delta;
use crate::{Origin, PondId, Position, Timeline, TxnSeq, Version};

/// The numbers of a version to be.
pub(crate) struct NextVersion {
    pub(crate) version: Version,
    /// Milliseconds since 1970 UTC.
    pub(crate) timestamp: i64,
    pub(crate) txn_seq: TxnSeq,
    pub(crate) cut_lsn: Lsn,
    pub(crate) timeline: Timeline,
}

impl NextVersion {
    /// Those after `last`, of a commit up to `cut_lsn` on this timeline. `now` is in microseconds since 1970 UTC.
    pub(crate) fn after(last: &Position, cut_lsn: Lsn, timeline: Timeline, now: i64) -> Self {
        NextVersion {
            version: last.version.next(),
            // The log counts milliseconds, and two commits within one must differ, as must any before a clock set back.
            timestamp: (now / 1000).max(last.timestamp / 1000 + 1),
            txn_seq: last.txn_seq.next(),
            cut_lsn: cut_lsn.max(last.cut_lsn),
            timeline: timeline.max(last.timeline),
        }
    }

    /// Where history stands once this entry is the version's.
    pub(crate) fn position(&self, entry: &[u8]) -> Position {
        Position {
            version: self.version,
            digest: blake3::hash(entry).to_hex().to_string(),
            timestamp: self.timestamp.saturating_mul(1000),
            txn_seq: self.txn_seq,
            cut_lsn: self.cut_lsn,
            timeline: self.timeline,
        }
    }

    /// The action that says how far the pond's operations have got. Delta's `txn` actions survive checkpoints.
    pub(crate) fn cut_action(&self, pond_id: PondId) -> Action {
        Action::from(Txn {
            app_id: pond_id.to_string(),
            version: self.cut_lsn.0 as i64,
            last_updated: Some(self.timestamp),
        })
    }

    /// The bytes of the version's entry: its `commitInfo`, then these actions.
    pub(crate) fn entry(
        &self,
        pond_id: PondId,
        operation: Operation<'_>,
        actions: Vec<Action>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let (parameter, value) = operation.parameter;
        let metrics = operation.metrics.iter().map(|&(name, value)| (name.to_string(), value));
        let info = CommitInfo {
            timestamp: self.timestamp,
            operation: operation.name.into(),
            operation_parameters: BTreeMap::from([(parameter.to_string(), value)]),
            operation_metrics: metrics.collect(),
            engine_info: Some(concat!("pond/", env!("CARGO_PKG_VERSION")).into()),
            pond_id: Some(pond_id),
            timeline: Some(self.timeline),
            txn_seq: Some(self.txn_seq.0),
            cut_lsn: Some(self.cut_lsn.0),
            origin: Some(operation.origin.clone()),
            digest: None,
        };
        let mut all = vec![Action::from(info)];
        all.extend(actions);
        delta::encode(&all)
    }
}

/// What a version does, as other Delta programs show it.
pub(crate) struct Operation<'a> {
    /// As Delta's own writers call it, where they do the like.
    pub(crate) name: &'a str,
    /// Its one parameter, and the value.
    pub(crate) parameter: (&'a str, String),
    pub(crate) metrics: &'a [(&'a str, u64)],
    /// Who asked for it.
    pub(crate) origin: &'a Origin,
}
