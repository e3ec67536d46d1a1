//! Batches as they are stored: in which versions, and what the log is given of each.

use pond_oplog::Drained;
use pond_tinyfs::Row;

use super::Batch;

/// Batches that follow each other, by the versions that they become.
pub(crate) fn versions_of(batches: &[Batch]) -> impl Iterator<Item = &[Batch]> {
    batches.chunk_by(|one, next| one.alone.is_none() && next.alone.is_none())
}

/// The rows of batches that are in memory, as the log takes them.
pub(crate) fn rows_of(batches: &[Batch]) -> Vec<&[Row]> {
    batches.iter().map(Batch::rows).collect()
}

/// The content files of batches, as the log takes them.
pub(crate) fn files_of(batches: &[Batch]) -> Vec<&Drained> {
    batches.iter().filter_map(Batch::drained).flat_map(|content| &content.files).collect()
}
