//! Finding the manifest of one version in the store without fetching the version.

use std::ops::Range;
use std::sync::Arc;

use pond_oplog::{PondId, Timeline, Version};

use crate::ReplicateError;
use crate::fetch::plan::{Pack, Packs};
use crate::fetch::verify;
use crate::format::pack::{FOOTER, index_start, read_index};
use crate::format::{self, Kind, Manifest, base_manifest_key, manifest_key, parse_folder, version_folder};
use crate::history::lineage::Lineage;
use crate::store::Store;

/// The index of most packs is within so many bytes of the end.
const TAIL: u64 = 64 << 10;

/// A version's manifest that lies by itself, and the digest of its bytes.
pub(crate) async fn single(
    store: &Store,
    lineage: &Lineage,
    pond_id: PondId,
    version: Version,
) -> Result<Option<(Manifest, String)>, ReplicateError> {
    let timeline = lineage.timeline_of(version);
    let key = manifest_key(timeline, version);
    let Some(bytes) = store.get(&key).await? else { return Ok(None) };
    let manifest = verify::manifest(store, &key, &bytes, Kind::Delta, version, timeline, pond_id)?;
    Ok(Some((manifest, format::digest(&bytes))))
}

/// The manifest of a version wherever it is, and the digest on which the next version's manifest builds. That of the
/// chain's root is its base's.
pub(crate) async fn manifest(
    store: &Store,
    lineage: &Lineage,
    pond_id: PondId,
    version: Version,
) -> Result<Option<(Manifest, String)>, ReplicateError> {
    manifest_that(store, lineage, pond_id, version, |_| true).await
}

/// The manifest of the version that has this log entry; if there is none in the store, one of another version of that
/// number.
pub(crate) async fn manifest_of(
    store: &Store,
    lineage: &Lineage,
    pond_id: PondId,
    version: Version,
    entry: &str,
) -> Result<Option<(Manifest, String)>, ReplicateError> {
    manifest_that(store, lineage, pond_id, version, |manifest| manifest.entry.blake3 == entry).await
}

/// One that lies by itself decides. Where it is missing there may be packs, also those of writers that lost, so `fits` says
/// which is the right one; if none is, any of them is given.
async fn manifest_that(
    store: &Store,
    lineage: &Lineage,
    pond_id: PondId,
    version: Version,
    fits: impl Fn(&Manifest) -> bool,
) -> Result<Option<(Manifest, String)>, ReplicateError> {
    if let Some(found) = single(store, lineage, pond_id, version).await? {
        return Ok(Some(found));
    }
    let mut other = None;
    for pack in Packs::list(store, lineage, version, version).await?.of(lineage, version) {
        match in_pack(store, &pack, version, pond_id).await {
            Ok(Some(found)) if fits(&found.0) => return Ok(Some(found)),
            Ok(found) => other = other.or(found),
            Err(error @ (ReplicateError::Corrupt { .. } | ReplicateError::ForeignPond { .. })) => {
                tracing::warn!(%error, key = pack.key, "a pack in the backup store is passed over");
            }
            Err(error) => return Err(error),
        }
    }
    let timeline = lineage.timeline_of(version);
    let key = base_manifest_key(timeline, version);
    let Some(bytes) = store.get(&key).await? else { return Ok(other) };
    let base = verify::manifest(store, &key, &bytes, Kind::Base, version, timeline, pond_id)?;
    match (fits(&base), other) {
        (false, Some(other)) => Ok(Some(other)),
        _ => {
            let digest = built_on(&base, &bytes);
            Ok(Some((base, digest)))
        }
    }
}

/// Whether a base is in the store: its manifest decides.
pub(crate) async fn is_base(store: &Store, base: (Version, Timeline)) -> Result<bool, ReplicateError> {
    Ok(store.length(&base_manifest_key(base.1, base.0)).await?.is_some())
}

/// The newest base of these versions that is in the store, with the timeline in whose folder it is.
pub(crate) async fn newest_base(
    store: &Store,
    lineage: &Lineage,
    first: Version,
    last: Version,
) -> Result<Option<(Version, Timeline)>, ReplicateError> {
    for timeline in lineage.timelines(first, last) {
        let folders = store.list_folders(&timeline.to_string()).await?;
        let wanted = |(kind, version): &(Kind, Version)| {
            *kind == Kind::Base
                && (first..=last).contains(version)
                && lineage.timeline_of(*version) == timeline
        };
        let bases = folders.iter().filter_map(|name| parse_folder(name)).filter(wanted);
        let mut bases: Vec<Version> = bases.map(|(_, version)| version).collect();
        bases.sort_unstable();
        while let Some(version) = bases.pop() {
            // One that was cut off has no manifest.
            if is_base(store, (version, timeline)).await? {
                return Ok(Some((version, timeline)));
            }
        }
    }
    Ok(None)
}

/// The digest on which the version after a base builds: of the base's own manifest if the chain begins there, else of its
/// version's delta, which the base names as its parent.
pub(crate) fn built_on(base: &Manifest, bytes: &[u8]) -> String {
    base.parent.clone().unwrap_or_else(|| format::digest(bytes))
}

/// Key of a version's manifest within a pack.
pub(crate) fn packed_manifest(version: Version) -> String {
    format!("{}/manifest.json", version_folder(version))
}

async fn in_pack(
    store: &Store,
    pack: &Arc<Pack>,
    version: Version,
    pond_id: PondId,
) -> Result<Option<(Manifest, String)>, ReplicateError> {
    let Some(mut tail) = store.get_tail(&pack.key, TAIL).await? else { return Ok(None) };
    let start = index_start(&pack.key, pack.length, &tail)?;
    if pack.length - start > tail.len() as u64 {
        tail = store.get_range(&pack.key, start..pack.length).await?;
    }
    debug_assert!(tail.len() as u64 >= FOOTER);
    let index = read_index(&pack.key, pack.length, &tail)?;
    let Some(object) = index.find(&packed_manifest(version)) else { return Ok(None) };
    let range: Range<u64> = object.offset..object.offset + object.length;
    let bytes = store.get_range(&pack.key, range).await?;
    let digest = format::digest(&bytes);
    if digest != object.blake3 {
        return Err(ReplicateError::Corrupt {
            key: pack.key.clone(),
            version: Some(version),
            why: "the manifest in it has another digest than its index says".into(),
        });
    }
    let key = format!("{}, {}", pack.key, packed_manifest(version));
    let manifest = verify::manifest(store, &key, &bytes, Kind::Delta, version, pack.timeline, pond_id)?;
    Ok(Some((manifest, digest)))
}
