//! The Delta log as files: entries by version, written put-if-absent, read and understood.
//!
//! An entry proves itself: its `commitInfo` has a member `digest`, the BLAKE3-256 of the entry's bytes with the 64 digits of
//! this member replaced by `0`. Nothing that does not match it is understood.
//!
//! An entry costs the same at any version: one file is written, nothing is replayed. Which
//! files are live at a version is `snapshot.rs`'s business.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::disk::durable::{self, Existing};
use crate::disk::layout::DELTA_LOG;
use crate::log::action::{Action, CommitInfo};
use crate::{OpLogError, Version};

/// The log of one Delta table.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    table: PathBuf,
}

/// A log entry that was read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// BLAKE3-256 of its bytes, lowercase hex.
    pub(crate) digest: String,
    pub(crate) actions: Vec<Action>,
}

impl Entry {
    /// The entry's `commitInfo`, if it has one.
    pub(crate) fn commit_info(&self) -> Option<&CommitInfo> {
        self.actions.iter().find_map(|action| action.commit_info.as_ref())
    }
}

/// What lies in a log, by version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// Versions that have an entry, ascending.
    pub(crate) entries: Vec<u64>,
    /// Versions that have a checkpoint in one file, ascending.
    pub(crate) checkpoints: Vec<u64>,
}

/// How a put-if-absent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// Our entry is there and durable.
    Done,
    /// Another one is there.
    SomeoneElse,
}

impl Log {
    /// The log of the table in this directory.
    pub(crate) fn new(table: &Path) -> Self {
        Log { table: table.to_path_buf() }
    }

    /// The table's directory.
    pub(crate) fn table(&self) -> &Path {
        &self.table
    }

    /// The log's directory.
    pub(crate) fn directory(&self) -> PathBuf {
        self.table.join(DELTA_LOG)
    }

    /// Where a version's entry lies.
    pub(crate) fn entry_path(&self, version: Version) -> PathBuf {
        self.directory().join(entry_name(version))
    }

    /// Where a version's checkpoint lies.
    pub(crate) fn checkpoint_path(&self, version: Version) -> PathBuf {
        self.directory().join(checkpoint_name(version))
    }

    /// Where the digest of a version's checkpoint lies.
    pub(crate) fn checkpoint_digest_path(&self, version: Version) -> PathBuf {
        self.directory().join(checkpoint_digest_name(version))
    }

    /// Makes the directories of a table where there are none; the table's parent must exist.
    pub(crate) fn create_directories(&self) -> Result<(), OpLogError> {
        for directory in [self.table.clone(), self.directory()] {
            durable::ensure_directory(&directory).map_err(OpLogError::io("create", &directory))?;
        }
        Ok(())
    }

    /// Lists entries and checkpoints. A directory without a log, or with an empty one, is not a table.
    pub(crate) fn list(&self) -> Result<Listing, OpLogError> {
        let listing = self.list_any()?;
        match listing.entries.is_empty() {
            true => Err(self.not_a_table("its log has no entries")),
            false => Ok(listing),
        }
    }

    /// Lists entries and checkpoints of a log that may be empty.
    pub(crate) fn list_any(&self) -> Result<Listing, OpLogError> {
        let directory = self.directory();
        let names = match fs::read_dir(&directory) {
            Ok(names) => names,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(self.not_a_table("it has no data/_delta_log"));
            }
            Err(error) => return Err(OpLogError::io("list", &directory)(error)),
        };
        let mut listing = Listing::default();
        for name in names {
            let name = name.map_err(OpLogError::io("list", &directory))?.file_name();
            let Some((digits, rest)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
            // Twenty digits hold every u64, so a longer or shorter name is not an entry's.
            if digits.len() != 20 {
                continue;
            }
            let Ok(version) = digits.parse() else { continue };
            match rest {
                "json" => listing.entries.push(version),
                "checkpoint.parquet" => listing.checkpoints.push(version),
                _ => {}
            }
        }
        listing.entries.sort_unstable();
        listing.checkpoints.sort_unstable();
        Ok(listing)
    }

    fn not_a_table(&self, why: &str) -> OpLogError {
        // Users know the pond's directory, not the table's within it.
        let path = self.table.parent().unwrap_or(&self.table).to_path_buf();
        OpLogError::NotAPond { path, why: why.into() }
    }

    /// Reads and parses one entry.
    pub(crate) fn read(&self, version: Version) -> Result<Entry, OpLogError> {
        self.parse(version, &self.read_bytes(version)?)
    }

    /// The bytes of one entry.
    pub(crate) fn read_bytes(&self, version: Version) -> Result<Vec<u8>, OpLogError> {
        let path = self.entry_path(version);
        fs::read(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpLogError::MissingEntry { version, path: path.clone() },
            _ => OpLogError::io("read", &path)(error),
        })
    }

    /// Understands the bytes of an entry that is, or is to be, this version's.
    pub(crate) fn parse(&self, version: Version, bytes: &[u8]) -> Result<Entry, OpLogError> {
        parse(bytes).map_err(|why| OpLogError::CorruptEntry { version, path: self.entry_path(version), why })
    }

    /// Writes the entry of a version unless there is one already.
    ///
    /// # Errors
    ///
    /// After an error nothing of ours stands under that version, but for [`OpLogError::Unconfirmed`]:
    /// then our entry is there and nobody knows whether it will survive power loss.
    pub(crate) fn put(&self, version: Version, bytes: &[u8]) -> Result<Put, OpLogError> {
        let path = self.entry_path(version);
        let Err(error) = durable::write_durably(&path, bytes, Existing::Refuse) else { return Ok(Put::Done) };
        // The error may have come before, at or after the moment the name appeared: look. That there is none takes no
        // descriptor to tell, and those may have run out.
        if fs::symlink_metadata(&path).is_err_and(|missing| missing.kind() == io::ErrorKind::NotFound) {
            return Err(OpLogError::io("write", &path)(error));
        }
        match fs::read(&path) {
            Ok(found) if found == bytes => match error.kind() {
                // The name was refused because our own first try had landed, as over NFS.
                io::ErrorKind::AlreadyExists => match durable::sync_directory(&self.directory()) {
                    Ok(()) => Ok(Put::Done),
                    Err(source) => Err(OpLogError::Unconfirmed { version, path, source }),
                },
                _ => Err(OpLogError::Unconfirmed { version, path, source: error }),
            },
            Ok(_) => Ok(Put::SomeoneElse),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                Err(OpLogError::io("write", &path)(error))
            }
            Err(_) => Err(OpLogError::Unconfirmed { version, path, source: error }),
        }
    }
}

/// File name of a version's log entry.
pub fn entry_name(version: Version) -> String {
    format!("{:020}.json", version.0)
}

/// File name of a version's checkpoint.
pub fn checkpoint_name(version: Version) -> String {
    format!("{:020}.checkpoint.parquet", version.0)
}

/// Name of a checkpoint's digest. Other Delta readers skip what does not begin with a version.
fn checkpoint_digest_name(version: Version) -> String {
    format!("_pond_checkpoint.{:020}.blake3", version.0)
}

/// The version of the checkpoint whose digest is called so.
pub(crate) fn checkpoint_of_digest(name: &str) -> Option<u64> {
    name.strip_prefix("_pond_checkpoint.")?.strip_suffix(".blake3")?.parse().ok()
}

/// Stands for the digest while it is computed.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The bytes of an entry: one JSON object a line, and its digest in `commitInfo`, which there must be.
pub(crate) fn encode(actions: &[Action]) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = Vec::with_capacity(1024 * actions.len());
    for action in actions {
        match &action.commit_info {
            Some(info) => {
                let info = CommitInfo { digest: Some(NO_DIGEST.into()), ..info.clone() };
                serde_json::to_writer(&mut bytes, &Action::from(info))?;
            }
            None => serde_json::to_writer(&mut bytes, action)?,
        }
        bytes.push(b'\n');
    }
    let at = digest_place(&bytes, NO_DIGEST)
        .ok_or_else(|| serde::ser::Error::custom("an entry without commitInfo cannot carry its digest"))?;
    let digest = blake3::hash(&bytes).to_hex();
    bytes[at..at + digest.len()].copy_from_slice(digest.as_bytes());
    Ok(bytes)
}

/// Where the digits of the member `digest` begin. Within a JSON string its quotes would be escaped.
fn digest_place(bytes: &[u8], digest: &str) -> Option<usize> {
    const MEMBER: &str = "\"digest\":\"";
    let member = format!("{MEMBER}{digest}\"");
    bytes.windows(member.len()).position(|window| window == member.as_bytes()).map(|at| at + MEMBER.len())
}

/// Checks the bytes of an entry against the digest that it carries.
fn prove(bytes: &[u8], actions: &[Action]) -> Result<(), String> {
    let info = actions.iter().find_map(|action| action.commit_info.as_ref());
    let digest = info
        .and_then(|info| info.digest.as_ref())
        .filter(|digest| digest.len() == NO_DIGEST.len())
        .ok_or("it carries no digest of its own")?;
    let at = digest_place(bytes, digest).ok_or("it carries no digest of its own")?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..at]).update(NO_DIGEST.as_bytes()).update(&bytes[at + digest.len()..]);
    match hasher.finalize().to_hex().as_str() == digest {
        true => Ok(()),
        false => Err("its bytes do not match the digest that it carries".into()),
    }
}

fn parse(bytes: &[u8]) -> Result<Entry, String> {
    if bytes.is_empty() {
        return Err("it is empty".into());
    }
    let mut actions = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let action = serde_json::from_slice(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        actions.push(action);
    }
    prove(bytes, &actions)?;
    Ok(Entry { digest: blake3::hash(bytes).to_hex().to_string(), actions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::action::Txn;

    fn log() -> (tempfile::TempDir, Log) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::new(&dir.path().join("data"));
        log.create_directories().unwrap();
        (dir, log)
    }

    #[test]
    fn entries_read_back_as_written() {
        let (_dir, log) = log();
        let txn = Txn { app_id: "x".into(), version: 7, last_updated: None };
        let info = CommitInfo { timestamp: 5, cut_lsn: Some(7), ..CommitInfo::default() };
        let bytes = encode(&[info.into(), txn.clone().into()]).unwrap();
        assert_eq!(log.put(Version(0), &bytes).unwrap(), Put::Done);
        let entry = log.read(Version(0)).unwrap();
        assert_eq!(entry.commit_info().unwrap().cut_lsn, Some(7));
        assert_eq!(entry.actions[1].txn, Some(txn));
        assert_eq!(entry.digest, blake3::hash(&bytes).to_hex().as_str());
    }

    #[test]
    fn no_flipped_bit_of_an_entry_is_believed() {
        let (_dir, log) = log();
        let origin = crate::Origin::command("cp \"digest\":\"0000\"");
        let info = CommitInfo { timestamp: 5, origin: Some(origin), ..CommitInfo::default() };
        let txn = Txn { app_id: "x".into(), version: 7, last_updated: None };
        let bytes = encode(&[info.into(), txn.into()]).unwrap();
        log.parse(Version(0), &bytes).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let parsed = log.parse(Version(0), &flipped);
            assert!(matches!(parsed, Err(OpLogError::CorruptEntry { .. })), "bit {bit} of {parsed:?}");
        }
        let longer = [&bytes[..], b"\n"].concat();
        assert!(matches!(log.parse(Version(0), &longer), Err(OpLogError::CorruptEntry { .. })));
        assert!(encode(&[Txn { app_id: "x".into(), version: 7, last_updated: None }.into()]).is_err());
    }

    #[test]
    fn a_second_writer_is_noticed_and_its_entry_left_alone() {
        let (_dir, log) = log();
        assert_eq!(log.put(Version(3), b"{}\n").unwrap(), Put::Done);
        assert_eq!(log.put(Version(3), b"{} \n").unwrap(), Put::SomeoneElse);
        assert_eq!(fs::read(log.entry_path(Version(3))).unwrap(), b"{}\n");
    }

    #[test]
    fn damaged_and_missing_entries_are_told_apart() {
        let (_dir, log) = log();
        fs::write(log.entry_path(Version(1)), b"{\"add\":").unwrap();
        fs::write(log.entry_path(Version(2)), b"").unwrap();
        let corrupt = log.read(Version(1)).unwrap_err();
        assert!(matches!(&corrupt, OpLogError::CorruptEntry { version: Version(1), .. }), "{corrupt}");
        assert!(corrupt.to_string().contains("00000000000000000001.json"));
        assert!(matches!(log.read(Version(2)), Err(OpLogError::CorruptEntry { .. })));
        assert!(matches!(log.read(Version(4)), Err(OpLogError::MissingEntry { .. })));
    }
}
