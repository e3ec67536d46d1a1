//! Sending a version, by itself or as part of a pack, and who decides what it is: the manifest that is there first.

use bytes::Bytes;
use pond_oplog::Version;

use super::discover::own_key;
use super::pieces::Piece;
use super::pusher::{Packable, Pusher, RECENT};
use crate::ReplicateError;
use crate::format::pack::PackWriter;
use crate::format::{self, BundleRef, FileDigest, Manifest, PACKED_BUNDLE, pack_end, version_folder};
use crate::push::bundle::{Stamp, manifest};
use crate::store::PutIfAbsent;

/// A version, and a pack, that are being put together.
#[derive(Default)]
pub(super) struct Part {
    /// Bundles of the version so far.
    made: Vec<(BundleRef, Vec<FileDigest>)>,
    /// The small ones among them, for a later pack.
    held: Vec<(String, Bytes)>,
    pack: Option<Packing>,
}

/// A pack that is being put together. Its versions exist once it is there and their manifests follow it.
struct Packing {
    writer: PackWriter,
    /// The manifests in it, and their bytes.
    manifests: Vec<(Manifest, Bytes)>,
    /// BLAKE3 of the last manifest in it, the parent of the next.
    digest: String,
}

/// What came of a shipment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shipped {
    /// All as expected.
    Fine,
    /// The store had this pond's version already, in other bytes: what was built on ours must be built anew.
    Adopted,
}

impl Pusher {
    /// Takes the next bundle. With a version's last one its manifest follows.
    pub(super) async fn ship(
        &mut self,
        piece: Piece,
        goal: Version,
        part: &mut Part,
    ) -> Result<Shipped, ReplicateError> {
        let Piece { contents, index, bundle } = piece;
        let version = contents.position.version;
        let end = pack_end(version);
        if index == 0 && part.pack.is_none() && self.begins_range(version) && end <= goal && end > version {
            let source = &self.source;
            let writer = PackWriter::new(source.pond_id, source.timeline, (version, end), &source.pond);
            part.pack = Some(Packing { writer, manifests: Vec::new(), digest: self.chain.digest.clone() });
        }
        let small = bundle.reference.length < PACKED_BUNDLE;
        if part.pack.is_none() || !small {
            bundle.object.send(&self.source.store, &own_key(&self.source, &bundle.reference.key)).await?;
        }
        if let (true, Some(bytes)) = (small, bundle.object.bytes()) {
            let key = bundle.reference.key.clone();
            match &mut part.pack {
                Some(pack) => pack.writer.add(key, bytes)?,
                None => part.held.push((key, bytes.clone())),
            }
            // What is not held is fetched back when its pack is made.
            if part.held.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > RECENT {
                part.held.clear();
            }
        }
        part.made.push((bundle.reference, bundle.files));
        if index + 1 < contents.bundles.len() {
            return Ok(Shipped::Fine);
        }
        let (made, bundles) = (std::mem::take(&mut part.made), std::mem::take(&mut part.held));
        let parent = part.pack.as_ref().map_or(&self.chain.digest, |pack| &pack.digest);
        let stamp = Stamp {
            pond_id: self.source.pond_id,
            timeline: self.source.timeline,
            parent: Some(parent),
            schema: &self.schema,
        };
        let manifest = manifest(&contents, &made, &stamp)?;
        let packable = Packable { manifest: format::encode(&manifest)?, bundles };
        let Some(pack) = &mut part.pack else {
            return self.ship_single(manifest, packable).await;
        };
        pack.digest = format::digest(&packable.manifest);
        pack.writer.add(format!("{}/manifest.json", version_folder(version)), &packable.manifest)?;
        pack.manifests.push((manifest, packable.manifest));
        match part.pack.take_if(|pack| version == pack.writer.last()) {
            Some(pack) => self.ship_pack(pack).await,
            None => Ok(Shipped::Fine),
        }
    }

    /// Whether a version is the first of a range that becomes a pack.
    fn begins_range(&self, version: Version) -> bool {
        version == self.range_start(version)
    }

    /// The first version of the range of a version.
    pub(super) fn range_start(&self, version: Version) -> Version {
        Version(version.0 & !(format::PACK_VERSIONS - 1)).max(self.chain.first)
    }

    /// Sends a manifest whose bundles are there.
    async fn ship_single(
        &mut self,
        manifest: Manifest,
        packable: Packable,
    ) -> Result<Shipped, ReplicateError> {
        let (arbitrated, superseded) =
            futures::join!(self.arbitrate(&manifest, &packable.manifest), self.refuse_if_superseded());
        let found = arbitrated?;
        superseded?;
        self.head_may_follow = true;
        let version = Version(manifest.version);
        match found {
            None => {
                let digest = format::digest(&packable.manifest);
                self.advance(&manifest, digest, manifest.packed_length());
                let small = |bundle: &&BundleRef| bundle.length < PACKED_BUNDLE;
                if packable.bundles.len() == manifest.bundles.iter().filter(small).count() {
                    self.recent.add(version, packable);
                }
            }
            Some((theirs, digest)) => self.advance(&theirs, digest, theirs.packed_length()),
        }
        if version == pack_end(version) {
            self.unpacked.insert(version.0);
        }
        Ok(Shipped::Fine)
    }

    /// Sends a pack: first itself, then the manifest of each of its versions, ascending and one after the other, then HEAD.
    ///
    /// So a push that packs a range and one that ships it version by version meet at the first version in which they
    /// differ, wherever in the range that is, and one of them ends there. What the pack holds of versions before that one has
    /// its bundles nowhere else: a pack of which a manifest is in the store stays there.
    async fn ship_pack(&mut self, packing: Packing) -> Result<Shipped, ReplicateError> {
        let Packing { writer, manifests, .. } = packing;
        let (first, end) = (writer.first(), writer.last());
        let pack = writer.finish()?;
        let key = own_key(&self.source, &pack.key);
        pack.object.send(&self.source.store, &key).await?;
        for (manifest, bytes) in manifests {
            let version = Version(manifest.version);
            let arbitrated = if version == first || version == end {
                let (arbitrated, superseded) =
                    futures::join!(self.arbitrate(&manifest, &bytes), self.refuse_if_superseded());
                if arbitrated.is_ok() {
                    superseded?;
                }
                arbitrated
            } else {
                self.arbitrate(&manifest, &bytes).await
            };
            match arbitrated {
                Ok(None) => self.advance(&manifest, format::digest(&bytes), manifest.packed_length()),
                Ok(Some((found, digest))) => {
                    if version == first {
                        self.remove_pack(&key).await;
                    }
                    self.advance(&found, digest, found.packed_length());
                    if version == end {
                        self.unpacked.insert(end.0);
                    }
                    return Ok(Shipped::Adopted);
                }
                Err(error) => {
                    if version == first && matches!(error, ReplicateError::SecondWriter { .. }) {
                        self.remove_pack(&key).await;
                    }
                    return Err(error);
                }
            }
        }
        self.head_may_follow = true;
        self.remove_orphans(&key).await;
        self.write_head().await?;
        Ok(Shipped::Fine)
    }

    /// Puts a manifest where there is none: none if it is there now. One that was there and is this pond's is given back with
    /// its digest; any other is an error.
    async fn arbitrate(
        &self,
        ours: &Manifest,
        bytes: &Bytes,
    ) -> Result<Option<(Manifest, String)>, ReplicateError> {
        let key = ours.key();
        match self.source.store.put_if_absent(&key, bytes.clone()).await? {
            PutIfAbsent::Created => Ok(None),
            // Ours, from a put whose answer was lost, or from a run that was cut off.
            PutIfAbsent::Exists(found) if found == *bytes => Ok(None),
            PutIfAbsent::Exists(found) => {
                let digest = format::digest(&found);
                adopt(self.source.store.place(), &key, ours, &found).map(|theirs| Some((theirs, digest)))
            }
        }
    }

    /// The store has everything up to this manifest's version.
    pub(super) fn advance(&mut self, manifest: &Manifest, digest: String, bundle_bytes: u64) {
        let chain = &mut self.chain;
        chain.tip = Version(manifest.version);
        chain.digest = digest;
        chain.key = manifest.key();
        chain.entry = Some(manifest.entry.blake3.clone());
        chain.timestamp = manifest.timestamp;
        chain.since_base += bundle_bytes;
        format::add_damage(&mut chain.damaged, manifest);
        self.head_is_old = true;
    }
}

/// Whether two manifests list the same files. Of one that either found damaged the bytes may have changed since: it may have
/// been repaired, or suffered more.
fn same_files(theirs: &Manifest, ours: &Manifest) -> bool {
    let same = |(theirs, ours): (&FileDigest, &FileDigest)| {
        let bytes = theirs.blake3 == ours.blake3 || theirs.damaged || ours.damaged;
        bytes && (&theirs.name, theirs.length) == (&ours.name, ours.length)
    };
    theirs.files.len() == ours.files.len() && theirs.files.iter().zip(&ours.files).all(same)
}

/// Reads a manifest that was there first; an error unless it is of the same version of the same history.
pub(crate) fn adopt(
    place: &str,
    key: &str,
    ours: &Manifest,
    found: &Bytes,
) -> Result<Manifest, ReplicateError> {
    let version = Version(ours.version);
    let theirs: Manifest = format::decode(key, found)?;
    if theirs.pond_id != ours.pond_id {
        return Err(ReplicateError::ForeignPond {
            place: place.to_owned(),
            found: theirs.pond_id,
            ours: ours.pond_id,
        });
    }
    theirs.check(key, ours.kind, version)?;
    let differs = [
        ("its log entry is another", theirs.entry != ours.entry),
        ("its data files are others", !same_files(&theirs, ours)),
        ("it follows another version", theirs.parent != ours.parent),
        ("it is on another timeline", theirs.timeline != ours.timeline),
    ];
    match differs.into_iter().find(|(_, differs)| *differs) {
        None => Ok(theirs),
        Some((why, _)) => Err(ReplicateError::SecondWriter {
            place: place.to_owned(),
            key: key.to_owned(),
            version,
            why: why.to_owned(),
        }),
    }
}
