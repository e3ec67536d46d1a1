//! Reading many manifests: out of packs with a few requests for 64 versions, where they are in any, else one by one.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use futures::StreamExt;
use pond_oplog::{Timeline, Version};

use crate::ReplicateError;
use crate::fetch::plan::{Pack, WORTH_PACKS};
use crate::fetch::verify;
use crate::format::pack::{PackIndex, load_index};
use crate::format::{self, Kind, Manifest, base_manifest_key};
use crate::history::find;
use crate::inspect::survey::Survey;

/// Requests side by side.
pub(crate) const REQUESTS: usize = 16;
/// What lies between two manifests in a pack is read with them if it is no more than this: a request costs more.
const GAP: u64 = 256 << 10;
/// Most bytes of one request.
const MOST: u64 = 8 << 20;

/// A manifest that was read and makes sense by itself.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) manifest: Arc<Manifest>,
    /// BLAKE3 of its bytes.
    pub(crate) digest: String,
}

/// What came of reading manifests, by version.
pub(crate) type Manifests = BTreeMap<Version, Result<Known, ReplicateError>>;

/// Indexes of packs, by their keys.
pub(crate) type Indexes = HashMap<String, Result<PackIndex, ReplicateError>>;

impl Survey<'_> {
    /// The manifest of a version that lies by itself; for the root that of its base.
    pub(crate) async fn single(&self, version: Version) -> Result<Known, ReplicateError> {
        if version == self.root {
            return self.base(version, self.lineage.timeline_of(version)).await;
        }
        let found = find::single(self.store, &self.lineage, self.pond_id, version).await?;
        let known = found.map(|(manifest, digest)| Known { manifest: Arc::new(manifest), digest });
        known.ok_or_else(|| ReplicateError::missing(version, self.store.place()))
    }

    /// The manifest of a base.
    pub(crate) async fn base(&self, version: Version, timeline: Timeline) -> Result<Known, ReplicateError> {
        let key = base_manifest_key(timeline, version);
        let bytes = self.store.get(&key).await?;
        let bytes = bytes.ok_or_else(|| ReplicateError::missing(version, self.store.place()))?;
        let manifest =
            verify::manifest(self.store, &key, &bytes, Kind::Base, version, timeline, self.pond_id)?;
        Ok(Known { manifest: Arc::new(manifest), digest: format::digest(&bytes) })
    }

    /// All manifests of a range that lie by themselves: those that decide.
    pub(crate) async fn singles(&self, versions: RangeInclusive<u64>) -> Manifests {
        let read = async |version| (version, self.single(version).await);
        futures::stream::iter(versions.map(Version)).map(read).buffer_unordered(REQUESTS).collect().await
    }

    /// The same from packs where that is cheaper. Of a pack the last version's manifest is compared with the one that lies by itself: as
    /// each names the one before it, all of them are the right ones then.
    pub(crate) async fn in_bulk(&self, versions: RangeInclusive<u64>) -> Manifests {
        let mut found = Manifests::new();
        let mut next = *versions.start();
        let mut alone = Vec::new();
        let mut units = Vec::new();
        while next <= *versions.end() {
            let version = Version(next);
            let pack = self.packs.of(&self.lineage, version).into_iter().next();
            let end = pack.as_ref().map(|pack| self.end_in(pack, *versions.end()));
            match (pack, end) {
                (Some(pack), Some(end)) if version != self.root && end + 1 >= next + WORTH_PACKS => {
                    units.push((pack, next..=end));
                    next = end + 1;
                }
                _ => {
                    alone.push(next);
                    next += 1;
                }
            }
        }
        let read = async |(pack, range): (Arc<Pack>, RangeInclusive<u64>)| {
            (self.of_pack(&pack, range.clone()).await.unwrap_or_default(), range)
        };
        let packed: Vec<(Manifests, RangeInclusive<u64>)> =
            futures::stream::iter(units).map(read).buffer_unordered(REQUESTS).collect().await;
        for (manifests, range) in packed {
            alone.extend(range.filter(|version| !manifests.contains_key(&Version(*version))));
            found.extend(manifests);
        }
        let read = async |version| (version, self.anywhere(version).await);
        let singles: Vec<_> = futures::stream::iter(alone.into_iter().map(Version))
            .map(read)
            .buffer_unordered(REQUESTS)
            .collect()
            .await;
        found.extend(singles);
        found
    }

    /// The last version of a pack that is wanted and of its timeline.
    fn end_in(&self, pack: &Pack, last: u64) -> u64 {
        let end = pack.last.0.min(last);
        let of_chain = |version: &u64| self.lineage.timeline_of(Version(*version)) == pack.timeline;
        (pack.first.0..=end).rev().find(of_chain).unwrap_or(pack.first.0)
    }

    /// A manifest, by itself or else from a pack, or the base of its version.
    pub(crate) async fn anywhere(&self, version: Version) -> Result<Known, ReplicateError> {
        match self.single(version).await {
            Err(ReplicateError::MissingVersion { .. }) if version != self.root => {
                let found = find::manifest(self.store, &self.lineage, self.pond_id, version).await?;
                let known = found.map(|(manifest, digest)| Known { manifest: Arc::new(manifest), digest });
                known.ok_or_else(|| ReplicateError::missing(version, self.store.place()))
            }
            other => other,
        }
    }

    /// Manifests out of a pack; an error if it cannot be used.
    async fn of_pack(&self, pack: &Pack, range: RangeInclusive<u64>) -> Result<Manifests, ReplicateError> {
        let unusable = || ReplicateError::Other("the pack is not part of the chain".to_owned());
        let last = self.single(Version(*range.end())).await?;
        let index = load_index(self.store, &pack.key, pack.length).await?;
        let mut wanted = Vec::new();
        for version in range.clone().map(Version) {
            wanted.push((version, index.find(&find::packed_manifest(version)).ok_or_else(unusable)?));
        }
        let mut found = Manifests::new();
        let mut before: Option<String> = None;
        for group in grouped(&wanted, |(_, object)| object.offset..object.offset + object.length) {
            let (Some((_, first)), Some((_, end))) = (group.first(), group.last()) else { continue };
            let bytes = self.store.get_range(&pack.key, first.offset..end.offset + end.length).await?;
            for (version, object) in group {
                let from = usize::try_from(object.offset - first.offset).map_err(|_| unusable())?;
                let to =
                    usize::try_from(object.offset - first.offset + object.length).map_err(|_| unusable())?;
                let bytes = bytes.get(from..to).ok_or_else(unusable)?;
                let digest = format::digest(bytes);
                let manifest = verify::manifest(
                    self.store,
                    &pack.key,
                    bytes,
                    Kind::Delta,
                    *version,
                    pack.timeline,
                    self.pond_id,
                )?;
                if digest != object.blake3 || (before.is_some() && manifest.parent != before) {
                    return Err(unusable());
                }
                before = Some(digest.clone());
                found.insert(*version, Ok(Known { manifest: Arc::new(manifest), digest }));
            }
        }
        match before == Some(last.digest) {
            true => Ok(found),
            false => Err(unusable()),
        }
    }

    /// Indexes of these packs.
    pub(crate) async fn indexes(&self, packs: Vec<Arc<Pack>>) -> Indexes {
        let load = async |pack: Arc<Pack>| {
            let index = load_index(self.store, &pack.key, pack.length).await;
            (pack.key.clone(), index.and_then(|index| fits(&pack, index)))
        };
        futures::stream::iter(packs).map(load).buffer_unordered(REQUESTS).collect().await
    }
}

/// Checks that an index is that of the pack in which it is.
fn fits(pack: &Pack, index: PackIndex) -> Result<PackIndex, ReplicateError> {
    match (index.first, index.last, index.timeline) == (pack.first.0, pack.last.0, pack.timeline) {
        true => Ok(index),
        false => {
            let why = format!(
                "its index is of versions {} to {} of timeline {}",
                index.first, index.last, index.timeline
            );
            Err(ReplicateError::Corrupt { key: pack.key.clone(), version: Some(pack.first), why })
        }
    }
}

/// Puts together what lies close to each other, in order.
fn grouped<T>(items: &[T], range: impl Fn(&T) -> Range<u64>) -> Vec<&[T]> {
    let mut groups = Vec::new();
    let mut start = 0;
    for at in 1..items.len() {
        let (first, before, this) = (range(&items[start]), range(&items[at - 1]), range(&items[at]));
        let is_close = this.start >= before.end && this.start - before.end <= GAP;
        if !is_close || this.end - first.start > MOST {
            groups.push(&items[start..at]);
            start = at;
        }
    }
    if !items.is_empty() {
        groups.push(&items[start..]);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_close_is_read_at_once() {
        let ranges = |items: &[Range<u64>]| grouped(items, Range::clone).len();
        assert_eq!(ranges(&[]), 0);
        assert_eq!(ranges(&[0..10, 20..30, 30..31]), 1);
        assert_eq!(ranges(&[0..10, GAP + 11..GAP + 12]), 2);
        assert_eq!(ranges(&[0..10, 5..6]), 2);
        let many: Vec<_> = (0..100).map(|n| n * GAP..n * GAP + 10).collect();
        assert_eq!(ranges(&many), 4);
    }
}
