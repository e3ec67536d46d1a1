//! The columns of the one table, as Arrow types that Delta can express.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::ipc::MetadataVersion;
use arrow::ipc::writer::IpcWriteOptions;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;

/// Columns that carry statistics, in the log entry and in the data file alike.
pub(crate) const STATISTICS: [&str; 5] = [col::PART_ID, col::NODE_ID, col::LSN, col::TXN_SEQ, col::RECORD];

/// The format that a program must know to write a table with all of these columns: each new column raises it, to a number that no
/// other element of the format has.
pub(crate) const WRITER: u32 = 1;

/// Names of the columns.
pub(crate) mod col {
    pub(crate) const PART_ID: &str = "part_id";
    pub(crate) const NODE_ID: &str = "node_id";
    pub(crate) const RECORD: &str = "record";
    pub(crate) const LSN: &str = "lsn";
    pub(crate) const SEQ: &str = "seq";
    pub(crate) const TXN_SEQ: &str = "txn_seq";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const TIMESTAMP: &str = "timestamp";
    pub(crate) const FILE_TYPE: &str = "file_type";
    pub(crate) const MODE: &str = "mode";
    pub(crate) const UID: &str = "uid";
    pub(crate) const GID: &str = "gid";
    pub(crate) const NLINK: &str = "nlink";
    pub(crate) const SIZE: &str = "size";
    pub(crate) const RDEV: &str = "rdev";
    pub(crate) const ATIME: &str = "atime";
    pub(crate) const MTIME: &str = "mtime";
    pub(crate) const CTIME: &str = "ctime";
    pub(crate) const BTIME: &str = "btime";
    pub(crate) const XATTRS: &str = "xattrs";
    pub(crate) const NEXT_COOKIE: &str = "next_cookie";
    pub(crate) const FACTORY: &str = "factory";
    pub(crate) const OFFSET: &str = "offset";
    pub(crate) const LENGTH: &str = "length";
    pub(crate) const CHECKSUM: &str = "checksum";
    pub(crate) const CONTENT: &str = "content";
}

/// Words of the `record` column.
pub(crate) mod record {
    pub(crate) const NODE: &str = "node";
    pub(crate) const ENTRIES: &str = "entries";
    pub(crate) const EXTENT: &str = "extent";
    pub(crate) const CUT: &str = "cut";
}

/// The schema of the rows. `content` comes last, so that the small columns of a row group lie together.
pub(crate) static ROWS: LazyLock<SchemaRef> = LazyLock::new(|| {
    let required = |name: &str, kind: DataType| Field::new(name, kind, false);
    let optional = |name: &str, kind: DataType| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        required(col::PART_ID, DataType::Utf8),
        required(col::NODE_ID, DataType::Utf8),
        required(col::RECORD, DataType::Utf8),
        required(col::LSN, DataType::Int64),
        required(col::SEQ, DataType::Int64),
        required(col::TXN_SEQ, DataType::Int64),
        required(col::VERSION, DataType::Int64),
        required(col::TIMESTAMP, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        optional(col::FILE_TYPE, DataType::Utf8),
        optional(col::MODE, DataType::Int32),
        optional(col::UID, DataType::Int64),
        optional(col::GID, DataType::Int64),
        optional(col::NLINK, DataType::Int64),
        optional(col::SIZE, DataType::Int64),
        optional(col::RDEV, DataType::Int64),
        optional(col::ATIME, DataType::Int64),
        optional(col::MTIME, DataType::Int64),
        optional(col::CTIME, DataType::Int64),
        optional(col::BTIME, DataType::Int64),
        optional(col::XATTRS, DataType::Map(Arc::new(XATTR_ENTRIES.clone()), false)),
        optional(col::NEXT_COOKIE, DataType::Int64),
        optional(col::FACTORY, DataType::Utf8),
        optional(col::OFFSET, DataType::Int64),
        optional(col::LENGTH, DataType::Int64),
        optional(col::CHECKSUM, DataType::Binary),
        optional(col::CONTENT, DataType::Binary),
    ]))
});

/// The entries of an `xattrs` map; the names are those that Delta's own conversion uses.
pub(crate) static XATTR_ENTRIES: LazyLock<Field> =
    LazyLock::new(|| Field::new("key_value", DataType::Struct(XATTR_FIELDS.clone()), false));

/// Key and value of an `xattrs` map.
pub(crate) static XATTR_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("key", DataType::Binary, false),
        Field::new("value", DataType::Binary, false),
    ])
});

/// The schema of the stream in an `entries` row's `content`.
pub(crate) static ENTRIES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("name", DataType::Binary, false),
        Field::new("child_node_id", DataType::Utf8, false),
        Field::new("file_type", DataType::Utf8, false),
        Field::new("cookie", DataType::Int64, false),
        Field::new("op", DataType::Utf8, false),
    ]))
});

/// How Arrow messages are written: padded to 8 bytes rather than 64, since most hold a few small rows.
pub(crate) fn ipc_options() -> Result<IpcWriteOptions, ArrowError> {
    IpcWriteOptions::try_new(8, false, MetadataVersion::V5)
}

/// The schema as the Delta log writes it, or why Delta cannot express it.
pub(crate) fn delta_schema(schema: &Schema) -> Result<String, String> {
    let delta: StructType = schema.try_into_kernel().map_err(|error| error.to_string())?;
    serde_json::to_string(&delta).map_err(|error| error.to_string())
}

/// The digits of a node id as text.
pub(crate) fn hex_text(digits: &[u8; 16]) -> &str {
    // Hexadecimal digits are ASCII.
    std::str::from_utf8(digits).unwrap_or_default()
}

/// A number as Delta's `long`.
pub(crate) fn long(value: u64, what: &str) -> Result<i64, ArrowError> {
    i64::try_from(value)
        .map_err(|_| ArrowError::InvalidArgumentError(format!("{what} {value} exceeds 63 bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delta_can_express_every_column() {
        let text = delta_schema(&ROWS).unwrap();
        for name in [col::PART_ID, col::XATTRS, col::CONTENT] {
            assert!(text.contains(&format!("\"name\":\"{name}\"")), "{text}");
        }
        assert!(text.contains("\"keyType\":\"binary\""), "{text}");
        assert!(!text.contains("timestamp_ntz"), "{text}");
    }
}
