//! Data files → rows: what opening a pond reads. Metadata row groups whole, the small columns of
//! extent row groups, never the bytes of extents; all cores decode, one folds.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::Builder;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};
use pond_tinyfs::Row;

use crate::files::decoder_panics::unpanicked;
use crate::files::digests::{self, Digests, TAIL};
use crate::rows::decode::{self, Extents};
use crate::rows::schema::{self, col};
use crate::{OpLogError, TxnSeq, Version};

/// A data file to load.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Number that its extents' locations get.
    pub(crate) file: u32,
    pub(crate) path: PathBuf,
    /// Its size, as the log says.
    pub(crate) size: u64,
    /// As the log says; a file without them is not read.
    pub(crate) digests: Option<Digests>,
}

/// Columns of an extent row group that the fold needs.
const EXTENT_COLUMNS: [&str; 9] = [
    col::PART_ID,
    col::NODE_ID,
    col::RECORD,
    col::LSN,
    col::SEQ,
    col::VERSION,
    col::TIMESTAMP,
    col::OFFSET,
    col::LENGTH,
];

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8192;
/// A first read of so many last bytes holds the whole of most small files.
const TAIL_READ: u64 = 64 << 10;

/// Decodes files on `threads` cores and hands every row to `each`, on the calling thread, in no particular order.
/// `version` is the one that was asked for, for messages.
pub(crate) fn load(
    sources: &[Source],
    version: Version,
    threads: usize,
    mut each: impl FnMut(Row),
) -> Result<(), OpLogError> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Few batches may wait: rows must not pile up faster than they are folded.
        let (sender, receiver) = mpsc::sync_channel::<Result<Vec<Row>, OpLogError>>(4);
        for number in 0..threads.clamp(1, sources.len().max(1)) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            let decode = move || {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let sent = load_file(source, version, &mut |rows| sender.send(Ok(rows)).is_ok());
                    if let Err(error) = sent {
                        // The receiver may be gone already, after another thread's error.
                        stop.store(true, Ordering::Relaxed);
                        if sender.send(Err(error)).is_err() {
                            return;
                        }
                    }
                }
            };
            match (Builder::new().spawn_scoped(scope, decode), sources.first()) {
                // The others do the work of those that the system does not grant.
                (Err(error), Some(source)) if number == 0 => {
                    return Err(OpLogError::io("start a thread to read", &source.path)(error));
                }
                (Err(_), _) => break,
                (Ok(_), _) => {}
            }
        }
        drop(sender);
        for rows in receiver {
            rows?.into_iter().for_each(&mut each);
        }
        Ok(())
    })
}

/// Decodes one file until `each` says false.
pub(crate) fn load_file(
    source: &Source,
    version: Version,
    each: &mut dyn FnMut(Vec<Row>) -> bool,
) -> Result<(), OpLogError> {
    let path = &source.path;
    let corrupt = |why: String| OpLogError::CorruptFile { path: path.clone(), why };
    let window = Window::read(source, version)?;
    let metadata = window.metadata.clone();
    let reader = ArrowReaderMetadata::try_new(metadata.clone(), ArrowReaderOptions::new())
        .map_err(|error| corrupt(error.to_string()))?;
    let mut first_row = 0u32;
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(window.clone(), reader.clone());
        let builder = if digests::is_extents(group) {
            let mask = ProjectionMask::columns(builder.parquet_schema(), EXTENT_COLUMNS);
            builder.with_projection(mask)
        } else {
            builder
        };
        let batches = builder
            .with_row_groups(vec![number])
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| corrupt(error.to_string()))?;
        for batch in batches {
            let batch = batch.map_err(|error| corrupt(error.to_string()))?;
            let mut rows = Vec::with_capacity(batch.num_rows());
            decode::rows(&batch, Extents::Stored { file: source.file, first_row }, |row| rows.push(row))
                .map_err(corrupt)?;
            first_row += batch.num_rows() as u32;
            if !each(rows) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// All rows of a file, with the bytes of extents, and the transaction of each.
pub(crate) struct Whole {
    pub(crate) rows: Vec<Row>,
    pub(crate) txns: Vec<TxnSeq>,
}

/// A file whose footer and small columns are in memory and verified, to be decoded whole.
pub(crate) struct Opened {
    path: PathBuf,
    window: Window,
}

impl Opened {
    pub(crate) fn new(source: &Source, version: Version) -> Result<Self, OpLogError> {
        Ok(Opened { path: source.path.clone(), window: Window::read(source, version)? })
    }

    /// An error if there is a column that this program does not know: it must not be written anew without that.
    pub(crate) fn check_columns(&self) -> Result<(), OpLogError> {
        match self.columns().find(|name| schema::ROWS.column_with_name(name).is_none()) {
            Some(column) => {
                Err(OpLogError::UnknownColumn { path: self.path.clone(), column: column.to_string() })
            }
            None => Ok(()),
        }
    }

    /// Names of its columns.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &str> {
        let root = self.window.metadata.file_metadata().schema();
        root.get_fields().iter().map(|field| field.name())
    }

    /// Bytes of its columns once decoded, about.
    pub(crate) fn decoded_bytes(&self) -> u64 {
        let groups = self.window.metadata.row_groups().iter();
        groups.map(|group| group.total_byte_size().max(0).unsigned_abs()).sum()
    }

    /// Number of its row groups.
    pub(crate) fn groups(&self) -> usize {
        self.window.metadata.num_row_groups()
    }

    /// Decodes one row group. Each extent is verified against its row's checksum.
    pub(crate) fn decode_group(&self, number: usize) -> Result<Whole, OpLogError> {
        let corrupt = |why: String| OpLogError::CorruptFile { path: self.path.clone(), why };
        let mut window = self.window.clone();
        let group = window.metadata.row_groups().get(number).cloned();
        let group = group.ok_or_else(|| corrupt(format!("it has no row group {number}")))?;
        let file = File::open(&self.path).map_err(OpLogError::io("open", &self.path))?;
        for column in group.columns() {
            let (start, length) = column.byte_range();
            if slice(&window.parts, start..start + length).is_none() {
                let bytes =
                    read_range(&file, start..start + length).map_err(OpLogError::io("read", &self.path))?;
                window.parts.push((start, bytes));
            }
        }
        // What lies in extents' pages nothing has verified yet.
        unpanicked(|| window.rows(number)).and_then(|whole| whole).map_err(corrupt)
    }

    /// Decodes all of it.
    pub(crate) fn decode(self) -> Result<Whole, OpLogError> {
        let mut whole = Whole { rows: Vec::new(), txns: Vec::new() };
        for number in 0..self.groups() {
            let group = self.decode_group(number)?;
            whole.rows.extend(group.rows);
            whole.txns.extend(group.txns);
        }
        Ok(whole)
    }
}

/// The parts of a file that a load needs, in memory and verified.
#[derive(Clone)]
struct Window {
    size: u64,
    metadata: Arc<ParquetMetaData>,
    parts: Vec<(u64, Bytes)>,
}

impl Window {
    fn rows(&self, group: usize) -> Result<Whole, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let reader = ArrowReaderMetadata::try_new(self.metadata.clone(), ArrowReaderOptions::new())
            .map_err(|error| text(&error))?;
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(self.clone(), reader)
            .with_row_groups(vec![group])
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| text(&error))?;
        let mut whole = Whole { rows: Vec::new(), txns: Vec::new() };
        for batch in batches {
            let batch = batch.map_err(|error| text(&error))?;
            decode::rows(&batch, Extents::InMemory, |row| whole.rows.push(row))?;
            let txns = batch
                .column_by_name(col::TXN_SEQ)
                .and_then(|column| column.as_primitive_opt::<Int64Type>())
                .ok_or("there is no column txn_seq")?;
            whole.txns.extend(txns.values().iter().map(|txn_seq| TxnSeq(txn_seq.unsigned_abs())));
        }
        Ok(whole)
    }

    fn read(source: &Source, version: Version) -> Result<Self, OpLogError> {
        let path = &source.path;
        let corrupt = |why: String| OpLogError::CorruptFile { path: path.clone(), why };
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpLogError::MissingFile { version, path: path.clone() },
            _ => OpLogError::io("open", path)(error),
        })?;
        let size = file.metadata().map_err(OpLogError::io("stat", path))?.len();
        if size != source.size {
            return Err(corrupt(format!("it has {size} bytes and the log says {}", source.size)));
        }
        let fetch = |range: Range<u64>| read_range(&file, range).map_err(OpLogError::io("read", path));
        let tail_start = size.saturating_sub(TAIL_READ);
        let mut parts = vec![(tail_start, fetch(tail_start..size)?)];
        let ending: [u8; TAIL] =
            parts[0].1.last_chunk().copied().ok_or_else(|| corrupt("it is too short".into()))?;
        let footer_start = digests::footer_length(&ending)
            .and_then(|length| size.checked_sub(length))
            .ok_or_else(|| corrupt("it does not end like a Parquet file".into()))?;
        let mut get = |range: Range<u64>| -> Result<Bytes, OpLogError> {
            match slice(&parts, range.clone()) {
                Some(bytes) => Ok(bytes),
                None => {
                    let bytes = fetch(range.clone())?;
                    parts.push((range.start, bytes.clone()));
                    Ok(bytes)
                }
            }
        };
        let footer = get(footer_start..size)?;
        let digests =
            source.digests.as_ref().ok_or_else(|| corrupt("the log has no digests for it".into()))?;
        if digests.footer != blake3::hash(&footer).to_hex().as_str() {
            return Err(corrupt("its footer does not match the digest in the log".into()));
        }
        let metadata = ParquetMetaDataReader::decode_metadata(&footer[..footer.len() - TAIL])
            .map_err(|error| corrupt(error.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        for range in digests::footprint(&metadata) {
            if range.end > footer_start {
                return Err(corrupt("its footer names bytes that are not there".into()));
            }
            hasher.update(&get(range)?);
        }
        if digests.footprint != hasher.finalize().to_hex().as_str() {
            return Err(corrupt("its bytes do not match the digest in the log".into()));
        }
        Ok(Window { size, metadata: metadata.into(), parts })
    }
}

fn slice(parts: &[(u64, Bytes)], range: Range<u64>) -> Option<Bytes> {
    parts.iter().find_map(|(start, bytes)| {
        let from = usize::try_from(range.start.checked_sub(*start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    })
}

fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

impl Length for Window {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Window {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let part = self.parts.iter().find_map(|(from, bytes)| {
            let skip = usize::try_from(start.checked_sub(*from)?).ok()?;
            (skip < bytes.len()).then(|| bytes.slice(skip..))
        });
        part.map(Buf::reader).ok_or_else(|| ParquetError::EOF(format!("byte {start} was not to be read")))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        slice(&self.parts, start..start + length as u64)
            .ok_or_else(|| ParquetError::EOF(format!("{length} bytes from {start} were not to be read")))
    }
}

/// Reads the rows of one file without a tree, for showing them.
pub(crate) fn read_rows(source: &Source, version: Version) -> Result<Vec<Row>, OpLogError> {
    let mut all = Vec::new();
    load_file(source, version, &mut |rows| {
        all.extend(rows);
        true
    })?;
    Ok(all)
}
