//! Rows → Arrow: one batch of the table's columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Int32Builder, Int64Builder, MapBuilder, MapFieldNames, RecordBatch,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use pond_tinyfs::{ExtentContent, Record, Row, Xattrs};

use crate::rows::entries;
use crate::rows::schema::{self, hex_text, long, record};
use crate::rows::txns::Txns;

/// Encodes rows in the order given. Extents must be in memory; their checksums are computed here.
pub(crate) fn batch<'a>(rows: &[&Row], txns: impl Into<Txns<'a>>) -> Result<RecordBatch, ArrowError> {
    encode(rows, txns.into(), true, blake3::hash)
}

/// As [`batch`], but with nulls for the content of extents, which goes its own way. `digest` computes the checksum (BLAKE3-256)
/// of each extent in turn.
pub(crate) fn batch_without_content<'a>(
    rows: &[&Row],
    txns: impl Into<Txns<'a>>,
    digest: impl FnMut(&[u8]) -> blake3::Hash,
) -> Result<RecordBatch, ArrowError> {
    encode(rows, txns.into(), false, digest)
}

fn encode(
    rows: &[&Row],
    txns: Txns<'_>,
    with_content: bool,
    mut digest: impl FnMut(&[u8]) -> blake3::Hash,
) -> Result<RecordBatch, ArrowError> {
    let mut columns = Columns::with_capacity(rows, with_content);
    for row in rows {
        columns.push(row, txns, &mut digest)?;
    }
    columns.finish()
}

/// What a row's Arrow stream of entries takes besides them, bytes: mostly its schema.
const ENTRIES_OVERHEAD: usize = 1 << 10;

/// Bytes of a row in the columns that may be large: no batch may hold more than 2 GiB in one of them.
pub(crate) fn content_length(row: &Row) -> usize {
    match &row.record {
        Record::Extent(extent) => extent.length as usize,
        Record::Node(node) => {
            let xattrs = node.xattrs.iter().flatten().map(|(name, value)| name.len() + value.len());
            node.content.as_ref().map_or(0, |content| content.len()) + xattrs.sum::<usize>()
        }
        Record::Entries(changes) => {
            ENTRIES_OVERHEAD + changes.iter().map(|change| 64 + change.name.len()).sum::<usize>()
        }
        Record::Hole { .. } => 0,
    }
}

/// The word of a row's `record` column.
pub(crate) fn record_name(row: &Row) -> &'static str {
    match row.record {
        Record::Node(_) => record::NODE,
        Record::Entries(_) => record::ENTRIES,
        Record::Extent(_) => record::EXTENT,
        Record::Hole { .. } => record::CUT,
    }
}

struct Columns {
    part_id: StringBuilder,
    node_id: StringBuilder,
    record: StringBuilder,
    lsn: Int64Builder,
    seq: Int64Builder,
    txn_seq: Int64Builder,
    version: Int64Builder,
    timestamp: TimestampMicrosecondBuilder,
    file_type: StringBuilder,
    mode: Int32Builder,
    uid: Int64Builder,
    gid: Int64Builder,
    nlink: Int64Builder,
    size: Int64Builder,
    rdev: Int64Builder,
    atime: Int64Builder,
    mtime: Int64Builder,
    ctime: Int64Builder,
    btime: Int64Builder,
    xattrs: MapBuilder<BinaryBuilder, BinaryBuilder>,
    next_cookie: Int64Builder,
    factory: StringBuilder,
    offset: Int64Builder,
    length: Int64Builder,
    checksum: BinaryBuilder,
    content: BinaryBuilder,
    /// Whether the content of extents is taken.
    with_content: bool,
}

impl Columns {
    fn with_capacity(rows: &[&Row], with_content: bool) -> Self {
        let n = rows.len();
        let content = if with_content { rows.iter().map(|row| content_length(row)).sum() } else { 0 };
        let long = || Int64Builder::with_capacity(n);
        Columns {
            part_id: StringBuilder::with_capacity(n, 16 * n),
            node_id: StringBuilder::with_capacity(n, 16 * n),
            record: StringBuilder::with_capacity(n, 8 * n),
            lsn: long(),
            seq: long(),
            txn_seq: long(),
            version: long(),
            timestamp: TimestampMicrosecondBuilder::with_capacity(n).with_timezone("UTC"),
            file_type: StringBuilder::with_capacity(n, 8 * n),
            mode: Int32Builder::with_capacity(n),
            uid: long(),
            gid: long(),
            nlink: long(),
            size: long(),
            rdev: long(),
            atime: long(),
            mtime: long(),
            ctime: long(),
            btime: long(),
            xattrs: MapBuilder::new(
                Some(MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() }),
                BinaryBuilder::new(),
                BinaryBuilder::new(),
            )
            .with_values_field(schema::XATTR_FIELDS[1].clone()),
            next_cookie: long(),
            factory: StringBuilder::new(),
            offset: long(),
            length: long(),
            checksum: BinaryBuilder::with_capacity(n, 32 * n),
            content: BinaryBuilder::with_capacity(n, content),
            with_content,
        }
    }

    fn push(
        &mut self,
        row: &Row,
        txns: Txns<'_>,
        digest: &mut impl FnMut(&[u8]) -> blake3::Hash,
    ) -> Result<(), ArrowError> {
        self.part_id.append_value(hex_text(&row.part.hex()));
        self.node_id.append_value(hex_text(&row.node.hex()));
        self.record.append_value(record_name(row));
        self.lsn.append_value(long(row.lsn.0, "lsn")?);
        self.seq.append_value(i64::from(row.seq));
        self.txn_seq.append_value(long(txns.of(row.lsn).0, "txn_seq")?);
        self.version.append_value(long(row.version, "version")?);
        self.timestamp.append_value(row.timestamp);
        self.push_node(row)?;
        self.push_range(row, digest)?;
        match &row.record {
            Record::Node(node) => self.content.append_option(node.content.as_ref()),
            Record::Entries(changes) => self.content.append_value(entries::encode(changes)?),
            Record::Extent(_) | Record::Hole { .. } => {}
        }
        Ok(())
    }

    fn push_node(&mut self, row: &Row) -> Result<(), ArrowError> {
        let node = match &row.record {
            Record::Node(node) => Some(node.as_ref()),
            _ => None,
        };
        self.file_type.append_option(node.map(|node| node.kind.name()));
        self.mode.append_option(node.map(|node| i32::from(node.mode)));
        self.uid.append_option(node.map(|node| i64::from(node.uid)));
        self.gid.append_option(node.map(|node| i64::from(node.gid)));
        self.nlink.append_option(node.map(|node| i64::from(node.nlink)));
        self.size.append_option(node.map(|node| long(node.size, "size")).transpose()?);
        self.rdev.append_option(node.map(|node| i64::from(node.rdev)));
        self.atime.append_option(node.map(|node| node.atime.0));
        self.mtime.append_option(node.map(|node| node.mtime.0));
        self.ctime.append_option(node.map(|node| node.ctime.0));
        self.btime.append_option(node.map(|node| node.btime.0));
        self.push_xattrs(node.and_then(|node| node.xattrs.as_ref()))?;
        self.next_cookie.append_option(node.map(|node| long(node.next_cookie, "next_cookie")).transpose()?);
        self.factory.append_option(node.and_then(|node| node.factory.as_deref()));
        Ok(())
    }

    fn push_xattrs(&mut self, xattrs: Option<&Xattrs>) -> Result<(), ArrowError> {
        for (name, value) in xattrs.into_iter().flatten() {
            self.xattrs.keys().append_value(name);
            self.xattrs.values().append_value(value);
        }
        self.xattrs.append(xattrs.is_some())
    }

    fn push_range(
        &mut self,
        row: &Row,
        digest: impl FnOnce(&[u8]) -> blake3::Hash,
    ) -> Result<(), ArrowError> {
        match &row.record {
            Record::Extent(extent) => {
                let ExtentContent::Memory(bytes) = &extent.content else {
                    return Err(ArrowError::InvalidArgumentError(format!(
                        "extent {}.{} of node {} is stored already",
                        row.lsn, row.seq, row.node
                    )));
                };
                if bytes.len() != extent.length as usize {
                    return Err(ArrowError::InvalidArgumentError(format!(
                        "extent {}.{} of node {} says {} bytes and has {}",
                        row.lsn,
                        row.seq,
                        row.node,
                        extent.length,
                        bytes.len()
                    )));
                }
                self.offset.append_value(long(extent.offset, "offset")?);
                self.length.append_value(i64::from(extent.length));
                self.checksum.append_value(digest(bytes).as_bytes());
                self.content.append_option(self.with_content.then_some(bytes));
            }
            Record::Hole { offset, length } => {
                self.offset.append_value(long(*offset, "offset")?);
                self.length.append_option(length.map(|length| long(length, "length")).transpose()?);
                self.checksum.append_null();
                self.content.append_null();
            }
            Record::Node(_) | Record::Entries(_) => {
                self.offset.append_null();
                self.length.append_null();
                self.checksum.append_null();
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.part_id.finish()),
            Arc::new(self.node_id.finish()),
            Arc::new(self.record.finish()),
            Arc::new(self.lsn.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.txn_seq.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.file_type.finish()),
            Arc::new(self.mode.finish()),
            Arc::new(self.uid.finish()),
            Arc::new(self.gid.finish()),
            Arc::new(self.nlink.finish()),
            Arc::new(self.size.finish()),
            Arc::new(self.rdev.finish()),
            Arc::new(self.atime.finish()),
            Arc::new(self.mtime.finish()),
            Arc::new(self.ctime.finish()),
            Arc::new(self.btime.finish()),
            Arc::new(self.xattrs.finish()),
            Arc::new(self.next_cookie.finish()),
            Arc::new(self.factory.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.length.finish()),
            Arc::new(self.checksum.finish()),
            Arc::new(self.content.finish()),
        ];
        RecordBatch::try_new(schema::ROWS.clone(), columns)
    }
}
