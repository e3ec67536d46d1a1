//! Putting the parts of an open pond together; nothing runs yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pond_oplog::{CommitInfo, Incoming, OpLog, Opened, Position, TxnSeq, Version};
use pond_tinyfs::{Advise, PersistenceLayer, StorageError, TinyFs, Tree};

use crate::commit::committer::{CommitObserver, Committer, Parts};
use crate::commit::fsync::Fsync;
use crate::commit::merges::Merges;
use crate::commit::writers::Writers;
use crate::common::Common;
use crate::control::row::{ControlRow, Event};
use crate::control::table::Control;
use crate::factories::nodes::FactoryNodes;
use crate::factories::pond::{FactoryPond, Writes};
use crate::factories::progress::{Progress, newest_by_others};
use crate::factories::runner::Runner;
use crate::host::reserve::Reserve;
use crate::kind::Kind;
use crate::replica::follow::Follower;
use crate::replica::following::Following;
use crate::replica::incoming::OpenTree;
use crate::source::Source;
use crate::upkeep::cleaner::Cleaner;
use crate::upkeep::housekeeper::Housekeeper;
use crate::upkeep::maintenance::Maintenance;
use crate::{Budgets, OpenOptions, Replica, Steward, StewardError};

/// A checkpoint every so many versions.
const CHECKPOINT_EVERY: u64 = 64;

/// Whether data files are to be merged is looked at every so many versions.
const MAINTAIN_EVERY: u64 = 16;

/// What a source and a replica are made of alike.
pub(crate) struct Assembly<'a> {
    pond: &'a Path,
    options: OpenOptions,
    oplog: Arc<OpLog>,
    fs: Arc<TinyFs>,
    control: Arc<Control>,
    budgets: Budgets,
    progress: Arc<Progress>,
    housekeeper: Arc<Housekeeper>,
    notes: Vec<String>,
}

impl<'a> Assembly<'a> {
    /// Of a log that is open and its tree, which `filesystem` makes.
    pub(crate) fn new(
        pond: &'a Path,
        options: OpenOptions,
        opened: Opened,
        mut control: Control,
        filesystem: fn(Tree, Arc<dyn PersistenceLayer>) -> TinyFs,
    ) -> Self {
        let Opened { oplog, tree, notes, .. } = opened;
        let fs = Arc::new(filesystem(tree, oplog.clone()));
        control.clock = Some(options.clock.clone());
        let control = Arc::new(control);
        let budgets = options.budgets(&control);
        let position = oplog.position();
        let progress = Arc::new(Progress::new(&position, newest_by_others(pond, position.version)));
        let housekeeper = Arc::default();
        Assembly { pond, options, oplog, fs, control, budgets, progress, housekeeper, notes }
    }

    /// A pond that makes versions, and what it makes them with.
    pub(crate) fn source(self, reserve: Reserve) -> (Steward, Arc<Source>) {
        let Assembly { oplog, fs, control, progress, housekeeper, .. } = &self;
        let merges = Arc::new(Merges::default());
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
            origin: self.options.origin.clone(),
            interval: self.options.commit_interval.max(Duration::from_millis(1)),
            dirty_budget: self.budgets.dirty,
            merges: merges.clone(),
        }));
        let writers = Arc::new(Writers::new(committer.clone()));
        let committing = Arc::downgrade(&committer);
        oplog.set_pause(Box::new(move || {
            if let Some(committer) = committing.upgrade() {
                committer.give_way();
            }
        }));
        let (common, notes) = self.common(Writes::Committed(writers.clone()));
        let maintenance = Arc::new(Maintenance::new(common.cleaner.clone(), committer.clone(), merges));
        let fsync = Arc::new(Fsync::new(committer.clone()));
        let source = Arc::new(Source { committer, writers, fsync, maintenance });
        (Steward { common, kind: Kind::Source(source.clone()), notes, running: Mutex::new(None) }, source)
    }

    /// A pond that follows another one, from which versions come in.
    pub(crate) fn replica(self, incoming: Incoming) -> Result<Steward, StewardError> {
        let pond = self.pond;
        let (common, notes) = self.common(Writes::Refused);
        let post_commit = &common.post_commit;
        let open_tree = OpenTree {
            fs: common.fs.clone(),
            oplog: common.oplog.clone(),
            watcher: common.watcher.clone(),
            progress: post_commit.nodes.progress.clone(),
        };
        let replica = Replica::new(pond, incoming, Some(open_tree), None)?;
        let following = Following::new(Arc::new(Follower::new(replica, post_commit.clone())));
        Ok(Steward { common, kind: Kind::Replica(Arc::new(following)), notes, running: Mutex::new(None) })
    }

    fn common(self, writes: Writes) -> (Arc<Common>, Vec<String>) {
        let Assembly { pond, options, oplog, fs, control, budgets, progress, housekeeper, notes } = self;
        let watcher = Arc::new(RwLock::new(None));
        let post_commit = Arc::new(Runner {
            nodes: FactoryNodes {
                fs: fs.clone(),
                control: control.clone(),
                registry: options.registry,
                progress: progress.clone(),
                is_fork: oplog.identity().origin.is_some(),
            },
            housekeeper: housekeeper.clone(),
            pond: FactoryPond {
                path: pond.to_owned(),
                fs: fs.clone(),
                oplog: oplog.clone(),
                control: control.clone(),
                writes,
                progress,
                watcher: watcher.clone(),
                stopping: Arc::default(),
            },
            running: Mutex::new(()),
        });
        let cleaner = Cleaner::new(oplog.clone(), fs.clone(), control.clone(), post_commit.clone());
        let common = Common {
            pond: pond.to_owned(),
            fs,
            oplog,
            control,
            post_commit,
            cleaner: Arc::new(cleaner),
            housekeeper,
            watcher,
            budgets,
            maintained: options.maintenance,
            factories_run: options.factories,
        };
        (Arc::new(common), notes)
    }
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
        self.control.record(ControlRow::transaction(Event::Failed, txn_seq, None, Some(error.in_full())));
        self.housekeeper.flush_soon();
    }
}
