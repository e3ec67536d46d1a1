//! Checking everything: the log, each data file and extent, each row, the journal. Nothing is changed.
//!
//! ```text
//! log.rs      entries: there, themselves, in a chain ── checkpoints: what the entries say ── _last_checkpoint
//!    │ files that entries name
//! files.rs    there, whole (pond.file), footer and footprint, each extent against its BLAKE3, on all cores
//!    │ rows
//! rows.rs     the invariants, the fold; names of nodes, so that a finding can say which paths it concerns
//! journal.rs  segments, frames, rows beyond the newest version
//! ```
//!
//! It may run beside a process that writes: then it reads as any reader does, and leaves out what that process is about to
//! change (files being written, the journal's tail).

mod files;
mod journal;
mod log;
mod paths;
mod repair;
mod rows;

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use pond_tinyfs::NodeId;
use serde::Serialize;

use crate::log::delta::Log;
use crate::{Layout, OpLogError, Position, Version};

pub use repair::{Repaired, Restore, repair};

/// Told how far a check has come, and asked whether it goes on. Called from several threads.
pub trait Watch: Sync {
    /// A stage begins, which reads so many bytes.
    fn begin(&self, what: &str, bytes: u64);
    /// So many bytes more are read.
    fn advance(&self, bytes: u64);
    /// Whether to stop.
    fn cancelled(&self) -> bool;
}

/// Watches nothing.
impl Watch for () {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong, and somebody may want to know: files kept aside, leftovers of a crash.
    Notice,
    /// Something is damaged or missing.
    Damage,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// An entry of a Delta log.
    Entry,
    /// A checkpoint, its digest, or the hint that names it.
    Checkpoint,
    /// A data file.
    Data,
    /// Rows that contradict each other, although their files are whole.
    Rows,
    /// The journal.
    Journal,
    /// The control table's rows.
    Control,
    /// A file that nothing needs.
    Leftover,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub part: Part,
    /// The file, relative to the pond's directory.
    pub file: String,
    /// What is wrong.
    pub problem: String,
    /// Paths in the tree that it concerns, as far as they can be told; those of removed files end in ` (removed)`.
    pub paths: Vec<String>,
    /// The first version that it concerns.
    pub first_version: Option<Version>,
    /// The last version that it concerns; `None` for the newest and those to come.
    pub last_version: Option<Version>,
    /// Nodes that it concerns, until their paths are known.
    #[serde(skip)]
    pub(crate) nodes: BTreeSet<NodeId>,
}

impl Finding {
    /// Something that is damaged or missing.
    pub fn damage(part: Part, file: impl Into<String>, problem: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Damage,
            part,
            file: file.into(),
            problem: problem.into(),
            paths: Vec::new(),
            first_version: None,
            last_version: None,
            nodes: BTreeSet::new(),
        }
    }

    /// Something worth knowing.
    pub fn notice(part: Part, file: impl Into<String>, problem: impl Into<String>) -> Self {
        Finding { severity: Severity::Notice, ..Finding::damage(part, file, problem) }
    }

    pub(crate) fn versions(self, first: Version, last: Option<Version>) -> Self {
        Finding { first_version: Some(first), last_version: last, ..self }
    }

    pub(crate) fn nodes(self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        Finding { nodes: nodes.into_iter().collect(), ..self }
    }
}

/// What a check found, and how much it looked at.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What it found, in the order of looking.
    pub findings: Vec<Finding>,
    /// The newest version that could be read.
    pub tip: Option<Position>,
    /// The pond's log entries, one a version.
    pub entries: u64,
    /// Log entries of the control table.
    pub control_entries: u64,
    /// Checkpoints, the control table's included.
    pub checkpoints: u64,
    /// Data files, the control table's included.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Extents, whose bytes were verified.
    pub extents: u64,
    /// Frames of the journal.
    pub frames: u64,
    /// Where history begins; `None` if there are no entries.
    #[serde(skip)]
    pub begins: Option<Begins>,
    /// Configurations of the nodes of each factory, as their newest rows have them.
    #[serde(skip)]
    pub configurations: Vec<(String, Bytes)>,
}

/// Where a history begins.
#[derive(Clone, Copy, Debug)]
pub struct Begins {
    /// The oldest entry.
    pub first: Version,
    /// The oldest version that can be read.
    pub readable: Version,
    /// The oldest version that is kept.
    pub floor: Version,
}

impl Report {
    /// Whether nothing is damaged or missing.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Notice)
    }

    pub(crate) fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// Checks the pond at `pond`: all but what its control table's rows mean. `exclusive` says that the caller holds the
/// writer's lock, so that nothing changes meanwhile. A check that was cancelled reports what it found so far.
///
/// # Errors
///
/// [`OpLogError::NotAPond`], and directories that cannot be listed. What is wrong with files is in the report.
pub fn check(pond: &Path, exclusive: bool, watch: &dyn Watch) -> Result<Report, OpLogError> {
    let layout = Layout::new(pond);
    let mut report = Report::default();
    let log = Log::new(&layout.data());
    let table = log::check(&log, "data", log::Kind::Oplog, exclusive, &mut report)?;
    report.tip = table.tip.clone();
    report.begins = table.begins;
    let mut names = paths::Names::default();
    let mut read = files::check(&log, &table, &mut names, watch, &mut report);
    files::leftovers(&layout, &table, exclusive, &mut report)?;
    let mut journal = journal::check(&layout, &table, exclusive, &mut report)?;
    if !exclusive {
        // Versions may have come since the log was read, and taken the segments before these rows with them.
        journal.clear();
    }
    if !watch.cancelled() {
        journal.iter().for_each(|row| names.push(row));
        report.configurations = names.configurations();
        rows::check(&table, &mut read, journal, &mut report);
    }
    let control = Log::new(&layout.control());
    // That it is not there at all, whoever reads the settings says.
    if control.directory().exists() {
        let table = log::check(&control, "control", log::Kind::Small, exclusive, &mut report)?;
        files::check_small(&control, &table, watch, &mut report);
    }
    names.resolve(&mut report.findings);
    Ok(report)
}

#[cfg(test)]
mod tests;
