//! Whether what a store holds is whole, from the cheap to the thorough.
//!
//! Each level does all that those before it do: *chain* reads the manifests, *sizes* looks for every object with its length and reads the
//! indexes of packs, *data* reads every byte. A bundle may lie by itself and in packs: a version is lost only where no copy is whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use pond_oplog::{PondId, Timeline, Version};
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::fetch::download::Downloads;
use crate::fetch::meter::Meter;
use crate::fetch::plan::Pack;
use crate::fetch::workers::Workers;
use crate::format::pack::PackIndex;
use crate::format::{HEAD_KEY, Manifest};
use crate::history::find;
use crate::inspect::bundles::{Wanted, check_pack, share};
use crate::inspect::chain::Links;
use crate::inspect::flaw::{Flaw, Severity};
use crate::inspect::reach;
use crate::inspect::survey::{Survey, key_of};
use crate::inspect::verified::Verified;
use crate::store::Store;
use crate::{Progress, ReplicateError};

/// Objects that are read side by side.
const OBJECTS: usize = 4;

/// How thoroughly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Manifests, from the root to the tip.
    Chain,
    /// All objects are there with their lengths, and packs say what they hold.
    Sizes,
    /// Every byte.
    Data,
}

/// Which of the objects are read; the others are taken for whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subset {
    /// The nth of so many shares. All of them together are everything.
    Share {
        /// From 1 on.
        number: u64,
        /// Shares there are.
        of: u64,
    },
    /// So many of a hundred, others each time: of this seed.
    Percent {
        /// 0 to 100.
        percent: f64,
        /// Which ones.
        seed: u64,
    },
}

impl Subset {
    fn has(&self, key: &str) -> bool {
        match *self {
            Subset::Share { number, of } => share(key, 0) % of == number - 1,
            Subset::Percent { percent, seed } => (share(key, seed) % 1_000_000) as f64 / 10_000.0 < percent,
        }
    }
}

/// How to verify.
#[derive(Clone, Debug)]
pub struct Verify {
    /// How thoroughly.
    pub level: Level,
    /// Of the objects only these are read.
    pub subset: Option<Subset>,
    /// Where it is kept what was found whole, so that the same call goes on after it was cut off.
    pub resume: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The store.
    pub store: String,
    /// The pond.
    pub pond_id: PondId,
    /// How thoroughly.
    pub level: Level,
    /// The oldest version.
    pub oldest: Version,
    /// The newest version.
    pub newest: Version,
    /// Manifests that were read, of versions and bases.
    pub manifests: u64,
    /// Objects that were read as a whole.
    pub objects: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Objects that were not read: they are not of the subset, or an earlier run has found them whole.
    pub skipped: u64,
    /// What is wrong.
    pub flaws: Vec<Flaw>,
    /// Versions that cannot be restored, first and last of each run of them.
    pub lost: Vec<(Version, Version)>,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        self.flaws.iter().all(|flaw| flaw.severity != Severity::Damage)
    }
}

/// Verifies.
pub(crate) fn verify(
    runtime: &Runtime,
    store: &Store,
    how: &Verify,
    progress: &dyn Progress,
) -> Result<VerifyReport, ReplicateError> {
    let meter = Meter::of_reading(progress);
    let (survey, links) = runtime.block_on(meter.unless_stopped(async {
        meter.begin("manifests", 0);
        let survey = Survey::make(store).await?;
        let links = Links::check(&survey).await?;
        Ok((survey, links))
    }))?;
    let mut check = Check::new(survey, links);
    if how.level >= Level::Sizes {
        runtime.block_on(meter.unless_stopped(check.sizes()))?;
    }
    let mut report = check.report(how.level);
    if how.level >= Level::Data {
        let verified = how.resume.as_deref().map(|path| Verified::open(path, report.pond_id)).transpose()?;
        let counts = std::thread::scope(|scope| {
            let workers = Workers::new(scope, OBJECTS);
            let data = check.data(&workers, &meter, how.subset.as_ref(), verified.as_ref());
            runtime.block_on(meter.unless_stopped(data))
        })?;
        (report.objects, report.bytes, report.skipped) = counts;
        if let Some(verified) = verified {
            verified.finish()?;
        }
    }
    meter.end();
    check.judge(&mut report);
    Ok(report)
}

/// Where a copy of a bundle is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Copy {
    Alone,
    /// In the pack of this number.
    Pack(usize),
}

/// An object in the pack of this number: its digest and bytes.
type Packed<'a> = (usize, &'a str, u64);

/// What is wrong with an object that was read, and which copies of bundles are not whole because of it.
type Seen = (Vec<Flaw>, Vec<(String, Copy)>);

/// What is known of a bundle.
struct Bundle {
    wanted: Wanted,
    copies: Vec<Copy>,
}

struct Check<'a> {
    survey: Survey<'a>,
    links: Links,
    packs: Vec<(Arc<Pack>, PackIndex)>,
    /// By their keys, those of bases too.
    bundles: BTreeMap<String, Bundle>,
    flaws: Vec<Flaw>,
}

/// Something to be read.
enum Object {
    Bundle(Wanted),
    Pack(usize),
}

impl<'a> Check<'a> {
    fn new(survey: Survey<'a>, mut links: Links) -> Self {
        let flaws = std::mem::take(&mut links.flaws);
        Check { survey, links, packs: Vec::new(), bundles: BTreeMap::new(), flaws }
    }

    fn manifests(&self) -> impl Iterator<Item = &Arc<Manifest>> {
        self.links.deltas.values().chain(self.links.bases.values()).map(|known| &known.manifest)
    }

    /// Looks for every bundle, and into the indexes of packs.
    async fn sizes(&mut self) -> Result<(), ReplicateError> {
        let packs: Vec<Arc<Pack>> = self.survey.packs.all().cloned().collect();
        let mut indexes = self.survey.indexes(packs.clone()).await;
        for pack in packs {
            match indexes.remove(&pack.key) {
                Some(Ok(index)) => {
                    self.flaws.extend(self.foreign(&pack, &index));
                    self.packs.push((pack, index));
                }
                Some(Err(error)) => self.flaws.push(Flaw::of(&pack.key, Some(pack.first), error)?),
                None => {}
            }
        }
        let mut packed: HashMap<(Timeline, &str), Vec<Packed<'_>>> = HashMap::new();
        for (number, (pack, index)) in self.packs.iter().enumerate() {
            for object in &index.objects {
                let place = packed.entry((pack.timeline, object.key.as_str())).or_default();
                place.push((number, object.blake3.as_str(), object.length));
            }
        }
        let (mut bundles, mut flaws) = (BTreeMap::new(), Vec::new());
        for manifest in self.manifests() {
            for (number, bundle) in manifest.bundles.iter().enumerate() {
                let key = key_of(manifest, &bundle.key);
                let version = Version(manifest.version);
                let holders = packed.get(&(manifest.timeline, bundle.key.as_str()));
                let is_it =
                    |(_, blake3, length): &&Packed<'_>| *blake3 == bundle.blake3 && *length == bundle.length;
                let holders = holders.into_iter().flatten().filter(is_it);
                let mut copies: Vec<Copy> = holders.map(|(pack, ..)| Copy::Pack(*pack)).collect();
                match self.survey.length(&key) {
                    Some(length) if length == bundle.length => copies.push(Copy::Alone),
                    Some(length) => {
                        let what = format!("it has {length} bytes and should have {}", bundle.length);
                        flaws.push(Flaw::damage(&key, Some(version), what));
                    }
                    None if copies.is_empty() => {
                        flaws.push(Flaw::damage(&key, Some(version), "it is missing, and in no pack"));
                    }
                    None => {}
                }
                let wanted = Wanted { manifest: manifest.clone(), number };
                bundles.insert(key, Bundle { wanted, copies });
            }
        }
        self.bundles = bundles;
        self.flaws.extend(flaws);
        Ok(())
    }

    /// A pack of which the manifests are not those that lie by themselves: that of a writer who lost, or damaged.
    fn foreign(&self, pack: &Pack, index: &PackIndex) -> Option<Flaw> {
        let differs = |version: &Version| {
            let packed = index.find(&find::packed_manifest(*version)).map(|object| &object.blake3);
            let known = self.links.deltas.get(version).map(|known| &known.digest);
            matches!((packed, known), (Some(packed), Some(known)) if packed != known)
        };
        let on_chain = |version: &Version| self.survey.lineage.timeline_of(*version) == pack.timeline;
        let version = (pack.first.0..=pack.last.0).map(Version).filter(on_chain).find(differs)?;
        let what = format!(
            "from version {version} on its manifests are others than those that lie by themselves: it is left of a writer that lost, \
             or a manifest is damaged"
        );
        Some(Flaw::notice(&pack.key, Some(version), what))
    }

    /// Reads every byte of what is to be read. Gives the number of objects, their bytes, and how many were passed over.
    async fn data<'s>(
        &mut self,
        workers: &Workers<'s, '_>,
        meter: &Meter<'_>,
        subset: Option<&Subset>,
        verified: Option<&Verified>,
    ) -> Result<(u64, u64, u64), ReplicateError>
    where
        'a: 's,
    {
        let mut objects: Vec<(String, u64, Object)> = Vec::new();
        for (key, bundle) in &self.bundles {
            if bundle.copies.contains(&Copy::Alone) {
                let wanted = bundle.wanted.clone();
                objects.push((key.clone(), wanted.bundle().length, Object::Bundle(wanted)));
            }
        }
        for (number, (pack, _)) in self.packs.iter().enumerate() {
            objects.push((pack.key.clone(), pack.length, Object::Pack(number)));
        }
        let all = objects.len();
        objects.retain(|(key, ..)| {
            subset.is_none_or(|subset| subset.has(key)) && verified.is_none_or(|verified| !verified.has(key))
        });
        let skipped = (all - objects.len()) as u64;
        let (count, bytes) = (objects.len() as u64, objects.iter().map(|(_, length, _)| length).sum());
        meter.begin("data", bytes);
        let downloads = Downloads::new(self.survey.store, meter);
        let read = AtomicU64::new(0);
        let this = &*self;
        let found: Vec<Seen> = futures::stream::iter(objects)
            .map(async |(key, length, object)| {
                let found = match object {
                    Object::Bundle(wanted) => this.bundle(workers, &downloads, &key, wanted).await?,
                    Object::Pack(number) => this.pack(workers, &downloads, number).await?,
                };
                read.fetch_add(length, Ordering::Relaxed);
                if found.0.is_empty()
                    && let Some(verified) = verified
                {
                    verified.add(&key)?;
                }
                Ok::<_, ReplicateError>(found)
            })
            .buffer_unordered(OBJECTS)
            .try_collect()
            .await?;
        for (flaws, bad) in found {
            self.flaws.extend(flaws);
            for (key, copy) in bad {
                if let Some(bundle) = self.bundles.get_mut(&key) {
                    bundle.copies.retain(|other| *other != copy);
                }
            }
        }
        Ok((count, read.into_inner(), skipped))
    }

    /// Reads a bundle that lies by itself. Gives what is wrong, and which copies are not whole.
    async fn bundle<'s>(
        &self,
        workers: &Workers<'s, '_>,
        downloads: &Downloads<'_>,
        key: &str,
        wanted: Wanted,
    ) -> Result<Seen, ReplicateError>
    where
        'a: 's,
    {
        let (store, version) = (self.survey.store, wanted.version());
        let length = wanted.bundle().length;
        let check = move |pieces| wanted.check(store, pieces);
        let flaw = match downloads.get(workers, key, length, Some(version), check).await {
            Ok(Some(Ok(()))) => return Ok((Vec::new(), Vec::new())),
            Ok(Some(Err(error))) | Err(error) => Flaw::of(key, Some(version), error)?,
            Ok(None) => Flaw::damage(key, Some(version), "it was there a moment ago and is not any more"),
        };
        Ok((vec![flaw], vec![(key.to_owned(), Copy::Alone)]))
    }

    /// The same of a pack.
    async fn pack<'s>(
        &self,
        workers: &Workers<'s, '_>,
        downloads: &Downloads<'_>,
        number: usize,
    ) -> Result<Seen, ReplicateError>
    where
        'a: 's,
    {
        let (pack, index) = &self.packs[number];
        let (store, version) = (self.survey.store, pack.first);
        let full = |key: &str| crate::format::in_timeline(pack.timeline, key);
        // What it holds and the chain wants: other bundles of these names are a loser's.
        let held = index.objects.iter().filter_map(|object| {
            let bundle = self.bundles.get(&full(&object.key))?;
            bundle.copies.contains(&Copy::Pack(number)).then(|| (object.key.clone(), bundle.wanted.clone()))
        });
        let held: HashMap<String, Wanted> = held.collect();
        let versions: HashMap<String, Version> =
            held.iter().map(|(key, wanted)| (key.clone(), wanted.version())).collect();
        let (key, blake3, its_index) = (pack.key.clone(), pack.blake3.clone(), index.clone());
        let check =
            move |pieces| check_pack(store, &key, &blake3, &its_index, &|key| held.get(key).cloned(), pieces);
        let all = || versions.keys().map(|key| (full(key), Copy::Pack(number))).collect();
        let wrong = match downloads.get(workers, &pack.key, pack.length, Some(version), check).await {
            Ok(Some(Ok(wrong))) => wrong,
            Ok(Some(Err(error))) | Err(error) => {
                return Ok((vec![Flaw::of(&pack.key, Some(version), error)?], all()));
            }
            Ok(None) => {
                let what = "it was there a moment ago and is not any more";
                return Ok((vec![Flaw::damage(&pack.key, Some(version), what)], all()));
            }
        };
        let (mut flaws, mut bad) = (Vec::new(), Vec::new());
        for (object, error) in wrong {
            let version = object.as_ref().and_then(|object| versions.get(object).copied());
            let mut flaw = Flaw::of(&pack.key, version.or(Some(pack.first)), error)?;
            if let Some(object) = object {
                flaw.version = version.or_else(|| version_in(&object)).or(flaw.version);
                flaw.problem = format!("{object} in it: {}", flaw.problem);
                bad.push((full(&object), Copy::Pack(number)));
            }
            flaws.push(flaw);
        }
        Ok((flaws, bad))
    }

    fn report(&self, level: Level) -> VerifyReport {
        VerifyReport {
            store: self.survey.store.place().to_owned(),
            pond_id: self.survey.pond_id,
            level,
            oldest: self.survey.root,
            newest: self.survey.tip,
            manifests: self.manifests().count() as u64,
            objects: 0,
            bytes: 0,
            skipped: 0,
            flaws: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Which versions can still be restored, and what each flaw costs.
    fn judge(mut self, report: &mut VerifyReport) {
        let mut lacking: BTreeSet<(Version, bool)> = BTreeSet::new();
        for bundle in self.bundles.values().filter(|bundle| bundle.copies.is_empty()) {
            let manifest = &bundle.wanted.manifest;
            lacking.insert((bundle.wanted.version(), manifest.checkpoint.is_some()));
        }
        let links = &self.links;
        let is_whole = |version: u64| {
            let version = Version(version);
            links.deltas.contains_key(&version)
                && !links.broken.contains(&version)
                && !lacking.contains(&(version, false))
        };
        let is_base = |version: u64| {
            let version = Version(version);
            links.bases.contains_key(&version)
                && !links.broken_bases.contains(&version)
                && !lacking.contains(&(version, true))
        };
        let promised = self.survey.head.as_ref().ok().map(|head| head.version);
        // A number that cannot be is not counted up to.
        let end = promised.filter(|end| *end < report.newest.0 + 1_000_000);
        let end = end.unwrap_or_default().max(report.newest.0);
        let lost = reach::lost(report.oldest.0..=end, is_base, is_whole);
        for flaw in &mut self.flaws {
            // HEAD alone takes nothing with it; what it names and is not there is in the ranges.
            let version = flaw.version.filter(|version| flaw.key != HEAD_KEY || *version > report.newest);
            let its = version.and_then(|version| {
                let after = |(_, last): &&(u64, u64)| *last >= version.0;
                lost.iter().find(after).filter(|(first, _)| *first <= version.0)
            });
            flaw.hits = match flaw.severity {
                Severity::Damage => its.map(|(first, last)| (Version(*first), Version(*last))),
                Severity::Notice => None,
            };
        }
        report.lost = lost.into_iter().map(|(first, last)| (Version(first), Version(last))).collect();
        self.flaws.sort_by(|one, other| (one.version, &one.key).cmp(&(other.version, &other.key)));
        report.flaws = self.flaws;
    }
}

/// The version of an object within a pack, by its key.
fn version_in(key: &str) -> Option<Version> {
    crate::format::parse_folder(key.split_once('/')?.0).map(|(_, version)| version)
}
