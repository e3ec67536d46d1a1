//! What lies in a store, by one listing: what is damaged, or missing, does not keep it from the rest, as it would whoever restores.

use std::collections::{BTreeMap, BTreeSet};

use pond_oplog::{PondId, Timeline, Version};

use crate::ReplicateError;
use crate::fetch::plan::Packs;
use crate::format::{
    self, HEAD_KEY, Head, Kind, Manifest, base_manifest_key, in_timeline, manifest_key, parse_folder,
    timeline_key,
};
use crate::history::chain::{self, Hint};
use crate::history::lineage::Lineage;
use crate::history::timeline;
use crate::inspect::flaw::Flaw;
use crate::store::Store;

/// What a store has of a pond's history.
pub(crate) struct Survey<'a> {
    pub(crate) store: &'a Store,
    pub(crate) pond_id: PondId,
    pub(crate) lineage: Lineage,
    /// What HEAD says, or why it says nothing.
    pub(crate) head: Result<Head, String>,
    /// The version with whose base history begins.
    pub(crate) root: Version,
    /// The newest version of which the manifest is there.
    pub(crate) tip: Version,
    /// Bases of which the manifest is there, ascending, each with the timeline in whose folder it is.
    pub(crate) bases: BTreeMap<Version, Timeline>,
    /// All objects, with their lengths.
    pub(crate) objects: BTreeMap<String, u64>,
    /// Packs of its timelines.
    pub(crate) packs: Packs,
    /// What is wrong with HEAD and timelines.
    pub(crate) flaws: Vec<Flaw>,
}

impl<'a> Survey<'a> {
    /// Lists everything and reads HEAD and the timelines.
    pub(crate) async fn make(store: &'a Store) -> Result<Self, ReplicateError> {
        let (objects, head) = futures::join!(store.list(""), chain::read_head(store));
        let objects: BTreeMap<String, u64> =
            objects?.into_iter().map(|object| (object.key, object.length)).collect();
        let head = match head? {
            Hint::Head(head) => Ok(head),
            Hint::Nothing(why) => Err(why),
        };
        let mut flaws = Vec::new();
        let timelines = timelines(&objects);
        let pond_id = owner(store, &objects, &timelines, head.as_ref().ok()).await?;
        let lineage = lineage(store, pond_id, &timelines, &mut flaws).await?;
        let on_chain = |timeline: Timeline, version: Version| lineage.timeline_of(version) == timeline;

        let (mut bases, mut begun, mut deltas) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for key in objects.keys() {
            let Some((timeline, kind, version, name)) = parts(key) else { continue };
            if !on_chain(timeline, version) {
                continue;
            }
            match (kind, name == "manifest.json") {
                (Kind::Base, true) => drop(bases.insert(version, timeline)),
                (Kind::Base, false) => drop(begun.insert(version)),
                (Kind::Delta, true) => drop(deltas.insert(version)),
                (Kind::Delta, false) => {}
            }
        }
        let said = head.as_ref().ok().filter(|head| head.pond_id == pond_id);
        let said_root =
            said.map(|head| Version(head.root)).filter(|root| on_chain_root(said, &lineage, *root));
        // A base of which the manifest is gone is still where history begins; one that was begun and is not the first was cut off.
        let first = bases.keys().next().copied();
        let first_begun = begun.first().copied().filter(|begun| first.is_none_or(|first| *begun < first));
        let root = said_root.into_iter().chain(first).chain(first_begun).min();
        let Some(root) = root else {
            return Err(ReplicateError::NoBackup { place: store.place().to_owned() });
        };
        let tip = deltas.last().copied().filter(|tip| *tip > root).unwrap_or(root);
        let packs = Packs::list(store, &lineage, Version(0), Version(u64::MAX)).await?;
        Ok(Survey { store, pond_id, lineage, head, root, tip, bases, objects, packs, flaws })
    }

    /// Where the manifest of a version is by itself.
    pub(crate) fn manifest_key(&self, version: Version) -> String {
        match version == self.root {
            true => base_manifest_key(self.lineage.timeline_of(version), version),
            false => manifest_key(self.lineage.timeline_of(version), version),
        }
    }

    /// Whether an object of this length is there by itself.
    pub(crate) fn length(&self, key: &str) -> Option<u64> {
        self.objects.get(key).copied()
    }

    /// The newest base that is not above a version.
    pub(crate) fn base_for(&self, version: Version) -> Option<(Version, Timeline)> {
        self.bases.range(..=version).next_back().map(|(base, timeline)| (*base, *timeline))
    }
}

/// Whether the root that HEAD names can be one.
fn on_chain_root(head: Option<&Head>, lineage: &Lineage, root: Version) -> bool {
    head.is_some_and(|head| head.root <= head.version && lineage.timeline_of(root) == head.root_timeline)
}

/// Timeline, kind, version and name of an object that is part of a version or a base.
fn parts(key: &str) -> Option<(Timeline, Kind, Version, &str)> {
    let (timeline, rest) = key.split_once('/')?;
    let (folder, name) = rest.split_once('/')?;
    let (kind, version) = parse_folder(folder)?;
    Some((Timeline(timeline.parse().ok()?), kind, version, name))
}

/// Numbers of the timelines of which anything is there.
fn timelines(objects: &BTreeMap<String, u64>) -> BTreeSet<Timeline> {
    let document =
        |key: &str| key.strip_prefix("timelines/")?.strip_suffix(".json")?.parse().ok().map(Timeline);
    let folder = |key: &str| parts(key).map(|(timeline, ..)| timeline);
    objects.keys().filter_map(|key| document(key).or_else(|| folder(key))).collect()
}

/// Whose backup it is: what most of HEAD, the timelines' documents and the first base say.
async fn owner(
    store: &Store,
    objects: &BTreeMap<String, u64>,
    timelines: &BTreeSet<Timeline>,
    head: Option<&Head>,
) -> Result<PondId, ReplicateError> {
    let mut said: Vec<PondId> = head.map(|head| head.pond_id).into_iter().collect();
    for &timeline in timelines.iter().rev().take(2) {
        match timeline::owner(store, timeline).await {
            Ok(owner) => said.extend(owner),
            Err(ReplicateError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let is_manifest = |key: &&String| key.ends_with("/manifest.json");
    let base = objects.keys().filter(is_manifest).find(|key| matches!(parts(key), Some((_, Kind::Base, ..))));
    let delta = objects.keys().rfind(is_manifest);
    for key in base.into_iter().chain(delta) {
        let Some(bytes) = store.get(key).await? else { continue };
        said.extend(format::decode::<Manifest>(key, &bytes).ok().map(|manifest| manifest.pond_id));
    }
    let count = |id: &PondId| said.iter().filter(|other| *other == id).count();
    let most = said.iter().max_by_key(|id| count(id)).copied();
    most.ok_or_else(|| ReplicateError::NoBackup { place: store.place().to_owned() })
}

/// The newest timeline that can be read, with those that it came from.
async fn lineage(
    store: &Store,
    pond_id: PondId,
    timelines: &BTreeSet<Timeline>,
    flaws: &mut Vec<Flaw>,
) -> Result<Lineage, ReplicateError> {
    for &newest in timelines.iter().rev() {
        let loaded = Lineage::load(store, pond_id, newest).await;
        let lineage = match loaded {
            Ok(lineage) => lineage,
            Err(error) => {
                let mut flaw = Flaw::of(&timeline_key(newest), None, error)?;
                flaw.problem += "; what lies on that timeline was not looked at";
                flaws.push(flaw);
                continue;
            }
        };
        for timeline in lineage.timelines(Version(0), Version(u64::MAX)) {
            let key = timeline_key(timeline);
            match timeline::load(store, pond_id, timeline).await {
                Ok(Some(_)) => {}
                Ok(None) => flaws.push(Flaw::damage(key, None, "it is missing")),
                Err(error) => flaws.push(Flaw::of(&key, None, error)?),
            }
        }
        return Ok(lineage);
    }
    Err(ReplicateError::NoBackup { place: store.place().to_owned() })
}

impl Survey<'_> {
    /// Compares HEAD with what is there. `tip` is the digest of the newest version's manifest and its time, where it can be read.
    pub(crate) fn check_head(&self, tip: Option<(&str, i64)>) -> Vec<Flaw> {
        let head = match &self.head {
            Ok(head) => head,
            Err(why) => return vec![Flaw::damage(HEAD_KEY, Some(self.tip), why.clone())],
        };
        let mut wrong = Vec::new();
        let mut damage = |version: Version, problem: String| {
            wrong.push(Flaw::damage(HEAD_KEY, Some(version), problem));
        };
        let version = Version(head.version);
        if head.pond_id != self.pond_id {
            damage(
                version,
                format!("it is of another pond, {}; the store is of {}", head.pond_id, self.pond_id),
            );
        }
        if version > self.tip {
            let first = self.tip.next();
            damage(first, format!("it names version {version}, and {first} and what follows is not there"));
        }
        if head.root != self.root.0 || head.root_timeline != self.lineage.timeline_of(self.root) {
            damage(
                version,
                format!(
                    "it says that history begins with version {}, and it begins with {}",
                    head.root, self.root
                ),
            );
        }
        let newest = Version(head.newest_base);
        if self.bases.get(&newest) != Some(&head.newest_base_timeline) && newest != self.root {
            damage(newest, format!("it names the base of version {newest}, which is not there"));
        }
        if head.timeline != self.lineage.timeline() && head.timeline != self.lineage.timeline_of(version) {
            damage(
                version,
                format!("it is of timeline {}, and the newest is {}", head.timeline, self.lineage.timeline()),
            );
        }
        if version == self.tip
            && let Some((digest, timestamp)) = tip
            && (head.manifest != digest || head.timestamp != timestamp)
        {
            let what = "it gives another digest or time of that version's manifest than it has: one of the two is damaged";
            damage(version, what.to_owned());
        }
        if version < self.tip && wrong.is_empty() {
            let what = format!(
                "it is older than what is there: it names version {version}, and the newest is {}. A push that is under way is just \
                 about to write it; else the next push does, and replicas do not see the rest before",
                self.tip
            );
            wrong.push(Flaw::notice(HEAD_KEY, Some(version), what));
        }
        wrong
    }
}

/// A key within a timeline's folder, by the timeline in which a version lies.
pub(crate) fn key_of(manifest: &Manifest, relative: &str) -> String {
    in_timeline(manifest.timeline, relative)
}
