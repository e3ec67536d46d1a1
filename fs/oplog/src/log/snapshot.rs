//! What a Delta table is at a version: its files, its identity, its last commit.
//!
//! From the newest checkpoint at or below the version and the entries after it, parsed on all
//! cores. A checkpoint is derived: one that cannot be read, or that does not match the digest beside it, is passed
//! over, and noted, as long as the entries that it stands for are still there.

use std::collections::BTreeMap;
use std::{fs, io};

use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;

use crate::files::decoder_panics::unpanicked;
use crate::log::action::property::POND_ID;
use crate::log::action::{Action, Add, CommitInfo, Metadata, Protocol};
use crate::log::commits::{commit_info, position_of, read_entries, timestamp_of};
use crate::log::delta::{Listing, Log};
use crate::log::retained::{self, Kept};
use crate::log::tags;
use crate::{At, Floor, OpLogError, PondId, Position, Retained, TagName, Version};

/// A table at a version.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) version: Version,
    /// Digest of the version's own log entry.
    pub(crate) digest: String,
    /// What that entry says of itself.
    pub(crate) commit_info: CommitInfo,
    pub(crate) protocol: Protocol,
    pub(crate) metadata: Metadata,
    /// Live files by path.
    pub(crate) files: BTreeMap<String, Add>,
    /// How far applications' own numberings have got.
    pub(crate) txns: BTreeMap<String, i64>,
    /// What was passed over.
    pub(crate) notes: Vec<String>,
    /// Checkpoints that were because their bytes are not what was written.
    pub(crate) damaged: Vec<Version>,
}

impl Snapshot {
    /// The oldest version that is kept, if there are older ones that are not.
    pub(crate) fn floor(&self) -> Option<Floor> {
        Floor::of(&self.txns, self.pond_id()?)
    }

    /// The versions below the floor that are kept, ascending.
    pub(crate) fn kept(&self, log: &Log) -> Result<Vec<Kept>, OpLogError> {
        retained::listed(&self.metadata).map_err(|why| OpLogError::CorruptEntry {
            version: self.version,
            path: log.entry_path(self.version),
            why: format!("its list of kept versions ({}) cannot be understood: {why}", retained::PROPERTY),
        })
    }

    /// The versions that have names.
    pub(crate) fn tags(&self) -> BTreeMap<TagName, Version> {
        self.pond_id().map_or_else(BTreeMap::new, |pond_id| tags::of(&self.txns, pond_id))
    }

    fn pond_id(&self) -> Option<PondId> {
        self.metadata.configuration.get(POND_ID)?.parse().ok()
    }
}

impl Snapshot {
    /// Where the table stands at the version.
    pub(crate) fn position(&self, log: &Log) -> Result<Position, OpLogError> {
        position_of(log, self.version, &self.digest, &self.commit_info)
    }
}

/// What the newest version keeps; `None` if all versions are kept.
pub(crate) fn retained(log: &Log) -> Result<Option<Retained>, OpLogError> {
    let tip = load(log, At::Tip)?;
    let Some(floor) = tip.floor() else { return Ok(None) };
    Ok(Some(Retained { floor, below: tip.kept(log)? }))
}

/// Loads the table as of `at`. Of a kept version below the floor only where it stood is known: its files are those of the newest.
pub(crate) fn load(log: &Log, at: At) -> Result<Snapshot, OpLogError> {
    let listing = log.list()?;
    match find(log, &listing, at)? {
        Found::Whole(version) => {
            let checkpoints = listing.checkpoints.into_iter();
            load_with(log, version, checkpoints.filter(|&checkpoint| checkpoint <= version.0))
        }
        Found::Kept(kept, tip) => {
            let (version, digest) = (kept.version(), kept.position().digest);
            Ok(Snapshot { version, digest, commit_info: kept.commit_info(tip.pond_id()), ..*tip })
        }
    }
}

/// Loads a version without checkpoints above `newest`.
pub(crate) fn load_from(log: &Log, version: Version, newest: Version) -> Result<Snapshot, OpLogError> {
    let usable = newest.min(version);
    load_with(log, version, log.list()?.checkpoints.into_iter().filter(|&checkpoint| checkpoint <= usable.0))
}

/// Loads a version, if possible from the last of these checkpoints.
fn load_with(
    log: &Log,
    version: Version,
    checkpoints: impl DoubleEndedIterator<Item = u64>,
) -> Result<Snapshot, OpLogError> {
    let (mut notes, mut damaged) = (Vec::new(), Vec::new());
    let mut failure = None;
    let mut base = None;
    for checkpoint in checkpoints.rev().map(Version) {
        match read_checkpoint(log, checkpoint) {
            Ok(actions) => {
                base = Some((checkpoint, actions));
                break;
            }
            Err(error) => {
                notes.push(error.to_string());
                // What could not be read now may be whole: a lack of descriptors passes, and a disk may recover.
                if let OpLogError::CorruptCheckpoint { .. } = error {
                    damaged.push(checkpoint);
                }
                failure.get_or_insert(error);
            }
        }
    }
    match (replay(log, base, version, notes), failure) {
        // The entries that would do instead are gone: it is the checkpoint that is missed.
        (Err(OpLogError::MissingEntry { .. }), Some(failure)) => Err(failure),
        (result, _) => result.map(|snapshot| Snapshot { damaged, ..snapshot }),
    }
}

/// The version that is meant.
pub(crate) fn resolve(log: &Log, listing: &Listing, at: At) -> Result<Version, OpLogError> {
    Ok(match find(log, listing, at)? {
        Found::Whole(version) => version,
        Found::Kept(kept, _) => kept.version(),
    })
}

/// An error if the newest version keeps this one no longer.
pub(crate) fn check_kept(log: &Log, tip: &Snapshot, version: Version) -> Result<(), OpLogError> {
    let Some(floor) = tip.floor().filter(|floor| version < floor.version) else { return Ok(()) };
    let below = tip.kept(log)?;
    let place = below.partition_point(|kept| kept.version() < version);
    let after = below.get(place).map_or(floor.version, Kept::version);
    let path = log.table().to_path_buf();
    match place.checked_sub(1) {
        _ if after == version => Ok(()),
        Some(before) => {
            let before = below[before].version();
            Err(OpLogError::Thinned { version, path, before, after })
        }
        None => Err(OpLogError::NoLongerKept { version, path, floor: after, last: tip.version }),
    }
}

/// A version that is meant.
enum Found {
    /// Its log entry is there.
    Whole(Version),
    /// It lies below the floor, and this is what the newest version says of it.
    Kept(Kept, Box<Snapshot>),
}

fn find(log: &Log, listing: &Listing, at: At) -> Result<Found, OpLogError> {
    let (Some(&oldest), Some(&last)) = (listing.entries.first(), listing.entries.last()) else {
        return Err(OpLogError::MissingEntry { version: Version(0), path: log.entry_path(Version(0)) });
    };
    if at == At::Tip {
        return Ok(Found::Whole(Version(last)));
    }
    // A version can be had from the first entry or from a checkpoint on, and its own entry must be there.
    let first = match listing.checkpoints.iter().find(|&&checkpoint| checkpoint >= oldest) {
        _ if oldest == 0 => 0,
        Some(&checkpoint) => checkpoint,
        None => oldest,
    };
    // The newest version says which are kept.
    let tip = load(log, At::Tip)?;
    let floor = tip.floor().map_or(0, |floor| floor.version.0);
    let below = tip.kept(log)?;
    let first = first.max(floor);
    let path = || log.table().to_path_buf();
    let at = match at {
        At::Tag(tag) => match tip.tags().get(&tag) {
            Some(&version) => At::Version(version),
            None => return Err(OpLogError::NoSuchTag { tag, path: path() }),
        },
        at => at,
    };
    match at {
        // A tag was looked up above.
        At::Tip | At::Tag(_) => Ok(Found::Whole(Version(last))),
        At::Start => Ok(match below.first() {
            Some(kept) => Found::Kept(kept.clone(), Box::new(tip)),
            None => Found::Whole(Version(first)),
        }),
        At::Version(version) if version.0 < floor => {
            check_kept(log, &tip, version)?;
            let kept = below.into_iter().find(|kept| kept.version() == version);
            Ok(kept.map_or(Found::Whole(version), |kept| Found::Kept(kept, Box::new(tip))))
        }
        At::Version(version) if (first..=last).contains(&version.0) => Ok(Found::Whole(version)),
        At::Version(version) => Err(OpLogError::NoSuchVersion {
            version,
            path: path(),
            first: Version(first),
            last: Version(last),
        }),
        At::Timestamp(timestamp) => {
            let time = |version: u64| timestamp_of(log, Version(version));
            // The newest version that is not later; timestamps increase.
            let (mut low, mut high) = (first, last + 1);
            while low < high {
                let middle = low + (high - low) / 2;
                if time(middle)? <= timestamp { low = middle + 1 } else { high = middle }
            }
            if let Some(version) = low.checked_sub(1).filter(|&version| version >= first) {
                return Ok(Found::Whole(Version(version)));
            }
            let then = below.iter().rposition(|kept| kept.position().timestamp <= timestamp);
            // Where history begins above the floor, nobody knows what came after the last one below.
            let then = then.filter(|then| first == floor || then + 1 < below.len());
            if let Some(then) = then {
                return Ok(Found::Kept(below[then].clone(), Box::new(tip)));
            }
            let oldest = match below.first().filter(|_| first == floor) {
                Some(kept) => kept.position().timestamp,
                None => time(first)?,
            };
            Err(OpLogError::NothingYet {
                path: path(),
                first: chrono::DateTime::from_timestamp_micros(oldest)
                    .map_or_else(String::new, |time| time.to_rfc3339()),
            })
        }
    }
}

/// Entries that are read at a time.
const PORTION: usize = 4096;

fn replay(
    log: &Log,
    base: Option<(Version, Vec<Action>)>,
    version: Version,
    notes: Vec<String>,
) -> Result<Snapshot, OpLogError> {
    let (first, base) = match base {
        Some((checkpoint, actions)) => (checkpoint.0 + 1, actions),
        None => (0, Vec::new()),
    };
    let mut fold = State::default();
    base.into_iter().for_each(|action| fold.push(action));
    // In portions: a name with a wrong digit must not make a list of billions.
    let mut entries = Vec::new();
    for portion in (first..=version.0).step_by(PORTION) {
        let versions: Vec<u64> = (portion..=version.0).take(PORTION).collect();
        entries.extend(read_entries(log, &versions)?);
    }
    // A checkpoint does not hold commitInfo: the last entry is always read itself.
    let last = match entries.last() {
        Some(_) => None,
        None => Some(log.read(version)?),
    };
    let head = last
        .as_ref()
        .or(entries.last())
        .ok_or_else(|| OpLogError::MissingEntry { version, path: log.entry_path(version) })?;
    let digest = head.digest.clone();
    let commit_info = commit_info(log, version, head)?.clone();
    for action in entries.drain(..).flat_map(|entry| entry.actions) {
        fold.push(action);
    }
    let (Some(protocol), Some(metadata)) = (fold.protocol, fold.metadata) else {
        return Err(OpLogError::CorruptEntry {
            version,
            path: log.entry_path(version),
            why: "neither it nor what lies before it has a protocol and metaData".into(),
        });
    };
    let (files, txns, damaged) = (fold.files, fold.txns, Vec::new());
    Ok(Snapshot { version, digest, commit_info, protocol, metadata, files, txns, notes, damaged })
}

/// What actions leave behind, one after the other.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) protocol: Option<Protocol>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) files: BTreeMap<String, Add>,
    pub(crate) txns: BTreeMap<String, i64>,
}

impl State {
    pub(crate) fn push(&mut self, action: Action) {
        if let Some(protocol) = action.protocol {
            self.protocol = Some(protocol);
        }
        if let Some(metadata) = action.meta_data {
            self.metadata = Some(metadata);
        }
        if let Some(txn) = action.txn {
            self.txns.insert(txn.app_id, txn.version);
        }
        if let Some(remove) = action.remove {
            self.files.remove(&remove.path);
        }
        if let Some(add) = action.add {
            self.files.insert(add.path.clone(), add);
        }
    }
}

/// The actions in a checkpoint that matches its digest.
pub(crate) fn read_checkpoint(log: &Log, version: Version) -> Result<Vec<Action>, OpLogError> {
    parse_checkpoint(log, version, read_checkpoint_bytes(log, version)?)
}

/// Whether a checkpoint can be read and is what was written. An error says only that this cannot be told now.
pub(crate) fn is_whole(log: &Log, version: Version) -> Result<bool, OpLogError> {
    match read_checkpoint(log, version) {
        Ok(_) => Ok(true),
        Err(OpLogError::CorruptCheckpoint { .. }) => Ok(false),
        Err(OpLogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The bytes of a checkpoint, which match the digest beside it.
pub(crate) fn read_checkpoint_bytes(log: &Log, version: Version) -> Result<Bytes, OpLogError> {
    let path = log.checkpoint_path(version);
    let bytes = fs::read(&path).map_err(OpLogError::io("read", &path))?;
    let beside = log.checkpoint_digest_path(version);
    let corrupt = |why: String| OpLogError::CorruptCheckpoint { version, path: path.clone(), why };
    let digest = fs::read(&beside).map_err(|error| match error.kind() {
        // The writer was killed between the two.
        io::ErrorKind::NotFound => corrupt(format!("{} is missing", beside.display())),
        _ => OpLogError::io("read", &beside)(error),
    })?;
    match digest == checkpoint_digest(&bytes) {
        true => Ok(bytes.into()),
        false => Err(corrupt(format!("its bytes do not match the digest in {}", beside.display()))),
    }
}

/// What lies beside a checkpoint of these bytes: their BLAKE3-256 as a line of text.
pub(crate) fn checkpoint_digest(bytes: &[u8]) -> Vec<u8> {
    format!("{}\n", blake3::hash(bytes).to_hex()).into_bytes()
}

/// The actions in what is, or is to be, a version's checkpoint.
pub(crate) fn parse_checkpoint(
    log: &Log,
    version: Version,
    checkpoint: impl ChunkReader + 'static,
) -> Result<Vec<Action>, OpLogError> {
    let corrupt =
        |why: String| OpLogError::CorruptCheckpoint { version, path: log.checkpoint_path(version), why };
    unpanicked(|| decode_checkpoint(checkpoint)).and_then(|decoded| decoded).map_err(corrupt)
}

/// Rows of a checkpoint, as its footer says.
pub(crate) fn checkpoint_rows(checkpoint: &Bytes) -> Option<u64> {
    let rows = || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(checkpoint.clone()).ok()?;
        u64::try_from(builder.metadata().file_metadata().num_rows()).ok()
    };
    unpanicked(rows).ok().flatten()
}

fn decode_checkpoint(file: impl ChunkReader + 'static) -> Result<Vec<Action>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| text(&error))?;
    let wanted = builder.parquet_schema().root_schema().get_fields().iter().enumerate();
    let wanted: Vec<usize> = wanted
        .filter(|(_, field)| matches!(field.name(), "protocol" | "metaData" | "txn" | "add"))
        .map(|(root, _)| root)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let batches = builder.with_projection(mask).build().map_err(|error| text(&error))?;
    let mut actions = Vec::new();
    // As JSON a checkpoint's rows look like the lines of log entries, and are read by the same code.
    for batch in batches {
        let batch = batch.map_err(|error| text(&error))?;
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&batch).and_then(|()| writer.finish()).map_err(|error| text(&error))?;
        for line in writer.into_inner().split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            actions.push(serde_json::from_slice(line).map_err(|error| text(&error))?);
        }
    }
    Ok(actions)
}
