//! Versions that come in packs, and packs that cannot be used.

use std::sync::Arc;

use pond_oplog::Version;

use super::{Fetched, Fetcher};
use crate::ReplicateError;
use crate::fetch::plan::{Pack, STAGED_PACK};
use crate::fetch::staged_pack::{self, PackedVersion, StagedPack};
use crate::fetch::unusable::Unusable;
use crate::fetch::verify;
use crate::fetch::workers::Workers;

impl<'a> Fetcher<'a> {
    /// Versions of a pack: what it holds itself and the large bundles that it only names.
    pub(super) async fn packed<'s>(
        &self,
        workers: &Workers<'s, '_>,
        pack: &Arc<Pack>,
        first: Version,
        last: Version,
    ) -> Result<Vec<Fetched>, ReplicateError>
    where
        'a: 's,
    {
        let pack = self.staged_pack(workers, pack).await?;
        let (store, incoming, pond_id) = (self.store, self.incoming, self.pond_id);
        let staged = pack.clone();
        let packed = workers.run(move || staged.versions(store, incoming, first, last, pond_id)).await??;
        let key = || pack.pack().key.clone();
        let elsewhere: Vec<_> = packed
            .iter()
            .flat_map(|version| {
                version.elsewhere.iter().map(|&bundle| (&version.manifest, &version.manifest.bundles[bundle]))
            })
            .collect();
        self.meter.expect(elsewhere.iter().map(|(_, bundle)| bundle.length).sum());
        if !self.bundles(workers, elsewhere).await? {
            let why = "a bundle that it names is not in the store".into();
            return Err(ReplicateError::Corrupt { key: key(), version: Some(first), why });
        }
        let mut fetched = Vec::with_capacity(packed.len());
        for PackedVersion { manifest, digest, entry, .. } in packed {
            let entry = match entry {
                Some(entry) => Some(entry),
                None => self.staged_entry(&manifest)?,
            };
            let Some(entry) = entry else {
                let version = Some(Version(manifest.version));
                let why = "its log entry is in none of its bundles".into();
                return Err(ReplicateError::Corrupt { key: key(), version, why });
            };
            verify::entry(self.store, &manifest, &entry)?;
            fetched.push(Fetched { manifest, digest, entry, pack: Some(pack.clone()), of_base: false });
        }
        Ok(fetched)
    }

    /// A pack in the staging area, fetched if it is not there yet.
    async fn staged_pack<'s>(
        &self,
        workers: &Workers<'s, '_>,
        pack: &Arc<Pack>,
    ) -> Result<Arc<StagedPack>, ReplicateError>
    where
        'a: 's,
    {
        let cell = self.staged_packs.lock().entry(pack.key.clone()).or_default().clone();
        let staged = cell.get_or_try_init(async || {
            // Others may have waited here for it.
            self.check_usable(pack)?;
            let incoming = self.incoming;
            let name = pack.staged_name();
            if !incoming.is_staged(&name) {
                let wanted = pack.clone();
                let keep = move |pieces| staged_pack::keep(incoming, &wanted, pieces);
                match self.downloads.get(workers, &pack.key, pack.length, None, keep).await? {
                    Some(kept) => kept?,
                    None => {
                        let why = "it was listed and is not there any more".into();
                        let version = Some(pack.first);
                        return Err(ReplicateError::Corrupt { key: pack.key.clone(), version, why });
                    }
                }
            }
            let (store, pond_id, wanted) = (self.store, self.pond_id, pack.clone());
            workers.run(move || StagedPack::open(store, incoming, &wanted, pond_id)).await?.map(Arc::new)
        });
        staged.await.cloned()
    }

    /// Whether a pack was fetched, by this run or one that was killed.
    pub(crate) fn is_staged(&self, pack: &Pack) -> bool {
        self.incoming.is_staged(&pack.staged_name())
    }

    /// Whether there is any such pack.
    pub(crate) fn has_staged_packs(&self) -> Result<bool, ReplicateError> {
        Ok(self.incoming.staged()?.iter().any(|file| file.name.starts_with(STAGED_PACK)))
    }

    /// Removes a pack that is no longer needed from the staging area.
    pub(crate) fn forget_pack(&self, pack: &Pack) -> Result<(), ReplicateError> {
        self.staged_packs.lock().remove(&pack.key);
        Ok(self.incoming.discard_staged(&pack.staged_name())?)
    }

    /// Uses a pack no more, if this error is one of the pack itself; else gives the error back.
    pub(super) fn set_aside(&self, pack: &Arc<Pack>, error: ReplicateError) -> Result<(), ReplicateError> {
        let (key, version, why) = match &error {
            ReplicateError::Corrupt { key, version, why } => (key, *version, why),
            ReplicateError::BrokenChain { key, version, why } => (key, Some(*version), why),
            _ => return Err(error),
        };
        // What is wrong with an object that the pack only names is no less wrong without the pack.
        if !key.starts_with(&pack.key) {
            return Err(error);
        }
        tracing::warn!(
            key,
            version = version.unwrap_or(pack.first).0,
            why,
            "a pack in the backup store cannot be used; its versions are fetched one by one"
        );
        let (key, why) = (key.clone(), why.clone());
        self.unusable.lock().push(Unusable { pack: pack.clone(), key, version, why });
        self.forget_pack(pack)
    }

    /// Why a pack is not to be asked for again.
    fn check_usable(&self, pack: &Pack) -> Result<(), ReplicateError> {
        let unusable = self.unusable.lock();
        unusable
            .iter()
            .find(|unusable| unusable.pack.key == pack.key)
            .map_or(Ok(()), |found| Err(found.error()))
    }

    /// The error of a version that is not to be had: the store has it in a pack that is damaged, or not at all.
    pub(super) fn missing(&self, version: Version) -> ReplicateError {
        let timeline = self.lineage.timeline_of(version);
        let unusable = self.unusable.lock();
        let its = |unusable: &&Unusable| unusable.pack.timeline == timeline && unusable.pack.covers(version);
        match unusable.iter().find(its) {
            Some(unusable) => unusable.error(),
            None => ReplicateError::missing(version, self.store.place()),
        }
    }
}
