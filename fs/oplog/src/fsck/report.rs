//! What a check found, and who watches it.

use std::collections::BTreeSet;

use bytes::Bytes;
use pond_tinyfs::NodeId;
use serde::Serialize;

use crate::{Position, Version};

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
