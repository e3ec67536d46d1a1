//! Opening a pond: for writing, or one version of it for reading.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use pond_tinyfs::{Fold, Lsn, Row, Tree};

use crate::disk::space::SpaceGauge;
use crate::disk::spill::Spills;
use crate::disk::{durable, pin};
use crate::files::content::DataFiles;
use crate::files::digests::Digests;
use crate::journal::recovery::{self, Recovered};
use crate::journal::segment::base_of;
use crate::log::action::Add;
use crate::log::delta::Log;
use crate::log::followed::Followed;
use crate::log::live::Live;
use crate::log::replaced::Replaced;
use crate::log::snapshot::{self, Snapshot};
use crate::log::{format, reading};
use crate::oplog::Opening;
use crate::oplog::turn::Turns;
use crate::{At, Clock, Identity, Journal, Layout, OpLog, OpLogError, Position, Version};

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

/// A version that the log has, of a pond that this program can read.
struct Found {
    layout: Layout,
    log: Log,
    snapshot: Snapshot,
    identity: Identity,
    position: Position,
}

impl OpLog {
    /// Opens for writing; the caller holds the writer's lock. Loads the newest version and what the journal has beyond it.
    pub fn open(pond: &Path, options: &Options) -> Result<Opened, OpLogError> {
        let found = Found::at(pond, At::Tip)?;
        let Found { layout, log, snapshot, identity, position } = &found;
        // The newest entry may come from a process that was killed before it had synced the entry's name.
        durable::sync_directory(&layout.delta_log()).map_err(OpLogError::io("fsync", &layout.delta_log()))?;
        format::check_writable(log, identity)?;
        layout.ensure_work_directories()?;
        pin::ensure_if_there_is_room(pond)?;
        let base = base_of(position);
        let digest_of = |version| match version == position.version.0 {
            true => Ok(Some(base.digest)),
            false => match log.read(Version(version)) {
                Ok(entry) => Ok(blake3::Hash::from_hex(&entry.digest).ok().map(|hash| *hash.as_bytes())),
                Err(OpLogError::MissingEntry { .. }) => Ok(None),
                Err(error) => Err(error),
            },
        };
        let (directory, cut_lsn, newest) = (layout.journal(), position.cut_lsn, position.version.0);
        let Recovered { rows, segments, notes, damage, foreign } =
            recovery::recover(&directory, identity.pond_id, cut_lsn, newest, &digest_of)?;
        let read_only_because = damage.or(foreign);
        let journal = match &read_only_because {
            None => Journal::new(&directory, identity.pond_id, segments, base)?,
            Some(why) => Journal::closed(&directory, identity.pond_id, base, why)?,
        };
        let writable = read_only_because.clone().map_or(Ok(()), Err);
        let notes = snapshot.notes.iter().cloned().chain(notes).collect();
        let (oplog, tree) = found.load(journal, writable, &rows, options)?;
        Ok(Opened { oplog, tree, recovered: rows, notes, read_only_because })
    }

    /// Opens one version for reading. Takes no lock, does not look at the journal, writes nothing.
    pub fn open_read_only(pond: &Path, at: At, options: &Options) -> Result<Opened, OpLogError> {
        let found = Found::at(pond, at)?;
        let why = "it was opened for reading only";
        let base = base_of(&found.position);
        let journal = Journal::closed(&found.layout.journal(), found.identity.pond_id, base, why)?;
        let notes = found.snapshot.notes.clone();
        let (oplog, tree) = found.load(journal, Err(why.into()), &[], options)?;
        Ok(Opened { oplog, tree, recovered: Vec::new(), notes, read_only_because: Some(why.into()) })
    }
}

impl Found {
    fn at(pond: &Path, at: At) -> Result<Found, OpLogError> {
        let layout = Layout::new(pond);
        let log = Log::new(&layout.data());
        let snapshot = snapshot::load(&log, at)?;
        let identity = format::identity(&log, &snapshot)?;
        let position = snapshot.position(&log)?;
        Ok(Found { layout, log, snapshot, identity, position })
    }

    /// Loads the version's tree, with these rows from the journal on top.
    fn load(
        self,
        journal: Journal,
        writable: Result<(), String>,
        recovered: &[Row],
        options: &Options,
    ) -> Result<(Arc<OpLog>, Tree), OpLogError> {
        let Found { layout, log, snapshot, identity, position } = self;
        let files = DataFiles::new(log.table(), options.cache_bytes, options.open_files);
        let cut_lsn = position.cut_lsn;
        let live = Live::default();
        live.set_floor(snapshot.floor());
        live.set_kept(snapshot.kept(&log)?);
        live.set_tags(snapshot.tags());
        // Operations on unlinked files leave no rows, so the rows alone do not tell how far the numbers went.
        let mut fold = Fold::starting_at(cut_lsn);
        let mut number = |add: &Add| {
            let number = files.add(&add.path, Digests::of(add).as_ref());
            live.insert(add.clone(), number);
            number
        };
        let version = snapshot.version;
        let holder = reading::holder(&log, snapshot)?;
        reading::read(&log, &holder, version, (Lsn(0), cut_lsn), &mut number, |row| fold.push(row))?;
        recovered.iter().for_each(|row| fold.push(row.clone()));
        let tree = fold.finish().map_err(|error| OpLogError::Fold { version, why: error.to_string() })?;
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
            turns: Turns::new(writable),
            pause: OnceLock::new(),
            layout,
            log,
            identity,
            files,
            journal,
        };
        Ok((Arc::new(oplog), tree))
    }
}
