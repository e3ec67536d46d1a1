//! Rows of the control table, and the columns that they are stored in.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use pond_oplog::{DeltaTable, TxnSeq, Version};
use pond_tinyfs::{NodeId, Timestamp};

use crate::StewardError;

/// What a row of the control table says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Event {
    /// A setting; of the rows with one key, the last counts.
    Setting,
    /// A transaction has started.
    Begin,
    /// Its version is durable.
    DataCommitted,
    /// Memory knows, and post-commit work is due.
    Completed,
    /// It was not committed.
    Failed,
    /// A node's post-commit work is due.
    PostCommitPending,
    /// It runs.
    PostCommitStarted,
    /// It is done up to a version.
    PostCommitCompleted,
    /// It failed and will be tried again.
    PostCommitFailed,
}

impl Event {
    const ALL: [(Event, &'static str); 9] = [
        (Event::Setting, "setting"),
        (Event::Begin, "begin"),
        (Event::DataCommitted, "data_committed"),
        (Event::Completed, "completed"),
        (Event::Failed, "failed"),
        (Event::PostCommitPending, "post_commit_pending"),
        (Event::PostCommitStarted, "post_commit_started"),
        (Event::PostCommitCompleted, "post_commit_completed"),
        (Event::PostCommitFailed, "post_commit_failed"),
    ];

    /// The word the table stores.
    fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// Reads the word the table stores.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(event, _)| event)
    }

    /// Whether it tells that a version is durable.
    pub(crate) fn is_of_a_durable_version(self) -> bool {
        matches!(self, Event::DataCommitted | Event::Completed)
    }

    /// Whether it tells of a failure.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Event::Failed | Event::PostCommitFailed)
    }
}

/// A row of the control table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ControlRow {
    /// What it says.
    pub(crate) event: Event,
    /// The transaction; 0 on settings.
    pub(crate) txn_seq: TxnSeq,
    /// When, microseconds since 1970 UTC.
    pub(crate) timestamp: i64,
    /// The version that the transaction made, or up to which post-commit work went.
    pub(crate) version: Option<Version>,
    /// A setting's name, or a node's path.
    pub(crate) key: Option<String>,
    /// A setting's value, or an error or report.
    pub(crate) value: Option<String>,
    /// The node of post-commit work.
    pub(crate) node: Option<NodeId>,
}

impl ControlRow {
    /// Whether it says how a run after commits went.
    pub(crate) fn is_outcome(&self) -> bool {
        self.version.is_some() && matches!(self.event, Event::PostCommitCompleted | Event::PostCommitFailed)
    }

    /// A row about a transaction.
    pub(crate) fn transaction(
        event: Event,
        txn_seq: TxnSeq,
        version: Option<Version>,
        value: Option<String>,
    ) -> Self {
        ControlRow { event, txn_seq, timestamp: now(), version, key: None, value, node: None }
    }

    /// A row about a node's post-commit work.
    pub(crate) fn post_commit(
        event: Event,
        (node, path): (NodeId, &str),
        (txn_seq, version): (TxnSeq, Option<Version>),
        value: Option<String>,
    ) -> Self {
        ControlRow {
            event,
            txn_seq,
            timestamp: now(),
            version,
            key: Some(path.to_owned()),
            value,
            node: Some(node),
        }
    }

    /// A setting.
    pub(crate) fn setting(key: &str, value: &str) -> Self {
        ControlRow {
            event: Event::Setting,
            txn_seq: TxnSeq(0),
            timestamp: now(),
            version: None,
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
            node: None,
        }
    }

    /// Rows with the same subject replace each other within a batch.
    pub(crate) fn same_subject(&self, other: &ControlRow) -> bool {
        match (self.node, other.node) {
            (None, None) => self.txn_seq == other.txn_seq && self.event != Event::Setting,
            (node, other_node) => node == other_node,
        }
    }
}

/// Microseconds since 1970 UTC.
pub(crate) fn now() -> i64 {
    Timestamp::now().0.div_euclid(1000)
}

/// The columns of the control table.
pub(crate) fn schema() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("record", DataType::Utf8, false),
        Field::new("txn_seq", DataType::Int64, false),
        Field::new("timestamp", utc, false),
        Field::new("version", DataType::Int64, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("value", DataType::Utf8, true),
        Field::new("node_id", DataType::Utf8, true),
    ]))
}

/// Rows as the table takes them.
pub(crate) fn encode(table: &Path, rows: &[ControlRow]) -> Result<RecordBatch, StewardError> {
    let corrupt = |why: String| StewardError::ControlCorrupt { path: table.to_owned(), why };
    let number = |number: u64| i64::try_from(number).map_err(|_| corrupt(format!("{number} is too large")));
    let txn_seq = rows.iter().map(|row| number(row.txn_seq.0)).collect::<Result<Vec<_>, _>>()?;
    let version =
        rows.iter().map(|row| row.version.map(|v| number(v.0)).transpose()).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.event.name()))),
            Arc::new(Int64Array::from(txn_seq)),
            Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.timestamp))
                    .with_timezone("UTC"),
            ),
            Arc::new(Int64Array::from(version)),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.key.as_deref()))),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.value.as_deref()))),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.node.map(|node| node.to_string())))),
        ],
    )
    .map_err(|error| corrupt(error.to_string()))
}

/// All rows, in the order in which they were written.
pub(crate) fn read(path: &Path, table: &DeltaTable) -> Result<Vec<ControlRow>, StewardError> {
    let mut rows = Vec::new();
    for batch in table.read_all()? {
        decode(&batch, &mut rows)
            .map_err(|why| StewardError::ControlCorrupt { path: path.to_owned(), why })?;
    }
    Ok(rows)
}

/// Reads rows as the table has them.
pub(crate) fn decode(batch: &RecordBatch, rows: &mut Vec<ControlRow>) -> Result<(), String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column {name}"));
    let text = |name: &str| {
        column(name)?.as_string_opt::<i32>().ok_or_else(|| format!("column {name} holds no text"))
    };
    let number = |name: &str| {
        column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| format!("column {name} holds no numbers"))
    };
    let (record, txn_seq, version) = (text("record")?, number("txn_seq")?, number("version")?);
    let timestamp = column("timestamp")?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or("column timestamp holds no times")?;
    let (key, value, node) = (text("key")?, text("value")?, text("node_id")?);
    let unsigned = |number: i64| u64::try_from(number).map_err(|_| format!("{number} is negative"));
    let optional = |column: &StringArray, i: usize| column.is_valid(i).then(|| column.value(i).to_owned());
    for i in 0..batch.num_rows() {
        let name = record.value(i);
        rows.push(ControlRow {
            event: Event::from_name(name).ok_or_else(|| format!("unknown record {name:?}"))?,
            txn_seq: TxnSeq(unsigned(txn_seq.value(i))?),
            timestamp: timestamp.value(i),
            version: version.is_valid(i).then(|| unsigned(version.value(i))).transpose()?.map(Version),
            key: optional(key, i),
            value: optional(value, i),
            node: match optional(node, i) {
                Some(hex) => Some(NodeId::from_hex(&hex).ok_or_else(|| format!("{hex} is no node"))?),
                None => None,
            },
        });
    }
    Ok(())
}
