//! A pond as a command finds it, mounted or not, and the way into its tree that follows from that.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pond_mount::client::Client;
use pond_mount::{Mount, MountError};
use pond_oplog::{At, CommitInfo, Layout, Origin, Version, Views};
use pond_steward::{Found, OpenOptions, Reader, Steward, StewardError};

use crate::error::{During, Failure, Result};
use crate::output::Notices;
use crate::path::When;
use crate::progress::Transfers;
use crate::registry;
use crate::target::direct::DirectTree;
use crate::target::file_tree::FileTree;
use crate::target::host::HostTree;
use crate::waiting::{self, Wait};

/// How long a command waits for another that is writing to the pond.
const WAIT_FOR_LOCK: Duration = Duration::from_secs(10);

/// A command's changes become one version, when it ends. Only memory running short commits earlier.
const ONE_VERSION: Duration = Duration::from_secs(24 * 3600);

/// The pond that a command was pointed at.
#[derive(Clone, Debug)]
pub struct Pond {
    directory: PathBuf,
    origin: Origin,
    notices: Notices,
}

/// Whether a daemon serves the pond.
pub enum State {
    /// It does.
    Mounted(Daemon),
    /// Nobody does.
    Unmounted,
}

/// The daemon of a mounted pond.
pub struct Daemon {
    client: Client,
    pond: PathBuf,
}

/// A way into a pond's tree. After changes [`finish`](Access::finish) must be called.
pub struct Access {
    tree: Box<dyn FileTree>,
    steward: Option<Arc<Steward>>,
    notices: Notices,
}

impl Pond {
    /// `origin` is what the history will say of this command's changes.
    pub fn new(directory: PathBuf, origin: Origin, notices: Notices) -> Self {
        Pond { directory, origin, notices }
    }

    /// `$POND`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the history will say of this command's changes.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Finds out whether a daemon serves the pond.
    pub fn state(&self) -> Result<State> {
        match pond_mount::client::connect(&self.directory) {
            Ok(Some(client)) => Ok(State::Mounted(Daemon { client, pond: self.directory.clone() })),
            Ok(None) => Ok(State::Unmounted),
            Err(error) => Err(Failure::because("cannot reach the pond's daemon", &error)),
        }
    }

    /// Opens the pond for writing, in this process. Recovers what a crash left in the journal.
    pub fn open(&self) -> Result<Arc<Steward>> {
        self.open_quietly().during(not_open)
    }

    /// [`open`](Pond::open), in which no factory runs: pushes are left to others.
    pub fn open_without_factories(&self) -> Result<Arc<Steward>> {
        self.open_with(OpenOptions { factories: false, ..self.options() }).during(not_open)
    }

    /// [`open`](Pond::open), with the Steward's own error.
    pub fn open_quietly(&self) -> Result<Arc<Steward>, StewardError> {
        self.open_with(self.options())
    }

    fn open_with(&self, options: OpenOptions) -> Result<Arc<Steward>, StewardError> {
        let options = OpenOptions { wait_for_lock: Some(WAIT_FOR_LOCK), ..options };
        let steward = Steward::open(&self.directory, options)?;
        for note in steward.status().notes {
            self.notices.warn(&note);
        }
        Ok(steward)
    }

    /// Its versions, newest first, at most `limit`. Reads the log alone, mounted or not.
    pub fn history(&self, limit: Option<usize>) -> Result<Vec<CommitInfo>> {
        let what = || "cannot read the pond's history".to_owned();
        if Steward::probe(&self.directory).during(what)? == Found::Nothing {
            return Err(Failure::because(what(), &StewardError::NoPond(self.directory.clone())));
        }
        pond_oplog::history(&self.directory, limit).during(what)
    }

    /// Opens a version of the pond, read-only.
    pub fn open_at(&self, at: At) -> Result<Arc<Reader>> {
        Reader::open(&self.directory, at, self.options()).during(not_open)
    }

    /// Its versions, to be opened as they are asked for.
    pub fn versions(&self) -> Result<Views> {
        pond_steward::versions(&self.directory, &self.options()).during(not_open)
    }

    /// Whether it is a replica that is still being made, or whose making was cut off.
    pub fn is_unfinished_replica(&self) -> bool {
        let opened = Reader::open(&self.directory, At::Version(Version(0)), self.options());
        matches!(opened, Err(StewardError::ReplicaUnfinished { .. }))
    }

    /// Opens the newest version of a pond that nobody serves. What a crash left in the journal is not part of it,
    /// and the user is told so.
    pub fn open_tip(&self) -> Result<Arc<Reader>> {
        let reader = self.open_at(At::Tip)?;
        if self.has_unrecovered_journal()? {
            self.notices.warn(
                "changes that an interrupted mount or command left in the journal are not shown: \
                 `pond sync` recovers them",
            );
        }
        Ok(reader)
    }

    /// Whether the journal has segments although nobody is writing: a clean end leaves none.
    fn has_unrecovered_journal(&self) -> Result<bool> {
        let what = || "cannot look at the journal".to_owned();
        if pond_steward::lock_holder(&self.directory).during(what)?.is_some() {
            return Ok(false);
        }
        let entries = match std::fs::read_dir(Layout::new(&self.directory).journal()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            entries => entries.during(what)?,
        };
        for entry in entries {
            if Path::new(&entry.during(what)?.file_name()).extension().is_some_and(|kind| kind == "segment") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn options(&self) -> OpenOptions {
        OpenOptions {
            commit_interval: ONE_VERSION,
            origin: self.origin.clone(),
            registry: registry::all(Arc::new(Transfers::new("push", self.notices))),
            // A command ends before there is much to follow; `pond sync` pulls.
            follow: false,
            ..OpenOptions::default()
        }
    }

    /// A way into the tree, to read.
    pub fn read(&self, when: When) -> Result<Access> {
        let reader = match when {
            When::At(at) => self.open_at(at)?,
            When::Now => match self.state()? {
                State::Mounted(mut daemon) => {
                    let status = daemon.status()?;
                    return daemon.access(&status, self.notices);
                }
                State::Unmounted => self.open_tip()?,
            },
        };
        let tree = DirectTree::to_read(&reader).map_err(|error| no_groups(&error))?;
        Ok(Access { tree: Box::new(tree), steward: None, notices: self.notices })
    }

    /// A way into the tree, to change it.
    pub fn change(&self) -> Result<Access> {
        // The errors of the system would not say why.
        let refuse = |why: &str| Failure::new("cannot change the pond", format!("it takes no writes: {why}"));
        match self.state()? {
            State::Mounted(mut daemon) => {
                let status = daemon.status()?;
                match status["read_only_because"].as_str() {
                    Some(why) => return Err(refuse(why)),
                    None if status["mounted_read_only"] == true => {
                        let mountpoint = status["mountpoint"].as_str().unwrap_or_default();
                        return Err(refuse(&format!("it is mounted read-only on {mountpoint}")));
                    }
                    None => {}
                }
                daemon.access(&status, self.notices)
            }
            State::Unmounted => {
                let steward = self.open()?;
                match steward.status().read_only_because {
                    Some(why) => {
                        waiting::close(&steward, self.notices)
                            .during(|| "cannot close the pond".to_owned())?;
                        Err(refuse(&why))
                    }
                    None => Access::to_write(steward, self.notices),
                }
            }
        }
    }
}

fn no_groups(error: &io::Error) -> Failure {
    Failure::because("cannot tell which groups we are in", error)
}

fn not_open() -> String {
    "cannot open the pond".to_owned()
}

impl Daemon {
    /// Asks it for its status.
    pub fn status(&mut self) -> Result<serde_json::Value> {
        self.try_status().during(|| "cannot ask the pond's daemon for its status".to_owned())
    }

    /// [`status`](Daemon::status), with the daemon's own error.
    pub fn try_status(&mut self) -> Result<serde_json::Value, MountError> {
        self.client.status()
    }

    /// Asks it to do something; `what` completes "cannot …".
    pub fn call(&mut self, request: &pond_mount::Request, what: &str) -> Result<serde_json::Value> {
        self.client.call(request).map_err(|error| Failure::because(format!("cannot {what}"), &error))
    }

    /// [`call`](Daemon::call) of what may take long: after a second it says `waiting`.
    pub fn call_long(
        &mut self,
        request: &pond_mount::Request,
        what: &str,
        waiting: &str,
        notices: Notices,
    ) -> Result<serde_json::Value> {
        let mut wait = Wait::new(None, notices);
        // It never gives up.
        let answer = self.call_while(request, what, &mut || wait.goes_on(|| waiting.to_owned()))?;
        Ok(answer.unwrap_or_default())
    }

    /// Asks it to do something that may take long, as [`Client::call_while`] does.
    pub fn call_while(
        &mut self,
        request: &pond_mount::Request,
        what: &str,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<serde_json::Value>> {
        let answer = self.client.call_while(request, goes_on);
        answer.map_err(|error| Failure::because(format!("cannot {what}"), &error))
    }

    /// The connection to it.
    pub fn into_stream(self) -> UnixStream {
        self.client.into_stream()
    }

    /// The tree below its mountpoint.
    fn access(&self, status: &serde_json::Value, notices: Notices) -> Result<Access> {
        let mount = self.mount_as_told(status)?;
        Ok(Access { tree: Box::new(HostTree::mounted(&mount.mountpoint)), steward: None, notices })
    }

    /// Its mount, as this process sees it.
    pub fn mount(&mut self) -> Result<Mount> {
        let status = self.status()?;
        self.mount_as_told(&status)
    }

    fn mount_as_told(&self, status: &serde_json::Value) -> Result<Mount> {
        let said = status["mountpoint"].as_str().unwrap_or_default();
        let failed = || format!("cannot get at the pond through its mount on {said}");
        let pond = self.pond.canonicalize().during(failed)?;
        let mounts = pond_mount::mounts_of(&pond).during(failed)?;
        // The daemon's word, by way of the kernel's: the path may not be UTF-8.
        let mount = mounts.into_iter().find(|mount| mount.mountpoint.to_string_lossy() == said);
        match mount {
            Some(mount) if mount.mountpoint.metadata().is_ok() => Ok(mount),
            _ if std::env::var_os(pond_mount::transaction::VARIABLE).is_some() => {
                Err(Failure::new(failed(), "a transaction is under way here, of which it sees nothing")
                    .next("use ls, cp, rm and the like on the tree that $POND_TXN names"))
            }
            _ => Err(Failure::new(failed(), "it is another user's, or in another mount namespace")
                .next("run the command as that user, or read a version with PATH@V")),
        }
    }
}

impl Access {
    fn to_write(steward: Arc<Steward>, notices: Notices) -> Result<Self> {
        let tree = DirectTree::to_write(Arc::clone(&steward)).map_err(|error| no_groups(&error))?;
        Ok(Access { tree: Box::new(tree), steward: Some(steward), notices })
    }

    /// The tree.
    pub fn tree(&self) -> &dyn FileTree {
        self.tree.as_ref()
    }

    /// Commits what was changed, also after a failure: what was done before it stays done.
    pub fn finish<T>(self, result: Result<T>) -> Result<T> {
        let Some(steward) = &self.steward else { return result };
        let closed = waiting::close(steward, self.notices);
        match (result, closed) {
            (Ok(value), Ok(_)) => Ok(value),
            (Err(failure), Ok(_)) => Err(failure),
            (_, Err(error)) => Err(Failure::because("cannot commit the changes", &error)),
        }
    }
}
