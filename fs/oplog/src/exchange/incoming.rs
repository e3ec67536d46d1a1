//! Taking in versions that were made elsewhere, byte for byte.
//!
//! **What survives power loss is always a contiguous prefix of verified versions.** Bytes are synced before they
//! have a name (`staging.rs` for data files, `placing.rs` for entries). The data files of a batch are moved into
//! `data/` and that directory is synced before the first entry of the batch has a name: so an entry that survives
//! finds its files. Entries get their names in ascending order, and one sync of `_delta_log` makes all of a batch
//! durable. Before that sync a file system may keep any of these names and lose others; [`Incoming::open`]
//! therefore takes what follows the first missing version out of the log (`quarantine.rs`), and
//! [`Incoming::position`] moves only after the sync.

mod anew;
mod prepend;

use std::io;
use std::path::Path;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::{durable, listing, pin};
use crate::exchange::export::{self, EntryFacts};
use crate::exchange::quarantine;
use crate::exchange::staging::{StagedFile, Staging, check_name};
use crate::log::delta::{self, Entry, Log};
use crate::log::{checkpoint, format, snapshot};
use crate::{FileRef, Layout, OpLogError, PondId, Position, Version};

/// Versions whose names become durable together.
const BATCH: usize = 256;
/// A checkpoint is due once so many versions lie above the newest.
const CHECKPOINT_INTERVAL: u64 = 64;

/// A version to be taken in. Its bytes were verified by the caller.
#[derive(Clone, Debug)]
pub struct IncomingVersion {
    /// The version.
    pub version: Version,
    /// The bytes of its log entry.
    pub entry: Bytes,
    /// The data files that the entry adds; for a base, all that are live.
    pub files: Vec<FileRef>,
}

/// Takes in versions that were made elsewhere. The caller holds the writer's lock. Files may be staged from
/// several threads at once.
pub struct Incoming {
    pub(crate) layout: Layout,
    pub(crate) log: Log,
    pub(crate) staging: Staging,
    state: Mutex<State>,
    /// The newest checkpoint; held while one is written.
    checkpoint: Mutex<Option<u64>>,
}

pub(crate) struct State {
    /// The newest version that is durable.
    position: Option<Position>,
    pond_id: Option<PondId>,
    /// Why nothing may be applied any more.
    failed: Option<String>,
}

/// A version that was checked against what is here.
pub(crate) struct Checked<'a> {
    pub(crate) incoming: &'a IncomingVersion,
    pub(crate) facts: EntryFacts,
}

impl Incoming {
    /// Opens a replica for taking in; the position is `None` where there is no version yet. Makes the directories
    /// that are missing; takes entries above a gap out of the log; removes files that were not finished, and keeps
    /// staged ones.
    pub fn open(pond: &Path) -> Result<(Incoming, Option<Position>), OpLogError> {
        let layout = Layout::new(pond);
        let log = Log::new(&layout.data());
        layout.ensure_root()?;
        log.create_directories()?;
        layout.ensure_work_directories()?;
        pin::ensure_if_there_is_room(pond)?;
        for directory in [layout.data(), layout.delta_log()] {
            for name in listing::names(&directory)?.iter().filter(|name| durable::is_temporary(name)) {
                let path = directory.join(name);
                durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
            }
        }
        let listing = quarantine::set_gap_aside(&log)?;
        // The newest names may come from a process that was killed before it had synced them. Those in data/ were
        // synced before any entry named them.
        durable::sync_directory(&layout.delta_log()).map_err(OpLogError::io("fsync", &layout.delta_log()))?;
        let (mut position, mut pond_id) = (None, None);
        if let Some(&newest) = listing.entries.last() {
            let version = Version(newest);
            let EntryFacts { position: found, pond_id: whose, .. } =
                export::facts(&log, version, &log.read(version)?)?;
            (position, pond_id) = (Some(found), whose);
        }
        let incoming = Incoming {
            staging: Staging::open(&layout.inflight())?,
            state: Mutex::new(State { position: position.clone(), pond_id, failed: None }),
            checkpoint: Mutex::new(listing.checkpoints.last().copied()),
            layout,
            log,
        };
        Ok((incoming, position))
    }

    /// The newest version that is durable.
    pub fn position(&self) -> Option<Position> {
        self.state.lock().position.clone()
    }

    /// Verified files that wait in `data/_inflight`, from this process or an earlier one, by name.
    pub fn staged(&self) -> Result<Vec<FileRef>, OpLogError> {
        self.staging.list()
    }

    /// Whether a file of this name need not be fetched: it waits in the staging area, or is in `data/` already
    /// because applying it was cut off.
    pub fn is_staged(&self, name: &str) -> bool {
        let held = || -> Result<bool, OpLogError> {
            check_name(name)?;
            Ok(self.staging.length(name)?.is_some()
                || listing::length(&self.layout.data().join(name))?.is_some())
        };
        held().unwrap_or_else(|error| {
            tracing::warn!(%error, name, "cannot tell whether a file was fetched; it will be fetched again");
            false
        })
    }

    /// Begins a file; nobody sees it until [`StagedFile::finish`]. Besides data files, log entries and checkpoints
    /// may wait here too, under [`entry_name`](crate::entry_name) and [`checkpoint_name`](crate::checkpoint_name):
    /// they go once their version is applied.
    pub fn stage(&self, name: &str) -> Result<StagedFile, OpLogError> {
        self.staging.stage(name)
    }

    /// The bytes of a staged file, for small ones; `None` if none of this name waits.
    pub fn read_staged(&self, name: &str) -> Result<Option<Bytes>, OpLogError> {
        check_name(name)?;
        self.staging.read(name)
    }

    /// Opens a staged file for reading, for large ones; `None` if none of this name waits.
    pub fn open_staged(&self, name: &str) -> Result<Option<std::fs::File>, OpLogError> {
        check_name(name)?;
        self.staging.open_file(name)
    }

    /// Removes a staged file that is not needed, if it is there.
    pub fn discard_staged(&self, name: &str) -> Result<(), OpLogError> {
        check_name(name)?;
        self.staging.discard(name)
    }

    /// Applies consecutive versions, whose data files were staged. Versions that are here already with the same bytes
    /// are fine. Gives the newest version that is durable then.
    ///
    /// # Errors
    ///
    /// [`OpLogError::Diverged`] for a version that is here with other bytes, [`OpLogError::NotStaged`],
    /// [`OpLogError::NotApplicable`] and [`OpLogError::BadName`] are found before anything is changed. At an
    /// [`OpLogError::TooNew`] the versions before the one that this program cannot read were applied. After an [`OpLogError::Io`], as of a full disk, the same call may be made again; after
    /// [`OpLogError::Unconfirmed`] (a sync of a directory failed) nothing is applied until the replica is opened
    /// again.
    pub fn apply(&self, versions: &[IncomingVersion]) -> Result<Position, OpLogError> {
        let mut state = self.state.lock();
        state.usable(&self.log)?;
        let (checked, too_new) = self.check(&state, versions)?;
        for batch in checked.chunks(BATCH) {
            let files =
                batch.iter().map(|checked| (checked.incoming.version, checked.facts.added.as_slice()));
            self.move_files(&mut state, files)?;
            self.put_entries(&mut state, batch)?;
            if let Some(last) = batch.last() {
                state.position = Some(last.facts.position.clone());
                state.pond_id = last.facts.pond_id;
            }
        }
        let applied = state.position.as_ref().map(|position| position.version);
        for version in versions.iter().filter(|version| Some(version.version) <= applied) {
            self.forget_staged(&delta::entry_name(version.version));
        }
        if let Some(error) = too_new {
            return Err(error);
        }
        state
            .position
            .clone()
            .ok_or_else(|| self.not_applicable(Version(0), "there was none to apply".into()))
    }

    /// Starts history at a base: `base.files` are all live files, staged before, and `checkpoint` is the table's
    /// state, which only version 0 can do without. Where the base is here already, nothing happens.
    ///
    /// # Errors
    ///
    /// As [`Incoming::apply`]; also [`OpLogError::NotApplicable`] if there is another version here already, or the
    /// checkpoint is not that of these files, and [`OpLogError::CorruptCheckpoint`].
    pub fn install_base(
        &self,
        base: IncomingVersion,
        checkpoint: Option<Bytes>,
    ) -> Result<Position, OpLogError> {
        let mut state = self.state.lock();
        state.usable(&self.log)?;
        let version = base.version;
        let entry = self.log.parse(version, &base.entry)?;
        let facts = export::facts(&self.log, version, &entry)?;
        if let Some(position) = &state.position {
            if *position == facts.position {
                return Ok(position.clone());
            }
            let why = format!("history begins here already and has come to version {}", position.version);
            return Err(self.not_applicable(version, why));
        }
        self.check_base(&base, entry, checkpoint.as_ref())?;
        self.check_files(version, &base.files)?;
        self.move_files(&mut state, std::iter::once((version, base.files.as_slice())))?;
        if let Some(checkpoint) = &checkpoint {
            // Before the entry: an entry whose checkpoint is missing would be the end of a history without a
            // beginning. And the digest first: a checkpoint without it would not be believed.
            checkpoint::install(&self.log, version, checkpoint)?;
            *self.checkpoint.lock() = Some(version.0);
        }
        let position = facts.position.clone();
        let pond_id = facts.pond_id;
        self.put_entries(&mut state, &[Checked { incoming: &base, facts }])?;
        state.position = Some(position.clone());
        state.pond_id = pond_id;
        self.forget_staged(&delta::entry_name(version));
        self.forget_staged(&delta::checkpoint_name(version));
        Ok(position)
    }

    /// Writes a checkpoint if 64 versions or more lie above the newest. Versions may be applied meanwhile. Call it
    /// from a thread that runs no async tasks.
    pub fn checkpoint_if_due(&self) -> Result<(), OpLogError> {
        let Some(position) = self.position() else { return Ok(()) };
        let version = position.version;
        let mut newest = self.checkpoint.lock();
        // Without a checkpoint history begins at 0.
        if version.0 + 1 < newest.map_or(0, |newest| newest + 1) + CHECKPOINT_INTERVAL {
            return Ok(());
        }
        checkpoint::write(&self.log, version)?;
        *newest = Some(version.0);
        Ok(())
    }

    /// Removes what was applied from another copy of its bytes.
    fn forget_staged(&self, name: &str) {
        if let Err(error) = self.staging.discard(name) {
            tracing::warn!(%error, "a staged file that is not needed any more stays");
        }
    }

    fn not_applicable(&self, version: Version, why: String) -> OpLogError {
        OpLogError::NotApplicable { version, table: self.log.table().to_path_buf(), why }
    }

    /// Checks all versions before anything is changed, and gives those that are not here yet; with them why those from one on that
    /// this program cannot read are not among them.
    fn check<'a>(
        &self,
        state: &State,
        versions: &'a [IncomingVersion],
    ) -> Result<(Vec<Checked<'a>>, Option<OpLogError>), OpLogError> {
        let mut last = state.position.clone();
        let mut pond_id = state.pond_id;
        let mut checked = Vec::new();
        for incoming in versions {
            let version = incoming.version;
            if last.as_ref().is_some_and(|last| version <= last.version) {
                self.check_present(incoming, &checked)?;
                continue;
            }
            let entry = self.log.parse(version, &incoming.entry)?;
            let facts = export::facts(&self.log, version, &entry)?;
            match &last {
                Some(last) => self.check_order(last, &facts.position)?,
                None => self.check_base(incoming, entry, None)?,
            }
            if let (Some(ours), Some(theirs)) = (pond_id, facts.pond_id)
                && ours != theirs
            {
                return Err(
                    self.not_applicable(version, format!("it is of pond {theirs} and this is {ours}"))
                );
            }
            if let Err(error) = format::check_known(&self.log, facts.min_reader) {
                // What comes before it can be read all the same.
                return if checked.is_empty() { Err(error) } else { Ok((checked, Some(error))) };
            }
            if !same(&incoming.files, &facts.added) {
                let why = "its log entry adds other files than those that came with it";
                return Err(self.not_applicable(version, why.into()));
            }
            self.check_files(version, &facts.added)?;
            // Left by a process that was killed, or put by one that respects no lock.
            match self.log.read_bytes(version) {
                Err(OpLogError::MissingEntry { .. }) => {}
                Ok(found) if found == incoming.entry => {}
                Ok(_) => return Err(self.diverged(version)),
                Err(error) => return Err(error),
            }
            last = Some(facts.position.clone());
            pond_id = facts.pond_id.or(pond_id);
            checked.push(Checked { incoming, facts });
        }
        Ok((checked, None))
    }

    /// Checks a version that is here, or comes earlier in the same batch.
    fn check_present(&self, incoming: &IncomingVersion, earlier: &[Checked<'_>]) -> Result<(), OpLogError> {
        let version = incoming.version;
        if let Some(earlier) = earlier.iter().find(|earlier| earlier.incoming.version == version) {
            return match earlier.incoming.entry == incoming.entry {
                true => Ok(()),
                false => Err(self.not_applicable(version, "it comes twice, with different entries".into())),
            };
        }
        match self.log.read_bytes(version) {
            Ok(found) if found == incoming.entry => Ok(()),
            Ok(_) => Err(self.diverged(version)),
            Err(OpLogError::MissingEntry { .. }) => {
                Err(self.not_applicable(version, "it lies below the first version that is held here".into()))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn diverged(&self, version: Version) -> OpLogError {
        OpLogError::Diverged { version, path: self.log.entry_path(version) }
    }

    /// Every number of a history only grows.
    fn check_order(&self, last: &Position, next: &Position) -> Result<(), OpLogError> {
        let why = if next.version != last.version.next() {
            format!("the next is version {}", last.version.next())
        } else if next.txn_seq <= last.txn_seq || next.timestamp <= last.timestamp {
            format!("its transaction or time is not after that of version {}", last.version)
        } else if next.cut_lsn < last.cut_lsn {
            format!("it ends before the last operation of version {}", last.version)
        } else if next.timeline < last.timeline {
            format!(
                "it is of timeline {}, and version {} of timeline {}",
                next.timeline, last.version, last.timeline
            )
        } else {
            return Ok(());
        };
        Err(self.not_applicable(next.version, why))
    }

    /// A history must begin with the table's identity and exactly the files that are live.
    fn check_base(
        &self,
        base: &IncomingVersion,
        entry: Entry,
        checkpoint: Option<&Bytes>,
    ) -> Result<(), OpLogError> {
        let version = base.version;
        let actions = match checkpoint {
            Some(checkpoint) => snapshot::parse_checkpoint(&self.log, version, checkpoint.clone())?,
            None if version == Version(0) => entry.actions,
            None => {
                let why = "history can begin there only with a checkpoint; begin at version 0 or at a base";
                return Err(self.not_applicable(version, why.into()));
            }
        };
        let metadata = actions.iter().find_map(|action| action.meta_data.as_ref());
        let protocol = actions.iter().find_map(|action| action.protocol.as_ref());
        if metadata.is_none() || protocol.is_none() {
            let why = "history cannot begin with it: it has no protocol and metaData";
            return Err(self.not_applicable(version, why.into()));
        }
        format::check_readable(&self.log, metadata, protocol)?;
        if !same(&base.files, &export::live(&actions)) {
            let why = "its checkpoint, or first entry, names other live files than those that came with it";
            return Err(self.not_applicable(version, why.into()));
        }
        Ok(())
    }
}

impl State {
    fn usable(&self, log: &Log) -> Result<(), OpLogError> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(OpLogError::ReadOnly { path: log.table().to_path_buf(), why: why.clone() }),
        }
    }

    /// After a failed sync nobody knows what is on disk, and trying again would only seem to succeed.
    pub(crate) fn fail(&mut self, log: &Log, version: Version, error: io::Error) -> OpLogError {
        let error = OpLogError::Unconfirmed { version, path: log.entry_path(version), source: error };
        self.failed = Some(error.to_string());
        error
    }
}

/// Whether two lists name the same files, in whatever order. Digests count: what a manifest brings must be what the entry's
/// writer wrote, not what a disk made of it since.
fn same(ours: &[FileRef], theirs: &[FileRef]) -> bool {
    let sorted = |files: &[FileRef]| {
        let mut files = files.to_vec();
        files.sort_unstable();
        files
    };
    ours.len() == theirs.len()
        && sorted(ours).iter().zip(&sorted(theirs)).all(|(ours, theirs)| ours.agrees(theirs))
}

#[cfg(test)]
mod tests;
