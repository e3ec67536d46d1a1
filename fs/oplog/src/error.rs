//! Errors: each names the file or version, keeps its cause and says what to do next.

use std::io;
use std::path::{Path, PathBuf};

use pond_tinyfs::{Advise, Errno};

use crate::disk::errno;
use crate::{JournalError, TagName, Version};

/// Why the log could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OpLogError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb: "write", "fsync".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A reader could not make sure that its version's files stay.
    #[error(
        "cannot make {path}, which keeps files from being cleaned away while they are read: {source}",
        path = path.display()
    )]
    NoPin {
        /// The file in which versions are pinned.
        path: PathBuf,
        /// Why it cannot be made.
        source: Box<OpLogError>,
    },
    /// The directory holds no pond.
    #[error("{path} is not a pond: {why}", path = path.display())]
    NotAPond {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
    /// `create` found something there already.
    #[error("{path} exists already; a pond is made only where there is nothing yet", path = path.display())]
    Exists {
        /// What exists.
        path: PathBuf,
    },
    /// The pond was written by a newer program.
    #[error(
        "{path} was written by a newer pond: to {purpose} it takes format {needed} and this program knows {known}",
        path = path.display()
    )]
    TooNew {
        /// The pond's table.
        path: PathBuf,
        /// "read" or "write".
        purpose: &'static str,
        /// The format that the pond asks for.
        needed: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// Something cannot be added to the table.
    #[error("nothing was added to the table {path}: {why}", path = path.display())]
    CannotGrow {
        /// The table.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A data file has a column that a rewrite would drop.
    #[error(
        "data file {path} is not written anew: this program does not know its column {column} and would drop it",
        path = path.display()
    )]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A log entry cannot be understood.
    #[error(
        "log entry of version {version} is corrupt ({path}): {why}",
        path = path.display()
    )]
    CorruptEntry {
        /// The version.
        version: Version,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A log entry is not there.
    #[error(
        "log entry of version {version} is missing ({path})",
        path = path.display()
    )]
    MissingEntry {
        /// The version.
        version: Version,
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint cannot be read and the entries that it stands for are gone.
    #[error(
        "checkpoint of version {version} is corrupt ({path}): {why}",
        path = path.display()
    )]
    CorruptCheckpoint {
        /// The version.
        version: Version,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A data file is damaged.
    #[error(
        "data file {path} is corrupt: {why}",
        path = path.display()
    )]
    CorruptFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A data file that the log names is not there.
    #[error(
        "data file {path}, which version {version} needs, is missing",
        path = path.display()
    )]
    MissingFile {
        /// The version that was asked for.
        version: Version,
        /// The file.
        path: PathBuf,
    },
    /// There is no such version.
    #[error("there is no version {version}: {path} has versions {first} to {last}", path = path.display())]
    NoSuchVersion {
        /// The version that was asked for.
        version: Version,
        /// The table.
        path: PathBuf,
        /// The oldest version that can be had.
        first: Version,
        /// The newest one.
        last: Version,
    },
    /// The version lies below the floor.
    #[error(
        "version {version} is no longer kept: {path} has versions {floor} to {last}, since the setting `retention` lets go of older ones",
        path = path.display()
    )]
    NoLongerKept {
        /// The version that was asked for.
        version: Version,
        /// The table.
        path: PathBuf,
        /// The oldest version that is kept.
        floor: Version,
        /// The newest one.
        last: Version,
    },
    /// The version lies between two that are kept.
    #[error(
        "version {version} is no longer kept: of that time {path} has versions {before} and {after}, since the setting `retention` thins out older ones",
        path = path.display()
    )]
    Thinned {
        /// The version that was asked for.
        version: Version,
        /// The table.
        path: PathBuf,
        /// The newest kept version before it.
        before: Version,
        /// The oldest after it.
        after: Version,
    },
    /// No version has this name.
    #[error("no version has the tag {tag} in {path}", path = path.display())]
    NoSuchTag {
        /// The tag that was asked for.
        tag: TagName,
        /// The table.
        path: PathBuf,
    },
    /// A version that has the name already.
    #[error("the tag {tag} names version {version} already")]
    TagTaken {
        /// The tag that was to be made.
        tag: TagName,
        /// The version that has it.
        version: Version,
    },
    /// Two versions could not be compared.
    #[error("cannot compare version {from} with version {to}: {source}")]
    Compare {
        /// The one.
        from: Version,
        /// The other.
        to: Version,
        /// What could not be read.
        source: pond_tinyfs::Error,
    },
    /// The pond is younger than the time that was asked for.
    #[error("{path} is younger than that: its first version is of {first}", path = path.display())]
    NothingYet {
        /// The table.
        path: PathBuf,
        /// When the first version was made, as text.
        first: String,
    },
    /// Another writer's entry stands where ours was to go.
    #[error(
        "another writer made version {version} ({path}); this pond is now read-only here, and what was not yet committed is kept in {kept}",
        path = path.display()
    )]
    SomeoneElse {
        /// The version.
        version: Version,
        /// Its log entry.
        path: PathBuf,
        /// Where the journal was moved, or why it could not be.
        kept: String,
    },
    /// Our entry is in place, and syncing it failed.
    #[error(
        "version {version} is written ({path}) and may not survive power loss: {source}; the pond is read-only until it is opened again"
        , path = path.display()
    )]
    Unconfirmed {
        /// The version.
        version: Version,
        /// Its log entry.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A commit was asked of a log that takes none.
    #[error("{path} is read-only: {why}", path = path.display())]
    ReadOnly {
        /// The table.
        path: PathBuf,
        /// Since when or why.
        why: String,
    },
    /// Rows that do not fit the format.
    #[error("cannot encode rows for {path}: {why}", path = path.display())]
    Encode {
        /// The file that they were meant for.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The rows do not make a tree.
    #[error("the rows of version {version} do not make a tree: {why}")]
    Fold {
        /// The version.
        version: Version,
        /// What the fold said.
        why: String,
    },
    /// A checkpoint could not be made.
    #[error("cannot make a checkpoint of version {version} of {table}: {why}", table = table.display())]
    Checkpoint {
        /// The version.
        version: Version,
        /// The table.
        table: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// A file that was to be taken in has a name that none may have.
    #[error(
        "a file named {name:?} is not taken in: {why}; whoever sent it is broken or hostile, nothing was changed"
    )]
    BadName {
        /// The name.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A version was to be applied and one of its files is not there.
    #[error("version {version} cannot be applied: its data file {name} {why}")]
    NotStaged {
        /// The version.
        version: Version,
        /// The file.
        name: String,
        /// Whether it is missing or has another length.
        why: String,
    },
    /// The version that was to be applied is here already, with another log entry.
    #[error(
        "version {version} here ({path}) is another one than that to be applied: the histories have diverged and nothing was changed",
        path = path.display()
    )]
    Diverged {
        /// The version.
        version: Version,
        /// Its log entry.
        path: PathBuf,
    },
    /// A version does not go on from what is here, or contradicts itself.
    #[error("version {version} cannot be applied to {table}: {why}; nothing was changed", table = table.display())]
    NotApplicable {
        /// The version.
        version: Version,
        /// The table.
        table: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl OpLogError {
    /// The error number that a system call is answered with.
    pub fn errno(&self) -> i32 {
        match self {
            OpLogError::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            // Never a full disk: the entry is there, and the same commit must not be tried again.
            OpLogError::Unconfirmed { .. } => libc::EIO,
            OpLogError::Journal(error) => error.errno(),
            OpLogError::NoPin { source, .. } => source.errno(),
            OpLogError::SomeoneElse { .. } | OpLogError::ReadOnly { .. } => libc::EROFS,
            _ => libc::EIO,
        }
    }

    /// Whether the disk (or the quota) is full: the same call may succeed once there is room.
    pub fn is_full(&self) -> bool {
        Errno(self.errno()).is_full()
    }

    /// Whether there are too many open files: the same call may succeed once some are closed.
    pub fn is_out_of_files(&self) -> bool {
        errno::is_out_of_files(self.errno())
    }

    /// Names the action and the file of an I/O error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpLogError {
        move |source| OpLogError::Io { action, path: path.to_path_buf(), source }
    }
}

impl Advise for OpLogError {
    fn advice(&self) -> Option<String> {
        let advice = match self {
            OpLogError::NoPin { .. } => {
                "open the pond once for writing, as `pond maintain` does, and make room if the disk is full"
            }
            OpLogError::NotAPond { .. } => "name a pond's directory with --pond or $POND",
            OpLogError::TooNew { purpose: "write", .. } => "upgrade pond; until then it can be read",
            OpLogError::TooNew { .. } | OpLogError::UnknownColumn { .. } => "upgrade pond",
            OpLogError::CorruptEntry { .. } => "restore the file from a backup, or read an earlier version",
            OpLogError::MissingEntry { .. }
            | OpLogError::CorruptCheckpoint { .. }
            | OpLogError::CorruptFile { .. }
            | OpLogError::MissingFile { .. } => "restore the file from a backup",
            OpLogError::NoSuchTag { .. } => "`pond tag --list` shows which there are",
            OpLogError::TagTaken { tag, .. } => {
                return Some(format!("to move it, delete it first: `pond tag --delete {tag}`"));
            }
            OpLogError::Compare { .. } => "`pond fsck` checks everything",
            OpLogError::Fold { .. } => "run `pond fsck`",
            OpLogError::NotStaged { .. } => "fetch it again",
            OpLogError::Diverged { .. } => {
                "start this replica anew, or follow the timeline that it belongs to"
            }
            OpLogError::Journal(error) => return error.advice(),
            _ => return None,
        };
        Some(advice.to_owned())
    }
}
