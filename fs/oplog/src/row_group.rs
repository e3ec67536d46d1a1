//! Rows → one row group of a data file.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedRowGroupWriter;
use parquet::schema::types::SchemaDescriptor;
use pond_tinyfs::Row;

use crate::content_column::ContentColumn;
use crate::schema::{self, col};
use crate::sink::Sink;
use crate::txns::Txns;
use crate::{encode, pieces};

/// Content that is turned into Arrow, or digested, at a time.
const BATCH: usize = 8 << 20;
/// Small extents go to a page in runs of this; a page is closed once it holds as much, so it ends below twice this.
pub(crate) const PAGE: usize = 8 << 10;

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
        /// Their content is stored as it is, not compressed.
        is_plain: bool,
        /// Digests of their parts are kept.
        with_pieces: bool,
    },
}

/// A row group in Parquet's form.
pub(crate) struct EncodedGroup<'a> {
    chunks: Vec<ArrowColumnChunk>,
    /// The last column, where it is not among the chunks.
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
        let (is_extents, is_plain, with_pieces) = match self.kind {
            Kind::Metadata => (false, false, false),
            Kind::Extents { is_plain, with_pieces } => (true, is_plain, with_pieces),
        };
        let content = if is_plain {
            writers.pop();
            let column = ContentColumn::new(self.rows, runs(self.rows, PAGE, usize::MAX))
                .ok_or_else(|| ParquetError::General("an extent is not in memory".into()))?;
            let description = column.describe(schema.column(schema.num_columns() - 1))?;
            Some((column, description))
        } else {
            None
        };
        let mut slots = Vec::new();
        for range in runs(self.rows, BATCH, usize::MAX) {
            let rows = &self.rows[range];
            let batch = match (is_plain, with_pieces) {
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
        // All but the content of extents.
        let small = chunks.len() - usize::from(is_extents && !is_plain);
        let length = |chunk: &ArrowColumnChunk| chunk.close().metadata.compressed_size().max(0) as u64;
        let footprint = chunks[..small].iter().map(length).sum();
        Ok(EncodedGroup { chunks, content, slots, footprint })
    }
}

impl EncodedGroup<'_> {
    /// How many of its first bytes a load reads (`data_file::footprint`).
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
        // Slices decide where pages of content may end.
        let page = if field.name() == col::CONTENT { PAGE } else { usize::MAX };
        let mut leaves = 0;
        for slice in page_slices(array, page) {
            let values = compute_leaves(field, &array.slice(slice.start, slice.len()))?;
            leaves = values.len();
            for (writer, values) in writers[leaf..].iter_mut().zip(&values) {
                writer.write(values)?;
            }
            pause();
        }
        leaf += leaves;
    }
    Ok(())
}

/// Runs of consecutive values that make at most a page, or single ones that are larger; the whole of other columns.
fn page_slices(array: &ArrayRef, page: usize) -> impl Iterator<Item = Range<usize>> {
    let content = array.as_binary_opt::<i32>();
    ranges(array.len(), page, usize::MAX, move |i| {
        content.map_or(0, |content| content.value_length(i) as usize)
    })
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
    use parquet::arrow::ArrowSchemaConverter;
    use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
    use parquet::file::properties::{EnabledStatistics, WriterProperties};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::ColumnPath;

    use super::*;
    use crate::durable::DurableFile;
    use crate::{TxnSeq, samples};

    /// The bytes of a file of one group of extents of these lengths, each a page of its own.
    fn file(lengths: &[usize], is_plain: bool) -> Vec<u8> {
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
            .set_column_data_page_size_limit(ColumnPath::from(col::CONTENT), 1)
            .build();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut sink = Sink::new(DurableFile::create(&path).unwrap(), false, &|| {});
        let root = schema.root_schema_ptr();
        let mut writer = SerializedFileWriter::new(&mut sink, root, properties.into()).unwrap();
        let factory = ArrowRowGroupWriterFactory::new(&writer, schema::ROWS.clone());
        let group = RowGroup { rows: &rows, kind: Kind::Extents { is_plain, with_pieces: false } };
        let columns = factory.create_column_writers(0).unwrap();
        let encoded = group.encode(columns, &schema, Txns::One(TxnSeq(1)), &|| {}).unwrap();
        encoded.append_to(writer.next_row_group().unwrap()).unwrap();
        writer.close().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn content_that_is_stored_as_it_is_looks_as_parquets_writer_makes_it() {
        let lengths = [16 << 10, 9000, PAGE + 1, 100_000];
        assert!(file(&lengths, true) == file(&lengths, false));
    }
}
