//! Arrow → rows. Columns are found by name, so that later ones do no harm.

use arrow::array::{
    Array, AsArray, BinaryArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use pond_tinyfs::{
    ExtentContent, ExtentRecord, FileType, Location, Lsn, NodeId, NodeRecord, Record, Row, Timestamp, Xattrs,
};

use crate::rows::entries;
use crate::rows::schema::{col, record};

/// What becomes of the bytes of extents.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extents {
    /// They are in the batch, and are verified against their checksums.
    InMemory,
    /// They lie in this data file, where the batch's first row is this one.
    Stored {
        /// Number of the data file.
        file: u32,
        /// Row of the batch's first row within the file.
        first_row: u32,
    },
}

/// Decodes a batch and hands out its rows in their order.
pub(crate) fn rows(batch: &RecordBatch, extents: Extents, mut each: impl FnMut(Row)) -> Result<(), String> {
    let columns = Columns::of(batch)?;
    for i in 0..batch.num_rows() {
        each(columns.row(i, extents).map_err(|why| format!("row {i}: {why}"))?);
    }
    Ok(())
}

struct Columns<'a> {
    part_id: &'a StringArray,
    node_id: &'a StringArray,
    record: &'a StringArray,
    lsn: &'a Int64Array,
    seq: &'a Int64Array,
    version: &'a Int64Array,
    timestamp: &'a TimestampMicrosecondArray,
    file_type: Option<&'a StringArray>,
    mode: Option<&'a Int32Array>,
    uid: Option<&'a Int64Array>,
    gid: Option<&'a Int64Array>,
    nlink: Option<&'a Int64Array>,
    size: Option<&'a Int64Array>,
    rdev: Option<&'a Int64Array>,
    atime: Option<&'a Int64Array>,
    mtime: Option<&'a Int64Array>,
    ctime: Option<&'a Int64Array>,
    btime: Option<&'a Int64Array>,
    xattrs: Option<Xattr<'a>>,
    next_cookie: Option<&'a Int64Array>,
    factory: Option<&'a StringArray>,
    offset: Option<&'a Int64Array>,
    length: Option<&'a Int64Array>,
    checksum: Option<&'a BinaryArray>,
    content: Option<&'a BinaryArray>,
}

struct Xattr<'a> {
    map: &'a MapArray,
    names: &'a BinaryArray,
    values: &'a BinaryArray,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, String> {
        fn optional<'a, A: Array + 'static>(
            batch: &'a RecordBatch,
            name: &str,
        ) -> Result<Option<&'a A>, String> {
            batch
                .column_by_name(name)
                .map(|column| {
                    column
                        .as_any()
                        .downcast_ref::<A>()
                        .ok_or_else(|| format!("the column {name} is a {}", column.data_type()))
                })
                .transpose()
        }
        fn required<'a, A: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a A, String> {
            let array: &A = optional(batch, name)?.ok_or_else(|| format!("there is no column {name}"))?;
            if array.null_count() > 0 {
                return Err(format!("the column {name} has nulls"));
            }
            Ok(array)
        }
        let timestamp = batch
            .column_by_name(col::TIMESTAMP)
            .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
            .ok_or("there is no column timestamp of microseconds")?;
        let xattrs = match optional::<MapArray>(batch, col::XATTRS)? {
            Some(map) => Some(Xattr {
                map,
                names: map.keys().as_binary_opt().ok_or("the names of xattrs are not binary")?,
                values: map.values().as_binary_opt().ok_or("the values of xattrs are not binary")?,
            }),
            None => None,
        };
        Ok(Columns {
            part_id: required(batch, col::PART_ID)?,
            node_id: required(batch, col::NODE_ID)?,
            record: required(batch, col::RECORD)?,
            lsn: required(batch, col::LSN)?,
            seq: required(batch, col::SEQ)?,
            version: required(batch, col::VERSION)?,
            timestamp,
            file_type: optional(batch, col::FILE_TYPE)?,
            mode: optional(batch, col::MODE)?,
            uid: optional(batch, col::UID)?,
            gid: optional(batch, col::GID)?,
            nlink: optional(batch, col::NLINK)?,
            size: optional(batch, col::SIZE)?,
            rdev: optional(batch, col::RDEV)?,
            atime: optional(batch, col::ATIME)?,
            mtime: optional(batch, col::MTIME)?,
            ctime: optional(batch, col::CTIME)?,
            btime: optional(batch, col::BTIME)?,
            xattrs,
            next_cookie: optional(batch, col::NEXT_COOKIE)?,
            factory: optional(batch, col::FACTORY)?,
            offset: optional(batch, col::OFFSET)?,
            length: optional(batch, col::LENGTH)?,
            checksum: optional(batch, col::CHECKSUM)?,
            content: optional(batch, col::CONTENT)?,
        })
    }

    fn row(&self, i: usize, extents: Extents) -> Result<Row, String> {
        Ok(Row {
            part: node_id(self.part_id.value(i))?,
            node: node_id(self.node_id.value(i))?,
            lsn: Lsn(unsigned(self.lsn.value(i), col::LSN)?),
            seq: unsigned(self.seq.value(i), col::SEQ)?,
            version: unsigned(self.version.value(i), col::VERSION)?,
            timestamp: self.timestamp.value(i),
            record: match self.record.value(i) {
                record::NODE => Record::Node(Box::new(self.node(i)?)),
                record::ENTRIES => {
                    let stream = self.content_bytes(i)?.ok_or("entries without content")?;
                    Record::Entries(entries::decode(stream)?)
                }
                record::EXTENT => Record::Extent(self.extent(i, extents)?),
                record::CUT => Record::Hole {
                    offset: unsigned(needed(self.offset, i, col::OFFSET)?, col::OFFSET)?,
                    length: given(self.length, i).map(|length| unsigned(length, col::LENGTH)).transpose()?,
                },
                other => return Err(format!("the record {other:?} is unknown")),
            },
        })
    }

    fn node(&self, i: usize) -> Result<NodeRecord, String> {
        let kind =
            self.file_type.filter(|column| column.is_valid(i)).ok_or("a node without file_type")?.value(i);
        let mode = self.mode.filter(|column| column.is_valid(i)).ok_or("a node without mode")?.value(i);
        let time = |column, name| needed(column, i, name).map(Timestamp);
        Ok(NodeRecord {
            kind: FileType::from_name(kind).ok_or_else(|| format!("the file type {kind:?} is unknown"))?,
            mode: unsigned(mode.into(), col::MODE)?,
            uid: unsigned(needed(self.uid, i, col::UID)?, col::UID)?,
            gid: unsigned(needed(self.gid, i, col::GID)?, col::GID)?,
            nlink: unsigned(needed(self.nlink, i, col::NLINK)?, col::NLINK)?,
            size: unsigned(needed(self.size, i, col::SIZE)?, col::SIZE)?,
            rdev: unsigned(needed(self.rdev, i, col::RDEV)?, col::RDEV)?,
            atime: time(self.atime, col::ATIME)?,
            mtime: time(self.mtime, col::MTIME)?,
            ctime: time(self.ctime, col::CTIME)?,
            btime: time(self.btime, col::BTIME)?,
            xattrs: self.xattrs(i),
            next_cookie: unsigned(needed(self.next_cookie, i, col::NEXT_COOKIE)?, col::NEXT_COOKIE)?,
            factory: self.factory.filter(|column| column.is_valid(i)).map(|column| column.value(i).into()),
            content: self.content_bytes(i)?,
        })
    }

    fn xattrs(&self, i: usize) -> Option<Xattrs> {
        let Xattr { map, names, values } = self.xattrs.as_ref()?;
        if map.is_null(i) {
            return None;
        }
        let offsets = map.value_offsets();
        let range = offsets[i] as usize..offsets[i + 1] as usize;
        Some(range.map(|j| (names.value(j).into(), values.value(j).into())).collect())
    }

    fn extent(&self, i: usize, extents: Extents) -> Result<ExtentRecord, String> {
        let length = unsigned(needed(self.length, i, col::LENGTH)?, col::LENGTH)?;
        let content = match extents {
            Extents::Stored { file, first_row } => {
                let row = first_row.checked_add(i as u32).ok_or("the file has too many rows")?;
                ExtentContent::Stored(Location { file, row })
            }
            Extents::InMemory => {
                let bytes = self.content_bytes(i)?.ok_or("an extent without content")?;
                let checksum = self
                    .checksum
                    .filter(|column| column.is_valid(i))
                    .ok_or("an extent without checksum")?
                    .value(i);
                if bytes.len() != length as usize {
                    return Err(format!("an extent of {length} bytes has {}", bytes.len()));
                }
                if blake3::hash(&bytes).as_bytes() != checksum {
                    return Err("an extent's bytes do not match their checksum".into());
                }
                ExtentContent::Memory(bytes)
            }
        };
        Ok(ExtentRecord {
            offset: unsigned(needed(self.offset, i, col::OFFSET)?, col::OFFSET)?,
            length,
            content,
        })
    }

    /// A copy: a slice would keep the whole batch in memory as long as the row lives.
    fn content_bytes(&self, i: usize) -> Result<Option<Bytes>, String> {
        let content = self.content.ok_or("there is no column content")?;
        Ok(content.is_valid(i).then(|| Bytes::copy_from_slice(content.value(i))))
    }
}

fn node_id(text: &str) -> Result<NodeId, String> {
    NodeId::from_hex(text).ok_or_else(|| format!("{text:?} is no node id"))
}

fn given(column: Option<&Int64Array>, i: usize) -> Option<i64> {
    column.filter(|column| column.is_valid(i)).map(|column| column.value(i))
}

fn needed(column: Option<&Int64Array>, i: usize, name: &str) -> Result<i64, String> {
    given(column, i).ok_or_else(|| format!("{name} is null"))
}

fn unsigned<T: TryFrom<i64>>(value: i64, name: &str) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{name} {value} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TxnSeq;
    use crate::rows::{encode, samples};

    #[test]
    fn every_kind_of_row_comes_back_as_it_was() {
        let rows_in = samples::all_kinds();
        let batch = encode::batch(&rows_in.iter().collect::<Vec<_>>(), TxnSeq(3)).unwrap();
        let mut rows_out = Vec::new();
        rows(&batch, Extents::InMemory, |row| rows_out.push(row)).unwrap();
        assert_eq!(rows_out, rows_in);
    }

    #[test]
    fn stored_extents_know_their_row_in_the_file() {
        let rows_in = [samples::extent(2, 5, 0, vec![1]), samples::extent(2, 6, 1, vec![2])];
        let batch = encode::batch(&rows_in.iter().collect::<Vec<_>>(), TxnSeq(3)).unwrap();
        let mut locations = Vec::new();
        rows(&batch, Extents::Stored { file: 4, first_row: 100 }, |row| match row.record {
            Record::Extent(ExtentRecord { content: ExtentContent::Stored(location), .. }) => {
                locations.push(location)
            }
            other => panic!("{other:?}"),
        })
        .unwrap();
        assert_eq!(locations, [Location { file: 4, row: 100 }, Location { file: 4, row: 101 }]);
    }

    #[test]
    fn numbers_out_of_range_are_refused_both_ways() {
        let mut row = samples::extent(2, 5, 0, vec![1]);
        row.lsn = Lsn(1 << 63);
        assert!(encode::batch(&[&row], TxnSeq(1)).is_err());
        row.lsn = Lsn(5);
        let Record::Extent(extent) = &mut row.record else { panic!() };
        extent.content = ExtentContent::Stored(Location { file: 0, row: 0 });
        assert!(
            encode::batch(&[&row], TxnSeq(1)).is_err(),
            "bytes that are stored already are not stored again"
        );
    }
}
