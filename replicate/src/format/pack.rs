//! Packs: manifests and bundles of up to 64 versions in one object, verbatim, with an index at its end.
//!
//! ```text
//! bundle… manifest  bundle… manifest  …  index (JSON)  footer
//! footer: length of the index (u64, little-endian) · BLAKE3 of the index (32 bytes) · "PONDPACK"
//! ```

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use pond_oplog::{PondId, Timeline, Version};
use serde::{Deserialize, Serialize};

use crate::ReplicateError;
use crate::format::{self, FORMAT, is_digest, pack_key};
use crate::push::bundle::{Object, Spool};
use crate::store::Store;

/// Bytes of the footer.
pub(crate) const FOOTER: u64 = 48;
/// The index of most packs is within so many bytes of the end.
const TAIL: u64 = 64 << 10;
const MAGIC: &[u8; 8] = b"PONDPACK";

/// What is where in a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackIndex {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The pond.
    pub(crate) pond_id: PondId,
    /// The timeline.
    pub(crate) timeline: Timeline,
    /// The first version that it has.
    pub(crate) first: u64,
    /// The last one; it has all between.
    pub(crate) last: u64,
    /// Its objects, one behind the other from its beginning.
    pub(crate) objects: Vec<PackedObject>,
}

/// An object within a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackedObject {
    /// The key that it would have by itself, relative to the timeline's folder.
    pub(crate) key: String,
    /// Where it begins.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// BLAKE3 of them.
    pub(crate) blake3: String,
}

impl PackIndex {
    /// The object of that key.
    pub(crate) fn find(&self, key: &str) -> Option<&PackedObject> {
        self.objects.iter().find(|object| object.key == key)
    }
}

/// Makes a pack.
pub(crate) struct PackWriter {
    spool: Spool,
    index: PackIndex,
}

/// A pack that is to be sent.
pub(crate) struct Pack {
    /// Its key, relative to the timeline's folder.
    pub(crate) key: String,
    pub(crate) object: Object,
}

impl PackWriter {
    /// A pack of these versions. What does not fit in memory goes into a file without a name in `scratch`.
    pub(crate) fn new(
        pond_id: PondId,
        timeline: Timeline,
        versions: (Version, Version),
        scratch: &Path,
    ) -> Self {
        let (first, last) = (versions.0.0, versions.1.0);
        let index = PackIndex { format: FORMAT, pond_id, timeline, first, last, objects: Vec::new() };
        PackWriter { spool: Spool::new(scratch), index }
    }

    /// The first version.
    pub(crate) fn first(&self) -> Version {
        Version(self.index.first)
    }

    /// The last version.
    pub(crate) fn last(&self) -> Version {
        Version(self.index.last)
    }

    /// Adds an object.
    pub(crate) fn add(&mut self, key: String, bytes: &[u8]) -> Result<(), ReplicateError> {
        let (offset, length, blake3) = (self.spool.length(), bytes.len() as u64, format::digest(bytes));
        self.spool.write_all(bytes).map_err(ReplicateError::io("write a pack"))?;
        self.index.objects.push(PackedObject { key, offset, length, blake3 });
        Ok(())
    }

    /// Index and footer.
    pub(crate) fn finish(mut self) -> Result<Pack, ReplicateError> {
        let index = format::encode(&self.index)?;
        let mut tail = index.to_vec();
        tail.extend_from_slice(&(index.len() as u64).to_le_bytes());
        tail.extend_from_slice(blake3::hash(&index).as_bytes());
        tail.extend_from_slice(MAGIC);
        self.spool.write_all(&tail).map_err(ReplicateError::io("write a pack"))?;
        let object = self.spool.finish().map_err(ReplicateError::io("write a pack"))?;
        let key = pack_key(Version(self.index.first), Version(self.index.last), &object.blake3);
        Ok(Pack { key, object })
    }
}

/// Where a pack's index begins, of a pack of `length` bytes that ends with `footer`.
pub(crate) fn index_start(key: &str, length: u64, footer: &[u8]) -> Result<u64, ReplicateError> {
    let broken = || corrupt(key, "it does not end as a pack does");
    let footer = footer.last_chunk::<{ FOOTER as usize }>().ok_or_else(broken)?;
    if footer[40..] != MAGIC[..] {
        return Err(broken());
    }
    let mut index = [0; 8];
    index.copy_from_slice(&footer[..8]);
    let tail = u64::from_le_bytes(index).checked_add(FOOTER);
    tail.and_then(|tail| length.checked_sub(tail)).ok_or_else(broken)
}

/// Reads a pack's index. `tail` is the end of a pack of `length` bytes, from [`index_start`] or before on.
pub(crate) fn read_index(key: &str, length: u64, tail: &[u8]) -> Result<PackIndex, ReplicateError> {
    let start = index_start(key, length, tail)?;
    let before = length.checked_sub(tail.len() as u64).and_then(|skipped| start.checked_sub(skipped));
    let before = before.and_then(|before| usize::try_from(before).ok());
    let bytes = before.and_then(|before| tail.get(before..tail.len() - FOOTER as usize));
    let bytes = bytes.ok_or_else(|| corrupt(key, "its index is not where it should be"))?;
    let footer = &tail[tail.len() - FOOTER as usize..];
    if footer[8..40] != blake3::hash(bytes).as_bytes()[..] {
        return Err(corrupt(key, "the digest of its index is another"));
    }
    let index: PackIndex = format::decode(key, bytes)?;
    let mut offset = 0u64;
    let mut keys = HashSet::new();
    for object in &index.objects {
        if object.offset != offset || !keys.insert(&object.key) || !is_digest(&object.blake3) {
            return Err(corrupt(key, "the objects in its index overlap"));
        }
        offset =
            offset.checked_add(object.length).ok_or_else(|| corrupt(key, "an object in it has no end"))?;
    }
    if offset != start || index.first > index.last {
        return Err(corrupt(key, "its index does not cover it"));
    }
    Ok(index)
}

/// Fetches the index of a pack of `length` bytes.
pub(crate) async fn load_index(store: &Store, key: &str, length: u64) -> Result<PackIndex, ReplicateError> {
    let mut tail = store.get_range(key, length.saturating_sub(TAIL)..length).await?;
    let start = index_start(key, length, &tail)?;
    if length - start > tail.len() as u64 {
        tail = store.get_range(key, start..length).await?;
    }
    read_index(key, length, &tail)
}

fn corrupt(key: &str, why: &str) -> ReplicateError {
    ReplicateError::Corrupt { key: key.to_owned(), version: None, why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack() -> (Pack, Vec<u8>) {
        let scratch = tempfile::tempdir().unwrap();
        let pond_id = PondId::random();
        let mut writer =
            PackWriter::new(pond_id, Timeline::FIRST, (Version(64), Version(65)), scratch.path());
        writer.add("version-000064/manifest.json".into(), b"one").unwrap();
        writer.add("version-000065/manifest.json".into(), b"").unwrap();
        writer.add("version-000065/bundle".into(), b"three").unwrap();
        let pack = writer.finish().unwrap();
        let bytes = pack.object.bytes().unwrap().to_vec();
        (pack, bytes)
    }

    #[test]
    fn what_goes_in_is_found() {
        let (pack, bytes) = pack();
        assert_eq!(pack.object.blake3, format::digest(&bytes));
        let (first, last, blake3) = format::parse_pack_key(&pack.key).unwrap();
        assert_eq!((first, last, blake3), (Version(64), Version(65), pack.object.blake3.as_str()));
        let length = bytes.len() as u64;
        let start = index_start("p", length, &bytes[bytes.len() - FOOTER as usize..]).unwrap();
        for from in [0, 3, start as usize] {
            let index = read_index("p", length, &bytes[from..]).unwrap();
            let object = index.find("version-000065/bundle").unwrap();
            let range = object.offset as usize..(object.offset + object.length) as usize;
            assert_eq!(&bytes[range], b"three");
        }
    }

    #[test]
    fn a_changed_byte_or_length_is_noticed() {
        let (_, bytes) = pack();
        let length = bytes.len() as u64;
        let start = index_start("p", length, &bytes).unwrap() as usize;
        for at in start..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(read_index("p", length, &damaged).is_err(), "byte {at}");
        }
        for cut in 0..bytes.len() {
            assert!(read_index("p", cut as u64, &bytes[..cut]).is_err(), "cut to {cut}");
        }
        assert!(read_index("p", length - 1, &bytes).is_err());
        assert!(read_index("p", length + 1, &bytes).is_err());
    }
}
