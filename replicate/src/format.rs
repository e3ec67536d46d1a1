//! What lies in a backup store: keys and JSON documents.
//!
//! ```text
//! timelines/1.json                              a TimelineDocument, put if absent
//! 1/base-000000/manifest.json, bundle-DIGEST.tar.zst   a base: every live file of one version
//! 1/version-000042/manifest.json                put if absent: version 42 exists once this does
//! 1/version-000042/bundle-DIGEST.tar.zst        its log entry and data files
//! 1/packs/000064-000127-DIGEST.pack             manifests and bundles of these versions, verbatim
//! HEAD.json                                     a hint, overwritten: where the chain's tip is
//! ```
//!
//! The folder's number is the timeline on which a version was shipped. Each version's manifest lies there by itself, decides what
//! the version is, and was put after that of the version before it. Its bundles lie by themselves as well, or (those of
//! less than [`PACKED_BUNDLE`]) in a pack of its range: where versions were shipped as a pack, nowhere else. A range may have several
//! packs, also ones of a push that was cut off or of a second writer that lost, in which only some of the versions are the ones that
//! exist: what is in a pack counts where it is what the manifests that lie by themselves say.
//!
//! The log entry of a version may name a lower timeline than the folder: a promoted pond that is given a new, empty
//! store ships all it has on its own timeline.

pub(crate) mod pack;

use bytes::Bytes;
use pond_oplog::{PondId, Timeline, Version};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ReplicateError;

/// The format of every document here.
pub const FORMAT: u32 = 1;

/// Where the hint lies.
pub const HEAD_KEY: &str = "HEAD.json";

/// The folder of timelines.
pub const TIMELINES: &str = "timelines";

/// Versions that a pack covers, aligned: a pack ends with a version that is one less than a multiple of this.
pub const PACK_VERSIONS: u64 = 64;

/// Bundles of this many bytes and more are never copied into a pack.
pub const PACKED_BUNDLE: u64 = 16 << 20;

/// A version's files are split into bundles that begin anew once this many bytes of input are in one.
pub const BUNDLE_INPUT: u64 = 128 << 20;

/// A log entry or checkpoint has at most this many bytes: either is read as a whole.
pub const LARGEST_ENTRY: u64 = 256 << 20;

/// What a manifest describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What one version added.
    Delta,
    /// Everything live at a version.
    Base,
}

/// What a version, or a base, consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Version or base.
    pub kind: Kind,
    /// The pond.
    pub pond_id: PondId,
    /// The timeline whose folder it is in.
    pub timeline: Timeline,
    /// The version.
    pub version: u64,
    /// Last transaction up to it.
    pub txn_seq: u64,
    /// When it was committed, microseconds since 1970 UTC.
    pub timestamp: i64,
    /// BLAKE3 of the bytes of the parent's manifest: of the version before it; for the version after the chain's root, of
    /// the root's base; for any other base, of the delta of its own version. None for the root.
    pub parent: Option<String>,
    /// BLAKE3 of the table's schema string.
    pub schema: String,
    /// The log entry.
    pub entry: FileDigest,
    /// A base's checkpoint.
    pub checkpoint: Option<FileDigest>,
    /// Data files that the version added; for a base, all live ones.
    pub files: Vec<FileDigest>,
    /// Where their bytes are.
    pub bundles: Vec<BundleRef>,
}

impl Manifest {
    /// What the bundles hold, in their order: log entry, checkpoint, data files.
    pub fn contents(&self) -> impl Iterator<Item = &FileDigest> {
        std::iter::once(&self.entry).chain(&self.checkpoint).chain(&self.files)
    }

    /// The key that it belongs under.
    pub fn key(&self) -> String {
        let version = Version(self.version);
        match self.kind {
            Kind::Delta => manifest_key(self.timeline, version),
            Kind::Base => base_manifest_key(self.timeline, version),
        }
    }

    /// Bytes of the bundles.
    pub fn packed_length(&self) -> u64 {
        self.bundles.iter().map(|bundle| bundle.length).sum()
    }

    /// Bytes of the files.
    pub fn unpacked_length(&self) -> u64 {
        self.contents().map(|file| file.length).sum()
    }

    /// Checks what can be checked of a manifest alone: that it is the one that was asked for, that names are flat and
    /// differ, and that the bundles cover each file once and in order.
    pub fn check(&self, key: &str, kind: Kind, version: Version) -> Result<(), ReplicateError> {
        let corrupt = |why: String| ReplicateError::Corrupt { key: key.into(), version: Some(version), why };
        if self.kind != kind || self.version != version.0 {
            return Err(corrupt(format!("it is that of the {:?} of version {}", self.kind, self.version)));
        }
        if self.checkpoint.is_some() != (kind == Kind::Base) {
            return Err(corrupt("a base has a checkpoint, and nothing else has".into()));
        }
        if self.entry.name != entry_name(version) {
            return Err(corrupt(format!("its log entry is called {:?}", self.entry.name)));
        }
        if self.checkpoint.as_ref().is_some_and(|file| file.name != checkpoint_name(version)) {
            return Err(corrupt("its checkpoint has a name of its own".into()));
        }
        if let Some(file) =
            std::iter::once(&self.entry).chain(&self.checkpoint).find(|file| file.length > LARGEST_ENTRY)
        {
            return Err(corrupt(format!("{} cannot have {} bytes", file.name, file.length)));
        }
        let mut names = std::collections::HashSet::new();
        let mut count = 0;
        for file in self.contents() {
            if !is_flat(&file.name) || !names.insert(&file.name) {
                return Err(corrupt(format!("{:?} cannot be the name of a file in it", file.name)));
            }
            if !is_digest(&file.blake3) {
                return Err(corrupt(format!("the digest of {} is none", file.name)));
            }
            count += 1;
        }
        let mut next = 0usize;
        for bundle in &self.bundles {
            let end = bundle.first.checked_add(bundle.count).filter(|&end| end <= count);
            let (true, Some(end), 1..) = (bundle.first == next, end, bundle.count) else {
                return Err(corrupt(format!("{} does not follow the bundle before it", bundle.key)));
            };
            let unpacked = self
                .contents()
                .skip(next)
                .take(bundle.count)
                .try_fold(0u64, |sum, file| sum.checked_add(file.length));
            if unpacked != Some(bundle.unpacked) || !is_digest(&bundle.blake3) || !is_relative(&bundle.key) {
                return Err(corrupt(format!("what it says of {} cannot be", bundle.key)));
            }
            next = end;
        }
        if next != count {
            return Err(corrupt(format!("{} of its {count} files are in no bundle", count - next)));
        }
        Ok(())
    }
}

/// A file's name, length and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its name, flat: in `data/` for data files, in `data/_delta_log/` for log entry and checkpoint.
    pub name: String,
    /// Bytes.
    pub length: u64,
    /// BLAKE3-256 of them, lowercase hex.
    pub blake3: String,
    /// Whether it was damaged, or gone, where the pond lies when this was shipped. Then its bytes, with zeros where there were
    /// none, are not those of which the log entry has the digests, by which whoever reads the pond finds out.
    #[serde(default, skip_serializing_if = "is_false")]
    pub damaged: bool,
    /// Of one that is damaged the digest of what was written, if the log entry has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A data file that was shipped damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// The version that added it; for the chain's first base, that one's.
    pub version: u64,
    /// Its name.
    pub file: String,
}

/// Damaged files that HEAD names at most.
const MOST_DAMAGE: usize = 100;

/// Adds what a manifest says of damage, up to a number.
pub(crate) fn add_damage(damaged: &mut Vec<Damage>, manifest: &Manifest) {
    for file in manifest.files.iter().filter(|file| file.damaged) {
        let damage = Damage { version: manifest.version, file: file.name.clone() };
        if damaged.len() < MOST_DAMAGE && !damaged.contains(&damage) {
            damaged.push(damage);
        }
    }
}

/// A bundle: a tar of regular files through one zstd frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRef {
    /// Its key, relative to the timeline's folder.
    pub key: String,
    /// Bytes of the object.
    pub length: u64,
    /// BLAKE3-256 of them.
    pub blake3: String,
    /// Bytes of the files in it, without tar's headers.
    pub unpacked: u64,
    /// Which of [`Manifest::contents`] is the first in it.
    pub first: usize,
    /// How many are.
    pub count: usize,
}

/// Where the chain's tip was when it was written: a hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// The pond.
    pub pond_id: PondId,
    /// The timeline.
    pub timeline: Timeline,
    /// The tip.
    pub version: u64,
    /// BLAKE3 of the bytes of the tip's manifest.
    pub manifest: String,
    /// Version of the base with which the chain begins.
    pub root: u64,
    /// The timeline in whose folder that base is.
    #[serde(default = "first_timeline")]
    pub root_timeline: Timeline,
    /// Version of the newest base; the root's if there is no other.
    pub newest_base: u64,
    /// The timeline in whose folder that one is.
    #[serde(default = "first_timeline")]
    pub newest_base_timeline: Timeline,
    /// Bytes of the bundles of the versions after the newest base.
    #[serde(default)]
    pub since_base: u64,
    /// When the tip was committed, microseconds since 1970 UTC.
    pub timestamp: i64,
    /// Data files that were damaged when they were shipped, the first ones. A hint as well: manifests say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<Damage>,
}

fn first_timeline() -> Timeline {
    Timeline::FIRST
}

/// A timeline: what a source, or a promoted replica, writes its versions on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineDocument {
    /// [`FORMAT`].
    pub format: u32,
    /// The pond.
    pub pond_id: PondId,
    /// Its number.
    pub timeline: Timeline,
    /// Random: tells apart two that claimed the same number.
    pub id: Uuid,
    /// The timeline that it forked from.
    pub parent: Option<Timeline>,
    /// The last version that both have.
    pub fork_version: Option<u64>,
    /// BLAKE3 of that version's manifest.
    pub fork_manifest: Option<String>,
}

/// Key of a timeline.
pub fn timeline_key(timeline: Timeline) -> String {
    format!("{TIMELINES}/{timeline}.json")
}

/// Key of a version's manifest.
pub fn manifest_key(timeline: Timeline, version: Version) -> String {
    format!("{timeline}/{}/manifest.json", version_folder(version))
}

/// Key of a base's manifest.
pub fn base_manifest_key(timeline: Timeline, version: Version) -> String {
    format!("{timeline}/{}/manifest.json", base_folder(version))
}

/// Key of something that a manifest names relative to its timeline's folder.
pub fn in_timeline(timeline: Timeline, relative: &str) -> String {
    format!("{timeline}/{relative}")
}

/// Folder of a version, relative to the timeline's.
pub fn version_folder(version: Version) -> String {
    format!("version-{:06}", version.0)
}

/// Folder of a base, relative to the timeline's.
pub fn base_folder(version: Version) -> String {
    format!("base-{:06}", version.0)
}

/// Name of a bundle in its folder.
pub fn bundle_name(blake3: &str) -> String {
    format!("bundle-{blake3}.tar.zst")
}

/// Folder of a timeline's packs.
pub fn packs_folder(timeline: Timeline) -> String {
    format!("{timeline}/packs")
}

/// Key of a pack, relative to the timeline's folder.
pub fn pack_key(first: Version, last: Version, blake3: &str) -> String {
    format!("packs/{:06}-{:06}-{blake3}.pack", first.0, last.0)
}

/// Versions and digest that a pack's key says; none for other keys. Digits are a minimum: numbers are parsed.
pub fn parse_pack_key(key: &str) -> Option<(Version, Version, &str)> {
    let name = key.rsplit('/').next()?.strip_suffix(".pack")?;
    let mut parts = name.splitn(3, '-');
    let (first, last, blake3) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
    (first <= last && is_digest(blake3)).then_some((Version(first), Version(last), blake3))
}

/// Version that a folder of this name is of: `version-000042` or `base-000042`.
pub fn parse_folder(name: &str) -> Option<(Kind, Version)> {
    let parse = |prefix: &str| name.strip_prefix(prefix).and_then(number).map(Version);
    parse("version-")
        .map(|version| (Kind::Delta, version))
        .or_else(|| parse("base-").map(|version| (Kind::Base, version)))
}

fn number(text: &str) -> Option<u64> {
    // `parse` alone would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Last version of the aligned range that a version is in.
pub fn pack_end(version: Version) -> Version {
    Version(version.0 | (PACK_VERSIONS - 1))
}

/// Name of a version's log entry, in bundles and in `_delta_log/`.
pub fn entry_name(version: Version) -> String {
    format!("{:020}.json", version.0)
}

/// Name of a version's checkpoint, in bundles and in `_delta_log/`.
pub fn checkpoint_name(version: Version) -> String {
    format!("{:020}.checkpoint.parquet", version.0)
}

/// BLAKE3-256, lowercase hex.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Whether a text is a digest.
pub fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether a name is one within a directory and visible: no `/`, no leading dot, no control characters.
pub fn is_flat(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
}

/// Whether a key stays in the folder that it is relative to.
fn is_relative(key: &str) -> bool {
    key.split('/').all(is_flat)
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Reads a document. Fields that are not known are passed over; a newer format is an error.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, ReplicateError> {
    let corrupt = |error: serde_json::Error| ReplicateError::Corrupt {
        key: key.into(),
        version: None,
        why: error.to_string(),
    };
    let Format { format } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if format != FORMAT {
        return Err(ReplicateError::TooNew { key: key.into(), format, known: FORMAT });
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}

/// Writes a document.
pub fn encode<T: Serialize>(document: &T) -> Result<Bytes, ReplicateError> {
    serde_json::to_vec(document)
        .map(Bytes::from)
        .map_err(|error| ReplicateError::Other(format!("cannot encode a document of the backup: {error}")))
}

#[cfg(test)]
mod tests;
