//! `versions`: the history, one row for each version that is kept.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::LazyLock;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use pond_oplog::{CommitInfo, Version};

use crate::error::{QueryError, Result};
use crate::tables::rows::{BATCH, Give, Rows, Wanted};
use crate::tables::values;

const COLUMNS: [&str; 12] = [
    "version",
    "timestamp",
    "transaction",
    "timeline",
    "digest",
    "origin",
    "command",
    "rows",
    "files",
    "bytes",
    "lsn",
    "tags",
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let kind = |name: &str| match name {
        "timestamp" => values::microseconds(),
        "digest" | "origin" | "command" | "tags" => DataType::Utf8,
        _ => DataType::Int64,
    };
    values::schema(&COLUMNS.map(|name| (name, kind(name))))
});

/// The versions of a pond up to one of them.
pub(crate) struct VersionsTable {
    pub(crate) pond: PathBuf,
    pub(crate) last: Version,
}

impl fmt::Debug for VersionsTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "versions up to {}", self.last)
    }
}

impl Rows for VersionsTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn uses(&self, condition: &Expr) -> bool {
        range(condition).is_some()
    }

    fn fill(&self, wanted: &Wanted, give: Give<'_>) -> Result<()> {
        let (mut first, mut last) = (0, self.last.0);
        for asked in wanted.conditions.iter().filter_map(range) {
            (first, last) = (first.max(*asked.start()), last.min(*asked.end()));
        }
        if first > last {
            return Ok(());
        }
        let commits = pond_oplog::history_of(&self.pond, Version(first)..=Version(last))?;
        let mut tags: HashMap<Version, String> = HashMap::new();
        if wanted.columns.iter().any(|place| COLUMNS[*place] == "tags") {
            for (tag, commit) in pond_oplog::tagged(&self.pond)? {
                let names = tags.entry(commit.position.version).or_default();
                *names = if names.is_empty() { tag.to_string() } else { format!("{names},{tag}") };
            }
        }
        for commits in commits.chunks(BATCH) {
            if !give(values::batch(wanted, commits.len(), |place| column(COLUMNS[place], commits, &tags))?) {
                break;
            }
        }
        Ok(())
    }
}

fn column(name: &str, rows: &[CommitInfo], tags: &HashMap<Version, String>) -> Result<ArrayRef> {
    let of = |row: fn(&CommitInfo) -> u64| values::longs(rows.iter().map(row));
    Ok(match name {
        "version" => of(|row| row.position.version.0),
        "timestamp" => values::version_times(rows.iter().map(|row| row.position.timestamp)),
        "transaction" => of(|row| row.position.txn_seq.0),
        "timeline" => of(|row| row.position.timeline.0),
        "digest" => values::texts(rows.iter().map(|row| Some(row.position.digest.as_str()))),
        "origin" => values::texts(rows.iter().map(|row| Some(row.origin.kind.as_str()))),
        "command" => values::texts(rows.iter().map(|row| row.origin.command.as_deref())),
        "rows" => of(|row| row.rows),
        "files" => of(|row| row.files),
        "bytes" => of(|row| row.bytes),
        "lsn" => of(|row| row.position.cut_lsn.0),
        "tags" => values::texts(rows.iter().map(|row| tags.get(&row.position.version).map(String::as_str))),
        other => return Err(QueryError::new(format!("versions has no column {other}"))),
    })
}

/// Which versions a condition leaves.
fn range(condition: &Expr) -> Option<RangeInclusive<u64>> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
    let (op, number) = match (&**left, &**right) {
        (Expr::Column(column), Expr::Literal(number, _)) if column.name == "version" => (*op, number),
        (Expr::Literal(number, _), Expr::Column(column)) if column.name == "version" => (op.swap()?, number),
        _ => return None,
    };
    let ScalarValue::Int64(Some(number)) = number else { return None };
    let number = u64::try_from(*number).ok()?;
    match op {
        Operator::Eq => Some(number..=number),
        Operator::Lt | Operator::LtEq => Some(0..=number),
        Operator::Gt | Operator::GtEq => Some(number..=u64::MAX),
        _ => None,
    }
}
