//! A command in a transaction: it runs where the pond's mountpoint shows a scratch of the newest version, and whoever has the pond open
//! makes a version of what it did.
//!
//! ```text
//!  this process              the namespace's first process             whoever has the pond open
//!  ────────────              ─────────────────────────────             ─────────────────────────
//!  BeginTransaction ────────────────────────────────────────────────►  commit, scratch of that version
//!  clone ──────────────────► mount(2) on the mountpoint
//!                            descriptor ────────────────────────────►  serves the scratch
//!  go ─────────────────────► COMMAND, until no process is left
//!  EndTransaction ──────────────────────────────────────────────────►  the changes, as one version
//! ```
//!
//! Whichever of them ends, the others do, too: the first process gets SIGKILL with this one, and the namespace's others with it; a
//! connection that is closed ends the scratch. So nothing is left anywhere.

mod first_process;
mod forwarding;
mod namespace;
mod open_files;
mod place;

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use pond_oplog::Version;
use serde_json::Value;

use crate::control::client::Client;
use crate::control::protocol::{Published, Request};
use crate::error::MountError;
use crate::mounting::mount_info::{self, Mount};
use crate::transaction::first_process::Said;
use crate::transaction::namespace::Namespace;
use crate::transaction::place::Place;

pub use forwarding::{forward_signals, take_signal};
pub use place::{Program, VARIABLE};

/// How a command ended that was run in a transaction.
#[derive(Debug)]
pub enum Ran {
    /// It could not be run, for this reason; nothing has happened.
    NotRun(std::io::Error),
    /// It ended so, and not well; nothing has happened.
    Failed(ExitStatus),
    /// It ended well, and this became of what it did.
    Well(Published),
}

/// A transaction that has begun.
pub struct Transaction {
    pond: PathBuf,
    client: Client,
    version: Version,
    place: Place,
}

impl Transaction {
    /// Begins one of a pond that is mounted there, or, where it is not, shows it there; whoever has the pond open is at the other end
    /// of the connection.
    ///
    /// # Errors
    ///
    /// Where descriptors are open on the mount, or the current directory lies in it and not below its mountpoint; where this is
    /// a transaction already; and what whoever has the pond open says against it.
    pub fn begin(
        pond: &Path,
        mountpoint: &Path,
        mount: Option<&Mount>,
        stream: UnixStream,
    ) -> Result<Self, MountError> {
        let (mut directory, mut covers) = (None, Vec::new());
        if let Some(mount) = mount {
            let same = mount_info::mounts()?.into_iter().filter(|other| other.device == mount.device);
            covers.extend(same.map(|mount| mount.mountpoint));
            open_files::refuse_open(mount)?;
            directory = directory_within(mount)?;
        }
        let mut client = Client::over(pond, stream);
        let answer = client.call(&Request::BeginTransaction { mountpoint: mountpoint.to_owned() })?;
        let version = Version(answer["version"].as_u64().unwrap_or_default());
        let place = Place::new(pond, mountpoint, covers, directory)?;
        Ok(Transaction { pond: pond.to_owned(), client, version, place })
    }

    /// The version as which it began.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Runs a program in it, and ends it: what the program and all that it has begun did becomes one version if it exits with 0.
    /// Signals that this process is sent, the program gets, once [`forward_signals`] was called.
    ///
    /// # Errors
    ///
    /// Where there can be no such namespace, or the pond was closed meanwhile: then nothing has happened. What making the version
    /// fails with says itself whether something has.
    pub fn run(mut self, program: &Program, command: &str, message: Option<&str>) -> Result<Ran, MountError> {
        let mut namespace = Namespace::begin(&self.place, program, self.client.stream())?;
        match namespace.next(self.client.stream())? {
            Said::Mounted => {}
            said => return Err(namespace.failed(&self.pond, &self.place, said)),
        }
        match self.client.answer() {
            Ok(Value::Null) => {}
            Ok(other) => return Err(self.client.misunderstood(&other.to_string())),
            Err(error) => return Err(error),
        }
        // Whoever sent one before the program began wants none of it.
        if let Some(signal) = forwarding::take_signal() {
            return Ok(Ran::Failed(ExitStatus::from_raw(signal)));
        }
        namespace.go()?;
        let mut exited = None;
        loop {
            match namespace.next(self.client.stream())? {
                Said::NotRun(error) => return Ok(Ran::NotRun(error)),
                Said::Exited(status) if status != 0 => {
                    return Ok(Ran::Failed(ExitStatus::from_raw(status)));
                }
                Said::Exited(status) => exited = Some(status),
                Said::Ended if exited.is_some() => break,
                said => return Err(namespace.failed(&self.pond, &self.place, said)),
            }
        }
        namespace.wait()?;
        let request =
            Request::EndTransaction { command: command.to_owned(), message: message.map(str::to_owned) };
        let answer = self.client.call(&request).map_err(|error| match error {
            error @ MountError::Request(_) => error,
            error => MountError::Undecided { source: Box::new(error) },
        })?;
        match serde_json::from_value(answer) {
            Ok(published) => Ok(Ran::Well(published)),
            Err(error) => Err(self.client.misunderstood(&error.to_string())),
        }
    }
}

/// The current directory, if it lies in this mount.
fn directory_within(mount: &Mount) -> Result<Option<PathBuf>, MountError> {
    let here = mount_info::mount_of_current_directory()?;
    let Some(here) = here.filter(|here| here.device == mount.device) else { return Ok(None) };
    let directory = std::env::current_dir().map_err(|error| {
        MountError::io("find the current directory, which lies in", &here.mountpoint, error)
    })?;
    match here.id == mount.id && directory.starts_with(&mount.mountpoint) {
        true => Ok(Some(directory)),
        false => Err(MountError::ElsewhereOnMount { directory, mountpoint: mount.mountpoint.clone() }),
    }
}
