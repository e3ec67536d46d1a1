//! Packs in the staging area: one file each, verbatim, so that nothing of one is fetched twice.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use pond_oplog::{Incoming, PondId, StagedFile, Version};

use crate::ReplicateError;
use crate::fetch::plan::Pack;
use crate::fetch::unbundle::{Target, unbundle, unbundled};
use crate::fetch::verify;
use crate::fetch::workers::Pieces;
use crate::format::pack::{FOOTER, PackIndex, PackedObject, index_start, read_index};
use crate::format::{self, Kind, Manifest, in_timeline, manifest_key};
use crate::history::find;
use crate::store::Store;

/// Bytes copied at a time.
const COPY: usize = 256 << 10;
/// A log entry of at most this many bytes is kept in memory between unpacking and applying; a longer one is staged.
const ENTRY_IN_MEMORY: u64 = 1 << 20;

/// A version in a pack, its files staged but for those of the bundles that lie elsewhere.
pub(crate) struct PackedVersion {
    pub(crate) manifest: Arc<Manifest>,
    /// BLAKE3 of the manifest's bytes.
    pub(crate) digest: String,
    /// Its log entry, unless that is staged or lies elsewhere.
    pub(crate) entry: Option<Bytes>,
    /// Which of its bundles are too large for packs.
    pub(crate) elsewhere: Vec<usize>,
}

/// A pack that was fetched and verified.
pub(crate) struct StagedPack {
    pack: Arc<Pack>,
    file: File,
    index: PackIndex,
}

/// Takes in a pack while it comes. It has a name in the staging area only if its digest is the one in its key.
pub(crate) fn keep(incoming: &Incoming, pack: &Pack, mut pieces: Pieces) -> Result<(), ReplicateError> {
    let failed = || ReplicateError::io(format!("keep {}", pack.key));
    let mut staged = BufWriter::with_capacity(COPY, incoming.stage(&pack.staged_name())?);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; COPY];
    loop {
        let count = pieces.read(&mut buffer).map_err(failed())?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        staged.write_all(&buffer[..count]).map_err(failed())?;
    }
    let found = hasher.finalize().to_hex();
    if found.as_str() != pack.blake3 {
        return Err(ReplicateError::Corrupt {
            key: pack.key.clone(),
            version: Some(pack.first),
            why: format!("its digest is {found} and not the one in its name"),
        });
    }
    let staged: StagedFile = staged.into_inner().map_err(io::IntoInnerError::into_error).map_err(failed())?;
    Ok(staged.finish()?)
}

/// Stages a small file whose bytes are at hand and were verified.
pub(crate) fn stage(incoming: &Incoming, name: &str, bytes: &[u8]) -> Result<(), ReplicateError> {
    let mut staged = incoming.stage(name)?;
    staged.write_all(bytes).map_err(ReplicateError::io(format!("keep {name}")))?;
    Ok(staged.finish()?)
}

impl StagedPack {
    /// Opens a pack that is in the staging area, and checks that its manifests are one chain.
    pub(crate) fn open(
        store: &Store,
        incoming: &Incoming,
        pack: &Arc<Pack>,
        pond_id: PondId,
    ) -> Result<Self, ReplicateError> {
        let name = pack.staged_name();
        let failed = || ReplicateError::io(format!("read {}", pack.key));
        let file = incoming.open_staged(&name)?.ok_or_else(|| failed()(io::ErrorKind::NotFound.into()))?;
        let length = file.metadata().map_err(failed())?.len();
        let read = |from: u64| -> Result<Vec<u8>, ReplicateError> {
            let mut bytes = vec![0; usize::try_from(length - from).unwrap_or_default()];
            file.read_exact_at(&mut bytes, from).map_err(failed())?;
            Ok(bytes)
        };
        let footer = read(length.saturating_sub(FOOTER))?;
        let tail = read(index_start(&pack.key, length, &footer)?)?;
        let index = read_index(&pack.key, length, &tail)?;
        if (index.first, index.last, index.timeline) != (pack.first.0, pack.last.0, pack.timeline) {
            let why = format!("its index is of versions {} to {}", index.first, index.last);
            return Err(ReplicateError::Corrupt { key: pack.key.clone(), version: Some(pack.first), why });
        }
        let staged = StagedPack { pack: pack.clone(), file, index };
        let mut tip = None;
        for version in (pack.first.0..=pack.last.0).map(Version) {
            let (manifest, digest) = staged.manifest(store, version, pond_id)?;
            if tip.is_some() && manifest.parent != tip {
                let why = "its manifest does not build on the one before it in the pack".into();
                return Err(ReplicateError::BrokenChain { version, key: pack.key.clone(), why });
            }
            tip = Some(digest);
        }
        Ok(staged)
    }

    /// Which one it is.
    pub(crate) fn pack(&self) -> &Arc<Pack> {
        &self.pack
    }

    /// A version's manifest and the digest of its bytes.
    fn manifest(
        &self,
        store: &Store,
        version: Version,
        pond_id: PondId,
    ) -> Result<(Arc<Manifest>, String), ReplicateError> {
        let object = self.index.find(&find::packed_manifest(version)).ok_or_else(|| {
            let why = "its manifest is not in the pack that should have it".into();
            ReplicateError::Corrupt { key: self.pack.key.clone(), version: Some(version), why }
        })?;
        let mut bytes = Vec::new();
        let read = Section::new(&self.file, object).read_to_end(&mut bytes);
        read.map_err(ReplicateError::io(format!("read {}", self.pack.key)))?;
        let key = format!("{}, {}", self.pack.key, manifest_key(self.pack.timeline, version));
        let manifest =
            verify::manifest(store, &key, &bytes, Kind::Delta, version, self.pack.timeline, pond_id)?;
        Ok((Arc::new(manifest), format::digest(&bytes)))
    }

    /// Versions of the pack; the data files of those bundles that it holds are staged.
    pub(crate) fn versions(
        &self,
        store: &Store,
        incoming: &Incoming,
        first: Version,
        last: Version,
        pond_id: PondId,
    ) -> Result<Vec<PackedVersion>, ReplicateError> {
        let mut versions = Vec::new();
        for version in (first.0..=last.0).map(Version) {
            let (manifest, digest) = self.manifest(store, version, pond_id)?;
            let mut packed = PackedVersion { manifest, digest, entry: None, elsewhere: Vec::new() };
            for number in 0..packed.manifest.bundles.len() {
                match self.index.find(&packed.manifest.bundles[number].key) {
                    None => packed.elsewhere.push(number),
                    Some(object) => {
                        let kept = self.unpack(incoming, &packed.manifest, number, object)?;
                        packed.entry = packed.entry.or(kept);
                    }
                }
            }
            versions.push(packed);
        }
        Ok(versions)
    }

    /// Stages what is in a bundle; gives the log entry if that is in it and small.
    fn unpack(
        &self,
        incoming: &Incoming,
        manifest: &Manifest,
        number: usize,
        object: &PackedObject,
    ) -> Result<Option<Bytes>, ReplicateError> {
        let bundle = &manifest.bundles[number];
        let version = Version(manifest.version);
        let key = || format!("{}, {}", self.pack.key, in_timeline(manifest.timeline, &bundle.key));
        if object.length != bundle.length {
            let why = format!("it has {} bytes there and {} in its manifest", object.length, bundle.length);
            return Err(ReplicateError::Corrupt { key: key(), version: Some(version), why });
        }
        let files: Vec<_> = manifest.contents().skip(bundle.first).take(bundle.count).cloned().collect();
        let target = |file: &format::FileDigest| {
            if *file == manifest.entry && file.length <= ENTRY_IN_MEMORY {
                Ok(Target::Keep)
            } else if incoming.is_staged(&file.name) {
                Ok(Target::Pass)
            } else {
                incoming.stage(&file.name).map(Target::Stage)
            }
        };
        unbundle(Section::new(&self.file, object), &bundle.blake3, &files, target)
            .map(|kept| kept.into_iter().next())
            .map_err(|error| unbundled(key(), version, error))
    }
}

/// A part of a file, read from its beginning to its end.
struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl<'a> Section<'a> {
    fn new(file: &'a File, object: &PackedObject) -> Self {
        Section { file, offset: object.offset, left: object.length }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..most], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
