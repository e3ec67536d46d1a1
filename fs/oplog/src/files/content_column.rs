//! The `content` column of extents, whose pages are made here.
//!
//! Parquet's writer would copy each value into Arrow's form, then into a page, then into the page with its levels. Stored
//! as it is, a page is a header, levels and, for each value, its length and its bytes; so only those few bytes in between are
//! made here, and whoever writes the column chunk reads them and the extents in turn. A compressed page is made from the extents with one
//! copy. What comes out is what Parquet's writer would have written: data pages of version 1, `PLAIN`, definition levels in RLE, all
//! values there.
//!
//! Source: the Parquet format, `README.md` ("Data Pages"), `Encodings.md` (PLAIN, RLE) and `parquet.thrift` (`PageHeader`), the
//! latter in Thrift's compact protocol.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, EncodingMask, PageType};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder, PageEncodingStats};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnDescPtr;
use pond_tinyfs::{ExtentContent, Record, Row};
use zstd::bulk::Compressor;
use zstd::zstd_safe::compress_bound;

/// Small extents share a page, which is closed once it holds as much, so it ends below twice this. A larger one has its own.
pub(crate) const PAGE: usize = 8 << 10;

/// Bytes of an extent with those that stand before them.
struct Value<'a> {
    /// In [`ContentColumn::heads`].
    head: Range<usize>,
    bytes: &'a [u8],
}

/// A column chunk, which begins at position 0.
pub(crate) struct ContentColumn<'a> {
    /// Page headers, levels and lengths, one after the other; of compressed pages all.
    heads: Arc<Vec<u8>>,
    values: Arc<Vec<Value<'a>>>,
    compression: Compression,
    rows: usize,
    /// Bytes of the chunk, and what they would be uncompressed.
    length: u64,
    uncompressed: u64,
    pages: Vec<Page>,
}

/// What the offset index says of a page.
struct Page {
    offset: u64,
    length: usize,
    rows: usize,
    /// Bytes of its values.
    content: usize,
}

impl<'a> ContentColumn<'a> {
    /// That of extent rows, all in memory, stored as it is or compressed with zstd. `pause` is called between pieces of work.
    pub(crate) fn new(
        rows: &[&'a Row],
        compression: Compression,
        pause: &(dyn Fn() + Sync),
    ) -> Result<Self, ParquetError> {
        let contents: Vec<&'a [u8]> =
            rows.iter().map(|row| bytes_of(row)).collect::<Option<_>>().ok_or_else(|| {
                ParquetError::General("a row is no extent, or its bytes are not in memory".into())
            })?;
        let mut compressor = match compression {
            Compression::UNCOMPRESSED => None,
            Compression::ZSTD(level) => Some(Compressor::new(level.compression_level())?),
            other => return Err(ParquetError::General(format!("content is not compressed with {other}"))),
        };
        let (mut heads, mut values, mut pages) = (Vec::new(), Vec::new(), Vec::new());
        let (mut length, mut uncompressed) = (0, 0);
        let (mut body, mut compressed) = (Vec::new(), Vec::new());
        for range in page_ranges(&contents) {
            let contents = &contents[range];
            let content: usize = contents.iter().map(|bytes| bytes.len()).sum();
            let levels = levels(contents.len());
            let plain = levels.len() + 4 * contents.len() + content;
            let mut from = heads.len();
            let page = if let Some(compressor) = &mut compressor {
                body.clear();
                body.extend_from_slice(&levels);
                for bytes in contents {
                    body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    body.extend_from_slice(bytes);
                }
                compressed.clear();
                compressed.reserve(compress_bound(plain));
                compressor.compress_to_buffer(&body, &mut compressed)?;
                header(plain, compressed.len(), contents.len(), &mut heads);
                uncompressed += (heads.len() - from + plain) as u64;
                heads.extend_from_slice(&compressed);
                values.push(Value { head: from..heads.len(), bytes: &[] });
                pause();
                heads.len() - from
            } else {
                header(plain, plain, contents.len(), &mut heads);
                let page = heads.len() - from + plain;
                uncompressed += page as u64;
                heads.extend_from_slice(&levels);
                for bytes in contents {
                    heads.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    values.push(Value { head: from..heads.len(), bytes });
                    from = heads.len();
                }
                page
            };
            pages.push(Page { offset: length, length: page, rows: contents.len(), content });
            length += page as u64;
        }
        let (heads, values) = (Arc::new(heads), Arc::new(values));
        Ok(ContentColumn { heads, values, compression, rows: rows.len(), length, uncompressed, pages })
    }

    /// What Parquet's writer is told of the chunk.
    pub(crate) fn describe(&self, column: ColumnDescPtr) -> Result<ColumnCloseResult, ParquetError> {
        let mut index = OffsetIndexBuilder::new();
        for page in &self.pages {
            index.append_offset_and_size(page.offset as i64, page.length as i32);
            index.append_row_count(page.rows as i64);
            index.append_unencoded_byte_array_data_bytes(Some(page.content as i64));
        }
        let stats = PageEncodingStats {
            page_type: PageType::DATA_PAGE,
            encoding: Encoding::PLAIN,
            count: self.pages.len() as i32,
        };
        let metadata = ColumnChunkMetaData::builder(column)
            .set_compression(self.compression)
            .set_encodings_mask(EncodingMask::new_from_encodings([Encoding::PLAIN, Encoding::RLE].iter()))
            .set_page_encoding_stats(vec![stats])
            .set_total_compressed_size(self.length as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(self.rows as i64)
            .set_data_page_offset(0)
            .build()?;
        Ok(ColumnCloseResult {
            bytes_written: self.length,
            rows_written: self.rows as u64,
            metadata,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(index.build()),
        })
    }
}

/// Pages: small values up to a page and one more, or a single one that is larger than a page.
fn page_ranges(contents: &[&[u8]]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut bytes = contents.get(start)?.len();
        let mut end = start + 1;
        while bytes < PAGE && contents.get(end).is_some_and(|next| next.len() <= PAGE) {
            bytes += contents[end].len();
            end += 1;
        }
        let range = start..end;
        start = end;
        Some(range)
    })
}

fn bytes_of(row: &Row) -> Option<&[u8]> {
    match &row.record {
        Record::Extent(extent) => match &extent.content {
            ExtentContent::Memory(bytes) => Some(bytes),
            ExtentContent::Stored(_) => None,
        },
        _ => None,
    }
}

/// Definition levels of so many values that are there: their length, and one run.
fn levels(values: usize) -> Vec<u8> {
    let mut run = Vec::new();
    varint((values as u64) << 1, &mut run);
    run.push(1);
    [&(run.len() as u32).to_le_bytes(), run.as_slice()].concat()
}

/// The header of a data page whose levels and values take so many bytes, and so many as they are stored.
fn header(plain: usize, stored: usize, values: usize, out: &mut Vec<u8>) {
    /// A field of type i32, one number after the last.
    const I32: u8 = 0x15;
    /// A field that is a struct, two numbers after the last.
    const STRUCT: u8 = 0x2c;
    const STOP: u8 = 0;
    const DATA_PAGE: usize = 0;
    const PLAIN: usize = 0;
    const RLE: usize = 3;
    let fields = |values: &[usize], out: &mut Vec<u8>| {
        for &value in values {
            out.push(I32);
            // Numbers are in zigzag, and none is negative.
            varint((value as u64) << 1, out);
        }
    };
    fields(&[DATA_PAGE, plain, stored], out);
    out.push(STRUCT);
    fields(&[values, PLAIN, RLE, RLE], out);
    out.extend_from_slice(&[STOP, STOP]);
}

/// Seven bits a byte, the lowest first (LEB128).
fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Length for ContentColumn<'_> {
    fn len(&self) -> u64 {
        self.length
    }
}

impl<'a> ChunkReader for ContentColumn<'a> {
    type T = Reader<'a>;

    fn get_read(&self, start: u64) -> Result<Reader<'a>, ParquetError> {
        if start != 0 {
            return Err(ParquetError::General("a column chunk is read from its beginning".into()));
        }
        Ok(Reader { heads: self.heads.clone(), values: self.values.clone(), value: 0, position: 0 })
    }

    fn get_bytes(&self, _: u64, _: usize) -> Result<Bytes, ParquetError> {
        Err(ParquetError::General("a column chunk is read from its beginning".into()))
    }
}

/// Reads a column chunk from its beginning to its end.
pub(crate) struct Reader<'a> {
    heads: Arc<Vec<u8>>,
    values: Arc<Vec<Value<'a>>>,
    /// The value that comes next, and how many bytes of its head and of itself were read.
    value: usize,
    position: usize,
}

impl Read for Reader<'_> {
    fn read(&mut self, mut out: &mut [u8]) -> io::Result<usize> {
        let room = out.len();
        while let (Some(value), false) = (self.values.get(self.value), out.is_empty()) {
            let head = &self.heads[value.head.clone()];
            let rest = match self.position.checked_sub(head.len()) {
                None => &head[self.position..],
                Some(at) => &value.bytes[at..],
            };
            let taken = rest.len().min(out.len());
            out[..taken].copy_from_slice(&rest[..taken]);
            out = &mut std::mem::take(&mut out)[taken..];
            self.position += taken;
            if self.position == head.len() + value.bytes.len() {
                (self.value, self.position) = (self.value + 1, 0);
            }
        }
        Ok(room - out.len())
    }
}
