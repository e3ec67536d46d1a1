//! Rows → Parquet data files, written out of everyone's sight and moved into place when durable.
//!
//! Metadata rows (node, entries, cut) come first, in row groups of their own; extent rows follow in
//! theirs. A commit with much content puts it into content files, which hold extents only. Within
//! a group rows are sorted by part, node and lsn. Every extent of more than 8 KiB has a page
//! nearly to itself, smaller ones share pages of at most 16 KiB, so that a small read decodes little.
//!
//! Content that does not compress is stored as it is. Where its extents are large, the file keeps digests of their parts behind
//! its last row group (`pieces.rs`), so that a small read takes a part only.
//!
//! A file's `add` action carries digests of its footer and of all other bytes that a load reads (`footprint`), since
//! Parquet pages as written here have no checksums of their own. Bytes of extents have one a row.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use pond_tinyfs::{ExtentContent, Location, Placed, Record, Row};

use crate::disk::durable::{self, DurableFile};
use crate::files::content_column::PAGE;
use crate::files::digests::Digests;
use crate::files::file_name;
use crate::files::pieces::{self, PIECE, Slots};
use crate::files::row_group::{Kind, RowGroup, runs};
use crate::files::sink::Sink;
use crate::log::action::Add;
use crate::parallel::parallel;
use crate::rows::encode;
use crate::rows::schema::{self, col};
use crate::rows::txns::Txns;
use crate::{OpLogError, TxnSeq};

/// More content than this in one commit goes into content files.
const BULK: usize = 8 << 20;
/// Most content of one content file.
const CONTENT_FILE: usize = 1 << 30;
/// Bounds of an extent row group: the writer holds one per core in memory, and two drains may be under way.
const ROW_GROUP: Range<usize> = 8 << 20..16 << 20;
/// Most rows of any row group, so that a load can decode one huge commit on all cores.
const ROW_GROUP_ROWS: usize = 128 << 10;
/// Fewer metadata rows than this are not compressed: each column costs a compressor's set-up.
const FEW_ROWS: usize = 64;

/// What goes into one data file, each part sorted.
pub(crate) struct Plan<'a> {
    metadata: Vec<&'a Row>,
    extents: Vec<&'a Row>,
}

/// Distributes rows over data files: none for no rows.
pub(crate) fn plan<'a>(rows: &[&'a [Row]]) -> Vec<Plan<'a>> {
    let (mut extents, mut metadata): (Vec<&Row>, Vec<&Row>) =
        rows.iter().flat_map(|rows| rows.iter()).partition(|row| matches!(row.record, Record::Extent(_)));
    for rows in [&mut metadata, &mut extents] {
        rows.sort_unstable_by_key(|row| (row.part, row.node, row.lsn, row.seq));
    }
    if metadata.is_empty() && extents.is_empty() {
        return Vec::new();
    }
    if content_length(&extents) <= BULK {
        return vec![Plan { metadata, extents }];
    }
    let mut plans = Vec::new();
    if !metadata.is_empty() {
        plans.push(Plan { metadata, extents: Vec::new() });
    }
    plans.extend(content_plans(&extents));
    plans
}

/// Distributes extents alone over content files.
pub(crate) fn plan_content(mut extents: Vec<&Row>) -> Vec<Plan<'_>> {
    extents.sort_unstable_by_key(|row| (row.part, row.node, row.lsn, row.seq));
    content_plans(&extents)
}

fn content_plans<'a>(extents: &[&'a Row]) -> Vec<Plan<'a>> {
    let files = runs(extents, CONTENT_FILE, usize::MAX);
    files.map(|range| Plan { metadata: Vec::new(), extents: extents[range].to_vec() }).collect()
}

/// How a file is made.
#[derive(Clone, Copy)]
pub(crate) struct Effort<'a> {
    /// Cores to use.
    pub(crate) threads: usize,
    /// Called between pieces of work, by each thread that does them; may sleep.
    pub(crate) pause: &'a (dyn Fn() + Sync),
}

/// A file that was written and synced in the directory of files being written.
pub(crate) struct Written<'a> {
    pub(crate) add: Add,
    /// Where it is now.
    pub(crate) path: PathBuf,
    pub(crate) rows: u64,
    /// Its extent rows with their row numbers.
    pub(crate) extents: Vec<(u32, &'a Row)>,
}

impl Written<'_> {
    /// Where its extents lie once the file has this number in locations.
    pub(crate) fn placed(&self, number: u32) -> impl Iterator<Item = Placed> {
        self.extents.iter().filter_map(move |&(row, extent)| match &extent.record {
            Record::Extent(record) => Some(Placed {
                node: extent.node,
                lsn: extent.lsn,
                seq: extent.seq,
                offset: record.offset,
                length: record.length,
                location: Location { file: number, row },
            }),
            _ => None,
        })
    }
}

/// Writes and syncs one data file in `inflight`. `now` is in milliseconds since 1970 UTC.
pub(crate) fn write<'a>(
    inflight: &Path,
    plan: Plan<'a>,
    txn_seq: TxnSeq,
    now: i64,
    effort: Effort<'_>,
) -> Result<Written<'a>, OpLogError> {
    write_rows(inflight, plan, txn_seq, Txns::One(txn_seq), now, effort)
}

/// As [`write`], of rows of various transactions in a file of transaction `txn_seq`.
pub(crate) fn write_rows<'a>(
    inflight: &Path,
    plan: Plan<'a>,
    txn_seq: TxnSeq,
    txns: Txns<'_>,
    now: i64,
    effort: Effort<'_>,
) -> Result<Written<'a>, OpLogError> {
    let name = file_name::new(txn_seq);
    let path = inflight.join(&name);
    let rows = plan.metadata.len() + plan.extents.len();
    if u32::try_from(rows).is_err() {
        return Err(OpLogError::Encode { path, why: format!("{rows} rows are too many for one file") });
    }
    let (size, digests) = match write_to(&path, &plan, txns, effort) {
        Ok(written) => written,
        Err(error) => {
            durable::discard(std::iter::once(path.as_path()).filter(|path| path.exists()));
            return Err(error);
        }
    };
    let first_extent = plan.metadata.len();
    let add = Add {
        path: name,
        partition_values: BTreeMap::new(),
        size,
        modification_time: now,
        data_change: true,
        stats: Some(statistics(&plan, txns)),
        tags: Some(digests.into_tags()),
    };
    let extents = plan.extents.iter().enumerate().map(|(i, row)| ((first_extent + i) as u32, *row)).collect();
    Ok(Written { add, path, rows: rows as u64, extents })
}

/// Writes and syncs the file; says its size and digests.
fn write_to(
    path: &Path,
    plan: &Plan<'_>,
    txns: Txns<'_>,
    effort: Effort<'_>,
) -> Result<(u64, Digests), OpLogError> {
    let file = DurableFile::create(path).map_err(OpLogError::io("create", path))?;
    let is_large = content_length(&plan.extents) > BULK;
    let mut sink = Sink::new(file, is_large, effort.pause);
    encode_file(&mut sink, plan, txns, effort).map_err(|error| parquet_error(path, error))?;
    sink.finish().map_err(OpLogError::io("write", path))
}

/// Names the file, and finds the operating system's error in Parquet's.
pub(crate) fn parquet_error(path: &Path, error: ParquetError) -> OpLogError {
    let error = match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(source) => {
                return OpLogError::Io { action: "write", path: path.to_path_buf(), source: *source };
            }
            Err(cause) => ParquetError::External(cause),
        },
        other => other,
    };
    OpLogError::Encode { path: path.to_path_buf(), why: error.to_string() }
}

fn encode_file(
    sink: &mut Sink<'_>,
    plan: &Plan<'_>,
    txns: Txns<'_>,
    effort: Effort<'_>,
) -> Result<(), ParquetError> {
    let threads = effort.threads;
    let schema = schema::ROWS.clone();
    let descriptor = ArrowSchemaConverter::new().with_coerce_types(false).convert(&schema)?;
    let codec = content_codec(plan)?;
    let properties = properties(plan, codec)?;
    // Compressed, a page is read and decoded as a whole.
    let with_pieces = codec == Compression::UNCOMPRESSED && is_coarse(&plan.extents);
    let mut slots = Vec::new();
    let mut writer = SerializedFileWriter::new(sink, descriptor.root_schema_ptr(), properties.into())?;
    let factory = ArrowRowGroupWriterFactory::new(&writer, schema);
    let row_group = content_length(&plan.extents).div_ceil(threads).clamp(ROW_GROUP.start, ROW_GROUP.end);
    let metadata = runs(&plan.metadata, ROW_GROUP.end, ROW_GROUP_ROWS)
        .map(|range| RowGroup { rows: &plan.metadata[range], kind: Kind::Metadata });
    let kind = Kind::Extents { compression: codec, with_pieces };
    let extents = runs(&plan.extents, row_group, ROW_GROUP_ROWS)
        .map(|range| RowGroup { rows: &plan.extents[range], kind });
    let groups: Vec<(usize, RowGroup)> = metadata.chain(extents).enumerate().collect();
    // A wave of as many groups as there are cores: what is encoded and not yet written stays bounded.
    for wave in groups.chunks(threads.max(1)) {
        let encoded = parallel(wave, threads, |(number, group)| {
            group.encode(factory.create_column_writers(*number)?, &descriptor, txns, effort.pause)
        });
        for group in encoded {
            let group = group?;
            let start = writer.bytes_written() as u64;
            writer.inner_mut().cover(start..start + group.footprint());
            slots.extend_from_slice(group.slots());
            group.append_to(writer.next_row_group()?)?;
        }
    }
    if !slots.is_empty() {
        let place = Slots { offset: writer.bytes_written() as u64, first_row: plan.metadata.len() as u32 };
        writer.write_all(&slots)?;
        writer.append_key_value_metadata(KeyValue::new(pieces::TAG.into(), place.to_text()));
    }
    let position = writer.bytes_written() as u64;
    writer.inner_mut().footer_follows(position);
    writer.close()?;
    Ok(())
}

/// Whether extents are so large that most small reads need a part of one only.
fn is_coarse(extents: &[&Row]) -> bool {
    content_length(extents) >= extents.len() * 2 * PIECE
}

fn content_length(extents: &[&Row]) -> usize {
    extents.iter().map(|row| encode::content_length(row)).sum()
}

fn zstd() -> Result<Compression, ParquetError> {
    Ok(Compression::ZSTD(ZstdLevel::try_new(1)?))
}

fn properties(plan: &Plan<'_>, content: Compression) -> Result<WriterProperties, ParquetError> {
    let path = |name: &str| ColumnPath::from(name);
    let few = plan.metadata.len() + plan.extents.len() < FEW_ROWS;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("pond ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(if few { Compression::UNCOMPRESSED } else { zstd()? })
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_compression(path(col::CONTENT), content)
        .set_column_data_page_size_limit(path(col::CONTENT), PAGE)
        // Digests do not compress; a page of them is decoded for each extent that is read.
        .set_column_compression(path(col::CHECKSUM), Compression::UNCOMPRESSED)
        .set_column_data_page_size_limit(path(col::CHECKSUM), PAGE);
    for name in [col::PART_ID, col::RECORD, col::FILE_TYPE, col::FACTORY] {
        properties = properties.set_column_dictionary_enabled(path(name), !few);
    }
    for name in schema::STATISTICS {
        properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::Chunk);
    }
    Ok(properties.build())
}

/// Compresses a sample: content that would not shrink by a tenth is stored as it is.
fn content_codec(plan: &Plan<'_>) -> Result<Compression, ParquetError> {
    const SAMPLES: usize = 16;
    const SAMPLE: usize = 8 << 10;
    if plan.extents.is_empty() {
        // Symlink targets and directory changes.
        return if plan.metadata.len() < FEW_ROWS { Ok(Compression::UNCOMPRESSED) } else { zstd() };
    }
    let step = plan.extents.len().div_ceil(SAMPLES);
    let (mut raw, mut compressed) = (0, 0);
    for row in plan.extents.iter().step_by(step) {
        if let Record::Extent(extent) = &row.record
            && let ExtentContent::Memory(bytes) = &extent.content
        {
            // The middle tells more than the head, where formats keep their headers.
            let start = bytes.len().saturating_sub(SAMPLE) / 2;
            let sample = &bytes[start..bytes.len().min(start + SAMPLE)];
            raw += sample.len();
            // What cannot be compressed here is counted as incompressible.
            compressed += zstd::bulk::compress(sample, 1).map_or(sample.len(), |out| out.len());
        }
    }
    if compressed * 10 <= raw * 9 { zstd() } else { Ok(Compression::UNCOMPRESSED) }
}

fn statistics(plan: &Plan<'_>, txns: Txns<'_>) -> String {
    let rows = || plan.metadata.iter().chain(&plan.extents);
    let bounds = |extreme: fn(&mut dyn Iterator<Item = u64>) -> Option<u64>,
                  word: fn(&mut dyn Iterator<Item = &'static str>) -> Option<&'static str>| {
        let hex = |raw: Option<u64>| raw.map(|raw| format!("{raw:016x}"));
        serde_json::json!({
            col::PART_ID: hex(extreme(&mut rows().map(|row| row.part.get()))),
            col::NODE_ID: hex(extreme(&mut rows().map(|row| row.node.get()))),
            col::LSN: extreme(&mut rows().map(|row| row.lsn.0)),
            col::TXN_SEQ: extreme(&mut rows().map(|row| txns.of(row.lsn).0)),
            col::RECORD: word(&mut rows().map(|row| encode::record_name(row))),
        })
    };
    let null_count: serde_json::Map<String, serde_json::Value> =
        schema::STATISTICS.iter().map(|name| (name.to_string(), 0.into())).collect();
    serde_json::json!({
        "numRecords": rows().count(),
        "minValues": bounds(|values| values.min(), |words| words.min()),
        "maxValues": bounds(|values| values.max(), |words| words.max()),
        "nullCount": null_count,
    })
    .to_string()
}
