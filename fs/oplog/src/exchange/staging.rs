//! The staging area: files that were fetched and verified, waiting in `data/_inflight` to be applied.
//!
//! A file has its name there only once its bytes were synced, so whatever is found there, also by a later process and
//! after power loss, is whole and verified. The names themselves are not synced: one that power loss takes away is
//! fetched again. Names begin with `in-`: to a source's sweep they are leftovers like any other.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::disk::durable::{self, Existing, Unnamed};
use crate::disk::listing;
use crate::{FileRef, OpLogError};

/// What names of staged files begin with.
const PREFIX: &str = "in-";

/// The staging area of a replica.
#[derive(Clone, Debug)]
pub(crate) struct Staging {
    directory: PathBuf,
}

impl Staging {
    /// The one in this directory, which must exist. What was not finished is removed, and so is whatever else lies
    /// there.
    pub(crate) fn open(directory: &Path) -> Result<Self, OpLogError> {
        for name in listing::names(directory)? {
            if !name.starts_with(PREFIX) {
                let path = directory.join(name);
                durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
            }
        }
        Ok(Staging { directory: directory.to_path_buf() })
    }

    /// Where a file waits; the name must have been checked.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{PREFIX}{name}"))
    }

    /// Length of a waiting file.
    pub(crate) fn length(&self, name: &str) -> Result<Option<u64>, OpLogError> {
        listing::length(&self.path(name))
    }

    /// The files that wait, by name.
    pub(crate) fn list(&self) -> Result<Vec<FileRef>, OpLogError> {
        let mut found = Vec::new();
        for name in listing::names(&self.directory)? {
            // One that is applied meanwhile waits no longer.
            if let Some(name) = name.strip_prefix(PREFIX)
                && let Some(length) = self.length(name)?
            {
                found.push(FileRef { name: name.to_string(), length, blake3: None });
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The bytes of a waiting file.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Bytes>, OpLogError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpLogError::io("read", &path)(error)),
        }
    }

    /// A waiting file, open for reading.
    pub(crate) fn open_file(&self, name: &str) -> Result<Option<fs::File>, OpLogError> {
        let path = self.path(name);
        match fs::File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(OpLogError::io("open", &path)(error)),
        }
    }

    /// Begins a file.
    pub(crate) fn stage(&self, name: &str) -> Result<StagedFile, OpLogError> {
        check_name(name)?;
        let unnamed =
            Unnamed::create(&self.directory).map_err(OpLogError::io("create a file in", &self.directory))?;
        Ok(StagedFile { unnamed, target: self.path(name) })
    }

    /// Removes a file if it waits.
    pub(crate) fn discard(&self, name: &str) -> Result<(), OpLogError> {
        let path = self.path(name);
        match durable::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(OpLogError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// A file on its way into the staging area. Without [`StagedFile::finish`] it goes away.
pub struct StagedFile {
    unnamed: Unnamed,
    target: PathBuf,
}

impl StagedFile {
    /// Syncs the bytes and gives the file its name in the staging area, in place of one that has it. Call it only
    /// after verifying the bytes.
    pub fn finish(self) -> Result<(), OpLogError> {
        let StagedFile { unnamed, target } = self;
        unnamed.name_unsynced(&target, Existing::Replace).map_err(OpLogError::io("write", &target))
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unnamed.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Refuses every name that is not a plain file's within one directory. Those that begin with `_` are the table's own.
pub(crate) fn check_name(name: &str) -> Result<(), OpLogError> {
    let why = match name {
        "" => "it is empty",
        _ if name.contains('/') => "it leads to another directory",
        _ if name.starts_with('.') || name.starts_with('_') => {
            "names that begin with '.' or '_' are reserved"
        }
        _ if name.chars().any(char::is_control) => "it has control characters",
        _ => return Ok(()),
    };
    Err(OpLogError::BadName { name: name.to_string(), why })
}
