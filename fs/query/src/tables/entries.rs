//! `entries`: what directories hold, one row for each name.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::Expr;
use pond_oplog::View;

use crate::content::walk::Found;
use crate::error::{QueryError, Result};
use crate::tables::files::directory;
use crate::tables::paths::Places;
use crate::tables::rows::{BATCH, Give, Rows, Wanted};
use crate::tables::values;

const COLUMNS: [&str; 7] = ["directory", "directory_inode", "name", "name_hex", "path", "inode", "kind"];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let kind = |name: &str| if name.ends_with("inode") { DataType::Int64 } else { DataType::Utf8 };
    values::schema(&COLUMNS.map(|name| (name, kind(name))))
});

/// What directories of a version hold.
pub(crate) struct EntriesTable {
    pub(crate) view: Arc<View>,
}

impl fmt::Debug for EntriesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entries of version {}", self.view.position().version)
    }
}

impl Rows for EntriesTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn uses(&self, condition: &Expr) -> bool {
        Places::of(condition, "path").is_some() || Places::of(condition, "directory").is_some()
    }

    fn fill(&self, wanted: &Wanted, give: Give<'_>) -> Result<()> {
        let places = match Places::of_all(&wanted.conditions, "path") {
            Places::All => match Places::of_all(&wanted.conditions, "directory") {
                // What lies in these begins with them.
                Places::These(directories) if directories.len() == 1 => {
                    let directory = directories[0].trim_end_matches('/');
                    Places::Beginning(format!("{directory}/"))
                }
                Places::These(_) | Places::All => Places::All,
                beginning => beginning,
            },
            places => places,
        };
        let mut rows = Vec::with_capacity(BATCH);
        places.each(&self.view, |found| {
            // The root is in no directory.
            if found.path != b"/" {
                rows.push(found);
            }
            match rows.len() < BATCH {
                true => Ok(true),
                false => Ok(give(made(wanted, &mut rows)?)),
            }
        })?;
        if !rows.is_empty() {
            give(made(wanted, &mut rows)?);
        }
        Ok(())
    }
}

fn made(wanted: &Wanted, rows: &mut Vec<Found>) -> Result<arrow::array::RecordBatch> {
    let batch = values::batch(wanted, rows.len(), |place| column(COLUMNS[place], rows))?;
    rows.clear();
    Ok(batch)
}

fn column(name: &str, rows: &[Found]) -> Result<ArrayRef> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match name {
        "directory" => values::texts(rows.iter().map(|row| directory(row).map(lossy))),
        "directory_inode" => values::longs(rows.iter().map(|row| row.parent.get())),
        "name" => values::texts(rows.iter().map(|row| Some(lossy(row.name())))),
        "name_hex" => values::texts(rows.iter().map(|row| values::hex(row.name()))),
        "path" => values::texts(rows.iter().map(|row| Some(lossy(&row.path)))),
        "inode" => values::longs(rows.iter().map(|row| row.attributes.id.get())),
        "kind" => values::texts(rows.iter().map(|row| Some(row.attributes.kind.name()))),
        other => return Err(QueryError::new(format!("entries has no column {other}"))),
    })
}
