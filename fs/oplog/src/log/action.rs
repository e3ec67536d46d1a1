//! The lines of a Delta log entry, as the Delta protocol names them, and the members that pond adds.
//!
//! Source: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#actions>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Origin, PondId, Timeline};

/// One line of a log entry: exactly one member is there. Members this program does not know are
/// skipped, as the protocol asks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) commit_info: Option<CommitInfo>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) txn: Option<Txn>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) add: Option<Add>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remove: Option<Remove>,
}

macro_rules! from_member {
    ($($member:ident: $type:ty),* $(,)?) => {
        $(impl From<$type> for Action {
            fn from(value: $type) -> Self {
                Action { $member: Some(value), ..Action::default() }
            }
        })*
    };
}

from_member!(
    commit_info: CommitInfo, protocol: Protocol, meta_data: Metadata, txn: Txn, add: Add, remove: Remove,
);

/// Where a commit came from. What is below `operation_metrics` is pond's own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CommitInfo {
    /// Milliseconds since 1970 UTC; strictly increasing over versions.
    pub(crate) timestamp: i64,
    #[serde(default)]
    pub(crate) operation: String,
    #[serde(rename = "operationParameters", default)]
    pub(crate) operation_parameters: BTreeMap<String, String>,
    #[serde(rename = "operationMetrics", default)]
    pub(crate) operation_metrics: BTreeMap<String, u64>,
    #[serde(rename = "engineInfo", default, skip_serializing_if = "Option::is_none")]
    pub(crate) engine_info: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pond_id: Option<PondId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeline: Option<Timeline>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) txn_seq: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cut_lsn: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<Origin>,
    /// Digest of the entry that holds it: `delta.rs` fills it in and checks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
}

/// Names of the metrics in [`CommitInfo::operation_metrics`], as Delta's own writers use them.
pub(crate) mod metric {
    pub(crate) const ROWS: &str = "numOutputRows";
    pub(crate) const FILES: &str = "numAddedFiles";
    pub(crate) const BYTES: &str = "numOutputBytes";
}

/// What a program must be able to do to read and write the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writer_features: Option<Vec<String>>,
}

impl Protocol {
    /// Readable by everyone, writable by no other program: none knows the feature `pondWriter`.
    pub(crate) fn pond() -> Self {
        Protocol {
            min_reader_version: 1,
            min_writer_version: 7,
            writer_features: Some(vec!["pondWriter".into()]),
        }
    }
}

/// Identity, schema and configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    pub(crate) format: Format,
    pub(crate) schema_string: String,
    pub(crate) partition_columns: Vec<String>,
    #[serde(default)]
    pub(crate) configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created_time: Option<i64>,
}

/// Names in [`Metadata::configuration`] that are pond's own.
pub(crate) mod property {
    /// Whose the table is.
    pub(crate) const POND_ID: &str = "pond.id";
    /// Least format that a program must know to read it.
    pub(crate) const MIN_READER: &str = "pond.minReader";
    /// Least format that a program must know to write it.
    pub(crate) const MIN_WRITER: &str = "pond.minWriter";
    /// From what a fork was made: `POND_ID VERSION DIGEST`.
    pub(crate) const ORIGIN: &str = "pond.origin";
}

/// The format of data files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Format { provider: "parquet".into(), options: BTreeMap::new() }
    }
}

/// How far an application's own numbering has got: here the cut of the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_updated: Option<i64>,
}

/// A data file that is part of the table from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) partition_values: BTreeMap<String, Option<String>>,
    pub(crate) size: u64,
    /// Milliseconds since 1970 UTC.
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    /// Statistics as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<BTreeMap<String, Option<String>>>,
}

/// A data file that is no longer part of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub(crate) path: String,
    /// Milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_timestamp: Option<i64>,
    pub(crate) data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition_values: Option<BTreeMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<u64>,
}

/// Tag of an `add` action whose rows earlier versions brought: what wrote the file.
pub(crate) const REWRITTEN_TAG: &str = "pond.rewritten";
/// Tag of an `add` action: how many times its rows were joined with those of others.
pub(crate) const LEVEL_TAG: &str = "pond.level";

impl Add {
    /// What one of the file's tags says.
    pub(crate) fn tag(&self, name: &str) -> Option<&str> {
        self.tags.as_ref()?.get(name)?.as_deref()
    }

    /// Whether the file holds rows that earlier versions brought, and none that its own did.
    pub(crate) fn is_rewritten(&self) -> bool {
        self.tag(REWRITTEN_TAG).is_some()
    }

    /// How many times the file's rows were joined with those of others.
    pub(crate) fn level(&self) -> u32 {
        self.tag(LEVEL_TAG).and_then(|level| level.parse().ok()).unwrap_or(0)
    }
}
