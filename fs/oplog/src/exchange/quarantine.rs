//! Entries above a gap are taken out of a replica's log.
//!
//! Power loss may keep the name of a later entry and lose that of an earlier one, as long as neither was promised.
//! What follows the first missing version cannot be used, and would make the log look longer than it is. It is set
//! aside as `gap-…`, and applied again from the backup.

use std::fs;

use crate::disk::durable;
use crate::log::delta::{self, Listing, Log};
use crate::{OpLogError, Version};

/// Moves what lies above the first gap aside; gives what is left.
pub(crate) fn set_gap_aside(log: &Log) -> Result<Listing, OpLogError> {
    let mut listing = log.list_any()?;
    let run = listing.entries.iter().zip(listing.entries.first().copied().unwrap_or(0)..);
    let whole = run.take_while(|(found, expected)| **found == *expected).count();
    // A history begins with version 0 or with a checkpoint.
    let begins = |entries: &[u64]| match (entries.first(), entries.last()) {
        (Some(&first), Some(&last)) => {
            first == 0 || listing.checkpoints.iter().any(|checkpoint| (first..=last).contains(checkpoint))
        }
        _ => true,
    };
    let whole = if begins(&listing.entries[..whole]) { whole } else { 0 };
    // Checkpoints are derived. One above all entries would make other readers take its version for the newest; it
    // comes from a base whose installing was cut off, too.
    let (kept, beyond): (Vec<u64>, Vec<u64>) = listing
        .checkpoints
        .iter()
        .partition(|&&version| listing.entries[..whole].last().is_some_and(|&newest| version <= newest));
    let mut derived: Vec<_> = beyond.iter().map(|&version| log.checkpoint_path(Version(version))).collect();
    derived.extend(
        beyond
            .iter()
            .map(|&version| log.checkpoint_digest_path(Version(version)))
            .filter(|path| path.exists()),
    );
    let hint = log.directory().join("_last_checkpoint");
    if !derived.is_empty() && hint.exists() {
        derived.push(hint);
    }
    for path in derived {
        durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
    }
    for &version in &listing.entries[whole..] {
        let path = log.entry_path(Version(version));
        let bytes = fs::read(&path).map_err(OpLogError::io("read", &path))?;
        let name = delta::entry_name(Version(version));
        // Another run's quarantine of the same version is not overwritten unless it has the same bytes.
        let kept = path.with_file_name(format!("gap-{}-{name}", &blake3::hash(&bytes).to_hex()[..16]));
        tracing::warn!(path = %path.display(), kept = %kept.display(), "an earlier version is missing; set aside");
        durable::rename(&path, &kept).map_err(OpLogError::io("move", &path))?;
    }
    listing.entries.truncate(whole);
    listing.checkpoints = kept;
    Ok(listing)
}
