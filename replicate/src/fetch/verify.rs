//! What is checked of manifests and log entries before anything is applied.

use pond_oplog::{PondId, Timeline, Version, entry_facts};

use crate::ReplicateError;
use crate::format::{self, FileDigest, Kind, Manifest};
use crate::store::Store;

/// Reads a manifest and checks that it is the one that was asked for, of this pond, and makes sense by itself.
pub(crate) fn manifest(
    store: &Store,
    key: &str,
    bytes: &[u8],
    kind: Kind,
    version: Version,
    timeline: Timeline,
    pond_id: PondId,
) -> Result<Manifest, ReplicateError> {
    let manifest: Manifest = format::decode(key, bytes).map_err(|error| match error {
        ReplicateError::Corrupt { key, why, .. } => {
            ReplicateError::Corrupt { key, version: Some(version), why }
        }
        error => error,
    })?;
    if manifest.pond_id != pond_id {
        return Err(ReplicateError::ForeignPond {
            place: store.place().to_owned(),
            found: manifest.pond_id,
            ours: pond_id,
        });
    }
    if manifest.timeline != timeline {
        let why = format!("it says that it is of timeline {}", manifest.timeline);
        return Err(ReplicateError::Corrupt { key: key.to_owned(), version: Some(version), why });
    }
    manifest.check(key, kind, version)?;
    Ok(manifest)
}

/// Whether bytes are the file that is meant.
pub(crate) fn is(file: &FileDigest, bytes: &[u8]) -> bool {
    bytes.len() as u64 == file.length && format::digest(bytes) == file.blake3
}

/// Checks a log entry against the manifest that brought it.
pub(crate) fn entry(store: &Store, manifest: &Manifest, entry: &[u8]) -> Result<(), ReplicateError> {
    let version = Version(manifest.version);
    let corrupt = |why: String| ReplicateError::Corrupt {
        key: format!("{}, {}", manifest.key(), manifest.entry.name),
        version: Some(version),
        why,
    };
    if !is(&manifest.entry, entry) {
        return Err(corrupt("its length or digest is not the manifest's".into()));
    }
    let facts = entry_facts(version, entry).map_err(|error| corrupt(error.to_string()))?;
    if let Some(found) = facts.pond_id.filter(|found| *found != manifest.pond_id) {
        let place = store.place().to_owned();
        return Err(ReplicateError::ForeignPond { place, found, ours: manifest.pond_id });
    }
    let position = &facts.position;
    if (position.txn_seq.0, position.timestamp) != (manifest.txn_seq, manifest.timestamp) {
        return Err(corrupt("the manifest gives another transaction or time".into()));
    }
    // A promoted pond may ship what it had before to a place of its own, all in its own timeline's folder.
    if position.timeline > manifest.timeline {
        return Err(corrupt(format!("it is of timeline {}", position.timeline)));
    }
    if manifest.kind == Kind::Delta {
        let mut named: Vec<_> = manifest.files.iter().map(|file| (&file.name, file.length)).collect();
        let mut added: Vec<_> = facts.added.iter().map(|file| (&file.name, file.length)).collect();
        named.sort_unstable();
        added.sort_unstable();
        if named != added {
            return Err(corrupt("it adds other files than the manifest lists".into()));
        }
    }
    Ok(())
}
