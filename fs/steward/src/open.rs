//! Opening a pond: the lock, recovery, and putting the Steward's parts together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pond_oplog::{At, CommitInfo, OpLog, Opened, Options, Origin, Position, TxnSeq, Version, history};
use pond_tinyfs::{PersistenceLayer, Row, StorageError, TinyFs};

use crate::commit::{CommitObserver, Committer, FACTORY_ORIGIN, Parts};
use crate::control::Control;
use crate::control_row::{ControlRow, Event};
use crate::factory_pond::FactoryPond;
use crate::fsync::Fsync;
use crate::housekeeper::Housekeeper;
use crate::init;
use crate::lock::WriterLock;
use crate::post_commit::PostCommit;
use crate::progress::Progress;
use crate::reserve::Reserve;
use crate::steward::Running;
use crate::{Registry, Role, Steward, StewardError};

/// A checkpoint every so many versions.
const CHECKPOINT_EVERY: u64 = 64;

/// How to open a pond.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Longest time from an operation to the start of the commit that holds it. Default 1 s.
    pub commit_interval: Duration,
    /// Content bytes that may wait in memory before writers must wait. Default 256 MiB.
    pub dirty_limit: u64,
    /// Budget of the content cache in bytes. Default 256 MiB.
    pub cache_bytes: u64,
    /// The factories known.
    pub registry: Registry,
    /// Who asks, for the commits' log entries; secrets must have been redacted.
    pub origin: Origin,
    /// How long to wait for another writer to end; `None` does not wait.
    pub wait_for_lock: Option<Duration>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            commit_interval: Duration::from_secs(1),
            dirty_limit: 256 << 20,
            cache_bytes: 256 << 20,
            registry: Registry::default(),
            origin: Origin::mount(),
            wait_for_lock: None,
        }
    }
}

impl OpenOptions {
    fn log_options(&self) -> Options {
        Options { cache_bytes: self.cache_bytes, ..Options::default() }
    }
}

impl Steward {
    /// Opens a pond for writing: takes the writer lock, recovers what the journal holds and commits it, and starts
    /// committing. A replica, or a pond whose journal is damaged, opens too but takes no writes.
    pub fn open(pond: &Path, options: OpenOptions) -> Result<Arc<Steward>, StewardError> {
        init::refuse_unless_pond(pond)?;
        let lock = WriterLock::acquire(pond, options.wait_for_lock)?;
        let control = Control::open(pond, true)?;
        let mut opened = OpLog::open(pond, &options.log_options())?;
        let recovered = std::mem::take(&mut opened.recovered);
        let damage = opened.read_only_because.take();
        let reserve = match damage {
            Some(_) => Reserve::none(pond),
            None => Reserve::new(pond, opened.oplog.space()),
        };
        let mut steward = Steward::assemble(pond, options, opened, control, reserve, true);
        if let Some(why) = damage {
            steward.committer.refuse_writes(&why, false);
        } else if steward.control.role() == Role::Replica {
            let why = "it is a replica, and follows its backup store (factory_mode:remote is pull)";
            steward.committer.refuse_writes(why, false);
            if !recovered.is_empty() {
                let rows = recovered.len();
                steward
                    .notes
                    .push(format!("the journal holds {rows} changes, which a replica cannot commit"));
            }
        } else {
            steward.recover(recovered)?;
        }
        let running = steward.start(lock)?;
        *steward.running.get_mut() = Some(running);
        Ok(Arc::new(steward))
    }

    /// Opens a version for reading. Takes no lock, starts no threads, writes nothing; several may do so, also while
    /// another process writes.
    pub fn open_read_only(pond: &Path, at: At, options: OpenOptions) -> Result<Arc<Steward>, StewardError> {
        init::refuse_unless_pond(pond)?;
        let opened = OpLog::open_read_only(pond, at, &options.log_options())?;
        let mut notes = Vec::new();
        let control = Control::open(pond, false).unwrap_or_else(|error| {
            // Settings matter to those who write.
            notes.push(error.to_string());
            Control::unknown(pond)
        });
        let mut steward = Steward::assemble(pond, options, opened, control, Reserve::none(pond), false);
        steward.notes.extend(notes);
        steward.housekeeper.measure(pond);
        Ok(Arc::new(steward))
    }

    /// Commits what the journal held, then removes what never committed.
    fn recover(&mut self, recovered: Vec<Row>) -> Result<(), StewardError> {
        let rows = recovered.len();
        match self.committer.commit_recovered(recovered, self.fs().last_lsn()) {
            Ok(()) if rows > 0 => {
                let version = self.position().version;
                self.notes.push(format!("recovered {rows} changes from the journal as version {version}"));
            }
            Ok(()) => {}
            // They are in the journal and in memory. A pond on a full disk must open, so that files can be deleted;
            // the sweep waits for the next time.
            Err(error) => {
                self.notes.push(format!("{rows} changes in the journal are not yet committed: {error}"));
                return Ok(());
            }
        }
        let swept = self.oplog.sweep()?;
        if swept.files > 0 {
            let (files, bytes) = (swept.files, swept.bytes);
            self.notes
                .push(format!("removed {files} files of transactions that never committed, {bytes} bytes"));
        }
        for note in &self.notes {
            tracing::info!(note, "recovery");
        }
        Ok(())
    }

    fn start(&self, lock: WriterLock) -> Result<Running, StewardError> {
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(body)
                .map_err(|error| StewardError::io("start the threads of", &self.pond, error))
        };
        let (committer, fsync, post_commit) =
            (self.committer.clone(), self.fsync.clone(), self.post_commit.clone());
        let (housekeeper, pond, oplog, control, for_housekeeper) = (
            self.housekeeper.clone(),
            self.pond.clone(),
            self.oplog.clone(),
            self.control.clone(),
            self.committer.clone(),
        );
        Ok(Running {
            lock,
            committer: spawn("pond-commit", Box::new(move || committer.run()))?,
            fsync: spawn("pond-journal", Box::new(move || fsync.run()))?,
            housekeeper: spawn(
                "pond-housekeeper",
                Box::new(move || housekeeper.run(&pond, &oplog, &control, &for_housekeeper)),
            )?,
            post_commit: spawn("pond-factories", Box::new(move || post_commit.run()))?,
        })
    }

    /// Puts the parts together; nothing runs yet.
    fn assemble(
        pond: &Path,
        options: OpenOptions,
        opened: Opened,
        control: Control,
        reserve: Reserve,
        writer: bool,
    ) -> Self {
        let Opened { oplog, tree, notes, .. } = opened;
        let persistence: Arc<dyn PersistenceLayer> = oplog.clone();
        let fs = Arc::new(if writer {
            TinyFs::new(tree, persistence)
        } else {
            TinyFs::read_only(tree, persistence)
        });
        let control = Arc::new(control);
        let housekeeper = Arc::new(Housekeeper::default());
        let progress = Arc::new(Progress::new(&oplog.position(), newest_by_others(pond, &oplog)));
        let observer = Observer {
            control: control.clone(),
            progress: progress.clone(),
            housekeeper: housekeeper.clone(),
        };
        let committer = Arc::new(Committer::new(Parts {
            fs: fs.clone(),
            log: oplog.clone(),
            reserve,
            observer: Arc::new(observer),
            origin: options.origin,
            interval: options.commit_interval.max(Duration::from_millis(1)),
            dirty_limit: options.dirty_limit,
        }));
        let watcher = Arc::new(RwLock::new(None));
        let post_commit = PostCommit {
            fs,
            control: control.clone(),
            registry: options.registry,
            progress: progress.clone(),
            housekeeper: housekeeper.clone(),
            pond: FactoryPond::new(pond, oplog.clone(), committer.clone(), progress, watcher.clone()),
            running: Mutex::new(()),
        };
        Steward {
            pond: pond.to_owned(),
            oplog,
            control,
            fsync: Arc::new(Fsync::new(committer.clone())),
            committer,
            post_commit: Arc::new(post_commit),
            housekeeper,
            watcher,
            notes,
            running: Mutex::new(None),
            writer,
        }
    }
}

/// The newest version that holds more than what factories wrote.
fn newest_by_others(pond: &Path, oplog: &OpLog) -> Version {
    let tip = oplog.position().version;
    match history(pond, Some(64)) {
        Ok(commits) => commits
            .iter()
            .map(|commit| (commit.position.version, &commit.origin.kind))
            .find(|(version, kind)| *version <= tip && *kind != FACTORY_ORIGIN)
            .map_or(tip, |(version, _)| version),
        Err(error) => {
            // A writing factory then runs once more than needed.
            tracing::warn!(%error, "could not tell which commits are factories' own");
            tip
        }
    }
}

/// Passes on how commits go.
struct Observer {
    control: Arc<Control>,
    progress: Arc<Progress>,
    housekeeper: Arc<Housekeeper>,
}

impl CommitObserver for Observer {
    fn started(&self, txn_seq: TxnSeq) {
        self.control.record(ControlRow::transaction(Event::Begin, txn_seq, None, None));
    }

    fn durable(&self, txn_seq: TxnSeq, version: Version) {
        self.control.record(ControlRow::transaction(Event::DataCommitted, txn_seq, Some(version), None));
    }

    fn landed(&self, commit: &CommitInfo, by_factories: bool) {
        let Position { txn_seq, version, .. } = commit.position;
        self.progress.landed(commit, by_factories);
        if version.0.is_multiple_of(CHECKPOINT_EVERY) {
            self.housekeeper.checkpoint_soon();
        }
        self.control.record(ControlRow::transaction(Event::Completed, txn_seq, Some(version), None));
    }

    fn failed(&self, txn_seq: TxnSeq, error: &StorageError) {
        self.control.record(ControlRow::transaction(Event::Failed, txn_seq, None, Some(error.to_string())));
        self.housekeeper.flush_soon();
    }
}
