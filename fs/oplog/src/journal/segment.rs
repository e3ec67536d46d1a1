//! Segments as files: their names, and what is written behind their frames.

use std::fs;
use std::path::{Path, PathBuf};

use pond_tinyfs::Lsn;

use crate::Position;
use crate::journal::error::JournalError;
use crate::journal::frame::Base;

/// Name of a segment that is no longer needed and will be overwritten.
pub(crate) const SPARE: &str = "spare";

/// Zero bytes that say that no frame follows.
pub(crate) const TERMINATOR: usize = 8;

/// A segment that has to grow is written on with at least and at most so many zeros, bytes.
const SMALLEST_GROWTH: u64 = 16 << 10;
const LARGEST_GROWTH: u64 = 1 << 20;

/// For larger frames than this, bytes, it grows by nothing more: the zeros would cost more than they save.
const LARGEST_GROWING: u64 = 32 << 10;

/// What disks are written by, bytes.
const BLOCK: u64 = 4 << 10;

/// A segment that is there.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    /// The version on which it builds.
    pub(crate) base: u64,
    /// Highest lsn in it.
    pub(crate) last_lsn: Lsn,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// A write or fsync of it failed: it may be torn.
    pub(crate) failed: bool,
}

/// What a frame, or a header, is followed by that ends here in a file of this length: where old bytes follow, zeros.
pub(crate) fn terminator(end: u64, length: u64) -> &'static [u8] {
    &[0; TERMINATOR][..length.saturating_sub(end).min(TERMINATOR as u64) as usize]
}

/// How many zero bytes to write behind a frame of length `frame` that ends at `end` in a file of this length: where old
/// bytes follow, as many as say that no frame does; where the file has to grow for a small frame, half as much as there
/// is, so that the next ones change neither size nor blocks.
pub(crate) fn zeros_behind(frame: u64, end: u64, length: u64) -> u64 {
    match length.checked_sub(end) {
        Some(rest) => rest.min(TERMINATOR as u64),
        None if frame > LARGEST_GROWING => 0,
        None => (end + (end / 2).clamp(SMALLEST_GROWTH, LARGEST_GROWTH)).next_multiple_of(BLOCK) - end,
    }
}

/// So many zero bytes, in pieces.
pub(crate) fn zeros_of<'a>(count: u64) -> impl Iterator<Item = &'a [u8]> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let pieces = (count / ZEROS.len() as u64) as usize;
    let rest = (count % ZEROS.len() as u64) as usize;
    std::iter::repeat_n(&ZEROS[..], pieces).chain([&ZEROS[..rest]])
}

/// What a segment that begins at this position builds on.
pub(crate) fn base_of(position: &Position) -> Base {
    // A position's digest is always the hexadecimal form of 32 bytes.
    let digest = blake3::Hash::from_hex(&position.digest).map_or([0; 32], |hash| *hash.as_bytes());
    Base { version: position.version.0, digest }
}

/// Name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:016}.segment")
}

/// Number of a segment, from its file's name.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    (digits.len() == 16).then(|| digits.parse().ok()).flatten()
}

/// The segments in a journal's directory, oldest first.
pub(crate) fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(JournalError::io("list", directory))? {
        let entry = entry.map_err(JournalError::io("list", directory))?;
        if let Some(number) = entry.file_name().to_str().and_then(segment_number) {
            segments.push((number, entry.path()));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}
