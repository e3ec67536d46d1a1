//! A log in memory that fails when it is told to, for tests.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use pond_oplog::{Committed, Drained, JournalError, OpLogError, Origin, Position, Timeline, TxnSeq, Version};
use pond_tinyfs::{
    Fold, Lsn, MemoryPersistence, PersistenceLayer, Placed, Record, Row, Space, StorageError, Timestamp,
    TinyFs, Tree, root_row,
};

use crate::commit::committer::{CommitObserver, Committer, Parts};
use crate::commit::drain::{Drainer, placed_rows};
use crate::commit::fsync::Fsync;
use crate::commit::log::CommitLog;
use crate::commit::merges::Merges;
use crate::commit::writers::Writers;
use crate::host::reserve::Reserve;
use crate::pacing::backpressure::DRAINERS;

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    Errno(i32),
    SomeoneElse,
}

#[derive(Default)]
pub(crate) struct State {
    /// The `(lsn, seq)` of rows in versions, and in journal frames, in the order of their writing.
    pub(crate) committed: Vec<(Lsn, u32)>,
    pub(crate) frames: Vec<Vec<(Lsn, u32)>>,
    pub(crate) versions: u64,
    pub(crate) attempts: u64,
    pub(crate) commit_faults: VecDeque<Fault>,
    pub(crate) journal_faults: VecDeque<Fault>,
    pub(crate) drain_faults: VecDeque<Fault>,
    /// The rows in versions, but for their bytes.
    rows: Vec<Row>,
    /// Rows whose content was drained and that no version holds yet.
    pub(crate) drained: Vec<Row>,
    pub(crate) drains: u64,
    /// Faults of the journal do not meet the new segment after a failure.
    pub(crate) restarts_succeed: bool,
    /// Drains wait while this is set.
    pub(crate) hold_drains: bool,
    pub(crate) draining: u64,
    /// Commits wait while this is set.
    pub(crate) hold: bool,
    pub(crate) committing: bool,
    /// There are many small files.
    pub(crate) crowded: bool,
    must_restart: bool,
}

pub(crate) struct FaultyLog {
    pub(crate) state: Mutex<State>,
    pub(crate) changed: Condvar,
    persistence: Arc<MemoryPersistence>,
}

fn names(rows: &[&[Row]]) -> Vec<(Lsn, u32)> {
    rows.iter().flat_map(|rows| rows.iter().map(|row| (row.lsn, row.seq))).collect()
}

fn journal_error(errno: i32) -> JournalError {
    JournalError::Io {
        action: "fsync",
        path: PathBuf::from("journal/1"),
        source: io::Error::from_raw_os_error(errno),
    }
}

impl FaultyLog {
    fn write_frame(&self, rows: &[&[Row]], restart: bool) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        if state.must_restart && !restart {
            return Err(JournalError::MustRestart { path: PathBuf::from("journal") });
        }
        let spared = restart && state.restarts_succeed;
        match state.journal_faults.pop_front().filter(|_| !spared) {
            Some(Fault::Errno(errno)) => {
                // As the real one: a write that met a full disk is taken back.
                state.must_restart |= errno != libc::ENOSPC;
                return Err(journal_error(errno));
            }
            Some(Fault::SomeoneElse) | None => {}
        }
        if restart {
            state.frames.clear();
        }
        state.must_restart = false;
        state.frames.push(names(rows));
        Ok(())
    }
}

impl FaultyLog {
    /// The tree of the newest version.
    pub(crate) fn committed_tree(&self) -> Tree {
        let mut fold = Fold::new();
        fold.push(root_row(Timestamp(0), 0, 0));
        self.state.lock().rows.iter().for_each(|row| fold.push(row.clone()));
        fold.finish().unwrap()
    }
}

impl CommitLog for FaultyLog {
    fn drain(&self, rows: &[Row]) -> Result<(Vec<Drained>, Vec<Placed>), OpLogError> {
        let mut state = self.state.lock();
        state.draining += 1;
        self.changed.notify_all();
        while state.hold_drains {
            self.changed.wait(&mut state);
        }
        state.draining -= 1;
        if let Some(Fault::Errno(errno)) = state.drain_faults.pop_front() {
            return Err(OpLogError::Io {
                action: "write",
                path: "data/_inflight/txn-1.parquet".into(),
                source: io::Error::from_raw_os_error(errno),
            });
        }
        let extents: Vec<Row> =
            rows.iter().filter(|row| matches!(row.record, Record::Extent(_))).cloned().collect();
        let placed = self.persistence.store(&extents);
        state.drained.extend(placed_rows(&extents, placed.clone()).1);
        state.drains += 1;
        // The files are not needed to read: `placed` says where the bytes are.
        Ok((Vec::new(), placed))
    }

    fn commit(
        &self,
        rows: &[&[Row]],
        _: &[&Drained],
        cut_lsn: Lsn,
        _: &Origin,
    ) -> Result<Committed, OpLogError> {
        let mut state = self.state.lock();
        state.attempts += 1;
        state.committing = true;
        self.changed.notify_all();
        while state.hold {
            self.changed.wait(&mut state);
        }
        state.committing = false;
        let path = PathBuf::from("data/_delta_log/1.json");
        match state.commit_faults.pop_front() {
            Some(Fault::Errno(errno)) => {
                return Err(OpLogError::Io {
                    action: "fsync",
                    path,
                    source: io::Error::from_raw_os_error(errno),
                });
            }
            Some(Fault::SomeoneElse) => {
                let version = Version(state.versions + 1);
                return Err(OpLogError::SomeoneElse { version, path, kept: "journal/orphan-1".into() });
            }
            None => {}
        }
        let last = state.committed.last().copied();
        let mut new = names(rows);
        assert!(new.is_sorted(), "{new:?}");
        let drained: Vec<Row> = state.drained.extract_if(.., |row| row.lsn <= cut_lsn).collect();
        new.extend(names(&[&drained]));
        new.sort_unstable();
        assert!(new.windows(2).all(|pair| pair[0] != pair[1]), "a row is in a version twice");
        assert!(new.is_sorted() && new.first().copied() > last, "{new:?} after {last:?}");
        state.committed.extend(new);
        state.versions += 1;
        let position = Position { cut_lsn, ..position(state.versions) };
        let placed: Vec<Placed> = rows.iter().flat_map(|rows| self.persistence.store(rows)).collect();
        state.rows.extend(drained);
        let (metadata, extents) = placed_rows(&rows.concat(), placed.clone());
        state.rows.extend(metadata.into_iter().chain(extents));
        Ok(Committed { position, placed, files: 1, bytes: 1 })
    }

    fn position(&self) -> Position {
        position(self.state.lock().versions)
    }

    fn append(&self, rows: &[&[Row]]) -> Result<(), JournalError> {
        self.write_frame(rows, false)
    }

    fn restart(&self, rows: &[&[Row]]) -> Result<(), JournalError> {
        self.write_frame(rows, true)
    }

    fn must_restart(&self) -> bool {
        self.state.lock().must_restart
    }

    fn rotate(&self) -> Result<(), JournalError> {
        Ok(())
    }

    fn release(&self, _: &Position) -> Result<(), JournalError> {
        Ok(())
    }

    fn space(&self) -> Space {
        self.persistence.space()
    }

    fn keep_back(&self, _: u64) {}

    fn is_crowded(&self, _: TxnSeq) -> bool {
        self.state.lock().crowded
    }
}

fn position(version: u64) -> Position {
    Position {
        version: Version(version),
        digest: String::new(),
        timestamp: version as i64,
        txn_seq: TxnSeq(version + 1),
        cut_lsn: Lsn(0),
        timeline: Timeline::FIRST,
    }
}

/// Counts what it is told.
#[derive(Default)]
pub(crate) struct Told(pub(crate) Mutex<(u64, u64)>);

impl CommitObserver for Told {
    fn started(&self, _: TxnSeq) {}
    fn durable(&self, _: TxnSeq, _: Version) {}
    fn landed(&self, _: &pond_oplog::CommitInfo, _: bool) {
        self.0.lock().0 += 1;
    }
    fn failed(&self, _: TxnSeq, _: &StorageError) {
        self.0.lock().1 += 1;
    }
}

/// A committer and a journal thread over a log that can fail.
pub(crate) struct Rig {
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) log: Arc<FaultyLog>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) merges: Arc<Merges>,
    pub(crate) writers: Arc<Writers>,
    pub(crate) fsync: Arc<Fsync>,
    pub(crate) told: Arc<Told>,
    threads: Vec<std::thread::JoinHandle<()>>,
    pond: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new(interval: std::time::Duration, dirty_budget: u64) -> Self {
        Self::over(MemoryPersistence::new(), interval, dirty_budget)
    }

    /// The same over what is given.
    pub(crate) fn over(
        persistence: Arc<MemoryPersistence>,
        interval: std::time::Duration,
        dirty_budget: u64,
    ) -> Self {
        let pond = tempfile::tempdir().unwrap();
        let mut fold = Fold::new();
        fold.push(root_row(Timestamp::now(), 0, 0));
        let fs = Arc::new(TinyFs::new(fold.finish().unwrap(), persistence.clone()));
        let log = Arc::new(FaultyLog { state: Mutex::default(), changed: Condvar::new(), persistence });
        let told = Arc::new(Told::default());
        let space = Space { total: 100 << 20, free: 50 << 20, available: 50 << 20 };
        let merges = Arc::new(Merges::default());
        let committer = Arc::new(Committer::new(Parts {
            fs: fs.clone(),
            log: log.clone(),
            reserve: Reserve::new(pond.path(), space),
            observer: told.clone(),
            origin: Origin::mount(),
            interval,
            dirty_budget,
            merges: merges.clone(),
        }));
        let writers = Arc::new(Writers::new(committer.clone()));
        let fsync = Arc::new(Fsync::new(committer.clone()));
        let (for_commits, for_fsyncs) = (committer.clone(), fsync.clone());
        let mut threads =
            vec![std::thread::spawn(move || for_commits.run()), std::thread::spawn(move || for_fsyncs.run())];
        for _ in 0..DRAINERS {
            let drainer = Drainer::new(committer.clone());
            threads.push(std::thread::spawn(move || drainer.run()));
        }
        Rig { fs, log, committer, merges, writers, fsync, told, threads, pond }
    }

    pub(crate) fn fsync_wait(&self) -> Result<(), pond_tinyfs::Error> {
        self.fsync_on(false)
    }

    /// On this thread, where that is possible.
    pub(crate) fn fsync_here(&self) -> Result<(), pond_tinyfs::Error> {
        self.fsync_on(true)
    }

    fn fsync_on(&self, here: bool) -> Result<(), pond_tinyfs::Error> {
        let (answer, answered) = std::sync::mpsc::channel();
        self.fsync.fsync(Box::new(move |result| answer.send(result).unwrap()), here);
        answered.recv_timeout(std::time::Duration::from_secs(30)).unwrap()
    }

    pub(crate) fn has_reserve(&self) -> bool {
        self.pond.path().join("reserve").exists()
    }

    /// Lets drains stop before they write, and start again.
    pub(crate) fn hold_drains(&self, hold: bool) {
        self.log.state.lock().hold_drains = hold;
        self.log.changed.notify_all();
    }

    /// Lets commits stop before they land, and start again.
    pub(crate) fn hold_commits(&self, hold: bool) {
        self.log.state.lock().hold = hold;
        self.log.changed.notify_all();
    }

    pub(crate) fn wait_until(&self, what: impl Fn(&State) -> bool) {
        let mut state = self.log.state.lock();
        while !what(&state) {
            let slice = std::time::Duration::from_secs(30);
            assert!(!self.log.changed.wait_for(&mut state, slice).timed_out(), "it did not happen");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.hold_commits(false);
        self.hold_drains(false);
        self.fsync.stop();
        self.committer.stop();
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
