//! What a log entry says of the bytes of a data file: digests of its footer, of all else that a load reads, and of the whole.
//!
//! They are there since Parquet pages as written here have no checksums of their own. Bytes of extents have one a row.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use crate::log::action::Add;
use crate::rows::schema::{col, record};

/// Tag of an `add` action: BLAKE3-256 of the file's [`footprint`].
pub(crate) const DIGEST_TAG: &str = "pond.digest";
/// Tag of an `add` action: BLAKE3-256 of the file's footer with its length and magic. It has one of its own as it has
/// to be trusted before the footprint is known.
pub(crate) const FOOTER_TAG: &str = "pond.footer";

/// Tag of an `add` action: BLAKE3-256 of the whole file, for whoever checks all of it. What readers read is covered by
/// the two others and by the extents' own digests.
pub(crate) const FILE_TAG: &str = "pond.file";

/// What a log entry says of the bytes of a data file, as lowercase hex.
#[derive(Debug, Clone)]
pub(crate) struct Digests {
    pub(crate) footer: String,
    pub(crate) footprint: String,
    pub(crate) file: String,
}

impl Digests {
    /// Those in the tags of `add`; none where it has not all.
    pub(crate) fn of(add: &Add) -> Option<Self> {
        let tag = |name: &str| add.tags.as_ref()?.get(name)?.clone();
        Some(Digests { footer: tag(FOOTER_TAG)?, footprint: tag(DIGEST_TAG)?, file: tag(FILE_TAG)? })
    }

    pub(crate) fn into_tags(self) -> BTreeMap<String, Option<String>> {
        BTreeMap::from([
            (FOOTER_TAG.to_string(), Some(self.footer)),
            (DIGEST_TAG.to_string(), Some(self.footprint)),
            (FILE_TAG.to_string(), Some(self.file)),
        ])
    }
}

/// Whether a row group holds extents only, so that a load can leave their bytes alone.
pub(crate) fn is_extents(group: &RowGroupMetaData) -> bool {
    let column = group.columns().iter().find(|column| column.column_path().string() == col::RECORD);
    match column.and_then(|column| column.statistics()) {
        Some(Statistics::ByteArray(values)) => {
            let word = Some(record::EXTENT.as_bytes());
            values.min_bytes_opt() == word && values.max_bytes_opt() == word
        }
        _ => false,
    }
}

/// The byte ranges that a load reads besides the footer, in the order in which [`DIGEST_TAG`] covers them: whole metadata
/// row groups, and all but `content` (which lies last) of extent row groups. The footer must be a verified one: of
/// a damaged one Parquet's reader panics.
pub(crate) fn footprint(metadata: &ParquetMetaData) -> Vec<Range<u64>> {
    metadata
        .row_groups()
        .iter()
        .filter_map(|group| {
            let extents = is_extents(group);
            let columns = group
                .columns()
                .iter()
                .filter(|column| !extents || column.column_path().string() != col::CONTENT)
                .map(|column| column.byte_range());
            columns
                .map(|(start, length)| start..start + length)
                .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
        })
        .collect()
}

/// Length of a Parquet file's last part: the footer's length and the magic.
pub(crate) const TAIL: usize = 8;

/// Length of the whole footer, of which `tail` is the last [`TAIL`] bytes.
pub(crate) fn footer_length(tail: &[u8; TAIL]) -> Option<u64> {
    let [a, b, c, d, magic @ ..] = *tail;
    (magic == *b"PAR1").then(|| u64::from(u32::from_le_bytes([a, b, c, d])) + TAIL as u64)
}

/// Digests of a file as it is now. Its footer is not verified: Parquet's reader may panic.
pub(crate) fn digests_of(path: &Path) -> io::Result<Digests> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let metadata = ParquetMetaDataReader::new().parse_and_finish(&file).map_err(io::Error::other)?;
    digests(&file, size, &metadata, file_digest(&file, size)?)
}

fn digests(file: &File, size: u64, metadata: &ParquetMetaData, whole: String) -> io::Result<Digests> {
    let mut tail = [0; TAIL];
    file.read_exact_at(&mut tail, size.saturating_sub(TAIL as u64))?;
    let footer = footer_length(&tail)
        .and_then(|length| size.checked_sub(length))
        .ok_or_else(|| io::Error::other("the file that was just written has no footer"))?;
    Ok(Digests {
        footer: digest(file, size, std::iter::once(footer..size))?,
        footprint: digest(file, size, footprint(metadata))?,
        file: whole,
    })
}

/// BLAKE3-256 of a whole data file, as its entry has it.
pub(crate) fn file_tag(add: &Add) -> Option<String> {
    add.tags.as_ref().and_then(|tags| tags.get(FILE_TAG).cloned().flatten())
}

/// BLAKE3-256 of the first `size` bytes of a file.
pub(crate) fn file_digest(file: &File, size: u64) -> io::Result<String> {
    const PIECE: u64 = 1 << 20;
    digest(file, size, (0..size.div_ceil(PIECE)).map(|i| i * PIECE..size.min((i + 1) * PIECE)))
}

/// BLAKE3-256 of these ranges of a file of this size, one after the other.
fn digest(file: &File, size: u64, ranges: impl IntoIterator<Item = Range<u64>>) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    for range in ranges {
        // Ranges that a damaged footer gives may lie anywhere.
        if range.start > range.end || range.end > size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        buffer.resize((range.end - range.start) as usize, 0);
        file.read_exact_at(&mut buffer, range.start)?;
        hasher.update(&buffer);
    }
    Ok(hasher.finalize().to_hex().to_string())
}
