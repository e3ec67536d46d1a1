//! What maintenance is asked to do, how it tells of its steps, and what it did.

use pond_oplog::{CleanReport, PruneReport, Version};
use serde::{Deserialize, Serialize};

/// How much `pond maintain` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintainOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Whether nobody reads through this process, so that no read is under way.
    pub alone: bool,
    /// With `dry_run`: as if the setting `retention` were this.
    pub retention: Option<String>,
}

/// What maintenance did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintainReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Data files that were joined.
    pub merged_files: u64,
    /// Their bytes.
    pub merged_bytes: u64,
    /// The oldest version from which on all are kept, where older ones are not.
    pub floor: Option<Version>,
    /// How many versions below that are kept all the same, each alone.
    #[serde(default)]
    pub kept_below: u64,
    /// What letting go of old versions dropped.
    pub pruned: PruneReport,
    /// The version of the checkpoint that was written.
    pub checkpoint: Option<Version>,
    /// What was removed.
    pub cleaned: CleanReport,
    /// Data files of the newest version.
    pub live_files: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Why what is old stays for now, if it does.
    #[serde(default)]
    pub doubt: Option<String>,
}

impl MaintainReport {
    /// Adds what cleaning once more has removed; what waits is what the last one left.
    pub(crate) fn add_cleaned(&mut self, cleaned: CleanReport) {
        let all = self.cleaned;
        self.cleaned = CleanReport {
            files: all.files + cleaned.files,
            bytes: all.bytes + cleaned.bytes,
            entries: all.entries + cleaned.entries,
            checkpoints: all.checkpoints + cleaned.checkpoints,
            ..cleaned
        };
    }

    /// Adds what pruning once more has dropped; for what there is no room the last one knows.
    pub(crate) fn add_pruned(&mut self, pruned: PruneReport) {
        let all = &mut self.pruned;
        all.files += pruned.files;
        all.bytes += pruned.bytes;
        all.freed += pruned.freed;
        all.rows += pruned.rows;
        all.no_room = pruned.no_room;
    }
}

/// How maintenance goes, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintainEvent {
    /// A step begins.
    Step(MaintainStep),
    /// So many bytes more were read or written.
    Bytes(u64),
}

/// A step of maintenance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaintainStep {
    /// Joining files.
    Merge,
    /// Letting go of old versions.
    Prune,
    /// Writing a checkpoint.
    Checkpoint,
    /// Removing what is not needed.
    Clean,
}
