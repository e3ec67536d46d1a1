//! Packs of what was shipped one by one. They only make restoring cheaper: what cannot be packed stays as it is.

use std::collections::HashMap;

use bytes::Bytes;
use pond_oplog::Version;

use super::discover::own_key;
use super::pusher::{Packable, Pusher};
use crate::ReplicateError;
use crate::format::pack::{Pack, PackIndex, PackWriter, load_index};
use crate::format::{
    self, BundleRef, Manifest, PACK_VERSIONS, PACKED_BUNDLE, manifest_key, pack_end, packs_folder,
    parse_pack_key, version_folder,
};
use crate::history::find::packed_manifest;

/// The packs that a range has already, once they were asked for.
enum Older {
    Unknown,
    Known(Vec<(String, PackIndex)>),
}

impl Pusher {
    /// Finds the ranges that a push which was cut off has left without a pack, and packs that it left without versions.
    pub(super) async fn find_missing_packs(&mut self) -> Result<(), ReplicateError> {
        let mut packed: HashMap<u64, Vec<(String, u64)>> = HashMap::new();
        for object in self.source.store.list(&packs_folder(self.source.timeline)).await? {
            match parse_pack_key(&object.key) {
                Some((_, last, _)) if last <= self.chain.tip => {
                    packed.entry(last.0).or_default().push((object.key, object.length));
                }
                Some(_) => self.orphans.push(object.key),
                None => {}
            }
        }
        // A second writer that lost may have left a pack. It did so not long ago, so that one range is looked at.
        let tip = self.chain.tip.0;
        if let Some(newest) = tip.checked_sub((tip + 1) % PACK_VERSIONS)
            && let Some(packs) = packed.get(&newest)
            && !self.has_ours(packs, Version(newest)).await?
        {
            packed.remove(&newest);
        }
        let mut end = pack_end(self.chain.first);
        while end <= self.chain.tip {
            if !packed.contains_key(&end.0) && self.range_start(end) < end {
                self.unpacked.insert(end.0);
            }
            end = pack_end(end.next());
        }
        Ok(())
    }

    /// Whether one of these packs, which end with that version, is of this chain.
    async fn has_ours(&self, packs: &[(String, u64)], end: Version) -> Result<bool, ReplicateError> {
        let store = &self.source.store;
        let Some(manifest) = store.get(&manifest_key(self.source.timeline, end)).await? else {
            // It is nowhere but in a pack.
            return Ok(true);
        };
        let digest = format::digest(&manifest);
        for (key, length) in packs {
            match load_index(store, key, *length).await {
                Ok(index) => {
                    let its = index.find(&packed_manifest(end));
                    if its.is_some_and(|its| its.blake3 == digest) {
                        return Ok(true);
                    }
                }
                Err(error @ (ReplicateError::Corrupt { .. } | ReplicateError::TooNew { .. })) => {
                    tracing::warn!(%error, place = store.place(), "a pack is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Packs what is complete and has no pack.
    pub(super) async fn write_missing_packs(&mut self) -> Result<(), ReplicateError> {
        while let Some(&end) = self.unpacked.first() {
            let end = Version(end);
            if let Some(pack) = self.make_pack(end).await? {
                let key = own_key(&self.source, &pack.key);
                pack.object.send(&self.source.store, &key).await?;
                self.remove_orphans(&key).await;
            }
            self.unpacked.remove(&end.0);
            self.recent.forget_up_to(end);
        }
        Ok(())
    }

    async fn make_pack(&self, end: Version) -> Result<Option<Pack>, ReplicateError> {
        let source = &self.source;
        let first = self.range_start(end);
        let mut writer = PackWriter::new(source.pond_id, source.timeline, (first, end), &source.pond);
        let mut older = Older::Unknown;
        for version in (first.0..=end.0).map(Version) {
            let packable = match self.recent.get(version) {
                Some(packable) => Some(packable),
                None => self.fetch_back(version, &mut older).await?,
            };
            let Some(packable) = packable else { return Ok(None) };
            for (key, bytes) in packable.bundles {
                writer.add(key, &bytes)?;
            }
            writer.add(format!("{}/manifest.json", version_folder(version)), &packable.manifest)?;
        }
        writer.finish().map(Some)
    }

    /// A version as the store has it; none, and a warning, if it is not whole.
    async fn fetch_back(
        &self,
        version: Version,
        older: &mut Older,
    ) -> Result<Option<Packable>, ReplicateError> {
        let store = &self.source.store;
        let key = manifest_key(self.source.timeline, version);
        let unfit = |key: &str, why: &str| {
            tracing::warn!(place = store.place(), key, why, "a version cannot be packed");
            Ok(None)
        };
        let Some(bytes) = store.get(&key).await? else { return unfit(&key, "its manifest is not there") };
        let manifest = match format::decode::<Manifest>(&key, &bytes) {
            Ok(manifest) => manifest,
            // A pack only makes restoring cheaper: what cannot be in one must not fail the push of new versions.
            Err(error @ (ReplicateError::Corrupt { .. } | ReplicateError::TooNew { .. })) => {
                return unfit(&key, &error.to_string());
            }
            Err(error) => return Err(error),
        };
        let mut bundles = Vec::new();
        for bundle in manifest.bundles.iter().filter(|bundle| bundle.length < PACKED_BUNDLE) {
            let key = own_key(&self.source, &bundle.key);
            let found = match store.get(&key).await? {
                Some(bytes) => Some(bytes),
                None => self.in_older_pack(version, bundle, older).await?,
            };
            match found {
                Some(bytes) if format::digest(&bytes) == bundle.blake3 => {
                    bundles.push((bundle.key.clone(), bytes));
                }
                Some(_) => return unfit(&key, "its digest is another than its manifest says"),
                None => return unfit(&key, "it is neither there by itself nor in a pack"),
            }
        }
        Ok(Some(Packable { manifest: bytes, bundles }))
    }

    /// A bundle that lies in a pack only: of a push that was cut off, or ended by a second writer, among that pack's manifests.
    async fn in_older_pack(
        &self,
        version: Version,
        bundle: &BundleRef,
        older: &mut Older,
    ) -> Result<Option<Bytes>, ReplicateError> {
        let store = &self.source.store;
        if matches!(older, Older::Unknown) {
            *older = Older::Known(self.packs_of(version).await?);
        }
        let Older::Known(packs) = older else { return Ok(None) };
        for (key, index) in packs.iter() {
            let Some(object) = index.find(&bundle.key) else { continue };
            if (object.length, &object.blake3) == (bundle.length, &bundle.blake3) {
                let range = object.offset..object.offset + object.length;
                return Ok(Some(store.get_range(key, range).await?));
            }
        }
        Ok(None)
    }

    /// The packs of a version's range, and what is in them.
    async fn packs_of(&self, version: Version) -> Result<Vec<(String, PackIndex)>, ReplicateError> {
        let store = &self.source.store;
        let mut packs = Vec::new();
        for object in store.list(&packs_folder(self.source.timeline)).await? {
            let Some((first, last, _)) = parse_pack_key(&object.key) else { continue };
            if version < first || version > last {
                continue;
            }
            match load_index(store, &object.key, object.length).await {
                Ok(index) => packs.push((object.key, index)),
                Err(error @ (ReplicateError::Corrupt { .. } | ReplicateError::TooNew { .. })) => {
                    tracing::warn!(%error, place = store.place(), "a pack is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(packs)
    }

    /// Removes packs of a push that was cut off, now that the versions up to the tip are in others.
    pub(super) async fn remove_orphans(&mut self, ours: &str) {
        let tip = self.chain.tip;
        let superseded = |key: &String| parse_pack_key(key).is_some_and(|(_, last, _)| last <= tip);
        let (done, keep) = std::mem::take(&mut self.orphans).into_iter().partition(superseded);
        self.orphans = keep;
        let done: Vec<String> = done;
        for key in done.iter().filter(|key| *key != ours) {
            self.remove_pack(key).await;
        }
    }

    /// Removes a pack that nothing refers to. If that fails it only costs room: readers check which pack counts.
    pub(super) async fn remove_pack(&self, key: &str) {
        if let Err(error) = self.source.store.delete(key).await {
            tracing::warn!(%error, "a pack that is not needed stays in the backup store");
        }
    }
}
