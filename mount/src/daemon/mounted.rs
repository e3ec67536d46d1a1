//! An open pond and the mount that shows it: what stands behind the service.

use std::path::PathBuf;
use std::sync::Arc;

use pond_oplog::{At, OpLogError, Views};
use pond_tinyfs::{Errno, Error, Timestamp, TinyFs};

use crate::daemon::log_file;
use crate::daemon::shown::Shown;
use crate::inodes::content::Content;
use crate::mounting::mount_info;
use crate::service::backing::{Backing, Done};

/// An open pond and the mount that shows it.
pub(crate) struct Mounted {
    pub(crate) shown: Shown,
    pub(crate) mountpoint: PathBuf,
    /// Whether nothing can be changed through this mount.
    pub(crate) read_only: bool,
    /// Whether it shows what a source elsewhere does.
    pub(crate) follows: bool,
    /// Whether it shows a version that was asked for, rather than the newest.
    pub(crate) pinned: bool,
    /// Its versions, to look at beside what is shown.
    pub(crate) versions: Arc<Views>,
    /// Where the daemon's messages go; `None` for its terminal.
    pub(crate) log: Option<PathBuf>,
}

impl Mounted {
    /// Whether nothing can be changed through this mount now: it may have been remounted since.
    pub(crate) fn is_read_only(&self) -> bool {
        let remounted = || match mount_info::mount_at(&self.mountpoint) {
            Ok(mount) => mount.is_some_and(|mount| mount.is_pond() && mount.read_only),
            Err(error) => {
                tracing::warn!(%error, "cannot tell whether the mount is read-only");
                false
            }
        };
        self.read_only || remounted()
    }

    /// The pond's status, and the mount's.
    pub(crate) fn status(&self) -> Result<serde_json::Value, serde_json::Error> {
        let mut status = serde_json::to_value(self.shown.status())?;
        if let Some(fields) = status.as_object_mut() {
            fields.insert("mountpoint".into(), self.mountpoint.to_string_lossy().into());
            fields.insert("mounted_read_only".into(), self.is_read_only().into());
            fields.insert("pinned".into(), self.pinned.into());
            fields.insert("follows".into(), self.follows.into());
            fields.insert("log_path".into(), self.log.as_ref().map(|log| log.to_string_lossy()).into());
            fields.insert("pid".into(), std::process::id().into());
        }
        Ok(status)
    }
}

impl Backing for Mounted {
    fn fs(&self) -> &TinyFs {
        self.shown.fs()
    }

    fn follows(&self) -> bool {
        self.follows
    }

    fn fsync(&self, done: Done, here: bool) {
        match self.shown.steward() {
            Some(steward) => steward.fsync(done, here),
            // Nothing is there that does not survive power loss already, or that shall survive anything.
            None => done(Ok(())),
        }
    }

    fn has_room(&self) -> bool {
        match &self.shown {
            Shown::Newest(steward) => steward.has_room(),
            Shown::Scratch(scratch) => scratch.has_room(),
            Shown::Fixed(_) => true,
        }
    }

    fn when_room<T>(&self, bytes: u64, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        match &self.shown {
            Shown::Newest(steward) => steward.when_room(bytes, work),
            Shown::Scratch(scratch) => scratch.when_room(bytes, work),
            Shown::Fixed(_) => Err(Errno::ROFS.into()),
        }
    }

    fn now(&self) -> Option<&TinyFs> {
        self.shown.steward().map(|steward| steward.fs().as_ref())
    }

    fn version(&self, at: At) -> Result<(u64, Arc<TinyFs>), Error> {
        let view = self.versions.open(at).map_err(|error| not_opened(&error))?;
        Ok((view.position().version.0, view.fs().clone()))
    }

    fn versions(&self, count: usize) -> Result<Vec<u64>, Error> {
        let versions = self.versions.newest(count).map_err(|error| not_opened(&error))?;
        Ok(versions.into_iter().map(|version| version.0).collect())
    }

    fn versions_changed(&self) -> Timestamp {
        match self.shown.steward() {
            Some(steward) => Timestamp(steward.position().timestamp.saturating_mul(1000)),
            // Whoever makes them is another process.
            None => Timestamp::now(),
        }
    }

    fn let_go_of_versions(&self) {
        self.versions.let_go_of_unused();
    }

    fn content(&self, file: Content) -> Vec<u8> {
        match file {
            Content::Position => {
                let position = self.shown.position();
                // What is shown may be another tree by now.
                let scratch = if matches!(self.shown, Shown::Scratch(_)) { " scratch" } else { "" };
                format!("{}/{}{scratch}\n", position.version, position.digest).into_bytes()
            }
            Content::Lag => {
                let lag = self.shown.steward().map_or(0, |steward| steward.lag_ms());
                format!("{lag}\n").into_bytes()
            }
            Content::Status => match self.status().and_then(|status| serde_json::to_vec_pretty(&status)) {
                Ok(mut text) => {
                    text.push(b'\n');
                    text
                }
                Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()).into_bytes(),
            },
            Content::Log => match &self.log {
                Some(path) => log_file::tail(path),
                None => b"pond runs in the foreground: its messages go to its terminal\n".to_vec(),
            },
        }
    }
}

/// An error of the log, as a system call is answered with it: what there is not is not found.
fn not_opened(error: &OpLogError) -> Error {
    match error {
        OpLogError::NoSuchVersion { .. }
        | OpLogError::NoLongerKept { .. }
        | OpLogError::Thinned { .. }
        | OpLogError::NoSuchTag { .. }
        | OpLogError::NothingYet { .. } => Errno::NOENT.into(),
        error => {
            tracing::error!(%error, "cannot open a version");
            Errno::IO.into()
        }
    }
}
