//! Where the history in a store ends, for whoever restores or follows it.
//!
//! HEAD is a hint. A store that was copied while it was pushed to, by any tool, may have a HEAD that names versions which are
//! not there, an old one, an empty one or none: then what lies there counts.

use std::fmt;

use pond_oplog::{Timeline, Version};

use crate::ReplicateError;
use crate::fetch::plan::Packs;
use crate::format::{Head, Kind, base_manifest_key, in_timeline, manifest_key, parse_folder};
use crate::history::chain::{self, Chain, Chains, Gaps, Hint};
use crate::history::find;
use crate::history::lineage::Lineage;
use crate::history::timeline;
use crate::store::Store;

/// Versions beyond HEAD that are looked for one by one before the store is listed.
const STEPS: u64 = 64;

/// Where a store's history ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    /// What HEAD says, or would say if it were right.
    pub(crate) head: Head,
    /// What HEAD says, where that is not it.
    pub(crate) instead_of: InsteadOf,
}

/// What HEAD says where it is passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InsteadOf {
    /// Nothing worth telling: it is right, or only behind.
    Nothing,
    /// That there is this version, which is not there.
    Version(Version),
    /// Nothing at all, for this reason.
    Unreadable(String),
}

/// What a store did not have for a replica that was to have everything: what was pushed after what the replica holds, or
/// that it is not known whether there was more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// HEAD names versions that are not there, or not whole.
    Missing {
        /// The store.
        place: String,
        /// The first version that is missing.
        first: Version,
        /// The last one that the store is said to hold.
        last: Version,
    },
    /// HEAD is missing or damaged, and so it is not known whether there were later versions.
    NoHead {
        /// The store.
        place: String,
        /// What is wrong with it.
        why: String,
        /// The newest version that lies there.
        newest: Version,
    },
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shortfall::Missing { place, first, last } if first == last => write!(
                f,
                "version {last} is missing from {place}, although HEAD.json there names it: {} is the newest version \
                 that is whole",
                Version(first.0 - 1)
            ),
            Shortfall::Missing { place, first, last } => write!(
                f,
                "versions {first} to {last} are missing from {place}, although HEAD.json there names version {last}: {} is \
                 the newest version that is whole",
                Version(first.0 - 1)
            ),
            Shortfall::NoHead { place, why, newest } => write!(
                f,
                "{why} in {place}: {newest} is the newest version that lies there, and whether later ones were pushed is \
                 not known"
            ),
        }
    }
}

/// What HEAD says, or else what lies in the store.
pub(crate) async fn head(store: &Store) -> Result<Head, ReplicateError> {
    match chain::read_head(store).await? {
        Hint::Head(head) => Ok(head),
        Hint::Nothing(why) => listed(store, why).await.map(|tip| tip.head),
    }
}

/// The same, with what is to be told of it.
pub(crate) async fn hint(store: &Store) -> Result<Tip, ReplicateError> {
    match chain::read_head(store).await? {
        Hint::Head(head) => Ok(Tip { head, instead_of: InsteadOf::Nothing }),
        Hint::Nothing(why) => listed(store, why).await,
    }
}

/// The newest version of which the manifest is in the store, whatever HEAD says. `hint` is what it says.
pub(crate) async fn newest(store: &Store, hint: Tip) -> Result<Tip, ReplicateError> {
    if hint.instead_of != InsteadOf::Nothing {
        return Ok(hint);
    }
    let head = hint.head;
    let chains = Chains { store, pond_id: head.pond_id };
    let numbers = timeline::numbers(store).await?;
    if let Some(&highest) = numbers.last().filter(|highest| **highest > head.timeline) {
        // A promotion that HEAD does not know: what HEAD names beyond the fork was given up.
        let chain = on_timeline(chains, highest).await?;
        let head = chain.map_or(head, |chain| chain.head(chains.pond_id, highest));
        return Ok(Tip { head, instead_of: InsteadOf::Nothing });
    }
    let version = Version(head.version);
    if !is_there(store, &head).await? {
        let Some(chain) = on_timeline(chains, head.timeline).await? else {
            return Err(nothing_there(store, "no base"));
        };
        let instead_of = match chain.tip < version {
            true => InsteadOf::Version(version),
            false => InsteadOf::Nothing,
        };
        return Ok(Tip { head: chain.head(chains.pond_id, head.timeline), instead_of });
    }
    if store.length(&manifest_key(head.timeline, version.next())).await?.is_none() {
        return Ok(Tip { head, instead_of: InsteadOf::Nothing });
    }
    let chain = chains.forward(head.timeline, at(&head), STEPS).await?;
    let chain = match chain.tip.0 - head.version < STEPS {
        true => chain,
        false => on_timeline(chains, head.timeline).await?.unwrap_or(chain),
    };
    Ok(Tip { head: chain.head(chains.pond_id, head.timeline), instead_of: InsteadOf::Nothing })
}

/// The end of the highest timeline, by listing.
async fn listed(store: &Store, why: String) -> Result<Tip, ReplicateError> {
    let numbers = timeline::numbers(store).await?;
    let Some(&highest) = numbers.last() else {
        return Err(ReplicateError::NoBackup { place: store.place().to_owned() });
    };
    let Some(pond_id) = timeline::owner(store, highest).await? else {
        return Err(ReplicateError::NoBackup { place: store.place().to_owned() });
    };
    let chains = Chains { store, pond_id };
    let chain = on_timeline(chains, highest).await?.ok_or_else(|| nothing_there(store, &why))?;
    tracing::debug!(place = store.place(), why, tip = chain.tip.0, "the backup store was listed");
    Ok(Tip { head: chain.head(pond_id, highest), instead_of: InsteadOf::Unreadable(why) })
}

async fn on_timeline(chains: Chains<'_>, number: Timeline) -> Result<Option<Chain>, ReplicateError> {
    match timeline::load(chains.store, chains.pond_id, number).await? {
        Some(timeline) => chains.locate(&timeline, Gaps::Pass).await,
        None if number == Timeline::FIRST => {
            chains.locate(&timeline::first(chains.pond_id), Gaps::Pass).await
        }
        None => Ok(None),
    }
}

fn nothing_there(store: &Store, why: &str) -> ReplicateError {
    ReplicateError::Other(format!(
        "{} holds no backup that can be restored: {why}, and no base lies there from which a history could begin",
        store.place()
    ))
}

/// Whether the manifest that HEAD names is in the store.
async fn is_there(store: &Store, head: &Head) -> Result<bool, ReplicateError> {
    let version = Version(head.version);
    let key = match head.version == head.root {
        true => base_manifest_key(head.root_timeline, version),
        false => manifest_key(head.timeline, version),
    };
    if store.length(&key).await?.is_some() {
        return Ok(true);
    }
    let lineage = Lineage::load(store, head.pond_id, head.timeline).await?;
    Ok(find::manifest(store, &lineage, head.pond_id, version).await?.is_some())
}

/// The chain that HEAD tells of, as it tells it.
fn at(head: &Head) -> Chain {
    let tip = Version(head.version);
    Chain {
        tip,
        digest: head.manifest.clone(),
        key: manifest_key(head.timeline, tip),
        entry: None,
        timestamp: head.timestamp,
        root: (Version(head.root), head.root_timeline),
        newest_base: (Version(head.newest_base), head.newest_base_timeline),
        since_base: head.since_base,
        first: tip.next(),
        damaged: head.damaged.clone(),
    }
}

/// The same history up to the last version before one that is missing; none if there is none.
pub(crate) async fn before(
    store: &Store,
    lineage: &Lineage,
    head: &Head,
    missing: Version,
) -> Result<Option<Head>, ReplicateError> {
    if missing.0 <= head.root {
        return Ok(None);
    }
    if let Some(found) = cut(store, lineage, head, Version(missing.0 - 1)).await? {
        return Ok(Some(found));
    }
    // HEAD may name any number: it is not counted down to what is there.
    for timeline in lineage.timelines(Version(head.root), missing) {
        let folders = store.list_folders(&timeline.to_string()).await?;
        let deltas = folders.iter().filter_map(|name| parse_folder(name)).filter_map(|(kind, version)| {
            let fits = kind == Kind::Delta && version < missing && lineage.timeline_of(version) == timeline;
            fits.then_some(version)
        });
        let mut deltas: Vec<Version> = deltas.collect();
        deltas.sort_unstable();
        while let Some(version) = deltas.pop() {
            if let Some(found) = cut(store, lineage, head, version).await? {
                return Ok(Some(found));
            }
        }
    }
    cut(store, lineage, head, Version(head.root)).await
}

/// The same history up to a version; none if that one is not there.
async fn cut(
    store: &Store,
    lineage: &Lineage,
    head: &Head,
    version: Version,
) -> Result<Option<Head>, ReplicateError> {
    let Some((manifest, digest)) = find::manifest(store, lineage, head.pond_id, version).await? else {
        return Ok(None);
    };
    let root = (head.root, head.root_timeline);
    let newest = (head.newest_base, head.newest_base_timeline);
    let base = if newest.0 <= version.0 { newest } else { root };
    Ok(Some(Head {
        version: version.0,
        manifest: digest,
        timestamp: manifest.timestamp,
        newest_base: base.0,
        newest_base_timeline: base.1,
        ..head.clone()
    }))
}

/// A version after `after`, up to `last`, that is whole: its manifest is there, and so are its bundles, by themselves or in
/// a pack.
pub(crate) async fn whole_after(
    store: &Store,
    lineage: &Lineage,
    after: Version,
    last: Version,
) -> Result<Option<Version>, ReplicateError> {
    if after >= last {
        return Ok(None);
    }
    let wanted = after.next()..=last;
    let packs = Packs::list(store, lineage, *wanted.start(), last).await?;
    for timeline in lineage.timelines(*wanted.start(), last).into_iter().rev() {
        // Keys come in their order: of one folder the bundles first, then the manifest.
        let mut bundle_of = None;
        for object in store.list(&timeline.to_string()).await? {
            let Some((folder, name)) =
                object.key.strip_prefix(&in_timeline(timeline, "")).and_then(|key| key.split_once('/'))
            else {
                continue;
            };
            let Some((Kind::Delta, version)) = parse_folder(folder) else { continue };
            if !wanted.contains(&version) || lineage.timeline_of(version) != timeline {
                continue;
            }
            if name.starts_with("bundle-") {
                bundle_of = Some(version);
            } else if name == "manifest.json"
                && (bundle_of == Some(version) || !packs.of(lineage, version).is_empty())
            {
                return Ok(Some(version));
            }
        }
    }
    Ok(None)
}
