//! One data page of a column of byte strings: found in a file's offset index, decoded without Arrow.
//!
//! Parquet's own page reader parses the header. Decompressing is ours, since it would make a compressor and a
//! decompressor for each page; and so are levels and values, which lie in the page's buffer and stay there.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page as RawPage, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;
use zstd::bulk::Decompressor;
use zstd::zstd_safe::get_frame_content_size;

/// No page of ours is larger once decoded; a damaged one may say that it is.
const MAX_PAGE: usize = 16 << 20;

thread_local! {
    /// Its tables take 100 KB and more, which are not to be made anew for each page.
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Where a page lies, and which rows it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) size: u32,
    /// Counted from the beginning of the file.
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
}

/// The values of a page.
pub(crate) struct Page {
    first_row: u32,
    buffer: Bytes,
    /// Where in the buffer each value lies; `None` is null.
    values: Values,
}

impl Page {
    /// Decodes a page as it lies in the file, its header included. `column` is a column chunk that begins at 0 and
    /// is not compressed, whatever the page is.
    pub(crate) fn decode(
        raw: Bytes,
        place: Place,
        codec: Compression,
        column: &ColumnChunkMetaData,
    ) -> Result<Self, String> {
        let failed = |error: ParquetError| error.to_string();
        let all = PageLocation { offset: 0, compressed_page_size: place.size as i32, first_row_index: 0 };
        let rows = place.rows as usize;
        let mut reader =
            SerializedPageReader::new(Arc::new(raw), column, rows, Some(vec![all])).map_err(failed)?;
        let Some(RawPage::DataPage { buf, num_values, encoding, def_level_encoding, .. }) =
            reader.get_next_page().map_err(failed)?
        else {
            return Err("there is no page where the offset index says".into());
        };
        if num_values != place.rows || encoding != Encoding::PLAIN || def_level_encoding != Encoding::RLE {
            return Err(format!("its page has {num_values} values in {encoding}, not {rows} in PLAIN"));
        }
        let buffer = match codec {
            Compression::UNCOMPRESSED => buf,
            Compression::ZSTD(_) => decompress(&buf)?,
            other => return Err(format!("its page is compressed with {other}, which pond does not use")),
        };
        let values = values(&buffer, rows).ok_or("its page ends too early")?;
        Ok(Page { first_row: place.first_row, buffer, values })
    }

    /// The value of a row, counted from the beginning of the file; none for null and for rows of other pages.
    pub(crate) fn value(&self, row: u32) -> Option<&[u8]> {
        self.range(row).and_then(|range| self.buffer.get(range))
    }

    /// The same, sharing the page's buffer.
    pub(crate) fn share(&self, row: u32) -> Option<Bytes> {
        let range = self.range(row)?;
        (range.end <= self.buffer.len()).then(|| self.buffer.slice(range))
    }

    fn range(&self, row: u32) -> Option<Range<usize>> {
        let (start, end) = (*self.values.get(row.checked_sub(self.first_row)? as usize)?)?;
        Some(start as usize..end as usize)
    }

    /// Makes a row null.
    pub(crate) fn forget(&mut self, row: u32) {
        let value = row.checked_sub(self.first_row).and_then(|i| self.values.get_mut(i as usize));
        if let Some(value) = value {
            *value = None;
        }
    }

    /// The rows of the page, nulls included.
    pub(crate) fn rows(&self) -> Range<u32> {
        self.first_row..self.first_row + self.values.len() as u32
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.buffer.len() + size_of_val(&*self.values)
    }
}

fn decompress(compressed: &[u8]) -> Result<Bytes, String> {
    let size = match get_frame_content_size(compressed) {
        Ok(Some(size)) if size <= MAX_PAGE as u64 => size as usize,
        _ => return Err("its page does not say its size, or an impossible one".into()),
    };
    let mut out = Vec::with_capacity(size);
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let failed = |error: std::io::Error| error.to_string();
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new().map_err(failed)?),
        };
        decompressor.decompress_to_buffer(compressed, &mut out).map_err(failed)
    })?;
    Ok(out.into())
}

/// Start and length of each row's value in a page, where it has one.
type Values = Box<[Option<(u32, u32)>]>;

/// Where the values of a page lie: definition levels of one bit, run-length encoded, then lengths and bytes in turn.
fn values(page: &[u8], rows: usize) -> Option<Values> {
    let (length, rest) = page.split_first_chunk::<4>()?;
    let (mut levels, _) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let mut at = 4 + levels.len();
    let mut out = Vec::with_capacity(rows);
    let mut push = |present: bool| -> Option<()> {
        let value = if present {
            let length = page.get(at..)?.first_chunk::<4>()?;
            let start = at + 4;
            at = start + u32::from_le_bytes(*length) as usize;
            (at <= page.len()).then_some(())?;
            Some((start as u32, at as u32))
        } else {
            None
        };
        out.push(value);
        Some(())
    };
    let mut left = rows;
    while left > 0 {
        let header = varint(&mut levels)?;
        let run = usize::try_from(header >> 1).ok()?;
        if header & 1 == 0 {
            let (level, rest) = levels.split_first()?;
            levels = rest;
            let run = run.min(left);
            (run > 0).then_some(())?;
            for _ in 0..run {
                push(*level == 1)?;
            }
            left -= run;
        } else {
            let (packed, rest) = levels.split_at_checked(run)?;
            levels = rest;
            let run = run.checked_mul(8)?.min(left);
            (run > 0).then_some(())?;
            for i in 0..run {
                push(packed[i / 8] >> (i % 8) & 1 == 1)?;
            }
            left -= run;
        }
    }
    Some(out.into())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(levels: &[u8], values: &[&[u8]]) -> Vec<u8> {
        let mut page = (levels.len() as u32).to_le_bytes().to_vec();
        page.extend_from_slice(levels);
        for value in values {
            page.extend_from_slice(&(value.len() as u32).to_le_bytes());
            page.extend_from_slice(value);
        }
        page
    }

    fn texts(page: &[u8], rows: usize) -> Option<Vec<Option<&str>>> {
        let text =
            |(start, end): (u32, u32)| std::str::from_utf8(&page[start as usize..end as usize]).unwrap();
        Some(values(page, rows)?.iter().map(|value| value.map(text)).collect())
    }

    #[test]
    fn levels_in_runs_and_in_bits_say_which_values_are_null() {
        // Two present in a run, then eight in bits: 1, 0, 1, 0, 0, 0, 0, 0.
        let page = page(&[2 << 1, 1, 1 << 1 | 1, 0b101], &[b"a", b"", b"ccc", b"d"]);
        let all = [Some("a"), Some(""), Some("ccc"), None, Some("d"), None, None];
        assert_eq!(texts(&page, 7).unwrap(), all);
    }

    #[test]
    fn a_page_cut_anywhere_is_refused() {
        let whole = page(&[3 << 1, 1], &[b"one", b"two", b"three"]);
        assert!(values(&whole, 3).is_some());
        for length in 0..whole.len() {
            assert!(values(&whole[..length], 3).is_none(), "{length}");
        }
        assert!(values(&whole, 4).is_none());
    }

    #[test]
    fn what_is_no_frame_or_claims_too_much_is_refused() {
        let frame = zstd::bulk::compress(&[7; 1000], 1).unwrap();
        assert_eq!(decompress(&frame).unwrap()[..], [7; 1000]);
        assert!(decompress(&frame[..frame.len() - 1]).is_err());
        assert!(decompress(b"no frame").is_err());
        let huge = zstd::bulk::compress(&vec![0; MAX_PAGE + 1], 1).unwrap();
        assert!(decompress(&huge).is_err());
    }
}
