//! A temporary replica of all that a store holds, removed at the end.

use std::path::{Path, PathBuf};

use pond_replicate::{InitOptions, ReplicateError};

use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::progress::Transfers;
use crate::target::Pond;

/// A replica that goes away with this.
pub struct Drill {
    directory: tempfile::TempDir,
}

impl Drill {
    /// In `scratch`, or else where temporary files go.
    pub fn new(scratch: Option<&Path>, what: &str) -> Result<Self> {
        let place = scratch.map_or_else(std::env::temp_dir, PathBuf::from);
        let failed = || format!("{what}: cannot make a directory in {}", place.display());
        let directory = tempfile::Builder::new().prefix("pond-backup-").tempdir_in(&place);
        Ok(Drill { directory: directory.map_err(|error| advised(Failure::because(failed(), &error)))? })
    }

    /// Where the replica is, or will be.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("pond")
    }

    /// Fetches everything, from the oldest version on.
    pub fn fetch(
        &self,
        configuration: &[u8],
        task: &'static str,
        context: &Context,
    ) -> Result<(), ReplicateError> {
        let progress = Transfers::new(task, context.notices);
        let options = InitOptions::default();
        let made = pond_replicate::init_from_backup(&self.path(), configuration, &options, &progress);
        pond_replicate::Progress::end(&progress);
        made.map(drop)
    }

    /// The replica, to be read.
    pub fn pond(&self, context: &Context) -> Pond {
        Pond::new(self.path(), context.pond.origin().clone(), context.notices)
    }

    /// Removes it; a failure counts.
    pub fn remove(self) -> Result {
        let what = format!("cannot remove {}", self.directory.path().display());
        self.directory.close().during(|| what)
    }
}

fn advised(failure: Failure) -> Failure {
    failure.next("name a directory that has room with --scratch")
}
