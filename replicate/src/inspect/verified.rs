//! What a verification has looked at, in a file, so that one that was cut off goes on.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pond_oplog::PondId;

use crate::ReplicateError;

/// What the first line begins with.
const MAGIC: &str = "pond-backup-verified 1";

/// Keys of objects that were found whole. Their names hold the digests of what they are, so a key says which bytes were seen.
pub(crate) struct Verified {
    path: PathBuf,
    before: HashSet<String>,
    file: Mutex<File>,
}

impl Verified {
    /// Takes up a file, or begins it.
    pub(crate) fn open(path: &Path, pond_id: PondId) -> Result<Self, ReplicateError> {
        let failed = || ReplicateError::io(format!("use {}", path.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed())?;
        let head = format!("{MAGIC} {pond_id}");
        let mut lines = BufReader::new(&file).lines();
        let mut before = HashSet::new();
        let is_new = match lines.next().transpose().map_err(failed())? {
            None => true,
            Some(first) if first == head => {
                before = lines.collect::<io::Result<_>>().map_err(failed())?;
                false
            }
            Some(_) => {
                return Err(ReplicateError::Other(format!(
                    "{} is not what a verification of this pond's backup has left: name another file, or remove it",
                    path.display()
                )));
            }
        };
        if is_new {
            writeln!(file, "{head}").map_err(failed())?;
        }
        Ok(Verified { path: path.to_owned(), before, file: Mutex::new(file) })
    }

    /// Whether an object was found whole by an earlier run.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.before.contains(key)
    }

    /// It was found whole.
    pub(crate) fn add(&self, key: &str) -> Result<(), ReplicateError> {
        // A line that a crash cut off is a key that nothing has.
        writeln!(self.file.lock(), "{key}")
            .map_err(ReplicateError::io(format!("write {}", self.path.display())))
    }

    /// All was looked at: the next run begins anew.
    pub(crate) fn finish(self) -> Result<(), ReplicateError> {
        std::fs::remove_file(&self.path)
            .map_err(ReplicateError::io(format!("remove {}", self.path.display())))
    }
}
