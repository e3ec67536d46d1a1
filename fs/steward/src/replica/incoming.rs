//! A replica while versions come in: what a pull or an init has of the pond.
//!
//! Versions are applied to the log first, and are durable then ([`Incoming`]); [`Replica::publish`] shows them
//! afterwards. A process that ends in between shows them when the pond is opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use pond_oplog::{Ahead, Incoming, OpLog, OpLogError, Position, Version};
use pond_tinyfs::TinyFs;

use crate::StewardError;
use crate::factories::progress::Progress;
use crate::host::end_process::EndProcessOnPanic;
use crate::host::lock::WriterLock;
use crate::init::Marker;
use crate::paths::ChangeWatcher;
use crate::replica::status::{ManifestMark, ReplicaProgress, ReplicaState, ReplicaStatus};

/// How far a run has got is written down so often; everything else at once.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// Catching up with so many versions, or for longer than this, is worth telling of.
const MANY_VERSIONS: u64 = 64;
const LONG: Duration = Duration::from_secs(5);

/// A replica while versions come in.
pub struct Replica {
    pond: PathBuf,
    incoming: Incoming,
    /// Held for a moment only, also by those who must not wait.
    status: Mutex<ReplicaStatus>,
    /// What the file says, and since when; held while it is written.
    file: Mutex<(ReplicaStatus, Option<Instant>)>,
    /// `None` during init.
    open_tree: Option<OpenTree>,
    /// Held while versions are shown, so that each is shown once.
    publishing: Mutex<()>,
    stopping: AtomicBool,
    /// What init holds until it is done.
    init: Mutex<Option<Marker>>,
    _lock: Option<WriterLock>,
}

/// The open pond that shows what comes in.
pub(crate) struct OpenTree {
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) watcher: Arc<RwLock<Option<ChangeWatcher>>>,
    pub(crate) progress: Arc<Progress>,
}

impl Replica {
    /// Of a pond that is open, if it shows what comes in; whoever opened it holds the writer lock.
    pub(crate) fn new(
        pond: &Path,
        incoming: Incoming,
        open_tree: Option<OpenTree>,
        init: Option<(Marker, WriterLock)>,
    ) -> Result<Self, StewardError> {
        let (init, lock) = init.unzip();
        let written = ReplicaStatus::read(pond)?.unwrap_or_default();
        let applied_version = incoming.position().map(|position| position.version);
        let current = ReplicaStatus { applied_version, ..written.clone() };
        Ok(Replica {
            pond: pond.to_owned(),
            incoming,
            status: Mutex::new(current),
            file: Mutex::new((written, None)),
            open_tree,
            publishing: Mutex::default(),
            stopping: AtomicBool::new(false),
            init: Mutex::new(init),
            _lock: lock,
        })
    }

    /// With the writer lock, where nobody has the pond open.
    pub(crate) fn holding(mut self, lock: WriterLock) -> Self {
        self._lock = Some(lock);
        self
    }

    /// `$POND`.
    pub fn pond(&self) -> &Path {
        &self.pond
    }

    /// The newest version that is applied, and so durable; `None` before the first.
    pub fn position(&self) -> Option<Position> {
        self.incoming.position()
    }

    /// What takes versions in.
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// Shows what was applied, all of it in one step: the tree, then whoever caches it is told, then the position.
    /// During init nobody looks, and nothing is done.
    ///
    /// # Errors
    ///
    /// The log's, and [`OpLogError::Fold`] if the rows do not fit the tree. What was shown before is shown still, and
    /// the next call tries again.
    pub fn publish(&self) -> Result<(), StewardError> {
        let Some(OpenTree { fs, oplog, watcher, progress }) = &self.open_tree else { return Ok(()) };
        let _one_at_a_time = self.publishing.lock();
        let Some(applied) = self.incoming.position() else { return Ok(()) };
        if applied.version <= oplog.position().version {
            return Ok(());
        }
        let Ahead { rows, receipt } = oplog.read_ahead(applied.version)?;
        let position = receipt.position().clone();
        let stale = {
            let _no_half_change = EndProcessOnPanic("showing versions of a replica");
            fs.publish(rows, position.cut_lsn)
                .map_err(|error| OpLogError::Fold { version: position.version, why: error.to_string() })?
        };
        // Before the position: who reads it and then a file must find at least that version.
        if let Some(watcher) = watcher.read().as_ref() {
            watcher(&stale);
        }
        oplog.advance(receipt);
        progress.advanced(&position);
        Ok(())
    }

    /// Takes note of how things go. It is shown by `pond status`, kept in `$POND/replica.json`, and each change of the
    /// state is an event in the log, but for those of a replica that keeps up.
    pub fn report(&self, progress: ReplicaProgress) {
        let mut file = self.file.lock();
        let (before, after) = {
            let mut status = self.status.lock();
            let before = status.clone();
            status.take(progress);
            status.applied_version = self.applied();
            (before, status.clone())
        };
        if after.state != before.state {
            let number = |version: Option<Version>| version.map(|version| version.0);
            macro_rules! tell {
                ($level:ident) => {
                    tracing::$level!(
                        event = "replica_state",
                        from = %before.state,
                        to = %after.state,
                        timeline = after.timeline.map(|timeline| timeline.0),
                        target_version = number(after.target_version),
                        applied_version = number(after.applied_version),
                        error = after.error,
                        "the replica's state has changed"
                    )
                };
            }
            match is_news(&before, &after) {
                true => tell!(info),
                false => tell!(debug),
            }
        }
        let (written, at) = &*file;
        let recent = at.is_some_and(|at| at.elapsed() < PROGRESS_PERIOD);
        if after.differs(written) || (after != *written && !recent) {
            // It is shown from memory all the same, and the next report tries again.
            // Not durably: a replica that keeps up says this with every version, all of it is found out again, and a
            // sync each time would cost more than the version itself.
            if let Err(error) = self.write(&mut file, after, false) {
                tracing::warn!(%error, "could not keep the replica's state");
            }
        }
    }

    fn write(
        &self,
        file: &mut (ReplicaStatus, Option<Instant>),
        status: ReplicaStatus,
        durably: bool,
    ) -> Result<(), StewardError> {
        status.write(&self.pond, durably)?;
        *file = (status, Some(Instant::now()));
        Ok(())
    }

    fn applied(&self) -> Option<Version> {
        self.incoming.position().map(|position| position.version)
    }

    /// How it fares.
    pub fn status(&self) -> ReplicaStatus {
        let current = self.status.lock().clone();
        ReplicaStatus { applied_version: self.applied(), lag_ms: self.lag_of(&current), ..current }
    }

    /// Milliseconds behind the source; 0 when equal to HEAD.
    pub fn lag_ms(&self) -> u64 {
        self.lag_of(&self.status.lock())
    }

    fn lag_of(&self, status: &ReplicaStatus) -> u64 {
        let shown = match &self.open_tree {
            Some(open_tree) => Some(open_tree.oplog.position().version),
            None => self.applied(),
        };
        status.lag_ms(shown)
    }

    /// The run has failed: what is shown stays, and `why` is shown with it.
    pub(crate) fn failed(&self, why: String) {
        let current = self.status.lock().clone();
        let state = match current.state {
            // It takes more than the next attempt to mend that.
            ReplicaState::Diverged => ReplicaState::Diverged,
            _ => ReplicaState::Failed,
        };
        self.report(ReplicaProgress {
            state,
            timeline: current.timeline,
            target_version: current.target_version,
            versions_done: current.versions_done,
            versions_total: current.versions_total,
            bytes_done: current.bytes_done,
            bytes_total: current.bytes_total,
            first_missing_timestamp: current.first_missing_timestamp,
            error: Some(why),
        });
    }

    /// Version and digest (BLAKE3-256 of its bytes, lowercase hex) of the manifest that was last applied; the next
    /// one must name it as its parent. `None` where there is none yet.
    pub fn last_manifest(&self) -> Option<(Version, String)> {
        self.status.lock().last_manifest.clone().map(|mark| (mark.version, mark.digest))
    }

    /// Sets [`last_manifest`](Self::last_manifest); it is durable when this returns, though later reports may cost it
    /// where power is lost soon after one, and then it is `None` again. Set it once its version is applied: after a
    /// crash in between it is older than [`position`](Self::position).
    pub fn set_last_manifest(&self, version: Version, digest: &str) -> Result<(), StewardError> {
        let mut file = self.file.lock();
        let status = {
            let mut status = self.status.lock();
            status.last_manifest = Some(ManifestMark { version, digest: digest.to_owned() });
            status.applied_version = self.applied();
            status.clone()
        };
        // What a pull checks the next manifest against; without it, it asks the store for what it had already.
        self.write(&mut file, status, true)
    }

    /// Sets what the status says of the replica's history for as long as it lives; durable when this returns, as
    /// [`set_last_manifest`](Self::set_last_manifest) is.
    pub fn set_note(&self, note: &str) -> Result<(), StewardError> {
        let mut file = self.file.lock();
        let status = {
            let mut status = self.status.lock();
            (status.note, status.last_manifest) = (Some(note.to_owned()), None);
            status.applied_version = self.applied();
            status.clone()
        };
        self.write(&mut file, status, true)
    }

    /// Whether the process wants to end: long work should stop soon, with an error. What was staged and applied stays.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Makes [`stopping`](Self::stopping) true.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Init is done: the pond may be mounted now. Until then whoever opens it is told to run `pond init --from-backup`
    /// again. Does nothing on an open pond, and when called again.
    ///
    /// # Errors
    ///
    /// [`StewardError::NotAPond`] if no version was applied yet.
    pub fn finish_init(&self) -> Result<(), StewardError> {
        let mut init = self.init.lock();
        let Some(marker) = init.take() else { return Ok(()) };
        let removed = match self.incoming.position() {
            Some(_) => marker.remove(),
            None => Err(StewardError::NotAPond { path: self.pond.clone(), why: "it holds no version yet" }),
        };
        if removed.is_err() {
            *init = Some(marker);
        }
        removed
    }
}

/// Whether a change of the state is worth a line in the log. A replica that keeps up goes to and fro with every
/// version, and its log would grow without end.
fn is_news(before: &ReplicaStatus, after: &ReplicaStatus) -> bool {
    match (before.state, after.state) {
        (ReplicaState::Synchronized, ReplicaState::CatchingUp) => after.versions_total >= MANY_VERSIONS,
        (ReplicaState::CatchingUp, ReplicaState::Synchronized) => {
            let lasted = u64::try_from(after.since - before.since).unwrap_or(0);
            before.versions_total >= MANY_VERSIONS || Duration::from_micros(lasted) >= LONG
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_keeps_up_says_nothing_of_it() {
        use ReplicaState::{CatchingUp, Failed, Synchronized};
        let status = |state, versions_total, seconds: i64| ReplicaStatus {
            state,
            versions_total,
            since: 1 + seconds * 1_000_000,
            ..ReplicaStatus::default()
        };
        assert!(!is_news(&status(Synchronized, 1, 0), &status(CatchingUp, 1, 3600)));
        assert!(!is_news(&status(CatchingUp, 1, 3600), &status(Synchronized, 1, 3601)));
        assert!(is_news(&status(Synchronized, 1, 0), &status(CatchingUp, MANY_VERSIONS, 3600)));
        assert!(is_news(
            &status(CatchingUp, MANY_VERSIONS, 3600),
            &status(Synchronized, MANY_VERSIONS, 3601)
        ));
        assert!(is_news(&status(CatchingUp, 1, 3600), &status(Synchronized, 1, 3606)));
        assert!(is_news(&status(CatchingUp, 1, 0), &status(Failed, 1, 0)));
        assert!(is_news(&status(Failed, 1, 0), &status(Synchronized, 1, 0)));
        // Clocks are set back.
        assert!(!is_news(&status(CatchingUp, 1, 3600), &status(Synchronized, 1, 0)));
    }
}
