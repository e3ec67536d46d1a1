//! What `pond status` and `.pond/status.json` show of a pond that is open.

use std::path::PathBuf;

use pond_oplog::{DamageMet, Position, Version};
use serde::{Deserialize, Serialize};

use crate::ReplicaStatus;

/// Whether a pond makes history or follows another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It makes history; its remote, if it has one, is pushed to.
    Source,
    /// It follows a backup store and is never written to.
    Replica,
}

impl Role {
    /// The value of the setting `factory_mode:remote` that says so.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Role::Source => "push",
            Role::Replica => "pull",
        }
    }
}

/// How a pond is open and how it fares.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Everything received is committed.
    Clean,
    /// Changes wait for the next commit.
    Dirty,
    /// The last commit failed and is being tried again.
    Retrying,
    /// No writes are taken.
    ReadOnly,
    /// Writes are taken, and thrown away with it.
    Scratch,
    /// It was closed.
    Closed,
}

/// Figures and facts about an open pond. The mount adds its own: mountpoints, options.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The pond's identity.
    pub pond_id: String,
    /// Its directory.
    pub path: PathBuf,
    /// Source or replica; `None` where its settings could not be read.
    pub mode: Option<Role>,
    /// How it fares.
    pub state: State,
    /// Why no writes are taken.
    pub read_only_because: Option<String>,
    /// The version shown, its digest, commit time (microseconds since 1970 UTC), transaction and cut.
    #[serde(flatten)]
    pub position: Position,
    /// Nodes in the tree.
    pub nodes: u64,
    /// What no version holds yet.
    pub uncommitted: Uncommitted,
    /// Why the last commit failed, until one succeeds.
    pub commit_error: Option<String>,
    /// The journal.
    pub journal: JournalStatus,
    /// The budgets of memory that it was opened with.
    pub budgets: Budgets,
    /// What memory is taken now.
    pub memory: MemoryUse,
    /// Disk space used, bytes.
    pub sizes: Sizes,
    /// The data files of the newest version, and how far back history reaches.
    pub history: HistoryStatus,
    /// Damaged content that readers have met since the pond was opened.
    pub damage: DamageMet,
    /// The nodes under `/etc/system.d/`, in the order in which they run.
    pub factories: Vec<FactoryStatus>,
    /// How a replica that is open to follow fares.
    pub replica: Option<ReplicaStatus>,
    /// What recovery did when the pond was opened, and work beside the commits that fails.
    pub notes: Vec<String>,
    /// Where the daemon's messages go.
    pub log_path: PathBuf,
    /// This process.
    pub pid: u32,
}

/// Changes that no version holds yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Uncommitted {
    /// Rows taken out of the tree for a commit.
    pub rows: u64,
    /// Bytes of content in memory.
    pub bytes: u64,
}

/// The journal's figures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct JournalStatus {
    /// Files.
    pub segments: u64,
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Budgets of memory, bytes: what was set, or the default for the memory there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Budgets {
    /// Content accepted and not yet stored, with what storing it takes.
    pub dirty: u64,
    /// Decoded content kept for readers.
    pub cache: u64,
}

/// Memory that this process has taken from the system, and what is known to be in it, bytes. The rest are the tree, threads, and what
/// was given back and is kept for use again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct MemoryUse {
    /// All of it, without files that are mapped: `RssAnon` of proc(5).
    pub resident: Option<u64>,
    /// Content accepted and not yet stored.
    pub content: u64,
    /// Decoded pages kept for readers.
    pub pages: u64,
    /// Where in their files pages lie.
    pub indexes: u64,
}

/// Disk space used, bytes: now, or, where there are very many files, some moments ago.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Sizes {
    /// The table and its log.
    pub data: u64,
    /// The journal.
    pub journal: u64,
    /// Settings and outcomes.
    pub control: u64,
    /// Materialized files.
    pub mirror: u64,
    /// Held back for a full disk: a hundredth of the filesystem, at most 64 MiB.
    pub reserve: u64,
}

/// The data files of the newest version, and how far back history reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct HistoryStatus {
    /// Data files of the newest version, which hold all rows that are kept.
    pub live_files: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// The oldest version that is kept; `None`: all are.
    pub floor: Option<Version>,
}

/// How a factory's node fares.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FactoryStatus {
    /// The node.
    pub path: String,
    /// Its factory.
    pub factory: String,
    /// The mode it runs in; `None` if it does not run here.
    pub mode: Option<String>,
    /// Whether it is a remote, which ships versions.
    #[serde(default)]
    pub remote: bool,
    /// Up to which version it has done its work.
    pub watermark: Option<Version>,
    /// Versions that it still owes.
    pub behind: u64,
    /// What it last said: its report or its error.
    pub last_message: Option<String>,
    /// Whether its last run failed.
    pub failed: bool,
    /// For how long its present run has lasted, milliseconds; `None` if it does not run now.
    #[serde(default)]
    pub running_ms: Option<u64>,
}
