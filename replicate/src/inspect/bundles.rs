//! Whether bundles are what their manifests say, by their bytes: read as they come, and kept nowhere.

use std::io::{self, Read};
use std::sync::Arc;

use pond_oplog::Version;

use crate::ReplicateError;
use crate::fetch::unbundle::{Target, unbundle, unbundled};
use crate::fetch::verify;
use crate::fetch::workers::Pieces;
use crate::format::pack::PackIndex;
use crate::format::{self, BundleRef, FileDigest, Manifest, in_timeline};
use crate::store::Store;

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// A bundle that is to be looked at.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) manifest: Arc<Manifest>,
    /// Which of its bundles.
    pub(crate) number: usize,
}

impl Wanted {
    pub(crate) fn bundle(&self) -> &BundleRef {
        &self.manifest.bundles[self.number]
    }

    pub(crate) fn key(&self) -> String {
        in_timeline(self.manifest.timeline, &self.bundle().key)
    }

    pub(crate) fn version(&self) -> Version {
        Version(self.manifest.version)
    }

    /// Reads it to its end, and checks each file in it, and the log entry against the manifest.
    pub(crate) fn check(&self, store: &Store, bytes: impl Read) -> Result<(), ReplicateError> {
        let (manifest, bundle) = (&self.manifest, self.bundle());
        let files: Vec<FileDigest> =
            manifest.contents().skip(bundle.first).take(bundle.count).cloned().collect();
        let target =
            |file: &FileDigest| Ok(if *file == manifest.entry { Target::Keep } else { Target::Check });
        let kept = unbundle(bytes, &bundle.blake3, &files, target)
            .map_err(|error| unbundled(self.key(), self.version(), error))?;
        kept.iter().try_for_each(|entry| verify::entry(store, manifest, entry))
    }
}

/// What is wrong with a pack: the object within it, or none for the pack as a whole, and why.
pub(crate) type Wrong = (Option<String>, ReplicateError);

/// Reads a pack to its end, and checks its digest, all objects in it, and those bundles that `wanted` knows by their keys.
pub(crate) fn check_pack(
    store: &Store,
    key: &str,
    blake3: &str,
    index: &PackIndex,
    wanted: &dyn Fn(&str) -> Option<Wanted>,
    pieces: Pieces,
) -> Result<Vec<Wrong>, ReplicateError> {
    let failed = || ReplicateError::io(format!("read {key}"));
    let corrupt = |key: String, why: String| ReplicateError::Corrupt { key, version: None, why };
    let mut source = Hashing { inner: pieces, hasher: blake3::Hasher::new() };
    let mut wrong: Vec<Wrong> = Vec::new();
    for object in &index.objects {
        let mut part = Hashing { inner: (&mut source).take(object.length), hasher: blake3::Hasher::new() };
        let checked = match wanted(&object.key) {
            Some(wanted) => wanted.check(store, &mut part),
            None => Ok(()),
        };
        // Whatever became of it: the next object begins where this one ends.
        drain(&mut part).map_err(failed())?;
        let found = part.hasher.finalize().to_hex();
        let checked = checked.and_then(|()| match found.as_str() == object.blake3 {
            true => Ok(()),
            false => Err(corrupt(
                object.key.clone(),
                format!("its digest is {found} and the pack's index says {}", object.blake3),
            )),
        });
        wrong.extend(checked.err().map(|error| (Some(object.key.clone()), error)));
    }
    drain(&mut source).map_err(failed())?;
    let found = source.hasher.finalize().to_hex();
    if found.as_str() != blake3 && wrong.is_empty() {
        let why = format!("its digest is {found} and not the one in its name");
        wrong.push((None, corrupt(key.to_owned(), why)));
    }
    Ok(wrong)
}

fn drain(source: &mut impl Read) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while source.read(&mut buffer)? > 0 {}
    Ok(())
}

/// Hashes what passes.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// A number that a key always has, spread evenly: which share of all it belongs to.
pub(crate) fn share(key: &str, seed: u64) -> u64 {
    let digest = format::digest(format!("{seed}/{key}").as_bytes());
    u64::from_str_radix(&digest[..16], 16).unwrap_or_default()
}
