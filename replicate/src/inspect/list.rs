//! What is told of versions in a store.

use std::sync::Arc;

use pond_oplog::{At, PondId, Timeline, Version};
use serde::Serialize;

use crate::ReplicateError;
use crate::fetch::plan::Pack;
use crate::format::{BundleRef, FileDigest, Kind, Manifest, in_timeline};
use crate::inspect::manifests::{Indexes, Known};
use crate::inspect::resolve;
use crate::inspect::survey::{Survey, key_of};

/// Where bytes of a version lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the version's own folder.
    Alone,
    /// In a pack.
    Pack,
    /// In both.
    Both,
    /// Part of it here, part of it there.
    Parts,
    /// Not all of it is there.
    Missing,
}

impl Place {
    fn of(alone: bool, packed: bool) -> Place {
        match (alone, packed) {
            (true, true) => Place::Both,
            (true, false) => Place::Alone,
            (false, true) => Place::Pack,
            (false, false) => Place::Missing,
        }
    }

    fn and(self, other: Place) -> Place {
        match (self, other) {
            (one, other) if one == other => one,
            (Place::Missing, _) | (_, Place::Missing) => Place::Missing,
            _ => Place::Parts,
        }
    }
}

/// A version, or a base, of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its number.
    pub version: Version,
    /// Version or base.
    pub kind: Kind,
    /// The timeline in whose folder it is.
    pub timeline: Timeline,
    /// What is known of it; none if its manifest is damaged or missing.
    #[serde(flatten)]
    pub facts: Option<Facts>,
    /// Why nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Listed {
    /// Whether it is a base: everything that was live at the version.
    pub fn is_base(&self) -> bool {
        self.kind == Kind::Base
    }
}

/// What a manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Last transaction up to it.
    pub txn_seq: u64,
    /// When it was committed, microseconds since 1970 UTC.
    pub timestamp: i64,
    /// BLAKE3 of its log entry, as `pond log` has it.
    pub digest: String,
    /// BLAKE3 of its manifest.
    pub manifest: String,
    /// The manifest on which it builds.
    pub parent: Option<String>,
    /// Data files.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes that they take in the store.
    pub stored: u64,
    /// Where those lie.
    pub place: Place,
    /// Data files that were damaged at the source when they were shipped.
    pub damaged: u64,
}

/// A bundle of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BundleFact {
    /// Its key, relative to `backups/`.
    pub key: String,
    /// Bytes.
    pub length: u64,
    /// BLAKE3 of them.
    pub digest: String,
    /// Files in it.
    pub files: usize,
    /// Where it lies.
    pub place: Place,
    /// Keys of packs that have it.
    pub packs: Vec<String>,
}

/// All that there is to know of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Description {
    /// The store.
    pub store: String,
    /// The pond.
    pub pond_id: PondId,
    /// The version.
    #[serde(flatten)]
    pub listed: Listed,
    /// The key of its manifest.
    pub key: String,
    /// Its log entry, then its data files.
    pub contents: Vec<FileDigest>,
    /// Where those are.
    pub bundles: Vec<BundleFact>,
    /// The base with which a restore of it begins.
    pub base: Version,
    /// Versions that a restore takes in after that.
    pub versions: u64,
    /// Bytes that it fetches.
    pub fetches: u64,
    /// Versions of these of which the manifest, or a bundle, is not there.
    pub missing: Vec<Version>,
    /// Whether there is a base of this very version besides.
    pub has_base: bool,
}

/// Packs, and what is in them.
struct Packed<'a> {
    survey: &'a Survey<'a>,
    indexes: Indexes,
}

impl<'a> Packed<'a> {
    /// All packs that may have something of these versions.
    async fn of(survey: &'a Survey<'a>, first: Version, last: Version) -> Packed<'a> {
        let packs: Vec<Arc<Pack>> =
            survey.packs.all().filter(|pack| pack.first <= last && pack.last >= first).cloned().collect();
        Packed { survey, indexes: survey.indexes(packs).await }
    }

    /// Keys of packs that have a bundle.
    fn with(&self, manifest: &Manifest, bundle: &BundleRef) -> Vec<String> {
        let covering = self.survey.packs.of(&self.survey.lineage, Version(manifest.version));
        let has = |pack: &&Arc<Pack>| {
            let index = self.indexes.get(&pack.key).and_then(|index| index.as_ref().ok());
            let object = index.and_then(|index| index.find(&bundle.key));
            object.is_some_and(|object| object.blake3 == bundle.blake3 && object.length == bundle.length)
        };
        covering.iter().filter(has).map(|pack| pack.key.clone()).collect()
    }

    fn place(&self, manifest: &Manifest, bundle: &BundleRef) -> (Place, Vec<String>) {
        let packs = self.with(manifest, bundle);
        let alone = self.survey.length(&key_of(manifest, &bundle.key)) == Some(bundle.length);
        (Place::of(alone, !packs.is_empty()), packs)
    }

    fn facts(&self, known: &Known) -> Facts {
        let manifest = &known.manifest;
        let places = manifest.bundles.iter().map(|bundle| self.place(manifest, bundle).0);
        Facts {
            txn_seq: manifest.txn_seq,
            timestamp: manifest.timestamp,
            digest: manifest.entry.blake3.clone(),
            manifest: known.digest.clone(),
            parent: manifest.parent.clone(),
            files: manifest.files.len() as u64,
            bytes: manifest.unpacked_length(),
            stored: manifest.packed_length(),
            place: places.reduce(Place::and).unwrap_or(Place::Alone),
            damaged: manifest.files.iter().filter(|file| file.damaged).count() as u64,
        }
    }

    fn listed(&self, version: Version, kind: Kind, read: &Result<Known, ReplicateError>) -> Listed {
        let timeline = self.survey.lineage.timeline_of(version);
        let (facts, problem) = match read {
            Ok(known) => (Some(self.facts(known)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Listed { version, kind, timeline, facts, problem }
    }
}

/// Lists versions and bases, newest first, a base after its version.
pub(crate) async fn list(survey: &Survey<'_>, limit: Option<usize>) -> Result<Vec<Listed>, ReplicateError> {
    let limit = limit.unwrap_or(usize::MAX);
    let (root, tip) = (survey.root.0, survey.tip.0);
    let first = (tip + 1).saturating_sub(limit as u64).max(root);
    let range = (first..=tip).filter(|version| *version > root);
    let manifests = match (range.clone().next(), limit) {
        (_, 0) => return Ok(Vec::new()),
        (Some(first), _) => survey.in_bulk(first..=tip).await,
        (None, _) => Default::default(),
    };
    let packed = Packed::of(survey, Version(first), survey.tip).await;
    let mut rows = Vec::new();
    let bases = survey.bases.range(Version(first)..).map(|(version, _)| *version);
    let mut bases: Vec<Version> = bases.collect();
    if first <= root && !bases.contains(&survey.root) {
        bases.push(survey.root);
    }
    for version in bases {
        let read = survey.base(version, survey.lineage.timeline_of(version)).await;
        rows.push(packed.listed(version, Kind::Base, &read));
    }
    rows.extend(manifests.iter().map(|(version, read)| packed.listed(*version, Kind::Delta, read)));
    rows.sort_by_key(|row| std::cmp::Reverse((row.version, row.kind == Kind::Delta)));
    rows.truncate(limit);
    Ok(rows)
}

/// Describes a version.
pub(crate) async fn describe(survey: &Survey<'_>, at: At) -> Result<Description, ReplicateError> {
    let version = resolve::number(survey, at).await?;
    let known = survey.anywhere(version).await?;
    let base = survey.base_for(version).map_or(survey.root, |(base, _)| base);
    let needed = match base < version {
        true => survey.in_bulk(base.0 + 1..=version.0).await,
        false => Default::default(),
    };
    let packed = Packed::of(survey, base, version).await;
    let is_whole = |known: &Known| packed.facts(known).place != Place::Missing;
    let mut missing: Vec<Version> = Vec::new();
    let mut fetches = 0;
    let base_read = survey.base(base, survey.lineage.timeline_of(base)).await;
    for (version, read) in std::iter::once((&base, &base_read)).chain(&needed) {
        match read {
            Ok(known) => {
                fetches += known.manifest.packed_length();
                if !is_whole(known) {
                    missing.push(*version);
                }
            }
            Err(_) => missing.push(*version),
        }
    }
    let manifest = known.manifest.clone();
    let bundles = manifest.bundles.iter().map(|bundle| {
        let (place, packs) = packed.place(&manifest, bundle);
        BundleFact {
            key: in_timeline(manifest.timeline, &bundle.key),
            length: bundle.length,
            digest: bundle.blake3.clone(),
            files: bundle.count,
            place,
            packs,
        }
    });
    Ok(Description {
        store: survey.store.place().to_owned(),
        pond_id: survey.pond_id,
        bundles: bundles.collect(),
        listed: packed.listed(version, manifest.kind, &Ok(known)),
        key: manifest.key(),
        contents: manifest.contents().cloned().collect(),
        base,
        versions: version.0 - base.0,
        fetches,
        missing,
        has_base: survey.bases.contains_key(&version),
    })
}
