//! What a store has: its timelines, and where the chain of this pond's stands.

use pond_oplog::Version;
use uuid::Uuid;

use super::{Chain, Source, superseded};
use crate::format::{
    self, HEAD_KEY, Head, Kind, Manifest, Timeline, base_manifest_key, in_timeline, manifest_key,
    parse_folder,
};
use crate::lineage::Lineage;
use crate::timeline::{self, Claim, Fork};
use crate::{ReplicateError, find};

/// The chain of this pond's timeline, confirmed to be this pond's history; none in an empty store.
pub(super) async fn chain(source: &Source, pushed: Option<Version>) -> Result<Option<Chain>, ReplicateError> {
    let head = read_head(source).await?;
    let numbers = timeline::numbers(&source.store).await?;
    refuse_if_superseded(source, &numbers).await?;
    let timeline = own_timeline(source, &numbers, head.as_ref(), pushed).await?;
    let confirmed = match &head {
        Some(head) if head.timeline == source.timeline => at_head(source, &timeline, head).await?,
        _ => None,
    };
    let chain = match confirmed {
        Some(chain) => Some(chain),
        None => locate(source, &timeline).await?,
    };
    let Some(chain) = chain else { return Ok(None) };
    let chain = forward(source, chain).await?;
    confirm(source, &chain).await?;
    Ok(Some(chain))
}

/// Refuses a store in which one of the timelines is above this pond's.
pub(super) async fn refuse_if_superseded(source: &Source, numbers: &[u64]) -> Result<(), ReplicateError> {
    let Some(&highest) = numbers.last().filter(|&&highest| highest > source.timeline) else { return Ok(()) };
    let higher = timeline::load(&source.store, source.pond_id, highest).await?;
    let fork = higher.and_then(|higher| higher.fork_version).map(Version);
    Err(superseded(source, highest, fork))
}

/// HEAD, if it is there. It is a hint: one that cannot be read is passed over.
async fn read_head(source: &Source) -> Result<Option<Head>, ReplicateError> {
    let Some(bytes) = source.store.get(HEAD_KEY).await? else { return Ok(None) };
    match format::decode::<Head>(HEAD_KEY, &bytes) {
        Ok(head) if head.pond_id != source.pond_id => Err(foreign(source, &head.pond_id)),
        Ok(head) => Ok(Some(head)),
        Err(error @ ReplicateError::Corrupt { .. }) => {
            tracing::warn!(%error, place = source.store.place(), "HEAD is not readable and is written anew");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn foreign(source: &Source, found: &pond_oplog::PondId) -> ReplicateError {
    ReplicateError::ForeignPond {
        place: source.store.place().to_owned(),
        found: *found,
        ours: source.pond_id,
    }
}

/// This pond's timeline in the store, begun there if need be.
async fn own_timeline(
    source: &Source,
    numbers: &[u64],
    head: Option<&Head>,
    pushed: Option<Version>,
) -> Result<Timeline, ReplicateError> {
    if let Some(timeline) = timeline::load(&source.store, source.pond_id, source.timeline).await? {
        return own(source, timeline);
    }
    let fork = match numbers.last() {
        // The store of a pond from before it was promoted: this timeline forks from the one there.
        Some(&parent) => fork_from(source, parent).await?,
        None => match (head, pushed) {
            (None, Some(pushed)) => {
                return Err(ReplicateError::Emptied { place: source.store.place().to_owned(), pushed });
            }
            _ => None,
        },
    };
    let id = source.timeline_id.unwrap_or_else(Uuid::new_v4);
    match timeline::claim(&source.store, source.pond_id, source.timeline, id, fork).await? {
        // A copy of this pond may have begun it at the same moment; the manifests tell who goes on.
        Claim::Ours(timeline) | Claim::Taken(timeline) => own(source, timeline),
    }
}

/// Refuses a timeline of this pond's number that another promoted replica has claimed.
fn own(source: &Source, found: Timeline) -> Result<Timeline, ReplicateError> {
    match source.timeline_id {
        Some(ours) if ours != found.id => Err(ReplicateError::ClaimedTwice {
            place: source.store.place().to_owned(),
            timeline: found.timeline,
            fork: found.fork_version.map(Version),
            theirs: found.id,
            ours,
        }),
        _ => Ok(found),
    }
}

/// Where this pond left an older timeline of the store: the last version that both have.
async fn fork_from(source: &Source, parent: u64) -> Result<Option<Fork>, ReplicateError> {
    let Some(document) = timeline::load(&source.store, source.pond_id, parent).await? else {
        return Ok(None);
    };
    let Some(chain) = locate(source, &document).await? else { return Ok(None) };
    let version = chain.tip.min(last_before_timeline(source, chain.root.0, parent)?);
    let lineage = Lineage::load(&source.store, source.pond_id, parent).await?;
    let found = find::manifest(&source.store, &lineage, source.pond_id, version).await?;
    let missing = || ReplicateError::MissingVersion { version, place: source.store.place().to_owned() };
    let (found, manifest) = found.ok_or_else(missing)?;
    confirm_entry(source, version, &found.key(), &found.entry.blake3)?;
    Ok(Some(Fork { parent, version, manifest }))
}

/// The last version that this pond committed on that timeline or one below, or has from it.
fn last_before_timeline(source: &Source, first: Version, parent: u64) -> Result<Version, ReplicateError> {
    let (mut low, mut high) = (first.0, (source.newest)().0 + 1);
    // Timelines only grow along a history.
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        let timeline = pond_oplog::version_files(&source.pond, Version(middle))?.position.timeline;
        if timeline <= parent { low = middle } else { high = middle }
    }
    Ok(Version(low))
}

/// A manifest that was read, as the tip of a chain.
struct Tip {
    digest: String,
    manifest: Manifest,
}

impl Tip {
    fn onto(self, chain: &Chain) -> Chain {
        Chain {
            tip: Version(self.manifest.version),
            digest: self.digest,
            key: self.manifest.key(),
            entry: self.manifest.entry.blake3.clone(),
            timestamp: self.manifest.timestamp,
            since_base: chain.since_base + self.manifest.packed_length(),
            ..chain.clone()
        }
    }
}

/// Reads a manifest that lies by itself; none if it is not there.
async fn read(
    source: &Source,
    key: &str,
    kind: Kind,
    version: Version,
) -> Result<Option<Tip>, ReplicateError> {
    let Some(bytes) = source.store.get(key).await? else { return Ok(None) };
    let manifest: Manifest = format::decode(key, &bytes)?;
    if manifest.pond_id != source.pond_id {
        return Err(foreign(source, &manifest.pond_id));
    }
    manifest.check(key, kind, version)?;
    Ok(Some(Tip { digest: format::digest(&bytes), manifest }))
}

/// The chain that HEAD tells of, if the manifests that it names are there and the tip follows the version before it.
async fn at_head(source: &Source, timeline: &Timeline, head: &Head) -> Result<Option<Chain>, ReplicateError> {
    let (version, base) = (Version(head.version), Version(head.newest_base));
    let root = (Version(head.root), head.root_timeline);
    let first = first_version(timeline, root.0);
    if !(root.0 <= base && base <= version) {
        return Ok(None);
    }
    let root_key = base_manifest_key(root.1, root.0);
    let tip_key = if version == root.0 { root_key.clone() } else { manifest_key(source.timeline, version) };
    let kind = if version == root.0 { Kind::Base } else { Kind::Delta };
    let base_key = base_manifest_key(head.newest_base_timeline, base);
    let (tip, begun, newest) = futures::join!(
        read(source, &tip_key, kind, version),
        read(source, &root_key, Kind::Base, root.0),
        source.store.length(&base_key),
    );
    let (Some(tip), Some(begun), Some(_)) = (tip?, begun?, newest?) else { return Ok(None) };
    if tip.digest != head.manifest || begun.manifest.parent.is_some() {
        return Ok(None);
    }
    let before = match version {
        version if version == root.0 => None,
        version if version == root.0.next() => Some(begun.digest),
        version if version == first => timeline.fork_manifest.clone(),
        version => {
            let before = Version(version.0 - 1);
            let key = manifest_key(source.timeline, before);
            let Some(found) = read(source, &key, Kind::Delta, before).await? else { return Ok(None) };
            Some(found.digest)
        }
    };
    if tip.manifest.parent != before {
        return Ok(None);
    }
    Ok(Some(Chain {
        tip: version,
        digest: tip.digest,
        key: tip_key,
        entry: tip.manifest.entry.blake3,
        timestamp: tip.manifest.timestamp,
        root,
        newest_base: (base, head.newest_base_timeline),
        since_base: head.since_base,
        first,
    }))
}

fn first_version(timeline: &Timeline, root: Version) -> Version {
    timeline.fork_version.map_or(root, Version).next()
}

/// The chain of a timeline, by listing: slower than HEAD, and does without it.
async fn locate(source: &Source, timeline: &Timeline) -> Result<Option<Chain>, ReplicateError> {
    let number = timeline.timeline;
    let mut folders: Vec<(Kind, Version)> = source
        .store
        .list_folders(&number.to_string())
        .await?
        .iter()
        .filter_map(|name| parse_folder(name))
        .collect();
    folders.sort_by_key(|&(_, version)| version);
    let parent = match (timeline.parent, timeline.fork_version, &timeline.fork_manifest) {
        (Some(parent), Some(fork), Some(manifest)) => {
            Some(Box::pin(ancestor(source, parent, Version(fork), manifest)).await?)
        }
        _ => None,
    };
    let bases = folders.iter().filter(|(kind, _)| *kind == Kind::Base).map(|&(_, version)| version);
    let mut chain = parent;
    for version in bases {
        let key = base_manifest_key(number, version);
        // A base counts once its manifest is there.
        let Some(found) = read(source, &key, Kind::Base, version).await? else { continue };
        match &mut chain {
            Some(chain) => (chain.newest_base, chain.since_base) = ((version, number), 0),
            None if found.manifest.parent.is_none() => {
                chain = Some(Chain {
                    tip: version,
                    digest: found.digest,
                    key,
                    entry: found.manifest.entry.blake3,
                    timestamp: found.manifest.timestamp,
                    root: (version, number),
                    newest_base: (version, number),
                    since_base: 0,
                    first: version.next(),
                });
            }
            None => {}
        }
    }
    let Some(mut chain) = chain else { return Ok(None) };
    // Manifests come one after the other, so the chain ends where a version's folder is not there: one that lies beyond a gap
    // is put again, and found to be there, once the gap is filled.
    let mut end = chain.first;
    let deltas = folders.iter().filter(|(kind, version)| *kind == Kind::Delta && *version >= chain.first);
    for &(_, version) in deltas {
        if version != end {
            tracing::info!(
                place = source.store.place(),
                version = end.0,
                "a version is not in the backup store, and something of later ones is; going on from there"
            );
            break;
        }
        end = end.next();
    }
    while end > chain.first {
        end = Version(end.0 - 1);
        // A folder in which there is a bundle only is that of a push that was cut off.
        let Some(found) = read(source, &manifest_key(number, end), Kind::Delta, end).await? else { continue };
        let before = manifest_key(number, Version(end.0 - 1));
        if end == chain.first || source.store.length(&before).await?.is_some() {
            chain = found.onto(&chain);
            break;
        }
    }
    Ok(Some(chain))
}

/// The chain of a timeline up to the version at which another one left it.
async fn ancestor(
    source: &Source,
    timeline: u64,
    fork: Version,
    manifest: &str,
) -> Result<Chain, ReplicateError> {
    let missing = |what: &str| ReplicateError::BrokenChain {
        version: fork,
        key: format::timeline_key(timeline),
        why: format!("a later timeline leaves it at that version, and {what}"),
    };
    let document = timeline::load(&source.store, source.pond_id, timeline)
        .await?
        .ok_or_else(|| missing("it is not there"))?;
    let chain = locate(source, &document).await?.ok_or_else(|| missing("it has no base"))?;
    let lineage = Lineage::load(&source.store, source.pond_id, timeline).await?;
    let found = find::manifest(&source.store, &lineage, source.pond_id, fork).await?;
    let (found, digest) = found.ok_or_else(|| missing("that version's manifest is not there"))?;
    if digest != manifest {
        return Err(missing("that version's manifest is another one than the later timeline says"));
    }
    let newest_base = if chain.newest_base.0 <= fork { chain.newest_base } else { chain.root };
    Ok(Chain {
        tip: fork,
        digest,
        key: found.key(),
        timestamp: found.timestamp,
        entry: found.entry.blake3,
        newest_base,
        first: fork.next(),
        ..chain
    })
}

/// Follows the chain beyond what HEAD knew: the answer to a put of HEAD, or the end of a push, may have been lost.
async fn forward(source: &Source, mut chain: Chain) -> Result<Chain, ReplicateError> {
    loop {
        let next = chain.tip.next();
        let key = manifest_key(source.timeline, next);
        let Some(found) = read(source, &key, Kind::Delta, next).await? else { return Ok(chain) };
        if found.manifest.parent.as_deref() != Some(&chain.digest) {
            return Err(ReplicateError::BrokenChain {
                version: next,
                key,
                why: "its parent is not the version before it".into(),
            });
        }
        chain = found.onto(&chain);
    }
}

/// Refuses a chain that is not this pond's.
async fn confirm(source: &Source, chain: &Chain) -> Result<(), ReplicateError> {
    let key = chain.key.clone();
    let newest = (source.newest)();
    if chain.tip > newest {
        return Err(ReplicateError::SecondWriter {
            place: source.store.place().to_owned(),
            key,
            version: chain.tip,
            why: format!("this pond is only at version {newest}"),
        });
    }
    confirm_entry(source, chain.tip, &key, &chain.entry)
}

fn confirm_entry(source: &Source, version: Version, key: &str, entry: &str) -> Result<(), ReplicateError> {
    let ours = pond_oplog::version_files(&source.pond, version)?.position.digest;
    if ours == entry {
        return Ok(());
    }
    Err(ReplicateError::SecondWriter {
        place: source.store.place().to_owned(),
        key: key.to_owned(),
        version,
        why: format!("its log entry has the digest {entry} and this pond's has {ours}"),
    })
}

/// Key of something in this pond's timeline.
pub(super) fn own_key(source: &Source, relative: &str) -> String {
    in_timeline(source.timeline, relative)
}
