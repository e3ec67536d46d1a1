//! A pond's history: opened, extended by commits, read from.
//!
//! The Steward is its only writer. It holds the writer's lock; this holds the numbers: version,
//! transaction, cut and time only ever grow, and each commit is one log entry put where none is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use pond_tinyfs::{Fold, Location, Lsn, PersistenceLayer, Placed, Record, Row, Space, StorageError, Tree};

use crate::disk::durable;
use crate::disk::space::SpaceGauge;
use crate::disk::spill::Spills;
use crate::exchange::followed::Followed;
use crate::files::content::{CacheUse, DataFiles};
use crate::files::data_file::{self, Digests, Effort, Written};
use crate::files::drain::Drained;
use crate::journal::recovery::{self, Recovered};
use crate::journal::writer::base_of;
use crate::log::action::{Action, Add, CommitInfo, Metadata, Protocol, Txn, metric};
use crate::log::delta::{self, Log, Put};
use crate::log::format::{self, FORMAT, MIN_READER, MIN_WRITER, POND_ID, identity};
use crate::log::snapshot::{self, Snapshot};
use crate::log::{checkpoint, reading};
use crate::parallel::threads;
use crate::rows::schema;
use crate::upkeep::clean::Replaced;
use crate::upkeep::live::Live;
use crate::upkeep::pin;
use crate::{
    At, Clock, DamageMet, Identity, Journal, Layout, OpLogError, Origin, PondId, Position, TxnSeq, Version,
};

/// How to open.
#[derive(Clone, Debug)]
pub struct Options {
    /// Budget of decoded extents in bytes.
    pub cache_bytes: u64,
    /// Descriptors kept open for data files.
    pub open_files: usize,
    /// What tells the time.
    pub clock: Arc<Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Options { cache_bytes: 256 << 20, open_files: open_files(), clock: Clock::of_the_machine() }
    }
}

/// Descriptors that are kept open for data files: an eighth of those that this process may have, at most 128.
fn open_files() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it is given a pointer to a live value.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    let most = if told { usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX) } else { 1024 };
    (most / 8).clamp(4, 128)
}

/// What opening gives.
pub struct Opened {
    /// The log.
    pub oplog: Arc<OpLog>,
    /// The tree, recovered rows included.
    pub tree: Tree,
    /// Rows from the journal that no version holds yet, in `(lsn, seq)` order: commit them first.
    pub recovered: Vec<Row>,
    /// What opening did beyond reading, for the log and the user.
    pub notes: Vec<String>,
    /// Why nothing may be written: the journal is damaged, or belongs to another history.
    pub read_only_because: Option<String>,
}

/// What a commit did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The new version.
    pub position: Position,
    /// Where the bytes of each extent row lie now.
    pub placed: Vec<Placed>,
    /// Data files written.
    pub files: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// One pond's Delta table, its journal and its content.
pub struct OpLog {
    layout: Layout,
    log: Log,
    identity: Identity,
    files: DataFiles,
    journal: Journal,
    spills: Spills,
    space: SpaceGauge,
    position: RwLock<Position>,
    /// Timeline of the commits to come, if it is a later one than the last commit's; else 0.
    timeline: AtomicU64,
    /// The data files of the newest version.
    live: Live,
    replaced: Replaced,
    /// Numbers of files that were read ahead of the position.
    ahead: Mutex<BTreeMap<String, u32>>,
    followed: Followed,
    /// Held while a commit is under way; says why there can be no more.
    commit: Mutex<Result<(), String>>,
    pause: OnceLock<Pause>,
    clock: Arc<Clock>,
    opened: Opening,
}

/// When and at which version a log was opened.
#[derive(Clone, Copy, Debug)]
struct Opening {
    version: Version,
    /// By the clock that nobody sets.
    boot: i64,
}

/// Is called between pieces of work of some milliseconds by each thread that makes a commit's or a drain's files; may sleep.
pub type Pause = Box<dyn Fn() + Send + Sync>;

impl OpLog {
    /// Makes a pond: the table with version 0, which holds the root directory's row, and an empty journal.
    /// Directories that are there already are used, and `pond` becomes private (mode 0700); a table that is
    /// there is an error.
    pub fn create(pond: &Path, root: Row, origin: &Origin) -> Result<(), OpLogError> {
        let layout = Layout::new(pond);
        let log = Log::new(&layout.data());
        if log.list().is_ok() {
            return Err(OpLogError::Exists { path: layout.data() });
        }
        ensure_directories([pond.to_path_buf()])?;
        fs::set_permissions(pond, fs::Permissions::from_mode(0o700))
            .map_err(OpLogError::io("set the mode of", pond))?;
        log.create_directories()?;
        ensure_directories([layout.inflight(), layout.journal()])?;
        pin::ensure(pond)?;
        let pond_id = PondId::random();
        let (txn_seq, cut_lsn, now) = (TxnSeq(1), root.lsn, now_ms());
        let schema = schema::delta_schema(&schema::ROWS)
            .map_err(|why| OpLogError::Encode { path: layout.data(), why })?;
        let configuration = [
            (POND_ID, pond_id.to_string()),
            (MIN_READER, FORMAT.to_string()),
            (MIN_WRITER, FORMAT.to_string()),
            ("delta.enableExpiredLogCleanup", "false".to_string()),
            // Nobody else may clean, so nobody needs to be told for long what was replaced; checkpoints stay small.
            ("delta.deletedFileRetentionDuration", "interval 1 second".to_string()),
            ("delta.dataSkippingStatsColumns", schema::STATISTICS.join(",")),
        ];
        let start = vec![
            Action::from(Protocol::pond()),
            Action::from(Metadata {
                id: uuid::Uuid::new_v4().to_string(),
                name: Some("oplog".into()),
                description: Some("The history of a pond; only pond writes it".into()),
                format: Default::default(),
                schema_string: schema,
                partition_columns: Vec::new(),
                configuration: configuration.map(|(name, value)| (name.to_string(), value)).into(),
                created_time: Some(now),
            }),
        ];
        let rows = [root];
        let effort = Effort { threads: threads(), pause: &|| {} };
        let written = write_files(&layout, &[&rows], txn_seq, now, effort)?;
        let next = Next { version: Version(0), timestamp: now, txn_seq, cut_lsn, timeline: 1 };
        let bytes = entry(&next, pond_id, origin, start, &written, (&[], 0))
            .map_err(|error| OpLogError::Encode { path: layout.delta_log(), why: error.to_string() })?;
        match log.put(Version(0), &bytes)? {
            Put::Done => Ok(()),
            Put::SomeoneElse => Err(OpLogError::Exists { path: layout.data() }),
        }
    }

    /// Opens for writing; the caller holds the writer's lock. Loads the newest version and what the journal has beyond it.
    pub fn open(pond: &Path, options: &Options) -> Result<Opened, OpLogError> {
        let layout = Layout::new(pond);
        let log = Log::new(&layout.data());
        let snapshot = snapshot::load(&log, At::Tip)?;
        // The newest entry may come from a process that was killed before it had synced the entry's name.
        durable::sync_directory(&layout.delta_log()).map_err(OpLogError::io("fsync", &layout.delta_log()))?;
        let identity = identity(&log, &snapshot)?;
        format::check_writable(&log, &identity)?;
        let position = position(&log, &snapshot)?;
        ensure_directories([layout.inflight(), layout.journal()])?;
        pin::ensure_if_there_is_room(pond)?;
        let digest_of = |version| match version == position.version.0 {
            true => Ok(Some(base_of(&position).digest)),
            false => match log.read(Version(version)) {
                Ok(entry) => Ok(blake3::Hash::from_hex(&entry.digest).ok().map(|hash| *hash.as_bytes())),
                Err(OpLogError::MissingEntry { .. }) => Ok(None),
                Err(error) => Err(error),
            },
        };
        let Recovered { rows, segments, notes, damage, foreign } = recovery::recover(
            &layout.journal(),
            identity.pond_id,
            position.cut_lsn,
            position.version.0,
            &digest_of,
        )?;
        let base = base_of(&position);
        let read_only_because = damage.or(foreign);
        let journal = match &read_only_because {
            None => Journal::new(&layout.journal(), identity.pond_id, segments, base)?,
            Some(why) => Journal::closed(&layout.journal(), identity.pond_id, base, why)?,
        };
        let writable = read_only_because.clone().map_or(Ok(()), Err);
        let notes = snapshot.notes.iter().cloned().chain(notes).collect();
        let (oplog, tree) = Self::load(layout, log, &snapshot, identity, journal, writable, &rows, options)?;
        Ok(Opened { oplog, tree, recovered: rows, notes, read_only_because })
    }

    /// Opens one version for reading. Takes no lock, does not look at the journal, writes nothing.
    pub fn open_read_only(pond: &Path, at: At, options: &Options) -> Result<Opened, OpLogError> {
        let layout = Layout::new(pond);
        let log = Log::new(&layout.data());
        let snapshot = snapshot::load(&log, at)?;
        let identity = identity(&log, &snapshot)?;
        let why = "it was opened for reading only";
        let base = base_of(&position(&log, &snapshot)?);
        let journal = Journal::closed(&layout.journal(), identity.pond_id, base, why)?;
        let notes = snapshot.notes.clone();
        let (oplog, tree) =
            Self::load(layout, log, &snapshot, identity, journal, Err(why.into()), &[], options)?;
        Ok(Opened { oplog, tree, recovered: Vec::new(), notes, read_only_because: Some(why.into()) })
    }

    #[allow(clippy::too_many_arguments)] // One caller each for writing and reading; a struct would name the same things again.
    fn load(
        layout: Layout,
        log: Log,
        snapshot: &Snapshot,
        identity: Identity,
        journal: Journal,
        writable: Result<(), String>,
        recovered: &[Row],
        options: &Options,
    ) -> Result<(Arc<OpLog>, Tree), OpLogError> {
        let files = DataFiles::new(log.table(), options.cache_bytes, options.open_files);
        let cut_lsn = position(&log, snapshot)?.cut_lsn;
        let live = Live::default();
        live.set_floor(snapshot.floor());
        // Operations on unlinked files leave no rows, so the rows alone do not tell how far the numbers went.
        let mut fold = Fold::starting_at(cut_lsn);
        let mut number = |add: Add| {
            let number = files.add(&add.path, Digests::of(&add).as_ref());
            live.insert(add, number);
            number
        };
        reading::read(&log, snapshot, Lsn(0), cut_lsn, &mut number, |row| fold.push(row))?;
        recovered.iter().for_each(|row| fold.push(row.clone()));
        let tree = fold
            .finish()
            .map_err(|error| OpLogError::Fold { version: snapshot.version, why: error.to_string() })?;
        let position = position(&log, snapshot)?;
        let version = position.version;
        let oplog = OpLog {
            clock: options.clock.clone(),
            opened: Opening { version, boot: options.clock.boot() },
            spills: Spills::new(layout.root()),
            space: SpaceGauge::new(layout.root()),
            position: RwLock::new(position),
            timeline: AtomicU64::new(0),
            live,
            replaced: Replaced::since(version),
            ahead: Mutex::default(),
            followed: Followed::default(),
            commit: Mutex::new(writable),
            pause: OnceLock::new(),
            layout,
            log,
            identity,
            files,
            journal,
        };
        Ok((Arc::new(oplog), tree))
    }

    /// Sets what commits and drains call in between; the first one stays.
    pub fn set_pause(&self, pause: Pause) {
        self.pause.get_or_init(|| pause);
    }

    /// Memory that is taken by what is kept for readers.
    pub fn cache_use(&self) -> CacheUse {
        self.files.cache_use()
    }

    pub(crate) fn effort(&self) -> Effort<'_> {
        let pause: &(dyn Fn() + Sync) = match self.pause.get() {
            Some(pause) => pause,
            None => &|| {},
        };
        Effort { threads: threads(), pause }
    }

    /// What tells the time.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The newest version that may be older than `age`: what was made since this was opened is not, unless that is so long ago.
    pub fn newest_of_age(&self, age: Duration) -> Version {
        match self.clock.since(self.opened.boot) >= age {
            true => self.position().version,
            false => self.opened.version,
        }
    }

    /// Who the pond is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where history stands.
    pub fn position(&self) -> Position {
        self.position.read().clone()
    }

    /// Where the pond's parts lie.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The journal; of a log that was opened for reading it takes nothing.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Sets how many bytes [`PersistenceLayer::space`] keeps back from writers.
    pub fn set_reserve(&self, bytes: u64) {
        self.space.set_reserve(bytes);
    }

    /// Makes one version that holds these rows: data files, synced and moved into place, then the log entry.
    /// `cut_lsn` is the last operation that the rows hold.
    ///
    /// # Errors
    ///
    /// After an error nothing was committed and the same commit may be tried again, on a full disk too
    /// ([`OpLogError::is_full`]), but for two: [`OpLogError::SomeoneElse`], when another writer made the version, and the
    /// journal and these rows were moved aside; and [`OpLogError::Unconfirmed`], when syncing the entry failed.
    /// Both end writing for good.
    pub fn commit(&self, rows: &[&[Row]], cut_lsn: Lsn, origin: &Origin) -> Result<Committed, OpLogError> {
        self.commit_drained(rows, &[], cut_lsn, origin)
    }

    /// A [`commit`](Self::commit) that also names files which [`drain`](Self::drain) wrote. After an error they are as good as before.
    pub fn commit_drained(
        &self,
        rows: &[&[Row]],
        drained: &[&Drained],
        cut_lsn: Lsn,
        origin: &Origin,
    ) -> Result<Committed, OpLogError> {
        let mut open = self.commit.lock();
        if let Err(why) = &*open {
            return Err(OpLogError::ReadOnly { path: self.log.table().to_path_buf(), why: why.clone() });
        }
        let last = self.position();
        let stale =
            rows.iter().flat_map(|rows| rows.iter()).find(|row| row.lsn <= last.cut_lsn || row.lsn > cut_lsn);
        if let Some(row) = stale {
            let why = format!(
                "operation {} of node {} does not lie between the cut of version {}, {}, and that of this commit, {cut_lsn}",
                row.lsn, row.node, last.version, last.cut_lsn
            );
            return Err(OpLogError::Encode { path: self.log.table().to_path_buf(), why });
        }
        let next = Next::after(&last, cut_lsn, self.timeline(), self.clock.now().time);
        let named = self.name_drained(drained, next.txn_seq)?;
        let written = write_files(&self.layout, rows, next.txn_seq, next.timestamp, self.effort())
            .and_then(|written| {
                if written.is_empty() && !named.is_empty() {
                    let data = self.layout.data();
                    durable::sync_directory(&data).map_err(OpLogError::io("fsync", &data))?;
                }
                Ok(written)
            })
            .inspect_err(|_| drained.iter().for_each(|drained| drained.distrust_name()))?;
        let drained_rows: u64 = drained.iter().map(|drained| drained.rows()).sum();
        let put = entry(&next, self.identity.pond_id, origin, Vec::new(), &written, (&named, drained_rows))
            .map_err(|error| OpLogError::Encode {
                path: self.log.entry_path(next.version),
                why: error.to_string(),
            })
            .and_then(|bytes| Ok((self.log.put(next.version, &bytes)?, bytes)));
        self.space.refresh();
        let bytes = match put {
            Ok((Put::Done, bytes)) => bytes,
            Ok((Put::SomeoneElse, _)) => {
                let why = format!("another writer made version {}", next.version);
                *open = Err(why.clone());
                let kept = self.journal.orphan(rows, &why).and_then(|kept| {
                    self.orphan_drained(drained, &kept)?;
                    Ok(kept)
                });
                let kept = match kept {
                    Ok(kept) => kept.display().to_string(),
                    Err(error) => format!("the journal, which could not be moved ({error})"),
                };
                let path = self.log.entry_path(next.version);
                return Err(OpLogError::SomeoneElse { version: next.version, path, kept });
            }
            Err(error) => {
                match &error {
                    OpLogError::Unconfirmed { .. } => *open = Err(error.to_string()),
                    _ => discard(&written),
                }
                return Err(error);
            }
        };
        let mut placed = Vec::new();
        for file in &written {
            let number = self.files.add(&file.add.path, Digests::of(&file.add).as_ref());
            self.live.insert(file.add.clone(), number);
            placed.extend(placed_in(file, number));
        }
        for (add, drained) in named.iter().zip(drained) {
            self.live.insert(add.clone(), drained.number());
        }
        let position = next.position(&bytes);
        *self.position.write() = position.clone();
        let adds = written.iter().map(|file| &file.add).chain(&named);
        let bytes = adds.map(|add| add.size).sum();
        Ok(Committed { position, placed, files: (written.len() + named.len()) as u32, bytes })
    }

    /// Writes a checkpoint of the current version. Commits may go on meanwhile. Call it from a thread that runs no
    /// async tasks.
    pub fn checkpoint(&self) -> Result<Version, OpLogError> {
        let version = self.position().version;
        self.checkpoint_at(version)?;
        Ok(version)
    }

    /// As [`checkpoint`](Self::checkpoint), unless there is a whole one of the current version already; the version of which one was
    /// written.
    pub fn checkpoint_unless_there(&self) -> Result<Option<Version>, OpLogError> {
        let version = self.position().version;
        match self.log.list()?.checkpoints.last() {
            Some(&last) if last == version.0 && snapshot::is_whole(&self.log, version)? => Ok(None),
            _ => self.checkpoint().map(Some),
        }
    }

    pub(crate) fn checkpoint_at(&self, version: Version) -> Result<(), OpLogError> {
        checkpoint::write(&self.log, version)
    }

    pub(crate) fn files(&self) -> &DataFiles {
        &self.files
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn replaced(&self) -> &Replaced {
        &self.replaced
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Has the space that is left measured anew: some was just taken.
    pub(crate) fn refresh_space(&self) {
        self.space.refresh();
    }

    pub(crate) fn set_position(&self, position: Position) {
        *self.position.write() = position;
    }

    /// What came by following, for figures.
    pub(crate) fn followed(&self) -> &Followed {
        &self.followed
    }

    /// Damaged content that readers met since the log was opened.
    pub fn damage_met(&self) -> DamageMet {
        self.files.damage_met()
    }

    /// Numbers of files that were read ahead of the position, by name.
    pub(crate) fn ahead(&self) -> &Mutex<BTreeMap<String, u32>> {
        &self.ahead
    }

    /// Commits from the next one on belong to this timeline. Timelines only grow: a lower one than the last commit's
    /// changes nothing.
    pub fn set_timeline(&self, timeline: u64) {
        self.timeline.store(timeline, Ordering::Release);
    }

    pub(crate) fn timeline(&self) -> u64 {
        self.timeline.load(Ordering::Acquire)
    }

    pub(crate) fn commit_lock(&self) -> &Mutex<Result<(), String>> {
        &self.commit
    }
}

impl PersistenceLayer for OpLog {
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        if Spills::holds(location) {
            return self.spills.read(location, skip, length);
        }
        self.files.read(location, skip, length)
    }

    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        self.files.cached(location, skip, length)
    }

    fn prefetch(&self, location: Location) {
        if !Spills::holds(location) {
            self.files.prefetch(location);
        }
    }

    fn prefetch_budget(&self) -> u64 {
        self.files.prefetch_budget()
    }

    fn space(&self) -> Space {
        self.space.get()
    }

    fn space_now(&self) -> Space {
        self.space.refresh();
        self.space.get()
    }

    fn open_spill(&self) -> Result<u32, StorageError> {
        Ok(self.spills.create())
    }

    fn write_spill(&self, spill: u32, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.spills.write(spill, offset, data)
    }

    fn close_spill(&self, spill: u32) {
        self.spills.close(spill);
    }
}

/// The numbers of a commit to be.
pub(crate) struct Next {
    pub(crate) version: Version,
    /// Milliseconds since 1970 UTC.
    pub(crate) timestamp: i64,
    pub(crate) txn_seq: TxnSeq,
    pub(crate) cut_lsn: Lsn,
    pub(crate) timeline: u64,
}

impl Next {
    pub(crate) fn after(last: &Position, cut_lsn: Lsn, timeline: u64, now: i64) -> Self {
        Next {
            version: last.version.next(),
            // The log counts milliseconds, and two commits within one must differ, as must any before a clock set back.
            timestamp: (now / 1000).max(last.timestamp / 1000 + 1),
            txn_seq: last.txn_seq.next(),
            cut_lsn: cut_lsn.max(last.cut_lsn),
            timeline: timeline.max(last.timeline),
        }
    }

    pub(crate) fn position(&self, entry: &[u8]) -> Position {
        Position {
            version: self.version,
            digest: blake3::hash(entry).to_hex().to_string(),
            timestamp: self.timestamp.saturating_mul(1000),
            txn_seq: self.txn_seq,
            cut_lsn: self.cut_lsn,
            timeline: self.timeline,
        }
    }
}

/// Where the extents of a file lie that has this number.
pub(crate) fn placed_in(file: &Written<'_>, number: u32) -> impl Iterator<Item = Placed> {
    file.extents.iter().filter_map(move |&(row, extent)| match &extent.record {
        Record::Extent(record) => Some(Placed {
            node: extent.node,
            lsn: extent.lsn,
            seq: extent.seq,
            offset: record.offset,
            length: record.length,
            location: Location { file: number, row },
        }),
        _ => None,
    })
}

/// The bytes of the log entry that adds these files, and these drained ones with so many rows.
fn entry(
    next: &Next,
    pond_id: PondId,
    origin: &Origin,
    start: Vec<Action>,
    written: &[Written<'_>],
    (drained, drained_rows): (&[Add], u64),
) -> Result<Vec<u8>, serde_json::Error> {
    let adds = || written.iter().map(|file| &file.add).chain(drained);
    let metrics = [
        (metric::ROWS, written.iter().map(|file| file.rows).sum::<u64>() + drained_rows),
        (metric::FILES, adds().count() as u64),
        (metric::BYTES, adds().map(|add| add.size).sum()),
    ];
    let mut actions = vec![Action::from(CommitInfo {
        timestamp: next.timestamp,
        operation: if start.is_empty() { "WRITE" } else { "CREATE TABLE" }.into(),
        operation_parameters: BTreeMap::from([("mode".into(), "Append".into())]),
        operation_metrics: metrics.map(|(name, value): (_, u64)| (name.into(), value)).into(),
        engine_info: Some(concat!("pond/", env!("CARGO_PKG_VERSION")).into()),
        pond_id: Some(pond_id),
        timeline: Some(next.timeline),
        txn_seq: Some(next.txn_seq.0),
        cut_lsn: Some(next.cut_lsn.0),
        origin: Some(origin.clone()),
        digest: None,
    })];
    actions.extend(start);
    actions.push(Action::from(Txn {
        app_id: pond_id.to_string(),
        version: next.cut_lsn.0 as i64,
        last_updated: Some(next.timestamp),
    }));
    actions.extend(adds().cloned().map(Action::from));
    delta::encode(&actions)
}

/// Writes all rows into data files and moves them into place; all names are durable.
fn write_files<'a>(
    layout: &Layout,
    rows: &[&'a [Row]],
    txn_seq: TxnSeq,
    now: i64,
    effort: Effort<'_>,
) -> Result<Vec<Written<'a>>, OpLogError> {
    let mut written: Vec<Written<'_>> = Vec::new();
    let result = data_file::plan(rows).into_iter().try_for_each(|plan| {
        written.push(data_file::write(&layout.inflight(), plan, txn_seq, now, effort)?);
        Ok(())
    });
    if let Err(error) = result {
        discard(&written);
        return Err(error);
    }
    let data = layout.data();
    let moved = written.iter_mut().try_for_each(|file| {
        let target = data.join(&file.add.path);
        durable::rename(&file.path, &target).map_err(OpLogError::io("move", &file.path))?;
        file.path = target;
        Ok(())
    });
    let moved = moved.and_then(|()| match written.is_empty() {
        true => Ok(()),
        false => durable::sync_directory(&data).map_err(OpLogError::io("fsync", &data)),
    });
    if let Err(error) = moved {
        discard(&written);
        return Err(error);
    }
    Ok(written)
}

fn discard(written: &[Written<'_>]) {
    durable::discard(written.iter().map(|file| file.path.as_path()));
}

pub(crate) fn ensure_directories<const N: usize>(directories: [PathBuf; N]) -> Result<(), OpLogError> {
    directories.iter().try_for_each(|directory| {
        durable::ensure_directory(directory).map_err(OpLogError::io("create", directory))
    })
}

/// Where a table stands at a version.
pub(crate) fn position(log: &Log, snapshot: &Snapshot) -> Result<Position, OpLogError> {
    position_of(log, snapshot.version, &snapshot.digest, &snapshot.commit_info)
}

/// Where a table stands at the version of this entry.
pub(crate) fn position_of(
    log: &Log,
    version: Version,
    digest: &str,
    info: &CommitInfo,
) -> Result<Position, OpLogError> {
    let missing = |name: &str| OpLogError::CorruptEntry {
        version,
        path: log.entry_path(version),
        why: format!("its commitInfo has no {name}"),
    };
    Ok(Position {
        version,
        digest: digest.to_string(),
        timestamp: info.timestamp.saturating_mul(1000),
        txn_seq: TxnSeq(info.txn_seq.ok_or_else(|| missing("txn_seq"))?),
        cut_lsn: Lsn(info.cut_lsn.ok_or_else(|| missing("cut_lsn"))?),
        timeline: info.timeline.ok_or_else(|| missing("timeline"))?,
    })
}

pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[cfg(test)]
mod tests;
