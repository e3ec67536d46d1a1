//! Names of everything under `$POND`, in one place.
//!
//! ```text
//! data/                 Delta table: *.parquet and _delta_log/
//! data/_inflight/       data files being written, or fetched (in-…); moved out before anything names them
//! journal/              segments, one to be used again (spare), and what recovery set aside (torn-…, orphan-…)
//! control/              Delta table of the Steward's settings and outcomes
//! mirror/               materialized files, a cache
//! pins/locks            whose bytes readers of fixed versions hold locked
//! lock                  flock of the one writer
//! socket                how commands reach the daemon
//! log                   what the daemon has to say
//! ```

use std::path::{Path, PathBuf};

use crate::OpLogError;
use crate::disk::durable;

/// Where a pond's parts lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of the pond at `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Layout { root: root.into() }
    }

    /// `$POND` itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes `$POND` itself where it is missing; its parent must exist.
    pub(crate) fn ensure_root(&self) -> Result<(), OpLogError> {
        ensure_directory(&self.root)
    }

    /// Makes the directories, besides those of the table, without which nothing can be written.
    pub(crate) fn ensure_work_directories(&self) -> Result<(), OpLogError> {
        ensure_directory(&self.inflight())?;
        ensure_directory(&self.journal())
    }

    /// The Delta table of all history.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Its log.
    pub fn delta_log(&self) -> PathBuf {
        self.data().join(DELTA_LOG)
    }

    /// Data files being written, or fetched and waiting to be applied.
    pub fn inflight(&self) -> PathBuf {
        self.data().join(INFLIGHT)
    }

    /// Rows that an fsync made durable and no Delta commit holds yet.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The Steward's Delta table.
    pub fn control(&self) -> PathBuf {
        self.root.join("control")
    }

    /// Materialized files: a cache.
    pub fn mirror(&self) -> PathBuf {
        self.root.join("mirror")
    }

    /// What readers of fixed versions hold.
    pub fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    /// The writer's lock.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The daemon's control socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// The daemon's log file.
    pub fn log_file(&self) -> PathBuf {
        self.root.join("log")
    }
}

/// Name of a Delta table's log directory.
pub(crate) const DELTA_LOG: &str = "_delta_log";

/// Name of the directory of data files being written.
pub(crate) const INFLIGHT: &str = "_inflight";

fn ensure_directory(directory: &Path) -> Result<(), OpLogError> {
    durable::ensure_directory(directory).map_err(OpLogError::io("create", directory))
}
