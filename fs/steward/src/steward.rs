//! The Steward: an open pond, and the only one that commits to it.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use pond_oplog::{
    At, CacheUse, CommitInfo, Forked, HistoryFigures, Layout, OpLog, Origin, Position, TagName, Version,
    history,
};
use pond_tinyfs::{Advise, Error, RESERVED_NAME, StorageError, TinyFs};
use serde::Serialize;

use crate::commit::fsync::Done;
use crate::common::Common;
use crate::control::keys::ROLE_KEY;
use crate::factories::host_path::refuse_own;
use crate::factories::nodes::factory_node;
use crate::factories::runner::caught;
use crate::host::end_process::EndProcessOnPanic;
use crate::host::lock::WriterLock;
use crate::host::memory;
use crate::init::{self, Found};
use crate::kind::Kind;
use crate::paths::{self, ChangeWatcher, made, make, make_parents, owner};
use crate::replica::follow::Follower;
use crate::source::{Source, Storing};
use crate::threads::Threads;
use crate::upkeep::report::{MaintainEvent, MaintainOptions, MaintainReport};
use crate::{
    FactoryStatus, HistoryStatus, JournalStatus, MemoryUse, Registry, Role, State, Status, StewardError,
    TagChange, Uncommitted,
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
    pub(crate) common: Arc<Common>,
    pub(crate) kind: Kind,
    pub(crate) notes: Vec<String>,
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

    /// Makes a pond at `to` that has what a version of the pond at `from` has, and goes on from there by itself. They share data files as
    /// far as the filesystem allows, and neither is changed by what the other does. No factory runs in it until the setting
    /// `enabled_factories` says so. `tell` is told of bytes as they are done; when it says false all is undone: `None`.
    ///
    /// # Errors
    ///
    /// For a version that there is not, a place that is taken, damage, and the disk's; then nothing is left at `to` either.
    pub fn fork(
        from: &Path,
        at: At,
        to: &Path,
        origin: &Origin,
        tell: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Forked>, StewardError> {
        init::fork(from, at, to, origin, tell)
    }

    /// Gives a pond that lost its control table its role again, after [`StewardError::ControlMissing`].
    pub fn restore_control(pond: &Path, role: Role) -> Result<(), StewardError> {
        init::restore_control(pond, role)
    }

    /// What it has if it was opened to make versions.
    pub(crate) fn source(&self) -> Option<&Source> {
        match &self.kind {
            Kind::Source(source) => Some(source),
            Kind::Replica(_) => None,
        }
    }

    /// Who brings versions in; nobody on a source, and once promoted.
    fn follower(&self) -> Option<&Arc<Follower>> {
        match &self.kind {
            Kind::Source(_) => None,
            Kind::Replica(following) => following.follower(),
        }
    }

    /// The tree.
    pub fn fs(&self) -> &Arc<TinyFs> {
        &self.common.fs
    }

    /// `$POND`.
    pub fn pond(&self) -> &Path {
        &self.common.pond
    }

    /// The log, to read from.
    pub fn oplog(&self) -> &Arc<OpLog> {
        &self.common.oplog
    }

    /// The factories known.
    pub fn registry(&self) -> &Registry {
        &self.common.post_commit.nodes.registry
    }

    /// Where history stands.
    pub fn position(&self) -> Position {
        self.common.oplog.position()
    }

    /// Tells `watcher` of names that are changed other than by whoever mounts the tree, so that the kernel's caches can
    /// be invalidated. It is called without locks, before the command that made the change returns.
    pub fn watch_changes(&self, watcher: ChangeWatcher) {
        *self.common.watcher.write() = Some(watcher);
    }

    /// Calls `done` once everything received before this call survives power loss: at once and on this thread if it
    /// does already, else from another thread; or, where `here` is set and there is little to write, on this one, which waits
    /// for the disk.
    pub fn fsync(&self, done: Done, here: bool) {
        self.kind.fsync(done, here);
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
        self.kind.fsync(Box::new(done), true);
        answered.recv().unwrap_or_else(|_| {
            Err(Error::Storage(StorageError::new("the journal thread has ended", libc::EIO)))
        })
    }

    /// One version holds everything issued before the call, and the post-commit factories have run: a push has been
    /// done, or has failed, as the report says. On a replica: what the backup store has is shown.
    pub fn sync(&self) -> Result<SyncReport, StewardError> {
        if let Some(follower) = self.follower() {
            let message = follower.pull()?;
            tracing::debug!(message, "pulled");
        }
        let position = self.commit_now()?;
        let Common { post_commit, factories_run, .. } = &*self.common;
        if *factories_run && self.running.lock().is_some() {
            post_commit.nodes.progress.handle_now();
        }
        Ok(SyncReport { position, factories: post_commit.nodes.status()? })
    }

    /// One version holds everything issued before the call. On a replica there is never anything to commit.
    pub fn commit_now(&self) -> Result<Position, StewardError> {
        match &self.kind {
            Kind::Source(source) => source.committer.commit_now(),
            Kind::Replica(_) => Ok(self.position()),
        }
    }

    /// Breaks off pushes, pulls and other long work of factories, for good: what they owe is left for the next who opens
    /// the pond. [`close`](Self::close) then waits for none of it.
    pub fn break_off(&self) {
        self.common.post_commit.pond.stop();
        if let Kind::Replica(following) = &self.kind {
            following.follower.replica.stop();
        }
    }

    /// Whether a write may proceed at once; else [`when_room`](Self::when_room). Cheap.
    pub fn has_room(&self) -> bool {
        self.kind.has_room()
    }

    /// Does what brings so many bytes of content, once it may: the more is not yet stored, the later. `ENOSPC` if the disk is
    /// full and commits fail, `EROFS` if no writes are taken.
    pub fn when_room<T>(&self, bytes: u64, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.kind.when_room(bytes, work)
    }

    /// Waits until anything may be written at all, with the same errors.
    pub fn wait_for_room(&self) -> Result<(), Error> {
        self.kind.wait_for_room()
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
        if let Kind::Source(source) = &self.kind {
            source.committer.hurry();
        }
        // First, so that factories get all versions that there will be.
        threads.end_maintenance();
        // The next attempt's error counts.
        if let Err(error) = self.commit_now() {
            tracing::warn!(%error, "closing");
        }
        let followed = threads.end_following();
        threads.end_post_commit();
        self.fs().set_read_only(true);
        threads.end_journal();
        let result = match &self.kind {
            Kind::Source(source) => source.commit_the_last(),
            Kind::Replica(_) => Ok(self.position()),
        };
        threads.end_rest();
        if let Err(error) = self.common.control.close() {
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
        let ended = self.common.control.superseded().is_some();
        let owes = |factory: &FactoryStatus| {
            factory.behind > 0 && factory.mode.is_some() && !(ended && factory.remote)
        };
        self.status().factories.into_iter().filter(owes).collect()
    }

    /// Milliseconds behind the source: 0 on a source and when equal to the store's HEAD, else the age of the first
    /// version that is not shown yet.
    pub fn lag_ms(&self) -> u64 {
        self.follower().map_or(0, |follower| follower.replica.lag_ms())
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
            refuse_own(self.pond(), &path)
                .map_err(|reason| StewardError::BadConfiguration { factory: factory.to_owned(), reason })?;
        }
        caught(|| known.probe(configuration, self.oplog().identity().pond_id))
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
        if let Some(watcher) = self.common.watcher.read().as_ref() {
            watcher(&stale);
        }
        result?;
        self.commit_now().map(drop)
    }

    /// Runs a factory's node now, after a commit of everything so far. What it writes is committed when this returns.
    pub fn run(&self, path: &str, args: &[String]) -> Result<RunReport, StewardError> {
        if self.running.lock().is_none() {
            return Err(self.not_writable());
        }
        let node = factory_node(self.fs(), path)?;
        self.commit_now()?;
        let result = match self.follower() {
            Some(follower) if self.registry().is_remote(&node.factory) => match args {
                [] => follower.pull(),
                args => follower.run_node(&node, args),
            },
            _ => self.common.post_commit.run_node(&node, args),
        };
        let position = self.commit_now()?;
        Ok(RunReport { path: node.path, factory: node.factory, message: result?, position })
    }

    /// One setting, or all, by name.
    pub fn control_get(&self, key: Option<&str>) -> Vec<(String, String)> {
        self.common.control.select(key)
    }

    /// Sets a setting; it is durable when this returns.
    pub fn control_set(&self, key: &str, value: &str) -> Result<(), StewardError> {
        if self.running.lock().is_none() {
            return Err(self.not_writable());
        }
        self.registry().check_setting(key, value)?;
        let control = &self.common.control;
        let set = control.set(key, value);
        // Also where it is set and may not survive power loss.
        if key == ROLE_KEY
            && control.role() == Role::Replica
            && let Some(source) = self.source().filter(|_| !self.fs().is_read_only())
        {
            source.committer.refuse_writes("it was made a replica (factory_mode:remote is pull)", true);
        }
        self.common.post_commit.nodes.progress.look_again();
        set
    }

    /// Gives a version a name, the newest once everything is committed if none is said, or takes a name back. A version that has a name
    /// is kept, whatever the setting `retention` says. Durable when this returns; the version that has, or had, the name.
    ///
    /// # Errors
    ///
    /// For a name that is taken or is not there, a version that is not kept, and on replicas, which change nothing.
    pub fn tag(&self, tag: TagName, change: TagChange, origin: &Origin) -> Result<Version, StewardError> {
        let (Kind::Source(source), Role::Source) = (&self.kind, self.common.control.role()) else {
            return Err(self.not_writable());
        };
        if self.running.lock().is_none() {
            return Err(self.not_writable());
        }
        let (version, named) = match change {
            TagChange::Make(Some(version)) => (version, Some(version)),
            TagChange::Make(None) => {
                let version = source.committer.commit_now()?.version;
                (version, Some(version))
            }
            TagChange::Delete => (self.oplog().tags().get(&tag).copied().unwrap_or_default(), None),
        };
        source.committer.between_commits(|| Ok((self.oplog().commit_tag(tag, named, origin)?, (0, 0))))?;
        Ok(version)
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
        match &self.kind {
            Kind::Source(source) => source.maintenance.run(options, tell),
            Kind::Replica(_) => self.common.cleaner.maintain(options, tell),
        }
    }

    /// The history, newest version first; at most `limit` versions.
    pub fn history(&self, limit: Option<usize>) -> Result<Vec<CommitInfo>, StewardError> {
        Ok(history(self.pond(), limit)?)
    }

    /// Facts and figures. Cheap: no I/O.
    pub fn status(&self) -> Status {
        let closed = self.running.try_lock().is_some_and(|running| running.is_none());
        let Common { pond, oplog, control, post_commit, housekeeper, budgets, .. } = &*self.common;
        let Storing { rows, is_dirty, failure, refusal } = self.kind.storing();
        let state = match () {
            () if closed => State::Closed,
            () if self.fs().is_read_only() => State::ReadOnly,
            () if failure.is_some() => State::Retrying,
            () if is_dirty => State::Dirty,
            () => State::Clean,
        };
        let journal = oplog.journal().size();
        let mut notes = self.notes.clone();
        notes.extend(housekeeper.troubles());
        if self.source().is_some() && control.role() == Role::Source {
            notes.extend(self.common.cleaner.doubt(None));
        }
        let factories = post_commit.nodes.status().unwrap_or_else(|error| {
            notes.push(error.in_full());
            Vec::new()
        });
        Status {
            pond_id: oplog.identity().pond_id.to_string(),
            path: pond.clone(),
            mode: control.known_role(),
            state,
            read_only_because: refusal.map(|refusal| refusal.to_string()).or_else(|| control.superseded()),
            position: self.position(),
            nodes: self.fs().node_count(),
            uncommitted: Uncommitted { rows, bytes: self.fs().dirty_bytes() },
            commit_error: failure.map(|failure| failure.in_full()),
            journal: JournalStatus {
                segments: journal.segments,
                frames: journal.frames,
                bytes: journal.bytes,
            },
            budgets: *budgets,
            memory: {
                let CacheUse { pages, indexes } = oplog.cache_use();
                MemoryUse { resident: memory::resident(), content: self.fs().dirty_bytes(), pages, indexes }
            },
            sizes: housekeeper.sizes(pond),
            history: {
                let HistoryFigures { files, bytes, floor } = oplog.history_figures();
                HistoryStatus {
                    live_files: files,
                    live_bytes: bytes,
                    floor: floor.map(|floor| floor.version),
                }
            },
            damage: oplog.damage_met(),
            factories,
            replica: self.follower().map(|follower| follower.replica.status()),
            notes,
            log_path: Layout::new(pond).log_file(),
            pid: std::process::id(),
        }
    }

    pub(crate) fn refuse_unless_writable(&self) -> Result<(), StewardError> {
        if self.running.lock().is_none() || self.fs().is_read_only() {
            return Err(self.not_writable());
        }
        Ok(())
    }

    pub(crate) fn not_writable(&self) -> StewardError {
        match self.kind.storing().refusal {
            Some(refusal) => StewardError::ReadOnly { why: refusal.to_string() },
            None => StewardError::Closed,
        }
    }
}

impl Drop for Steward {
    fn drop(&mut self) {
        if self.running.get_mut().is_some() {
            tracing::warn!(pond = %self.pond().display(), "the pond was not closed; closing it");
            if let Err(error) = self.close() {
                tracing::error!(%error, "closing the pond");
            }
        }
    }
}
