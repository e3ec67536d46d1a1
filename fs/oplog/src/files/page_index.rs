//! Which pages of a data file hold the bytes and the checksums of a row.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length};

use crate::files::digests::{self, TAIL};
use crate::files::page::{Page, Place};
use crate::files::pieces::{self, Pieces, SLOT, Slots};
use crate::files::read_error::ReadError;
use crate::rows::schema::col;

/// A footer of most files is in so many last bytes.
const TAIL_READ: u64 = 64 << 10;

/// A column whose pages are read one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    Checksum,
    Content,
}

/// What a file's footer and offset index say of its two columns.
pub(crate) struct PageIndex {
    checksums: Pages,
    contents: Pages,
    /// Where the digests of parts of extents lie, if the file keeps them.
    slots: Option<Slots>,
    /// Bytes of them that nobody has asked the disk for yet.
    ahead: AtomicU64,
}

/// The pages of one column, all row groups in turn.
struct Pages {
    /// First rows of the row groups, and their codecs.
    groups: Vec<(u32, Compression)>,
    places: Vec<Place>,
    /// Describes a chunk of this column that begins at 0 and is not compressed.
    chunk: ColumnChunkMetaData,
}

impl PageIndex {
    /// Reads them; the footer must have this digest (BLAKE3-256, hex).
    pub(crate) fn read(file: &Arc<File>, digest: &str) -> Result<Self, ReadError> {
        let corrupt = |why: &str| ReadError::Corrupt(why.into());
        let size = file.metadata()?.len();
        let tail_start = size.saturating_sub(TAIL_READ);
        let tail = read_range(file, tail_start, (size - tail_start) as usize)?;
        let length = tail
            .last_chunk::<TAIL>()
            .and_then(digests::footer_length)
            .filter(|&length| length <= size)
            .ok_or_else(|| corrupt("it does not end like a Parquet file"))?;
        let footer = match (tail.len() as u64).checked_sub(length) {
            Some(start) => tail.slice(start as usize..),
            None => read_range(file, size - length, length as usize)?,
        };
        if blake3::hash(&footer).to_hex().as_str() != digest {
            return Err(corrupt("its footer does not match the digest in the log"));
        }
        let metadata = ParquetMetaDataReader::decode_metadata(&footer[..footer.len() - TAIL])?;
        let slots = slots(&metadata).filter(|slots| slots.offset < size - length);
        let ahead = slots.map_or(0, |slots| size - length - slots.offset);
        // A read of content waits for digests too, wherever in the file they are. They come while this goes on.
        for group in metadata.row_groups() {
            let checksums =
                group.columns().iter().find(|column| column.column_path().string() == col::CHECKSUM);
            if let Some((start, length)) = checksums.map(ColumnChunkMetaData::byte_range) {
                read_soon(file, start, length);
            }
        }
        let mut reader = ParquetMetaDataReader::new_with_metadata(metadata)
            .with_offset_index_policy(PageIndexPolicy::Required);
        reader.read_page_indexes(&Positional { file: file.clone(), size })?;
        let metadata = reader.finish()?;
        Ok(PageIndex {
            checksums: Pages::of(&metadata, col::CHECKSUM)?,
            contents: Pages::of(&metadata, col::CONTENT)?,
            slots,
            ahead: AtomicU64::new(ahead),
        })
    }

    /// Has the disk begin to read the digests of parts of extents, once: after the first of them, as who waits for that one
    /// does not wait for all.
    pub(crate) fn read_ahead(&self, file: &File) {
        if let Some(slots) = self.slots
            && let length @ 1.. = self.ahead.swap(0, Ordering::Relaxed)
        {
            read_soon(file, slots.offset, length);
        }
    }

    /// The digests of the parts of an extent, if the file keeps them. They are not verified.
    pub(crate) fn pieces(&self, file: &File, row: u32) -> Option<Pieces> {
        let mut slot = [0; SLOT];
        file.read_exact_at(&mut slot, self.slots?.position(row)?).ok()?;
        Pieces::parse(&slot)
    }

    fn pages(&self, column: Column) -> &Pages {
        match column {
            Column::Checksum => &self.checksums,
            Column::Content => &self.contents,
        }
    }

    /// The page of a column that holds this row.
    pub(crate) fn place(&self, column: Column, row: u32) -> Option<Place> {
        let places = &self.pages(column).places;
        let place = places.get(places.partition_point(|place| place.first_row <= row).checked_sub(1)?)?;
        (row - place.first_row < place.rows).then_some(*place)
    }

    /// Reads and decodes a page that [`Self::place`] gave.
    pub(crate) fn page(&self, file: &File, column: Column, place: Place) -> Result<Page, ReadError> {
        let pages = self.pages(column);
        let group = pages.groups.partition_point(|(first, _)| *first <= place.first_row);
        let codec = group.checked_sub(1).and_then(|group| pages.groups.get(group));
        let codec = codec.map_or(Compression::UNCOMPRESSED, |(_, codec)| *codec);
        let raw = read_range(file, place.offset, place.size as usize)?;
        Page::decode(raw, place, codec, &pages.chunk).map_err(ReadError::Corrupt)
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        let pages = |pages: &Pages| size_of_val(&*pages.places) + size_of_val(&*pages.groups);
        size_of::<Self>() + pages(&self.checksums) + pages(&self.contents)
    }
}

impl Pages {
    fn of(metadata: &ParquetMetaData, name: &str) -> Result<Self, ReadError> {
        let corrupt = |why: String| ReadError::Corrupt(why);
        let descriptor = metadata.file_metadata().schema_descr();
        let leaf = descriptor
            .columns()
            .iter()
            .position(|column| column.path().string() == name)
            .ok_or_else(|| corrupt(format!("the file has no column {name}")))?;
        let description = descriptor.column(leaf);
        if description.max_def_level() != 1 || description.max_rep_level() != 0 {
            return Err(corrupt(format!("column {name} is not one optional value a row")));
        }
        let chunk = ColumnChunkMetaData::builder(description)
            .set_compression(Compression::UNCOMPRESSED)
            .set_data_page_offset(0)
            .build()?;
        let mut pages = Pages { groups: Vec::new(), places: Vec::new(), chunk };
        let mut first_row = 0u64;
        for (number, group) in metadata.row_groups().iter().enumerate() {
            let rows = group.num_rows().max(0) as u64;
            let index = metadata.offset_index().and_then(|index| index.get(number)?.get(leaf));
            let locations = index.map(|index| index.page_locations().as_slice()).unwrap_or_default();
            let starts = locations.iter().map(|location| location.first_row_index.max(0) as u64);
            let ends = starts.clone().skip(1).chain([rows]);
            for ((location, start), end) in locations.iter().zip(starts).zip(ends) {
                let place = (|| {
                    Some(Place {
                        offset: location.offset.try_into().ok()?,
                        size: location.compressed_page_size.try_into().ok()?,
                        first_row: (first_row + start).try_into().ok()?,
                        rows: end.checked_sub(start)?.try_into().ok()?,
                    })
                })();
                let place = place.filter(|_| end <= rows);
                pages.places.push(place.ok_or_else(|| corrupt("the offset index is out of order".into()))?);
            }
            pages.groups.push((first_row as u32, group.column(leaf).compression()));
            first_row += rows;
        }
        pages.places.shrink_to_fit();
        Ok(pages)
    }
}

fn slots(metadata: &ParquetMetaData) -> Option<Slots> {
    let known = metadata.file_metadata().key_value_metadata()?;
    let value = known.iter().find(|entry| entry.key == pieces::TAG)?.value.as_ref()?;
    Slots::parse(value)
}

/// Has the disk begin to read these bytes. Refused, they are read when they are asked for.
fn read_soon(file: &File, start: u64, length: u64) {
    // SAFETY: takes numbers only, and the descriptor is this file's.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), start as i64, length as i64, libc::POSIX_FADV_WILLNEED);
    }
}

/// These bytes of a file.
pub(crate) fn read_range(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}

/// A file read by position: unlike `File`'s own reading this shares no cursor between threads.
struct Positional {
    file: Arc<File>,
    size: u64,
}

impl Length for Positional {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Positional {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let length = self.size.saturating_sub(start);
        Ok(bytes::Buf::reader(self.get_bytes(start, length as usize)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|&end| end <= self.size);
        if end.is_none() {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} of {}", self.size)));
        }
        Ok(read_range(&self.file, start, length)?)
    }
}
