//! Rows → one row group of a data file.

use std::ops::Range;

use arrow::array::ArrayRef;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::basic::Compression;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::SchemaDescriptor;
use pond_tinyfs::Row;

use crate::files::content_column::ContentColumn;
use crate::files::pieces;
use crate::files::sink::Sink;
use crate::rows::txns::Txns;
use crate::rows::{encode, schema};

/// Content that is turned into Arrow, or digested, at a time.
const BATCH: usize = 8 << 20;

/// The rows of one row group.
pub(crate) struct RowGroup<'a> {
    pub(crate) rows: &'a [&'a Row],
    pub(crate) kind: Kind,
}

/// What its rows are.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Metadata,
    Extents {
        /// Of their content.
        compression: Compression,
        /// Digests of their parts are kept.
        with_pieces: bool,
    },
}

/// A row group in Parquet's form.
pub(crate) struct EncodedGroup<'a> {
    chunks: Vec<ArrowColumnChunk>,
    /// The last column of extents.
    content: Option<(ContentColumn<'a>, ColumnCloseResult)>,
    slots: Vec<u8>,
    footprint: u64,
}

impl<'a> RowGroup<'a> {
    /// `writers` are those of all columns, which `schema` has.
    pub(crate) fn encode(
        &self,
        mut writers: Vec<ArrowColumnWriter>,
        schema: &SchemaDescriptor,
        txns: Txns<'_>,
        pause: &(dyn Fn() + Sync),
    ) -> Result<EncodedGroup<'a>, ParquetError> {
        let mut slots = Vec::new();
        let mut content = None;
        let with_pieces = match self.kind {
            Kind::Metadata => false,
            Kind::Extents { compression, with_pieces } => {
                writers.pop();
                let column = ContentColumn::new(self.rows, compression, pause)?;
                let description = column.describe(schema.column(schema.num_columns() - 1))?;
                content = Some((column, description));
                with_pieces
            }
        };
        for range in runs(self.rows, BATCH, usize::MAX) {
            let rows = &self.rows[range];
            let batch = match (content.is_some(), with_pieces) {
                (false, _) => encode::batch(rows, txns)?,
                (true, false) => encode::batch_without_content(rows, txns, blake3::hash)?,
                (true, true) => encode::batch_without_content(rows, txns, |extent| {
                    pieces::digest_with_slot(extent, &mut slots)
                })?,
            };
            pause();
            write_columns(batch.columns(), &mut writers, pause)?;
        }
        let chunks: Vec<ArrowColumnChunk> =
            writers.into_iter().map(ArrowColumnWriter::close).collect::<Result<_, _>>()?;
        let length = |chunk: &ArrowColumnChunk| chunk.close().metadata.compressed_size().max(0) as u64;
        let footprint = chunks.iter().map(length).sum();
        Ok(EncodedGroup { chunks, content, slots, footprint })
    }
}

impl EncodedGroup<'_> {
    /// How many of its first bytes a load reads (`digests::footprint`).
    pub(crate) fn footprint(&self) -> u64 {
        self.footprint
    }

    /// Slots of its extents, where they are kept.
    pub(crate) fn slots(&self) -> &[u8] {
        &self.slots
    }

    /// Appends it to a file.
    pub(crate) fn append_to(
        self,
        mut writer: SerializedRowGroupWriter<'_, &mut Sink<'_>>,
    ) -> Result<(), ParquetError> {
        for chunk in self.chunks {
            chunk.append_to_row_group(&mut writer)?;
        }
        if let Some((content, description)) = self.content {
            writer.append_column(&content, description)?;
        }
        writer.close()?;
        Ok(())
    }
}

/// Writes as many columns as there are writers for.
fn write_columns(
    columns: &[ArrayRef],
    writers: &mut [ArrowColumnWriter],
    pause: &(dyn Fn() + Sync),
) -> Result<(), ParquetError> {
    let mut leaf = 0;
    for (field, array) in schema::ROWS.fields().iter().zip(columns) {
        if leaf == writers.len() {
            break;
        }
        let leaves = compute_leaves(field, array)?;
        for (writer, values) in writers[leaf..].iter_mut().zip(&leaves) {
            writer.write(values)?;
        }
        pause();
        leaf += leaves.len();
    }
    Ok(())
}

/// Runs of consecutive rows that hold at most so much content, or single ones that hold more, and are at most so many.
pub(crate) fn runs<'a>(
    rows: &'a [&Row],
    bytes: usize,
    count: usize,
) -> impl Iterator<Item = Range<usize>> + 'a {
    ranges(rows.len(), bytes, count, |i| encode::content_length(rows[i]))
}

/// Cuts `0..n` into ranges of at most `count` items that weigh at most `limit`, or of a single heavier one.
fn ranges(
    n: usize,
    limit: usize,
    count: usize,
    weight: impl Fn(usize) -> usize,
) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == n {
            return None;
        }
        let (mut end, mut sum) = (start + 1, weight(start));
        while end < n && end - start < count && sum.saturating_add(weight(end)) <= limit {
            sum += weight(end);
            end += 1;
        }
        let range = start..end;
        start = end;
        Some(range)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::arrow::ArrowSchemaConverter;
    use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
    use parquet::basic::ZstdLevel;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::ColumnPath;

    use super::*;
    use crate::TxnSeq;
    use crate::disk::durable::DurableFile;
    use crate::rows::samples;
    use crate::rows::schema::col;

    /// The bytes of a file of one group of extents of these lengths, each a page of its own: as they are written, or as Parquet's
    /// writer would.
    fn file(lengths: &[usize], compression: Compression, as_parquet: bool) -> Vec<u8> {
        let rows: Vec<Row> = lengths
            .iter()
            .zip(1..)
            .map(|(&length, n)| samples::extent(n, n, 0, vec![n as u8; length]))
            .collect();
        let rows: Vec<&Row> = rows.iter().collect();
        let schema = ArrowSchemaConverter::new().with_coerce_types(false).convert(&schema::ROWS).unwrap();
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_column_compression(ColumnPath::from(col::CONTENT), compression)
            .set_column_data_page_size_limit(ColumnPath::from(col::CONTENT), 1)
            .build();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut sink = Sink::new(DurableFile::create(&path).unwrap(), false, &|| {});
        let root = schema.root_schema_ptr();
        let mut writer = SerializedFileWriter::new(&mut sink, root, properties.into()).unwrap();
        let factory = ArrowRowGroupWriterFactory::new(&writer, schema::ROWS.clone());
        let mut columns = factory.create_column_writers(0).unwrap();
        let txns = Txns::One(TxnSeq(1));
        let group = if as_parquet {
            let content = columns.len() - 1;
            let batch = encode::batch(&rows, txns).unwrap();
            write_columns(batch.columns(), &mut columns[..content], &|| {}).unwrap();
            let field = schema::ROWS.field_with_name(col::CONTENT).unwrap();
            for n in 0..rows.len() {
                let value = batch.column_by_name(col::CONTENT).unwrap().slice(n, 1);
                columns[content]
                    .write(&compute_leaves(&Arc::new(field.clone()), &value).unwrap()[0])
                    .unwrap();
            }
            let chunks = columns.into_iter().map(|column| column.close().unwrap()).collect();
            EncodedGroup { chunks, content: None, slots: Vec::new(), footprint: 0 }
        } else {
            let group = RowGroup { rows: &rows, kind: Kind::Extents { compression, with_pieces: false } };
            group.encode(columns, &schema, txns, &|| {}).unwrap()
        };
        group.append_to(writer.next_row_group().unwrap()).unwrap();
        writer.close().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn content_looks_as_parquets_writer_makes_it() {
        let lengths = [16 << 10, 9000, 8193, 100_000];
        for compression in [Compression::UNCOMPRESSED, Compression::ZSTD(ZstdLevel::try_new(1).unwrap())] {
            assert!(file(&lengths, compression, false) == file(&lengths, compression, true), "{compression}");
        }
    }
}
