//! What other places need of a pond's history: versions as the log holds them, what is live at one, checkpoints.
//!
//! Everything here only reads, takes no lock, and may run while commits go on.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::log::action::Action;
use crate::log::action::property::POND_ID;
use crate::log::commits::{self, commit_info, position_of};
use crate::log::delta::{Entry, Listing, Log};
use crate::log::format::min_reader;
use crate::log::{checkpoint, reading, snapshot};
use crate::{At, FileRef, Layout, OpLogError, PondId, Position, Retained, Version};

/// One version as the log holds it.
#[derive(Clone, Debug)]
pub struct VersionFiles {
    /// Where history stood with it.
    pub position: Position,
    /// The bytes of its log entry.
    pub entry: Bytes,
    /// Data files that it added, in the entry's order.
    pub added: Vec<FileRef>,
    /// Names of data files that it removed.
    pub removed: Vec<String>,
}

/// Everything that is live at a version.
#[derive(Clone, Debug)]
pub struct LiveFiles {
    /// Where history stood.
    pub position: Position,
    /// The bytes of the version's own log entry.
    pub entry: Bytes,
    /// Live data files by name.
    pub files: Vec<FileRef>,
}

/// What the bytes of a log entry say, read without a pond.
#[derive(Clone, Debug)]
pub struct EntryFacts {
    /// Where history stands with it.
    pub position: Position,
    /// Whose it is.
    pub pond_id: Option<PondId>,
    /// Data files that it adds, in its order.
    pub added: Vec<FileRef>,
    /// Least format that a program must know to read the table from here on, where the entry says so.
    pub min_reader: Option<u32>,
}

/// One version of the pond at `pond`.
///
/// # Errors
///
/// [`OpLogError::MissingEntry`] where the log does not hold the version, [`OpLogError::CorruptEntry`] where its entry
/// cannot be understood.
pub fn version_files(pond: &Path, version: Version) -> Result<VersionFiles, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    let bytes = log.read_bytes(version)?;
    let entry = log.parse(version, &bytes)?;
    let position = position_of(&log, version, &entry.digest, commit_info(&log, version, &entry)?)?;
    let removes = entry.actions.iter().filter_map(|action| action.remove.as_ref());
    Ok(VersionFiles {
        position,
        entry: bytes.into(),
        added: added(&entry.actions),
        removed: removes.map(|remove| remove.path.clone()).collect(),
    })
}

/// Everything live at a version of the pond at `pond`, for a base. Costs what loading the table's state costs: a
/// checkpoint and the entries after it.
///
/// # Errors
///
/// [`OpLogError::NoSuchVersion`], also where the version's own files were cleaned away: its `first` is the oldest whose
/// files, and those of all later ones, are there. Damage of the log.
pub fn live_files(pond: &Path, version: Version) -> Result<LiveFiles, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    let snapshot = snapshot::load(&log, At::Version(version))?;
    if let Some(Retained { floor, .. }) = snapshot::retained(&log)?
        && version < floor.version
    {
        // A version that is kept by itself is part of what the newest one's files hold: no history begins with it.
        let (path, last) =
            (log.table().to_path_buf(), Version(log.list()?.entries.last().copied().unwrap_or_default()));
        return Err(OpLogError::NoSuchVersion { version, path, first: floor.version, last });
    }
    if !reading::are_there(&log, &snapshot.files) {
        let listing = log.list()?;
        let last = Version(listing.entries.last().copied().unwrap_or_default());
        let first = first_whole(&log, &listing)?;
        // Else one is missing that should be there, and whoever reads it says so.
        if version < first {
            return Err(OpLogError::NoSuchVersion { version, path: log.table().to_path_buf(), first, last });
        }
    }
    let files = snapshot.files.values();
    Ok(LiveFiles {
        position: position_of(&log, version, &snapshot.digest, &snapshot.commit_info)?,
        entry: log.read_bytes(version)?.into(),
        files: files.map(FileRef::of).collect(),
    })
}

/// The first version from which on each has all its own files: none that cleaning has removed.
fn first_whole(log: &Log, listing: &Listing) -> Result<Version, OpLogError> {
    for versions in listing.entries.rchunks(256) {
        for (&version, entry) in versions.iter().zip(commits::read_entries(log, versions)?).rev() {
            let mut removes = entry.actions.iter().filter_map(|action| action.remove.as_ref());
            if removes.any(|remove| !log.table().join(&remove.path).exists()) {
                return Ok(Version(version));
            }
        }
    }
    Ok(Version(listing.entries.first().copied().unwrap_or_default()))
}

/// Bytes of a checkpoint of a version: of the one that is there, or of one that is made for the purpose and stays.
/// Call it from a thread that runs no async tasks.
///
/// # Errors
///
/// [`OpLogError::Checkpoint`] if none could be made, [`OpLogError::CorruptCheckpoint`] if the one there cannot be
/// read.
pub fn checkpoint_bytes(pond: &Path, version: Version) -> Result<Bytes, OpLogError> {
    let log = Log::new(&Layout::new(pond).data());
    // Nobody is to learn only from a backup of it that a checkpoint is damaged: a damaged one is made anew.
    match snapshot::read_checkpoint_bytes(&log, version) {
        Ok(bytes) => Ok(bytes),
        Err(_) => {
            checkpoint::write(&log, version)?;
            snapshot::read_checkpoint_bytes(&log, version)
        }
    }
}

/// BLAKE3-256 of the table's schema as its metadata holds it, lowercase hex. Costs what loading the table's state
/// costs.
pub fn schema_fingerprint(pond: &Path) -> Result<String, OpLogError> {
    let snapshot = snapshot::load(&Log::new(&Layout::new(pond).data()), At::Tip)?;
    Ok(blake3::hash(snapshot.metadata.schema_string.as_bytes()).to_hex().to_string())
}

/// Reads the bytes of what is to be a version's log entry, to check what was fetched.
///
/// # Errors
///
/// [`OpLogError::CorruptEntry`] if they are none of pond's.
pub fn entry_facts(version: Version, entry: &[u8]) -> Result<EntryFacts, OpLogError> {
    // There is no table: errors name the entry alone.
    let log = Log::new(Path::new(""));
    facts(&log, version, &log.parse(version, entry)?)
}

/// What an entry says.
pub(crate) fn facts(log: &Log, version: Version, entry: &Entry) -> Result<EntryFacts, OpLogError> {
    let info = commit_info(log, version, entry)?;
    let metadata = entry.actions.iter().find_map(|action| action.meta_data.as_ref());
    let protocol = entry.actions.iter().find_map(|action| action.protocol.as_ref());
    let configured = |name: &str| metadata.and_then(|metadata| metadata.configuration.get(name));
    Ok(EntryFacts {
        position: position_of(log, version, &entry.digest, info)?,
        pond_id: info.pond_id.or_else(|| configured(POND_ID).and_then(|id| id.parse().ok())),
        added: added(&entry.actions),
        min_reader: min_reader(metadata, protocol),
    })
}

/// Files that these actions add.
pub(crate) fn added(actions: &[Action]) -> Vec<FileRef> {
    let adds = actions.iter().filter_map(|action| action.add.as_ref());
    adds.map(FileRef::of).collect()
}

/// Files that are live after these actions.
pub(crate) fn live(actions: &[Action]) -> Vec<FileRef> {
    let mut files = BTreeMap::new();
    for action in actions {
        if let Some(remove) = &action.remove {
            files.remove(&remove.path);
        }
        if let Some(add) = &action.add {
            files.insert(&add.path, FileRef::of(add));
        }
    }
    files.into_values().collect()
}
