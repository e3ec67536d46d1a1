//! Putting data files and log entries of incoming versions in their places, in the order that `incoming.rs` explains.

use std::fs;
use std::io::{self, Write};

use crate::disk::durable::{self, Existing, Unnamed};
use crate::disk::listing;
use crate::exchange::incoming::{Checked, State};
use crate::exchange::staging::check_name;
use crate::parallel::parallel;
use crate::{FileRef, Incoming, OpLogError, Version};

/// Entries are synced by up to so many threads: a journaling file system takes syncs that wait together in one step.
const SYNCS: usize = 8;

impl Incoming {
    /// Checks that each file is at hand: in its place already, or staged with the right length.
    pub(crate) fn check_files(&self, version: Version, files: &[FileRef]) -> Result<(), OpLogError> {
        for file in files {
            check_name(&file.name)?;
            if self.in_place(file)? {
                continue;
            }
            let why = match self.staging.length(&file.name)? {
                Some(length) if length == file.length => continue,
                Some(length) => {
                    // Else it would never be fetched again.
                    self.staging.discard(&file.name)?;
                    format!("was staged with {length} bytes and has {}", file.length)
                }
                None => "was not staged".to_string(),
            };
            return Err(OpLogError::NotStaged { version, name: file.name.clone(), why });
        }
        Ok(())
    }

    /// Whether a file lies in `data/`. Whatever does was verified: it came through the staging area.
    fn in_place(&self, file: &FileRef) -> Result<bool, OpLogError> {
        let path = self.layout.data().join(&file.name);
        match listing::length(&path)? {
            None => Ok(false),
            Some(length) if length == file.length => Ok(true),
            Some(length) => {
                let why = format!("it has {length} bytes and should have {}", file.length);
                Err(OpLogError::CorruptFile { path, why })
            }
        }
    }

    /// Moves files from the staging area to their places and makes their names durable.
    pub(crate) fn move_files<'a>(
        &self,
        state: &mut State,
        versions: impl Iterator<Item = (Version, &'a [FileRef])>,
    ) -> Result<(), OpLogError> {
        let data = self.layout.data();
        let mut first = None;
        for (version, files) in versions {
            for file in files {
                first.get_or_insert(version);
                if self.in_place(file)? {
                    self.staging.discard(&file.name)?;
                    continue;
                }
                let staged = self.staging.path(&file.name);
                durable::rename(&staged, &data.join(&file.name)).map_err(OpLogError::io("move", &staged))?;
            }
        }
        match first {
            Some(version) => {
                durable::sync_directory(&data).map_err(|error| state.fail(&self.log, version, error))
            }
            None => Ok(()),
        }
    }

    /// Puts entries where none are: all bytes are synced, then named in ascending order, then the names are synced.
    pub(crate) fn put_entries(&self, state: &mut State, batch: &[Checked<'_>]) -> Result<(), OpLogError> {
        let [first, ..] = batch else { return Ok(()) };
        let directory = self.log.directory();
        let write = |checked: &Checked<'_>| -> io::Result<Unnamed> {
            let mut unnamed = Unnamed::create(&directory)?;
            unnamed.file().write_all(&checked.incoming.entry)?;
            unnamed.sync()?;
            Ok(unnamed)
        };
        let portions: Vec<&[Checked<'_>]> = batch.chunks(batch.len().div_ceil(SYNCS)).collect();
        let written =
            parallel(&portions, SYNCS, |part| part.iter().map(write).collect::<io::Result<Vec<_>>>());
        let written: io::Result<Vec<Vec<Unnamed>>> = written.into_iter().collect();
        let written = written.map_err(OpLogError::io("write an entry in", &directory))?;
        for (unnamed, checked) in written.into_iter().flatten().zip(batch) {
            let version = checked.incoming.version;
            let path = self.log.entry_path(version);
            match unnamed.name_unsynced(&path, Existing::Refuse) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let found = fs::read(&path).map_err(OpLogError::io("read", &path))?;
                    if found != checked.incoming.entry {
                        return Err(self.diverged(version));
                    }
                }
                Err(error) => return Err(OpLogError::io("write", &path)(error)),
            }
        }
        let version = first.incoming.version;
        durable::sync_directory(&directory).map_err(|error| state.fail(&self.log, version, error))
    }
}
