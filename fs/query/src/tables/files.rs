//! `files`: the tree of a version, one row for each name.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, BinaryBuilder, MapBuilder, MapFieldNames, StringBuilder};
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use datafusion::logical_expr::Expr;
use pond_oplog::View;
use pond_tinyfs::{Caller, FileType, NodeId};

use crate::content::walk::{Found, each_node};
use crate::error::{QueryError, Result};
use crate::tables::paths::Places;
use crate::tables::rows::{BATCH, Give, Rows, Wanted};
use crate::tables::values;

/// Bytes of a file that are read at a time for its digest.
const CHUNK: usize = 1 << 20;

const COLUMNS: [&str; 21] = [
    "path",
    "path_hex",
    "name",
    "directory",
    "kind",
    "mode",
    "uid",
    "gid",
    "size",
    "allocated",
    "nlink",
    "inode",
    "mtime",
    "ctime",
    "atime",
    "btime",
    "target",
    "device_major",
    "device_minor",
    "xattrs",
    "blake3",
];

/// Columns for which it has to be known what a node is called.
const NAMES: [&str; 4] = ["path", "path_hex", "name", "directory"];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let kind = |name: &str| match name {
        "mode" => DataType::Int32,
        "uid" | "gid" | "size" | "allocated" | "nlink" | "inode" | "device_major" | "device_minor" => {
            DataType::Int64
        }
        "mtime" | "ctime" | "atime" | "btime" => values::nanoseconds(),
        "xattrs" => xattrs_type(),
        _ => DataType::Utf8,
    };
    values::schema(&COLUMNS.map(|name| (name, kind(name))))
});

fn xattrs_type() -> DataType {
    let fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Binary, true)];
    let entry = Field::new("entries", DataType::Struct(Fields::from(fields)), false);
    DataType::Map(Arc::new(entry), false)
}

/// The tree of a version.
pub(crate) struct FilesTable {
    pub(crate) view: Arc<View>,
}

impl fmt::Debug for FilesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files of version {}", self.view.position().version)
    }
}

impl Rows for FilesTable {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn uses(&self, condition: &Expr) -> bool {
        Places::of(condition, "path").is_some()
    }

    fn fill(&self, wanted: &Wanted, give: Give<'_>) -> Result<()> {
        let mut rows = Vec::with_capacity(BATCH);
        let mut each = |found| -> Result<bool> {
            rows.push(found);
            match rows.len() < BATCH {
                true => Ok(true),
                false => self.give(wanted, &mut rows, give),
            }
        };
        let places = Places::of_all(&wanted.conditions, "path");
        let is_named = wanted.columns.iter().any(|place| NAMES.contains(&COLUMNS[*place]));
        match is_named || places != Places::All {
            true => places.each(&self.view, each)?,
            false => {
                let root = self.view.fs().getattr(NodeId::ROOT)?;
                let nameless =
                    |parent, attributes| Found { path: Vec::new(), parent, name_at: 0, attributes };
                if each(nameless(NodeId::ROOT, root))? {
                    each_node(&self.view, NodeId::ROOT, |parent, node| each(nameless(parent, node)))?;
                }
            }
        }
        if !rows.is_empty() {
            self.give(wanted, &mut rows, give)?;
        }
        Ok(())
    }
}

impl FilesTable {
    fn give(&self, wanted: &Wanted, rows: &mut Vec<Found>, give: Give<'_>) -> Result<bool> {
        let batch = values::batch(wanted, rows.len(), |column| self.column(COLUMNS[column], rows))?;
        rows.clear();
        Ok(give(batch))
    }

    fn column(&self, name: &str, rows: &[Found]) -> Result<ArrayRef> {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let of = |row: fn(&Found) -> u64| values::longs(rows.iter().map(row));
        let times = |row: fn(&Found) -> i64| values::file_times(rows.iter().map(row));
        Ok(match name {
            "path" => values::texts(rows.iter().map(|row| Some(lossy(&row.path)))),
            "path_hex" => values::texts(rows.iter().map(|row| values::hex(&row.path))),
            "name" => values::texts(rows.iter().map(|row| Some(lossy(row.name())))),
            "directory" => values::texts(rows.iter().map(|row| directory(row).map(lossy))),
            "kind" => values::texts(rows.iter().map(|row| Some(row.attributes.kind.name()))),
            "mode" => values::ints(rows.iter().map(|row| row.attributes.mode.into())),
            "uid" => of(|row| row.attributes.uid.into()),
            "gid" => of(|row| row.attributes.gid.into()),
            "size" => of(|row| row.attributes.size),
            "allocated" => of(|row| row.attributes.blocks.saturating_mul(512)),
            "nlink" => of(|row| row.attributes.nlink.into()),
            "inode" => of(|row| row.attributes.id.get()),
            "mtime" => times(|row| row.attributes.mtime.0),
            "ctime" => times(|row| row.attributes.ctime.0),
            "atime" => times(|row| row.attributes.atime.0),
            "btime" => times(|row| row.attributes.btime.0),
            // The inverse of the kernel's new_encode_dev.
            "device_major" => of(|row| u64::from((row.attributes.rdev & 0xfff00) >> 8)),
            "device_minor" => {
                of(|row| u64::from((row.attributes.rdev & 0xff) | ((row.attributes.rdev >> 12) & 0xfff00)))
            }
            "target" => values::texts(self.each(rows, |row| match row.attributes.kind {
                FileType::Symlink => Ok(Some(lossy(&self.view.fs().readlink(row.attributes.id)?))),
                _ => Ok(None),
            })?),
            "blake3" => values::texts(self.each(rows, |row| self.digest(row))?),
            "xattrs" => self.xattrs(rows)?,
            other => return Err(QueryError::new(format!("files has no column {other}"))),
        })
    }

    fn each<T>(&self, rows: &[Found], value: impl Fn(&Found) -> Result<T>) -> Result<std::vec::IntoIter<T>> {
        Ok(rows.iter().map(value).collect::<Result<Vec<T>>>()?.into_iter())
    }

    /// BLAKE3-256 of a file's bytes.
    fn digest(&self, row: &Found) -> Result<Option<String>> {
        let Found { attributes, .. } = row;
        if attributes.kind != FileType::File {
            return Ok(None);
        }
        let (fs, mut hash, mut offset) = (self.view.fs(), blake3::Hasher::new(), 0);
        while offset < attributes.size {
            let plan = fs.read(attributes.id, offset, CHUNK)?;
            let bytes = plan.fill(fs.persistence().as_ref()).map_err(pond_tinyfs::Error::from)?;
            hash.update(&bytes);
            offset += bytes.len().max(1) as u64;
        }
        Ok(Some(hash.finalize().to_hex().to_string()))
    }

    fn xattrs(&self, rows: &[Found]) -> Result<ArrayRef> {
        let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
        let mut map = MapBuilder::new(Some(names), StringBuilder::new(), BinaryBuilder::new());
        let fs = self.view.fs();
        for row in rows {
            let id = row.attributes.id;
            let names = fs.listxattr(&Caller::root(), id)?;
            for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                map.keys().append_value(String::from_utf8_lossy(name));
                map.values().append_value(fs.getxattr(id, name)?);
            }
            map.append(true).map_err(|error| QueryError::new(error.to_string()))?;
        }
        Ok(Arc::new(map.finish()))
    }
}

/// The path of the directory that has it; none for the root.
pub(crate) fn directory(row: &Found) -> Option<&[u8]> {
    match row.name_at {
        _ if row.path == b"/" => None,
        1 => Some(b"/"),
        at => Some(&row.path[..at - 1]),
    }
}
