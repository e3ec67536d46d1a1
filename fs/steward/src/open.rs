//! Opening a pond: the lock, recovery, and putting the Steward's parts together.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};
use pond_oplog::{
    At, Clock, CommitInfo, Incoming, Layout, OpLog, Opened, Options, Origin, Position, TxnSeq, Version,
};
use pond_tinyfs::{PersistenceLayer, Row, StorageError, TinyFs, Tree};

use crate::commit::committer::{CommitObserver, Committer, Parts};
use crate::commit::fsync::Fsync;
use crate::commit::merges::Merges;
use crate::commit::writers::Writers;
use crate::control::row::{ControlRow, Event};
use crate::control::settings::{CACHE_BUDGET_KEY, DIRTY_BUDGET_KEY};
use crate::control::table::Control;
use crate::factories::nodes::FactoryNodes;
use crate::factories::pond::FactoryPond;
use crate::factories::progress::{Progress, newest_by_others};
use crate::factories::runner::Runner;
use crate::host::lock::WriterLock;
use crate::host::memory::HugePages;
use crate::host::reserve::Reserve;
use crate::init;
use crate::replica::follow::Follower;
use crate::replica::incoming::OpenTree;
use crate::steward::Running;
use crate::threads::{self, Threads};
use crate::upkeep::fsck;
use crate::upkeep::housekeeper::Housekeeper;
use crate::upkeep::maintenance::Maintenance;
use crate::{Budgets, Registry, Replica, Role, Steward, StewardError, count};

/// A checkpoint every so many versions.
const CHECKPOINT_EVERY: u64 = 64;

/// Whether data files are to be merged is looked at every so many versions.
const MAINTAIN_EVERY: u64 = 16;

/// How to open a pond.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Longest time from an operation to the start of the commit that holds it. Default 1 s.
    pub commit_interval: Duration,
    /// Budget of content that is accepted and not yet stored, bytes. `None`: the setting `dirty_budget`.
    pub dirty_budget: Option<u64>,
    /// Budget of the content cache in bytes. `None`: the setting `cache_budget`.
    pub cache_budget: Option<u64>,
    /// The factories known.
    pub registry: Registry,
    /// Who asks, for the commits' log entries; secrets must have been redacted.
    pub origin: Origin,
    /// How long to wait for another writer to end; `None` does not wait.
    pub wait_for_lock: Option<Duration>,
    /// Whether a replica that is opened brings versions in by itself; else only [`Steward::sync`] does. Default true.
    pub follow: bool,
    /// Whether data files are merged, pruned and cleaned in the background, which makes versions of its own; else only
    /// [`Steward::maintain`] does. Default true.
    pub maintenance: bool,
    /// Whether factories run after commits; else what they owe is left for the next who opens the pond. Default true.
    pub factories: bool,
    /// What tells the time. Default: the machine.
    pub clock: Arc<Clock>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            commit_interval: Duration::from_secs(1),
            dirty_budget: None,
            cache_budget: None,
            registry: Registry::default(),
            origin: Origin::mount(),
            wait_for_lock: None,
            follow: true,
            maintenance: true,
            factories: true,
            clock: Clock::of_the_machine(),
        }
    }
}

impl OpenOptions {
    fn cache_bytes(&self, control: &Control) -> u64 {
        self.cache_budget.unwrap_or_else(|| control.size(CACHE_BUDGET_KEY))
    }

    /// The budgets of memory, which is had without huge pages from now on.
    pub(crate) fn budgets(&self, control: &Control) -> Budgets {
        HugePages::without();
        let dirty = self.dirty_budget.unwrap_or_else(|| control.size(DIRTY_BUDGET_KEY));
        Budgets { dirty, cache: self.cache_bytes(control) }
    }

    pub(crate) fn log_options(&self, control: &Control) -> Options {
        Options { cache_bytes: self.cache_bytes(control), clock: self.clock.clone(), ..Options::default() }
    }
}

impl Steward {
    /// Opens a pond for writing: takes the writer lock, recovers what the journal holds and commits it, and starts
    /// committing. A pond whose journal is damaged, or that another pond has superseded, opens too but takes no writes.
    ///
    /// A replica shows its newest version and follows its backup store, unless [`OpenOptions::follow`] is off.
    pub fn open(pond: &Path, options: OpenOptions) -> Result<Arc<Steward>, StewardError> {
        init::refuse_unless_pond(pond)?;
        let lock = WriterLock::acquire(pond, options.wait_for_lock)?;
        // Whether it is whole is certain only now.
        init::refuse_unless_pond(pond)?;
        Self::open_with(pond, options, lock)
    }

    /// Opens a pond whose lock is held.
    pub(crate) fn open_with(
        pond: &Path,
        options: OpenOptions,
        lock: WriterLock,
    ) -> Result<Arc<Steward>, StewardError> {
        let control = Control::open(pond, true)?;
        let follow = options.follow;
        let mut steward = match control.role() {
            Role::Source => Self::open_source(pond, options, control)?,
            Role::Replica => Self::open_replica(pond, options, control)?,
        };
        let threads = Threads::start(steward.work(), follow, &mut threads::spawn)?;
        *steward.running.get_mut() = Some(Running { lock, threads });
        Ok(Arc::new(steward))
    }

    pub(crate) fn open_source(
        pond: &Path,
        options: OpenOptions,
        control: Control,
    ) -> Result<Self, StewardError> {
        let mut opened = OpLog::open(pond, &options.log_options(&control))?;
        let recovered = std::mem::take(&mut opened.recovered);
        let tip = opened.oplog.position().version;
        let lost = fsck::lost_versions(&control, Some(tip)).map(|lost| {
            format!(
                "the log ends at version {tip}, and versions up to {} were committed: its newest entries are missing; \
                 `pond fsck --repair` takes them from the backup store, and nothing is removed before they are back",
                lost.end()
            )
        });
        let damage = opened.read_only_because.take().or(lost);
        let reserve = match damage {
            Some(_) => Reserve::none(pond),
            None => Reserve::new(pond, opened.oplog.space()),
        };
        let mut steward = Steward::assemble(pond, options, opened, control, reserve, TinyFs::new);
        match damage {
            Some(why) => steward.committer.refuse_writes(&why, false),
            None => {
                // Before recovery, whose commit must not land on the timeline that the pond was promoted away from.
                steward.set_timeline();
                steward.recover(recovered)?;
                steward.take_up_timeline();
                // What was promised before it was superseded is committed all the same.
                if let Some(why) = steward.control.superseded() {
                    steward.committer.refuse_writes(&why, true);
                }
            }
        }
        Ok(steward)
    }

    fn open_replica(pond: &Path, options: OpenOptions, control: Control) -> Result<Self, StewardError> {
        // First, since it takes what lies above a gap out of the log.
        let (incoming, _) = Incoming::open(pond)?;
        let opened = OpLog::open_read_only(pond, At::Tip, &options.log_options(&control))?;
        let reserve = Reserve::none(pond);
        let mut steward = Steward::assemble(pond, options, opened, control, reserve, TinyFs::following);
        let why = "it is a replica, and follows its backup store (factory_mode:remote is pull)";
        steward.committer.refuse_writes(why, false);
        if holds_segments(&Layout::new(pond).journal())? {
            steward.notes.push(
                "the journal holds changes from when it was a source, which a replica cannot commit".into(),
            );
        }
        let post_commit = &steward.post_commit;
        let open_tree = OpenTree {
            fs: steward.fs().clone(),
            oplog: steward.oplog.clone(),
            watcher: steward.watcher.clone(),
            progress: post_commit.nodes.progress.clone(),
        };
        let replica = Replica::new(pond, incoming, Some(open_tree), None)?;
        steward.follower = Some(Arc::new(Follower::new(replica, post_commit.clone())));
        Ok(steward)
    }

    /// Commits what the journal held, then removes what never committed.
    fn recover(&mut self, recovered: Vec<Row>) -> Result<(), StewardError> {
        let rows = recovered.len();
        let changes = || count(rows as u64, "change");
        match self.committer.commit_recovered(recovered, self.fs().last_lsn()) {
            Ok(()) if rows > 0 => {
                let version = self.position().version;
                self.notes.push(format!("recovered {} from the journal as version {version}", changes()));
            }
            Ok(()) => {}
            // They are in the journal and in memory. A pond on a full disk must open, so that files can be deleted;
            // the sweep waits for the next time.
            Err(error) => {
                self.notes
                    .push(format!("not yet committed is what the journal holds, {}: {error}", changes()));
                return Ok(());
            }
        }
        match self.oplog.sweep() {
            Ok(swept) if swept.files > 0 => {
                let (files, bytes) = (swept.files, swept.bytes);
                self.notes
                    .push(format!("removed {} of transactions that never committed, {bytes} bytes", count(files, "file")));
            }
            Ok(_) => {}
            // It needs log entries that nothing else here does; what is left takes space and does no harm.
            Err(error) => self.notes.push(format!(
                "files of transactions that never committed were not looked for: {error}; `pond fsck` tells more"
            )),
        }
        for note in &self.notes {
            tracing::info!(note, "recovery");
        }
        Ok(())
    }

    /// Puts the parts together; nothing runs yet.
    fn assemble(
        pond: &Path,
        options: OpenOptions,
        opened: Opened,
        mut control: Control,
        reserve: Reserve,
        filesystem: fn(Tree, Arc<dyn PersistenceLayer>) -> TinyFs,
    ) -> Self {
        let Opened { oplog, tree, notes, .. } = opened;
        let persistence: Arc<dyn PersistenceLayer> = oplog.clone();
        let fs = Arc::new(filesystem(tree, persistence));
        control.clock = Some(options.clock.clone());
        let control = Arc::new(control);
        let budgets = options.budgets(&control);
        let (maintained, factories_run) = (options.maintenance, options.factories);
        let housekeeper = Arc::new(Housekeeper::default());
        let merges = Arc::new(Merges::default());
        let position = oplog.position();
        let progress = Arc::new(Progress::new(&position, newest_by_others(pond, position.version)));
        let observer = Observer {
            control: control.clone(),
            progress: progress.clone(),
            housekeeper: housekeeper.clone(),
            merges: merges.clone(),
        };
        let committer = Arc::new(Committer::new(Parts {
            fs: fs.clone(),
            log: oplog.clone(),
            reserve,
            observer: Arc::new(observer),
            origin: options.origin,
            interval: options.commit_interval.max(Duration::from_millis(1)),
            dirty_budget: budgets.dirty,
            merges: merges.clone(),
        }));
        let writers = Arc::new(Writers::new(committer.clone()));
        let committing = Arc::downgrade(&committer);
        oplog.set_pause(Box::new(move || {
            if let Some(committer) = committing.upgrade() {
                committer.give_way();
            }
        }));
        let watcher = Arc::new(RwLock::new(None));
        let post_commit = Arc::new(Runner {
            nodes: FactoryNodes {
                fs: fs.clone(),
                control: control.clone(),
                registry: options.registry,
                progress: progress.clone(),
            },
            housekeeper: housekeeper.clone(),
            pond: FactoryPond {
                path: pond.to_owned(),
                oplog: oplog.clone(),
                control: control.clone(),
                committer: committer.clone(),
                writers: writers.clone(),
                progress,
                watcher: watcher.clone(),
                stopping: Arc::default(),
            },
            running: Mutex::new(()),
        });
        let maintenance = Maintenance {
            oplog: oplog.clone(),
            fs,
            control: control.clone(),
            committer: committer.clone(),
            post_commit: post_commit.clone(),
            turn: Mutex::default(),
            merging: Mutex::default(),
            merges,
            stopping: AtomicBool::new(false),
            stopped: Condvar::new(),
        };
        Steward {
            pond: pond.to_owned(),
            oplog,
            control,
            writers,
            fsync: Arc::new(Fsync::new(committer.clone())),
            committer,
            post_commit,
            maintenance: Arc::new(maintenance),
            maintained,
            factories_run,
            budgets,
            housekeeper,
            watcher,
            notes,
            follower: None,
            running: Mutex::new(None),
        }
    }
}

/// Whether the journal has segments: a clean end leaves none.
pub(crate) fn holds_segments(journal: &Path) -> Result<bool, StewardError> {
    let failed = |error| StewardError::io("list", journal, error);
    for entry in std::fs::read_dir(journal).map_err(failed)? {
        if Path::new(&entry.map_err(failed)?.file_name()).extension().is_some_and(|kind| kind == "segment") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Passes on how commits go.
struct Observer {
    control: Arc<Control>,
    progress: Arc<Progress>,
    housekeeper: Arc<Housekeeper>,
    merges: Arc<Merges>,
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
        if version.0.is_multiple_of(MAINTAIN_EVERY) {
            self.merges.ring();
        }
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
