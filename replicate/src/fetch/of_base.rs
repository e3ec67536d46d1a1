//! Versions whose own manifests are missing, taken from the base of their number.

use std::sync::Arc;

use pond_oplog::{Version, entry_facts};

use super::{Fetched, Fetcher};
use crate::ReplicateError;
use crate::fetch::workers::Workers;
use crate::format::{FileDigest, Kind, Manifest, base_manifest_key};

impl<'a> Fetcher<'a> {
    /// A version that is nowhere but in the base of its number: that has its log entry, all that it added, and the digest
    /// of its manifest, on which the next one builds.
    pub(super) async fn of_base<'s>(
        &self,
        workers: &Workers<'s, '_>,
        version: Version,
    ) -> Result<Option<Fetched>, ReplicateError>
    where
        'a: 's,
    {
        let timeline = self.lineage.timeline_of(version);
        if self.store.length(&base_manifest_key(timeline, version)).await?.is_none() {
            return Ok(None);
        }
        let base = self.base(workers, version, timeline).await?.version;
        // With a base that has no parent a chain begins.
        let Some(digest) = base.manifest.parent.clone() else { return Ok(None) };
        let added = entry_facts(version, &base.entry)?.added;
        let files: Vec<FileDigest> = base
            .manifest
            .files
            .iter()
            .filter(|file| added.iter().any(|added| added.name == file.name))
            .cloned()
            .collect();
        if files.len() != added.len() {
            return Ok(None);
        }
        tracing::warn!(
            place = self.store.place(),
            version = version.0,
            "a version is missing in the backup store; it was taken from the base of that version"
        );
        let manifest =
            Manifest { kind: Kind::Delta, parent: None, files, checkpoint: None, ..(*base.manifest).clone() };
        Ok(Some(Fetched { manifest: Arc::new(manifest), digest, of_base: true, ..base }))
    }
}
