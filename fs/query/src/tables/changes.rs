//! `changes(a, b)`: what differs between two versions, one row for each node.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use pond_oplog::{At, Change, Side, Views};

use crate::error::{QueryError, Result};
use crate::tables::rows::{BATCH, Give, Rows, Wanted};
use crate::tables::values;

const COLUMNS: [&str; 11] = [
    "change",
    "path",
    "path_before",
    "kind",
    "inode",
    "size",
    "size_before",
    "mtime",
    "mtime_before",
    "content",
    "attributes",
];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let kind = |name: &str| match name {
        "inode" | "size" | "size_before" => DataType::Int64,
        "mtime" | "mtime_before" => values::nanoseconds(),
        "content" => DataType::Boolean,
        _ => DataType::Utf8,
    };
    values::schema(&COLUMNS.map(|name| (name, kind(name))))
});

/// What differs between two versions.
pub(crate) struct ChangesTable {
    pub(crate) views: Arc<Views>,
    pub(crate) from: At,
    pub(crate) to: At,
}

impl fmt::Debug for ChangesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "changes({}, {})", self.from, self.to)
    }
}

impl Rows for ChangesTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn fill(&self, wanted: &Wanted, give: Give<'_>) -> Result<()> {
        let changes = self.views.difference(self.from, self.to)?.changes;
        for changes in changes.chunks(BATCH) {
            if !give(values::batch(wanted, changes.len(), |place| column(COLUMNS[place], changes))?) {
                break;
            }
        }
        Ok(())
    }
}

/// What became of it, in one word.
fn word(change: &Change) -> &'static str {
    match (&change.before, &change.after) {
        (None, _) => "created",
        (_, None) => "removed",
        _ if !change.names_gone().is_empty() => "moved",
        _ if change.content => "written",
        _ => "changed",
    }
}

fn path(side: &Option<Side>) -> Option<String> {
    let link = side.as_ref()?.links.first()?;
    Some(String::from_utf8_lossy(&link.path).into_owned())
}

fn column(name: &str, rows: &[Change]) -> Result<ArrayRef> {
    let sizes = |side: fn(&Change) -> &Option<Side>| -> ArrayRef {
        let sizes = rows
            .iter()
            .map(|row| side(row).as_ref().and_then(|side| i64::try_from(side.attributes.size).ok()));
        Arc::new(sizes.collect::<arrow::array::Int64Array>())
    };
    let times = |side: fn(&Change) -> &Option<Side>| -> ArrayRef {
        let times = rows.iter().map(|row| side(row).as_ref().map(|side| side.attributes.mtime.0));
        Arc::new(times.collect::<arrow::array::TimestampNanosecondArray>().with_timezone("UTC"))
    };
    Ok(match name {
        "change" => values::texts(rows.iter().map(|row| Some(word(row)))),
        "path" => values::texts(rows.iter().map(|row| path(&row.after).or_else(|| path(&row.before)))),
        "path_before" => values::texts(rows.iter().map(|row| path(&row.before))),
        "kind" => values::texts(rows.iter().map(|row| row.kind().map(|kind| kind.name()))),
        "inode" => values::longs(rows.iter().map(|row| row.node.get())),
        "size" => sizes(|row| &row.after),
        "size_before" => sizes(|row| &row.before),
        "mtime" => times(|row| &row.after),
        "mtime_before" => times(|row| &row.before),
        "content" => values::truths(rows.iter().map(|row| row.content)),
        "attributes" => values::texts(rows.iter().map(|row| {
            let names: Vec<&str> = row.attributes.iter().map(|attribute| attribute.name()).collect();
            (!names.is_empty()).then(|| names.join(","))
        })),
        other => return Err(QueryError::new(format!("changes has no column {other}"))),
    })
}
