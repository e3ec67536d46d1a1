//! The Steward: an open pond, and the only one that commits to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use pond_oplog::{CacheUse, CommitInfo, HistoryFigures, Layout, OpLog, Position, Version, changes, history};
use pond_tinyfs::{Error, RESERVED_NAME, Row, StorageError, TinyFs};
use serde::Serialize;

use crate::commit::committer::Committer;
use crate::commit::fsync::{Done, Fsync};
use crate::commit::writers::Writers;
use crate::control::keys::ROLE_KEY;
use crate::control::table::Control;
use crate::factories::host_path::refuse_own;
use crate::factories::nodes::factory_node;
use crate::factories::runner::{Runner, caught};
use crate::host::end_process::EndProcessOnPanic;
use crate::host::lock::WriterLock;
use crate::host::memory;
use crate::init::{self, Found};
use crate::pacing::scheduler::Effort;
use crate::paths::{self, ChangeWatcher, made, make, make_parents, owner};
use crate::replica::follow::Follower;
use crate::threads::{Threads, Work};
use crate::upkeep::housekeeper::Housekeeper;
use crate::upkeep::maintenance::{MaintainEvent, MaintainOptions, MaintainReport, Maintenance};
use crate::{
    Budgets, FactoryStatus, HistoryStatus, JournalStatus, MemoryUse, Registry, Role, State, Status,
    StewardError, Uncommitted,
};

/// What [`Steward::sync`] did.
#[derive(Clone, Debug, Serialize)]
pub struct SyncReport {
    /// A version that holds everything issued before.
    #[serde(flatten)]
    pub position: Position,
    /// How the nodes under `/etc/system.d/` fare, in the order in which they run.
    pub factories: Vec<FactoryStatus>,
}

/// What [`Steward::run`] did.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// The node.
    pub path: String,
    /// Its factory.
    pub factory: String,
    /// What the factory said.
    pub message: String,
    /// The version after it.
    #[serde(flatten)]
    pub position: Position,
}

/// An open pond.
///
/// Operations on the tree go to [`fs`](Self::fs); the Steward turns them into versions. [`close`](Self::close) it:
/// dropping it closes it too, but then nobody hears of an error.
pub struct Steward {
    pub(crate) pond: PathBuf,
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) control: Arc<Control>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) writers: Arc<Writers>,
    pub(crate) fsync: Arc<Fsync>,
    pub(crate) post_commit: Arc<Runner>,
    pub(crate) maintenance: Arc<Maintenance>,
    /// Whether it runs in the background.
    pub(crate) maintained: bool,
    /// Whether factories run after commits.
    pub(crate) factories_run: bool,
    pub(crate) budgets: Budgets,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) watcher: Arc<RwLock<Option<ChangeWatcher>>>,
    pub(crate) notes: Vec<String>,
    /// On a replica that is open to follow.
    pub(crate) follower: Option<Arc<Follower>>,
    /// `None` once it is closed.
    pub(crate) running: Mutex<Option<Running>>,
}

/// What only the one has that holds the writer lock.
pub(crate) struct Running {
    pub(crate) lock: WriterLock,
    pub(crate) threads: Threads,
}

impl Steward {
    /// What lies at the place of a pond.
    pub fn probe(pond: &Path) -> Result<Found, StewardError> {
        init::probe(pond)
    }

    /// Makes an empty pond, a source: only where there is nothing yet, an empty directory, or a pond whose `init` was
    /// cut off.
    pub fn init(pond: &Path) -> Result<(), StewardError> {
        init::init(pond)
    }

    /// Gives a pond that lost its control table its role again, after [`StewardError::ControlMissing`].
    pub fn restore_control(pond: &Path, role: Role) -> Result<(), StewardError> {
        init::restore_control(pond, role)
    }

    /// What its threads work with.
    pub(crate) fn work(&self) -> Work {
        Work {
            pond: self.pond.clone(),
            oplog: self.oplog.clone(),
            control: self.control.clone(),
            committer: self.committer.clone(),
            fsync: self.fsync.clone(),
            housekeeper: self.housekeeper.clone(),
            maintenance: self.maintenance.clone(),
            maintained: self.maintained,
            post_commit: self.post_commit.clone(),
            factories_run: self.factories_run,
            follower: self.follower.clone(),
        }
    }

    /// The tree.
    pub fn fs(&self) -> &Arc<TinyFs> {
        self.committer.fs()
    }

    /// `$POND`.
    pub fn pond(&self) -> &Path {
        &self.pond
    }

    /// The log, to read from.
    pub fn oplog(&self) -> &Arc<OpLog> {
        &self.oplog
    }

    /// The factories known.
    pub fn registry(&self) -> &Registry {
        &self.post_commit.nodes.registry
    }

    /// Where history stands.
    pub fn position(&self) -> Position {
        self.oplog.position()
    }

    /// Tells `watcher` of names that are changed other than by whoever mounts the tree, so that the kernel's caches can
    /// be invalidated. It is called without locks, before the command that made the change returns.
    pub fn watch_changes(&self, watcher: ChangeWatcher) {
        *self.watcher.write() = Some(watcher);
    }

    /// Calls `done` once everything received before this call survives power loss: at once and on this thread if it
    /// does already, else from another thread; or, where `here` is set and there is little to write, on this one, which waits
    /// for the disk.
    pub fn fsync(&self, done: Done, here: bool) {
        self.fsync.fsync(done, here);
    }

    /// Everything received before this call survives power loss when it returns.
    pub fn fsync_wait(&self) -> Result<(), Error> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let done = move |result| {
            // Whoever waits is there until it is answered.
            if answer.send(result).is_err() {
                tracing::error!("nobody waited for an fsync");
            }
        };
        self.fsync.fsync(Box::new(done), true);
        answered.recv().unwrap_or_else(|_| {
            let message = "the journal thread has ended".into();
            Err(Error::Storage(StorageError { message, errno: libc::EIO }))
        })
    }

    /// One version holds everything issued before the call, and the post-commit factories have run: a push has been
    /// done, or has failed, as the report says. On a replica: what the backup store has is shown.
    pub fn sync(&self) -> Result<SyncReport, StewardError> {
        if let Some(follower) = self.following() {
            let message = follower.pull()?;
            tracing::debug!(message, "pulled");
        }
        let position = self.committer.commit_now()?;
        if self.factories_run && self.running.lock().is_some() {
            self.post_commit.nodes.progress.handle_now();
        }
        Ok(SyncReport { position, factories: self.post_commit.nodes.status()? })
    }

    /// One version holds everything issued before the call.
    pub fn commit_now(&self) -> Result<Position, StewardError> {
        self.committer.commit_now()
    }

    /// Breaks off pushes, pulls and other long work of factories, for good: what they owe is left for the next who opens
    /// the pond. [`close`](Self::close) then waits for none of it.
    pub fn break_off(&self) {
        self.post_commit.pond.stop();
        if let Some(follower) = &self.follower {
            follower.replica.stop();
        }
    }

    /// Whether a write may proceed at once; else [`when_room`](Self::when_room). Cheap.
    pub fn has_room(&self) -> bool {
        self.writers.has_room()
    }

    /// Does what brings so many bytes of content, once it may: the more is not yet stored, the later. `ENOSPC` if the disk is
    /// full and commits fail, `EROFS` if no writes are taken.
    pub fn when_room<T>(&self, bytes: u64, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.writers.when_room(bytes, work)
    }

    /// Waits until anything may be written at all, with the same errors.
    pub fn wait_for_room(&self) -> Result<(), Error> {
        self.writers.wait_for_room(0)
    }

    /// Commits everything, gives post-commit work, such as a push, ten seconds, and gives up the writer lock. What
    /// factories still owe afterwards, [`owed`](Self::owed) tells. A pull is broken off. Closing again does nothing.
    ///
    /// The pond is closed afterwards even if this fails; the error says what became of uncommitted changes.
    pub fn close(&self) -> Result<Position, StewardError> {
        let mut running = self.running.lock();
        let Some(Running { lock, mut threads }) = running.take() else {
            return Ok(self.position());
        };
        self.committer.hurry();
        // First, so that factories get all versions that there will be.
        threads.end_maintenance();
        // The next attempt's error counts.
        if let Err(error) = self.committer.commit_now() {
            tracing::warn!(%error, "closing");
        }
        let followed = threads.end_following();
        threads.end_post_commit();
        self.fs().set_read_only(true);
        threads.end_journal();
        let result = self.committer.commit_now().map_err(|error| match error {
            StewardError::NotCommitted { reason, .. } => StewardError::ClosedUncommitted {
                in_journal: self.fsync.make_durable(Effort::Frame).is_ok(),
                rows: self.committer.ledger().rows(),
                reason,
            },
            error => error,
        });
        threads.end_rest();
        if let Err(error) = self.control.close() {
            tracing::warn!(%error, "could not write the last outcomes to the control table");
        }
        for FactoryStatus { path, behind, last_message, .. } in self.owed() {
            tracing::warn!(
                path,
                behind,
                last_message,
                "post-commit work is not done; the next mount does it"
            );
        }
        match followed {
            Ok(()) => drop(lock),
            // It may still write, so the lock goes with the process.
            Err(error) => {
                tracing::error!(%error, "closing");
                std::mem::forget(lock);
            }
        }
        result
    }

    /// The nodes under `/etc/system.d/` that have not handled all versions, such as a push that lags behind: what
    /// is left for the next mount once the pond is closed.
    pub fn owed(&self) -> Vec<FactoryStatus> {
        // One that is superseded pushes no more.
        let ended = self.control.superseded().is_some();
        let owes = |factory: &FactoryStatus| {
            factory.behind > 0 && factory.mode.is_some() && !(ended && factory.remote)
        };
        self.status().factories.into_iter().filter(owes).collect()
    }

    /// Milliseconds behind the source: 0 on a source and when equal to the store's HEAD, else the age of the first
    /// version that is not shown yet.
    pub fn lag_ms(&self) -> u64 {
        self.following().map_or(0, |follower| follower.replica.lag_ms())
    }

    /// Makes a factory's node with a configuration that the factory finds valid, and the directories that are missing.
    /// It is committed when this returns.
    pub fn mknod(&self, factory: &str, path: &str, configuration: &[u8]) -> Result<(), StewardError> {
        self.refuse_unless_writable()?;
        let known = self.registry().get(factory)?;
        caught(|| known.validate(configuration))
            .map_err(|reason| StewardError::BadConfiguration { factory: factory.to_owned(), reason })?;
        let parts = paths::parts(path)?;
        if parts[0].as_bytes() == RESERVED_NAME {
            return Err(StewardError::BadPath {
                path: path.to_owned(),
                why: "the name .pond is the mount's own",
            });
        }
        // Before anything is made there. What cannot be told yet (a variable that is not set) is told by the run.
        for path in known.writes_to(configuration).unwrap_or_default() {
            refuse_own(&self.pond, &path)
                .map_err(|reason| StewardError::BadConfiguration { factory: factory.to_owned(), reason })?;
        }
        caught(|| known.probe(configuration, self.oplog.identity().pond_id))
            .map_err(|reason| StewardError::ProbeFailed { factory: factory.to_owned(), reason })?;
        let mut stale = Vec::new();
        let result = {
            let _no_half_change = EndProcessOnPanic("mknod");
            let caller = owner();
            make_parents(self.fs(), &caller, &parts, &mut stale, &mut Vec::new()).and_then(|parent| {
                let name = parts[parts.len() - 1];
                // A configuration is its owner's business.
                let node = pond_tinyfs::Make::Dynamic { factory, configuration, mode: 0o600 };
                make(self.fs(), &caller, parent, name, node).map_err(|source| StewardError::Tree {
                    action: "make",
                    path: path.to_owned(),
                    source,
                })?;
                stale.extend(made(parent, name.as_bytes()));
                Ok(())
            })
        };
        if let Some(watcher) = self.watcher.read().as_ref() {
            watcher(&stale);
        }
        result?;
        self.committer.commit_now().map(drop)
    }

    /// Runs a factory's node now, after a commit of everything so far. What it writes is committed when this returns.
    pub fn run(&self, path: &str, args: &[String]) -> Result<RunReport, StewardError> {
        if self.running.lock().is_none() {
            return Err(self.not_writable());
        }
        let node = factory_node(self.fs(), path)?;
        self.committer.commit_now()?;
        let result = match self.following() {
            Some(follower) if self.registry().is_remote(&node.factory) => match args {
                [] => follower.pull(),
                args => follower.run_node(&node, args),
            },
            _ => self.post_commit.run_node(&node, args),
        };
        let position = self.committer.commit_now()?;
        Ok(RunReport { path: node.path, factory: node.factory, message: result?, position })
    }

    /// One setting, or all, by name.
    pub fn control_get(&self, key: Option<&str>) -> Vec<(String, String)> {
        self.control.select(key)
    }

    /// Sets a setting; it is durable when this returns.
    pub fn control_set(&self, key: &str, value: &str) -> Result<(), StewardError> {
        if self.running.lock().is_none() {
            return Err(self.not_writable());
        }
        if let Some(name) = key
            .strip_prefix(crate::control::settings::FACTORY_MODE)
            .filter(|name| !name.is_empty() && key != ROLE_KEY)
        {
            self.registry().get(name)?;
        }
        let set = self.control.set(key, value);
        // Also where it is set and may not survive power loss.
        if key == ROLE_KEY && self.control.role() == Role::Replica && !self.fs().is_read_only() {
            self.committer.refuse_writes("it was made a replica (factory_mode:remote is pull)", true);
        }
        self.post_commit.nodes.progress.look_again();
        set
    }

    /// Merges data files, lets go of versions that the setting `retention` does not keep, and removes what nobody needs
    /// any more. `tell` is told how it goes.
    ///
    /// # Errors
    ///
    /// The log's. What was done before stays done, and the next call goes on.
    pub fn maintain(
        &self,
        options: &MaintainOptions,
        tell: &dyn Fn(MaintainEvent),
    ) -> Result<MaintainReport, StewardError> {
        if self.running.lock().is_none() {
            return Err(self.not_writable());
        }
        self.maintenance.run(options, tell)
    }

    /// The history, newest version first; at most `limit` versions.
    pub fn history(&self, limit: Option<usize>) -> Result<Vec<CommitInfo>, StewardError> {
        Ok(history(&self.pond, limit)?)
    }

    /// The rows of one version, without contents.
    pub fn changes(&self, version: Version) -> Result<Vec<Row>, StewardError> {
        Ok(changes(&self.pond, version)?)
    }

    /// Facts and figures. Cheap: no I/O.
    pub fn status(&self) -> Status {
        let closed = self.running.try_lock().is_some_and(|running| running.is_none());
        let (rows, dirty, failure, refusal) = {
            let ledger = self.committer.ledger();
            let dirty = self.fs().is_dirty() || !ledger.all_committed();
            (ledger.rows() as u64, dirty, ledger.failure().cloned(), ledger.refusal().cloned())
        };
        let state = match () {
            () if closed => State::Closed,
            () if self.fs().is_read_only() => State::ReadOnly,
            () if failure.is_some() => State::Retrying,
            () if dirty => State::Dirty,
            () => State::Clean,
        };
        let journal = self.oplog.journal().size();
        let mut notes = self.notes.clone();
        notes.extend(self.housekeeper.troubles());
        notes.extend(self.maintenance.doubt().filter(|_| self.control.role() == Role::Source));
        let factories = self.post_commit.nodes.status().unwrap_or_else(|error| {
            notes.push(error.to_string());
            Vec::new()
        });
        Status {
            pond_id: self.oplog.identity().pond_id.to_string(),
            path: self.pond.clone(),
            mode: self.control.known_role(),
            state,
            read_only_because: refusal
                .map(|refusal| refusal.why().to_string())
                .or_else(|| self.control.superseded()),
            position: self.position(),
            nodes: self.fs().node_count(),
            uncommitted: Uncommitted { rows, bytes: self.fs().dirty_bytes() },
            commit_error: failure.map(|failure| failure.to_string()),
            journal: JournalStatus {
                segments: journal.segments,
                frames: journal.frames,
                bytes: journal.bytes,
            },
            budgets: self.budgets,
            memory: {
                let CacheUse { pages, indexes } = self.oplog.cache_use();
                MemoryUse { resident: memory::resident(), content: self.fs().dirty_bytes(), pages, indexes }
            },
            sizes: self.housekeeper.sizes(&self.pond),
            history: {
                let HistoryFigures { files, bytes, floor } = self.oplog.history_figures();
                HistoryStatus {
                    live_files: files,
                    live_bytes: bytes,
                    floor: floor.map(|floor| floor.version),
                }
            },
            damage: self.oplog.damage_met(),
            factories,
            replica: self.following().map(|follower| follower.replica.status()),
            notes,
            log_path: Layout::new(&self.pond).log_file(),
            pid: std::process::id(),
        }
    }

    /// None on a source, and once promoted.
    fn following(&self) -> Option<&Arc<Follower>> {
        self.follower.as_ref().filter(|_| self.control.role() == Role::Replica)
    }

    fn refuse_unless_writable(&self) -> Result<(), StewardError> {
        if self.running.lock().is_none() || self.fs().is_read_only() {
            return Err(self.not_writable());
        }
        Ok(())
    }

    pub(crate) fn not_writable(&self) -> StewardError {
        let refusal = self.committer.ledger().refusal().cloned();
        match refusal {
            Some(refusal) => StewardError::ReadOnly { why: refusal.why().to_string() },
            None => StewardError::Closed,
        }
    }
}

impl Drop for Steward {
    fn drop(&mut self) {
        if self.running.get_mut().is_some() {
            tracing::warn!(pond = %self.pond.display(), "the pond was not closed; closing it");
            if let Err(error) = self.close() {
                tracing::error!(%error, "closing the pond");
            }
        }
    }
}
