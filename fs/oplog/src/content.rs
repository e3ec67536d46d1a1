//! Extents by position: the page that holds a row is decoded, every byte is verified, and the result kept within
//! a budget.
//!
//! Three caches stand before the disk: open files, footers with their offset indexes, decoded extents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BinaryArray};
use bytes::Bytes;
use parking_lot::RwLock;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::reader::{ChunkReader, Length};
use pond_tinyfs::{Location, StorageError};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::data_file::unpanicked;
use crate::schema::col;

/// Budget of cached footers and offset indexes in bytes.
const FOOTERS: u64 = 32 << 20;
/// What a cached extent costs besides its bytes.
const OVERHEAD: u64 = 96;

/// The data files of a table, by the numbers that locations carry.
pub(crate) struct DataFiles {
    table: PathBuf,
    names: RwLock<Vec<Box<str>>>,
    open: Cache<u32, Arc<File>>,
    footers: Cache<u32, Arc<Footer>, FooterWeight>,
    extents: Cache<Location, Bytes, ExtentWeight>,
}

impl DataFiles {
    /// No files yet. At most `cache_bytes` of decoded extents and `open_files` descriptors are kept.
    pub(crate) fn new(table: &Path, cache_bytes: u64, open_files: usize) -> Self {
        DataFiles {
            table: table.to_path_buf(),
            names: RwLock::new(Vec::new()),
            open: Cache::new(open_files.max(1)),
            footers: Cache::with_weighter(4096, FOOTERS, FooterWeight),
            extents: Cache::with_weighter((cache_bytes / 16384) as usize, cache_bytes, ExtentWeight),
        }
    }

    /// Takes a file in and gives it a number.
    pub(crate) fn add(&self, name: &str) -> u32 {
        let mut names = self.names.write();
        names.push(name.into());
        (names.len() - 1) as u32
    }

    /// The names of all files taken in.
    pub(crate) fn names(&self) -> Vec<Box<str>> {
        self.names.read().clone()
    }

    /// The numbers of files of these names.
    pub(crate) fn numbers(&self, wanted: &BTreeSet<&String>) -> BTreeMap<String, u32> {
        let names = self.names.read();
        let numbered = names.iter().zip(0u32..).map(|(name, number)| (name.to_string(), number));
        numbered.filter(|(name, _)| wanted.contains(name)).collect()
    }

    /// A file is gone, and nobody names it any more.
    pub(crate) fn forget(&self, file: u32) {
        if let Some(name) = self.names.write().get_mut(file as usize) {
            *name = Box::default();
        }
        self.open.remove(&file);
        self.footers.remove(&file);
    }

    fn path(&self, file: u32) -> Option<PathBuf> {
        self.names.read().get(file as usize).map(|name| self.table.join(&**name))
    }

    /// The bytes of an extent if they are in memory.
    pub(crate) fn cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        self.extents.get(&location).and_then(|bytes| part(&bytes, skip, length))
    }

    /// The bytes `[skip, skip + length)` of an extent, verified.
    pub(crate) fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        if let Some(bytes) = self.cached(location, skip, length) {
            return Ok(bytes);
        }
        let path = self.path(location.file).ok_or_else(|| {
            storage_error(format!("there is no data file number {}", location.file), libc::EIO)
        })?;
        let failed = |error: ReadError| error.on(&path, location.row);
        let bytes = self.read_page(location, &path).map_err(failed)?;
        part(&bytes, skip, length).ok_or_else(|| {
            failed(ReadError::Corrupt(format!(
                "it has {} bytes and {length} from {skip} were asked for",
                bytes.len()
            )))
        })
    }

    fn read_page(&self, location: Location, path: &Path) -> Result<Bytes, ReadError> {
        let file = self.open.get_or_insert_with(&location.file, || File::open(path).map(Arc::new))?;
        let mut wanted = None;
        unpanicked(|| {
            let footer = self
                .footers
                .get_or_insert_with(&location.file, || Footer::read(file.clone()).map(Arc::new))?;
            footer.decode_page(file, location.row, |row, bytes| {
                if row == location.row {
                    wanted = Some(bytes.clone());
                }
                self.extents.insert(Location { file: location.file, row }, bytes);
            })
        })
        .map_err(ReadError::Corrupt)??;
        wanted.ok_or_else(|| ReadError::Corrupt("the row is not in its page".into()))
    }
}

fn part(bytes: &Bytes, skip: u32, length: u32) -> Option<Bytes> {
    let end = (skip as usize).checked_add(length as usize)?;
    (end <= bytes.len()).then(|| bytes.slice(skip as usize..end))
}

/// A file's footer with its offset index.
struct Footer {
    reader: ArrowReaderMetadata,
    mask: ProjectionMask,
    content_leaf: usize,
}

impl Footer {
    fn read(file: Arc<File>) -> Result<Self, ReadError> {
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Required);
        let reader = ArrowReaderMetadata::load(&Positional::new(file)?, options)?;
        let schema = reader.parquet_schema();
        let content_leaf = schema
            .columns()
            .iter()
            .position(|column| column.path().string() == col::CONTENT)
            .ok_or_else(|| ReadError::Corrupt("the file has no column content".into()))?;
        let mask = ProjectionMask::columns(schema, [col::CHECKSUM, col::CONTENT]);
        Ok(Footer { reader, mask, content_leaf })
    }

    /// Decodes the page that holds `row`, and hands out the extents in it once they are verified.
    fn decode_page(
        &self,
        file: Arc<File>,
        row: u32,
        mut each: impl FnMut(u32, Bytes),
    ) -> Result<(), ReadError> {
        let metadata = self.reader.metadata();
        let corrupt = |why: &str| ReadError::Corrupt(why.into());
        let mut first_row = 0u64;
        let (group, rows) = metadata
            .row_groups()
            .iter()
            .enumerate()
            .find_map(|(number, group)| {
                let rows = group.num_rows().max(0) as u64;
                let found = u64::from(row) < first_row + rows;
                if !found {
                    first_row += rows;
                }
                found.then_some((number, rows))
            })
            .ok_or_else(|| corrupt("the file has fewer rows"))?;
        let within = u64::from(row) - first_row;
        let pages = metadata
            .offset_index()
            .and_then(|index| index.get(group)?.get(self.content_leaf))
            .map(|index| index.page_locations())
            .filter(|pages| !pages.is_empty())
            .ok_or_else(|| corrupt("the file has no offset index"))?;
        let page_row = |page: usize| pages.get(page).map_or(rows, |page| page.first_row_index.max(0) as u64);
        let page = pages
            .partition_point(|page| page.first_row_index.max(0) as u64 <= within)
            .checked_sub(1)
            .ok_or_else(|| corrupt("the offset index does not begin with the first row"))?;
        let (start, end) = (page_row(page), page_row(page + 1));
        if !(start..end).contains(&within) || end > rows {
            return Err(corrupt("the offset index is out of order"));
        }
        let count = (end - start) as usize;
        let selection =
            RowSelection::from(vec![RowSelector::skip(start as usize), RowSelector::select(count)]);
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(Positional::new(file)?, self.reader.clone())
                .with_row_groups(vec![group])
                .with_projection(self.mask.clone())
                .with_row_selection(selection)
                .with_batch_size(count)
                .build()?;
        let mut number = (first_row + start) as u32;
        for batch in reader {
            let batch = batch.map_err(|error| ReadError::Corrupt(error.to_string()))?;
            let column =
                |name: &str| batch.column_by_name(name).and_then(|column| column.as_binary_opt::<i32>());
            let (Some(checksums), Some(contents)) = (column(col::CHECKSUM), column(col::CONTENT)) else {
                return Err(corrupt("checksum or content is not binary"));
            };
            for i in 0..batch.num_rows() {
                if contents.is_valid(i) && checksums.is_valid(i) {
                    let content = contents.value(i);
                    if blake3::hash(content).as_bytes() != checksums.value(i) {
                        return Err(ReadError::Corrupt(format!(
                            "the bytes of row {number} do not match their checksum"
                        )));
                    }
                    each(number, take(contents, i));
                }
                number += 1;
            }
        }
        Ok(())
    }
}

/// A value without the rest of its page: alone in its buffer it is shared, else copied.
fn take(contents: &BinaryArray, i: usize) -> Bytes {
    let content = contents.value(i);
    if content.len() * 2 < contents.values().len() {
        return Bytes::copy_from_slice(content);
    }
    let start = contents.value_offsets()[i] as usize;
    Bytes::from_owner(SharedBuffer(contents.values().slice_with_length(start, content.len())))
}

struct SharedBuffer(arrow::buffer::Buffer);

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

#[derive(Clone)]
struct FooterWeight;

impl Weighter<u32, Arc<Footer>> for FooterWeight {
    fn weight(&self, _: &u32, footer: &Arc<Footer>) -> u64 {
        footer.reader.metadata().memory_size() as u64
    }
}

#[derive(Clone)]
struct ExtentWeight;

impl Weighter<Location, Bytes> for ExtentWeight {
    fn weight(&self, _: &Location, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + OVERHEAD
    }
}

enum ReadError {
    Io(io::Error),
    Corrupt(String),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<ParquetError> for ReadError {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(cause) => match cause.downcast::<io::Error>() {
                Ok(error) => ReadError::Io(*error),
                Err(cause) => ReadError::Corrupt(cause.to_string()),
            },
            other => ReadError::Corrupt(other.to_string()),
        }
    }
}

impl ReadError {
    fn on(self, path: &Path, row: u32) -> StorageError {
        let path = path.display();
        match self {
            ReadError::Io(error) => {
                let hint = match error.kind() {
                    io::ErrorKind::NotFound => "; restore the file from a backup",
                    _ => "",
                };
                let message = format!("cannot read row {row} of data file {path}: {error}{hint}");
                storage_error(message, libc::EIO)
            }
            ReadError::Corrupt(why) => storage_error(
                format!("data file {path} is corrupt at row {row}: {why}; restore the file from a backup"),
                libc::EIO,
            ),
        }
    }
}

fn storage_error(message: String, errno: i32) -> StorageError {
    tracing::error!("{message}");
    StorageError { message: message.into(), errno }
}

/// Reads on from a position.
struct Cursor {
    file: Arc<File>,
    position: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// A file read by position: unlike `File`'s own reading this shares no cursor between threads.
struct Positional {
    file: Arc<File>,
    size: u64,
}

impl Positional {
    fn new(file: Arc<File>) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Positional { file, size })
    }
}

impl Length for Positional {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Positional {
    type T = io::BufReader<Cursor>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(io::BufReader::new(Cursor { file: self.file.clone(), position: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|&end| end <= self.size);
        if end.is_none() {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} of {}", self.size)));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}
