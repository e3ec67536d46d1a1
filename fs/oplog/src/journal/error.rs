//! Why rows could not be journaled.

use std::io;
use std::path::{Path, PathBuf};

use pond_tinyfs::{Advise, Errno};

use crate::PondId;
use crate::disk::errno;

/// Why rows could not be journaled.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The operating system refused. A full disk changes nothing else; after any other failure
    /// [`Journal::must_restart`] tells whether the segment is lost.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An earlier write or fsync of the current segment failed, so nobody knows what of it is on disk.
    #[error(
        "the journal {path} failed earlier; all rows that no commit holds must be journaled again (restart)",
        path = path.display()
    )]
    MustRestart {
        /// Its directory.
        path: PathBuf,
    },
    /// Nothing may be journaled here.
    #[error("the journal {path} takes no rows: {why}", path = path.display())]
    Closed {
        /// The journal's directory.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The journal belongs to another pond.
    #[error(
        "the journal segment {path} belongs to pond {found} and this is {expected}",
        path = path.display()
    )]
    OtherPond {
        /// The segment.
        path: PathBuf,
        /// Whose it is.
        found: PondId,
        /// Whose it should be.
        expected: PondId,
    },
    /// The journal was written in a format that this program does not know.
    #[error(
        "the journal segment {path} has format {found} and this program knows {known}",
        path = path.display()
    )]
    OtherFormat {
        /// The segment.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Rows that do not fit the format.
    #[error("cannot encode rows for the journal: {why}")]
    Encode {
        /// What is wrong.
        why: String,
    },
}

impl JournalError {
    /// The error number that a system call is answered with.
    pub fn errno(&self) -> i32 {
        match self {
            JournalError::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            JournalError::Closed { .. } => libc::EROFS,
            _ => libc::EIO,
        }
    }

    /// Whether the disk (or the quota) is full.
    pub fn is_full(&self) -> bool {
        Errno(self.errno()).is_full()
    }

    /// Whether the process, or the system, has too many files open, which passes.
    pub fn is_out_of_files(&self) -> bool {
        errno::is_out_of_files(self.errno())
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
        move |source| JournalError::Io { action, path: path.to_path_buf(), source }
    }
}

impl Advise for JournalError {
    fn advice(&self) -> Option<String> {
        let advice = match self {
            JournalError::OtherPond { .. } => "move it out of the pond",
            JournalError::OtherFormat { .. } => "use the program that wrote it",
            _ => return None,
        };
        Some(advice.to_owned())
    }
}
