//! `history(path)`: what became of a file, one row for each version that changed it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use pond_oplog::{Event, Views};

use crate::error::{QueryError, Result};
use crate::tables::rows::{BATCH, Give, Rows, Wanted};
use crate::tables::values;

const COLUMNS: [&str; 8] =
    ["version", "timestamp", "change", "path", "path_before", "kind", "size", "command"];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let kind = |name: &str| match name {
        "version" | "size" => DataType::Int64,
        "timestamp" => values::microseconds(),
        _ => DataType::Utf8,
    };
    values::schema(&COLUMNS.map(|name| (name, kind(name))))
});

/// What became of the file or directory that a path names, or named.
pub(crate) struct HistoryTable {
    pub(crate) views: Arc<Views>,
    pub(crate) path: String,
}

impl fmt::Debug for HistoryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "history({:?})", self.path)
    }
}

impl Rows for HistoryTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn fill(&self, wanted: &Wanted, give: Give<'_>) -> Result<()> {
        let events = self.views.past()?.of_path(self.path.as_bytes())?;
        if events.is_empty() {
            return Err(QueryError::new(format!("history: no version that is kept has {}", self.path))
                .next("`pond log --deleted` lists what is gone"));
        }
        for events in events.chunks(BATCH) {
            if !give(values::batch(wanted, events.len(), |place| column(COLUMNS[place], events))?) {
                break;
            }
        }
        Ok(())
    }
}

fn column(name: &str, rows: &[Event]) -> Result<ArrayRef> {
    let first = |paths: &Vec<Vec<u8>>| paths.first().map(|path| String::from_utf8_lossy(path).into_owned());
    Ok(match name {
        "version" => values::longs(rows.iter().map(|row| row.commit.position.version.0)),
        "timestamp" => values::version_times(rows.iter().map(|row| row.commit.position.timestamp)),
        "change" => values::texts(rows.iter().map(|row| Some(row.what.name()))),
        "path" => values::texts(rows.iter().map(|row| first(&row.paths))),
        "path_before" => values::texts(rows.iter().map(|row| first(&row.paths_before))),
        "kind" => values::texts(rows.iter().map(|row| Some(row.kind.name()))),
        "size" => values::longs(rows.iter().map(|row| row.size)),
        "command" => values::texts(rows.iter().map(|row| row.commit.origin.command.as_deref())),
        other => return Err(QueryError::new(format!("history has no column {other}"))),
    })
}
