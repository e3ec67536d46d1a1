//! Fetching and verifying versions: what comes out of here is staged whole and may be applied.
//!
//! Requests run on one thread, side by side, and what they bring is hashed, unpacked and written on others. Whatever was
//! verified is in the staging area: a later run finds it there and does not ask for it again.

pub(crate) mod copy;
pub(crate) mod download;
pub(crate) mod meter;
mod of_base;
mod packed;
pub(crate) mod plan;
pub(crate) mod staged_pack;
pub(crate) mod unbundle;
mod unusable;
pub(crate) mod verify;
pub(crate) mod workers;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use pond_oplog::{Incoming, PondId, Timeline, Version};
use tokio::sync::OnceCell;

use crate::ReplicateError;
use crate::fetch::download::Downloads;
use crate::fetch::meter::Meter;
use crate::fetch::plan::{Packs, Unit};
use crate::fetch::staged_pack::StagedPack;
use crate::fetch::unbundle::{Target, unbundle, unbundled};
use crate::fetch::unusable::Unusable;
use crate::fetch::workers::Workers;
use crate::format::{
    self, BundleRef, FileDigest, Head, Kind, Manifest, base_manifest_key, in_timeline, manifest_key,
};
use crate::history::find;
use crate::history::lineage::Lineage;
use crate::store::Store;

/// Bundles of one version, or of one pack's versions, fetched side by side.
const BUNDLES: usize = 8;

/// A version that was verified: its data files are staged.
#[derive(Clone)]
pub(crate) struct Fetched {
    /// Its manifest.
    pub(crate) manifest: Arc<Manifest>,
    /// BLAKE3 of the manifest's bytes, on which the next version builds.
    pub(crate) digest: String,
    /// Bytes of its log entry.
    pub(crate) entry: Bytes,
    /// The pack that it came from.
    pub(crate) pack: Option<Arc<StagedPack>>,
    /// Whether it was taken from the base of its version, its own manifest being nowhere: then it is not known on which
    /// manifest that one builds, only what builds on it.
    pub(crate) of_base: bool,
}

impl Fetched {
    pub(crate) fn version(&self) -> Version {
        Version(self.manifest.version)
    }
}

/// A base that was verified: its data files are staged.
pub(crate) struct FetchedBase {
    /// Manifest and log entry.
    pub(crate) version: Fetched,
    /// Bytes of its checkpoint.
    pub(crate) checkpoint: Bytes,
}

/// What fetches the versions of one chain.
pub(crate) struct Fetcher<'a> {
    store: &'a Store,
    incoming: &'a Incoming,
    pond_id: PondId,
    lineage: Lineage,
    /// Versions of which packs are listed.
    range: RangeInclusive<Version>,
    /// Keys of packs that are not part of the chain as a whole.
    excluded: Vec<String>,
    packs: OnceCell<Packs>,
    staged_packs: Mutex<HashMap<String, Arc<OnceCell<Arc<StagedPack>>>>>,
    unusable: Mutex<Vec<Unusable>>,
    downloads: Downloads<'a>,
    meter: &'a Meter<'a>,
}

impl<'a> Fetcher<'a> {
    /// For the versions of `range` of the chain that ends on the newest timeline of `lineage`.
    pub(crate) fn new(
        store: &'a Store,
        incoming: &'a Incoming,
        pond_id: PondId,
        lineage: Lineage,
        range: RangeInclusive<Version>,
        excluded: Vec<String>,
        meter: &'a Meter<'a>,
    ) -> Self {
        Fetcher {
            store,
            incoming,
            pond_id,
            lineage,
            range,
            excluded,
            packs: OnceCell::new(),
            staged_packs: Mutex::default(),
            unusable: Mutex::default(),
            downloads: Downloads::new(store, meter),
            meter,
        }
    }

    /// The packs of the range, listed once.
    async fn listed(&self) -> Result<&Packs, ReplicateError> {
        let (first, last) = (*self.range.start(), *self.range.end());
        self.packs.get_or_try_init(async || Packs::list(self.store, &self.lineage, first, last).await).await
    }

    /// The packs of the range that may be part of the chain.
    pub(crate) async fn packs(&self) -> Result<Packs, ReplicateError> {
        let packs = self.listed().await?.clone();
        Ok(self.excluded.iter().fold(packs, |packs, key| packs.without(key)))
    }

    /// The chain's lineage.
    pub(crate) fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Whether the manifest that lies in the store by itself is that of this version, which came in a pack.
    pub(crate) async fn agrees(&self, fetched: &Fetched) -> Result<bool, ReplicateError> {
        // A base was put where none was, as a manifest is.
        if fetched.of_base {
            return Ok(true);
        }
        let found = find::single(self.store, &self.lineage, self.pond_id, fetched.version()).await?;
        Ok(found.is_some_and(|(_, digest)| digest == fetched.digest))
    }

    /// Checks that HEAD names a version that there is, before anything is planned by its number, and packs are judged by its
    /// digest. [`ReplicateError::MissingVersion`] if there is none.
    pub(crate) async fn confirm(&self, head: &Head) -> Result<(), ReplicateError> {
        let version = Version(head.version);
        let timeline = self.lineage.timeline_of(version);
        let wrong = |digest: &str| {
            let said = &head.manifest;
            let why = format!("HEAD says that its manifest has the digest {said}, and it has {digest}");
            Err(ReplicateError::BrokenChain { version, key: format::HEAD_KEY.to_owned(), why })
        };
        let Some(found) = self.manifest(version, Kind::Delta, timeline).await? else {
            // It may be in a pack.
            return match find::manifest(self.store, &self.lineage, self.pond_id, version).await? {
                Some((_, digest)) if digest == head.manifest => Ok(()),
                Some((_, digest)) => wrong(&digest),
                None => Err(ReplicateError::missing(version, self.store.place())),
            };
        };
        let digest = format::digest(&found.bytes);
        if digest != head.manifest {
            self.incoming.discard_staged(&staged_manifest(timeline, version))?;
            return wrong(&digest);
        }
        match found.staged {
            Some(name) => staged_pack::stage(self.incoming, &name, &found.bytes),
            None => Ok(()),
        }
    }

    /// The versions of a unit, in their order. Those of a pack that cannot be used are fetched one by one.
    pub(crate) async fn unit<'s>(
        &self,
        workers: &Workers<'s, '_>,
        unit: &Unit,
    ) -> Result<Vec<Fetched>, ReplicateError>
    where
        'a: 's,
    {
        match &unit.pack {
            None => Ok(vec![self.single(workers, unit.first).await?]),
            Some(pack) => match self.packed(workers, pack, unit.first, unit.last).await {
                Ok(fetched) => Ok(fetched),
                Err(error) => {
                    self.set_aside(pack, error)?;
                    futures::stream::iter((unit.first.0..=unit.last.0).map(Version))
                        .map(|version| self.single(workers, version))
                        .buffered(BUNDLES)
                        .try_collect()
                        .await
                }
            },
        }
    }

    /// The manifest of a version that is to be had singly, staged; none if there is none.
    async fn manifest(
        &self,
        version: Version,
        kind: Kind,
        timeline: Timeline,
    ) -> Result<Option<Found>, ReplicateError> {
        let (key, name) = match kind {
            Kind::Delta => (manifest_key(timeline, version), staged_manifest(timeline, version)),
            Kind::Base => (base_manifest_key(timeline, version), staged_base(timeline, version)),
        };
        let check =
            |bytes: &Bytes| verify::manifest(self.store, &key, bytes, kind, version, timeline, self.pond_id);
        if let Some(bytes) = self.incoming.read_staged(&name)? {
            if let Ok(manifest) = check(&bytes) {
                return Ok(Some(Found { manifest: Arc::new(manifest), bytes, staged: None }));
            }
            self.incoming.discard_staged(&name)?;
        }
        let Some(bytes) = self.store.get(&key).await? else { return Ok(None) };
        self.meter.add(bytes.len() as u64);
        let manifest = Arc::new(check(&bytes)?);
        Ok(Some(Found { manifest, bytes, staged: Some(name) }))
    }

    /// A version whose manifest lies by itself; its bundles do too, or are in a pack of its range. Only where the manifest is
    /// not there the pack's is taken, and whoever applies it finds out whether it is part of the chain.
    async fn single<'s>(&self, workers: &Workers<'s, '_>, version: Version) -> Result<Fetched, ReplicateError>
    where
        'a: 's,
    {
        let timeline = self.lineage.timeline_of(version);
        let (mut arbiter, mut damaged) = (None, None);
        if let Some(found) = self.manifest(version, Kind::Delta, timeline).await? {
            let (manifest, digest) = (found.manifest.clone(), format::digest(&found.bytes));
            let entry = self.verified(self.entry(workers, found).await, &staged_manifest(timeline, version));
            match entry {
                Ok(Some(entry)) => {
                    return Ok(Fetched { manifest, digest, entry, pack: None, of_base: false });
                }
                Ok(None) => {}
                // What is damaged here may be whole in a pack.
                Err(error @ ReplicateError::Corrupt { .. }) => damaged = Some(error),
                Err(error) => return Err(error),
            }
            arbiter = Some(digest);
        }
        for pack in self.listed().await?.of(&self.lineage, version) {
            // The beginning of a pack may be part of the chain although its end is not, and lie nowhere else.
            if arbiter.is_none() && self.excluded.contains(&pack.key) {
                continue;
            }
            let fetched = match self.packed(workers, &pack, version, version).await {
                Ok(mut fetched) => fetched.pop(),
                Err(error) => {
                    self.set_aside(&pack, error)?;
                    None
                }
            };
            let Some(fetched) = fetched else { continue };
            match &arbiter {
                None => return Ok(fetched),
                // It does not depend on the pack that its bytes came from.
                Some(digest) if *digest == fetched.digest => return Ok(Fetched { pack: None, ..fetched }),
                // The pack of a writer that lost.
                Some(_) => {}
            }
        }
        match self.of_base(workers, version).await? {
            Some(fetched) if arbiter.as_ref().is_none_or(|digest| *digest == fetched.digest) => Ok(fetched),
            _ => Err(damaged.unwrap_or_else(|| self.missing(version))),
        }
    }

    /// A base.
    pub(crate) async fn base<'s>(
        &self,
        workers: &Workers<'s, '_>,
        version: Version,
        timeline: Timeline,
    ) -> Result<FetchedBase, ReplicateError>
    where
        'a: 's,
    {
        let missing = |key: String| ReplicateError::Corrupt {
            key,
            version: Some(version),
            why: "the base is not there, or not all of it".into(),
        };
        let key = base_manifest_key(timeline, version);
        let Some(found) = self.manifest(version, Kind::Base, timeline).await? else {
            return Err(missing(key));
        };
        let (manifest, digest) = (found.manifest.clone(), format::digest(&found.bytes));
        let entry = self.verified(self.entry(workers, found).await, &staged_base(timeline, version))?;
        let checkpoint = match &manifest.checkpoint {
            Some(file) => self.incoming.read_staged(&file.name)?.filter(|bytes| verify::is(file, bytes)),
            None => None,
        };
        let (Some(entry), Some(checkpoint)) = (entry, checkpoint) else { return Err(missing(key)) };
        let version = Fetched { manifest, digest, entry, pack: None, of_base: false };
        Ok(FetchedBase { version, checkpoint })
    }

    /// Stages a manifest and everything in its bundles, and gives the log entry; none if a bundle is not there.
    async fn entry<'s>(
        &self,
        workers: &Workers<'s, '_>,
        found: Found,
    ) -> Result<Option<Bytes>, ReplicateError>
    where
        'a: 's,
    {
        let manifest = found.manifest.clone();
        if !self.contents(workers, found).await? {
            return Ok(None);
        }
        let entry = self.staged_entry(&manifest)?;
        if let Some(entry) = &entry {
            verify::entry(self.store, &manifest, entry)?;
        }
        Ok(entry)
    }

    /// Where a manifest and what it lists do not go together, the manifest may be at fault: it is asked for again the next
    /// time.
    fn verified<T>(&self, result: Result<T, ReplicateError>, staged: &str) -> Result<T, ReplicateError> {
        if let Err(ReplicateError::Corrupt { .. } | ReplicateError::ForeignPond { .. }) = &result {
            self.incoming.discard_staged(staged)?;
        }
        result
    }

    /// Stages a manifest and everything in its bundles; false if one of them is not there.
    async fn contents<'s>(&self, workers: &Workers<'s, '_>, found: Found) -> Result<bool, ReplicateError>
    where
        'a: 's,
    {
        let Found { manifest, bytes, staged } = found;
        let keep = async {
            let Some(name) = staged else { return Ok(()) };
            let incoming = self.incoming;
            workers.run(move || staged_pack::stage(incoming, &name, &bytes)).await?
        };
        let bundles =
            self.bundles(workers, manifest.bundles.iter().map(|bundle| (&manifest, bundle)).collect());
        let (kept, there) = futures::join!(keep, bundles);
        kept.and(there)
    }

    /// Fetches bundles side by side and stages what is in them; false if one of them is not there.
    async fn bundles<'s>(
        &self,
        workers: &Workers<'s, '_>,
        bundles: Vec<(&Arc<Manifest>, &BundleRef)>,
    ) -> Result<bool, ReplicateError>
    where
        'a: 's,
    {
        // A failure of one does not end the others: what they have is not fetched again.
        let there: Vec<Result<bool, ReplicateError>> = futures::stream::iter(bundles)
            .map(|(manifest, bundle)| self.bundle(workers, manifest, bundle))
            .buffer_unordered(BUNDLES)
            .collect()
            .await;
        there.into_iter().try_fold(true, |all, there| Ok(all && there?))
    }

    /// Fetches a bundle and stages what is in it; false if it is not there. One of which all is at hand is not fetched.
    async fn bundle<'s>(
        &self,
        workers: &Workers<'s, '_>,
        manifest: &Arc<Manifest>,
        bundle: &BundleRef,
    ) -> Result<bool, ReplicateError>
    where
        'a: 's,
    {
        let files: Vec<FileDigest> =
            manifest.contents().skip(bundle.first).take(bundle.count).cloned().collect();
        let incoming = self.incoming;
        if files.iter().all(|file| incoming.is_staged(&file.name)) {
            return Ok(true);
        }
        let key = in_timeline(manifest.timeline, &bundle.key);
        let digest = bundle.blake3.clone();
        let unpack = move |pieces| {
            unbundle(pieces, &digest, &files, |file| match incoming.is_staged(&file.name) {
                true => Ok(Target::Pass),
                false => incoming.stage(&file.name).map(Target::Stage),
            })
        };
        let version = Version(manifest.version);
        match self.downloads.get(workers, &key, bundle.length, Some(version), unpack).await? {
            None => Ok(false),
            Some(unpacked) => unpacked.map(|_| true).map_err(|error| unbundled(key, version, error)),
        }
    }

    /// The log entry of a manifest, if it is staged and the one that the manifest means: another timeline's would have the
    /// same name.
    fn staged_entry(&self, manifest: &Manifest) -> Result<Option<Bytes>, ReplicateError> {
        let file = &manifest.entry;
        match self.incoming.read_staged(&file.name)? {
            Some(bytes) if verify::is(file, &bytes) => Ok(Some(bytes)),
            Some(_) => {
                self.incoming.discard_staged(&file.name)?;
                Err(ReplicateError::StaleEntry(Version(manifest.version)))
            }
            None => Ok(None),
        }
    }

    /// Removes what was kept of a version besides what applying it takes.
    pub(crate) fn forget_manifest(&self, fetched: &Fetched) -> Result<(), ReplicateError> {
        match fetched.pack {
            Some(_) => Ok(()),
            None => Ok(self
                .incoming
                .discard_staged(&staged_manifest(fetched.manifest.timeline, fetched.version()))?),
        }
    }
}

/// A manifest that was checked.
struct Found {
    manifest: Arc<Manifest>,
    bytes: Bytes,
    /// The name under which it is to be staged, unless it is.
    staged: Option<String>,
}

fn staged_manifest(timeline: Timeline, version: Version) -> String {
    format!("manifest-{timeline}-{version}")
}

fn staged_base(timeline: Timeline, version: Version) -> String {
    format!("base-{timeline}-{version}")
}
