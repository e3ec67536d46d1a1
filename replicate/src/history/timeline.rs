//! Timelines: who makes history, and since when.

use pond_oplog::{PondId, Timeline, Version};
use uuid::Uuid;

use crate::ReplicateError;
use crate::format::{self, FORMAT, TIMELINES, TimelineDocument, timeline_key};
use crate::store::{PutIfAbsent, Store};

/// The version up to which a timeline is its parent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fork {
    /// The parent's number.
    pub(crate) parent: Timeline,
    /// The last version that both have.
    pub(crate) version: Version,
    /// BLAKE3 of its manifest.
    pub(crate) manifest: String,
}

/// Reads a timeline; none if nobody has begun it.
pub(crate) async fn load(
    store: &Store,
    pond_id: PondId,
    timeline: Timeline,
) -> Result<Option<TimelineDocument>, ReplicateError> {
    let key = timeline_key(timeline);
    match store.get(&key).await? {
        Some(bytes) => check(store, pond_id, timeline, &bytes).map(Some),
        None => Ok(None),
    }
}

/// The pond of which a timeline in the store is; none if nobody has begun that one.
pub(crate) async fn owner(store: &Store, timeline: Timeline) -> Result<Option<PondId>, ReplicateError> {
    let key = timeline_key(timeline);
    let Some(bytes) = store.get(&key).await? else { return Ok(None) };
    format::decode::<TimelineDocument>(&key, &bytes).map(|timeline| Some(timeline.pond_id))
}

/// The first timeline of a pond, for readers of a store in which its document is missing: it forked from nothing.
pub(crate) fn first(pond_id: PondId) -> TimelineDocument {
    let (parent, fork_version, fork_manifest) = (None, None, None);
    TimelineDocument {
        format: FORMAT,
        pond_id,
        timeline: Timeline::FIRST,
        id: Uuid::nil(),
        parent,
        fork_version,
        fork_manifest,
    }
}

/// Numbers of the timelines in the store, ascending.
pub(crate) async fn numbers(store: &Store) -> Result<Vec<Timeline>, ReplicateError> {
    let listed = store.list(TIMELINES).await?;
    let number = |key: &str| key.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    let mut numbers: Vec<Timeline> =
        listed.iter().filter_map(|object| number(&object.key)).map(Timeline).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What came of claiming a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is ours.
    Ours(TimelineDocument),
    /// Somebody was first.
    Taken(TimelineDocument),
}

/// Begins a timeline under a random id: `fork` says where, none for one that begins with the pond.
pub(crate) async fn claim(
    store: &Store,
    pond_id: PondId,
    timeline: Timeline,
    id: Uuid,
    fork: Option<Fork>,
) -> Result<Claim, ReplicateError> {
    let (parent, fork_version, fork_manifest) = match fork {
        Some(fork) => (Some(fork.parent), Some(fork.version.0), Some(fork.manifest)),
        None => (None, None, None),
    };
    let ours =
        TimelineDocument { format: FORMAT, pond_id, timeline, id, parent, fork_version, fork_manifest };
    match store.put_if_absent(&timeline_key(timeline), format::encode(&ours)?).await? {
        PutIfAbsent::Created => Ok(Claim::Ours(ours)),
        PutIfAbsent::Exists(bytes) => {
            let found = check(store, pond_id, timeline, &bytes)?;
            // The answer to our own put may have been lost.
            Ok(if found.id == id { Claim::Ours(found) } else { Claim::Taken(found) })
        }
    }
}

fn check(
    store: &Store,
    pond_id: PondId,
    timeline: Timeline,
    bytes: &[u8],
) -> Result<TimelineDocument, ReplicateError> {
    let key = timeline_key(timeline);
    let found: TimelineDocument = format::decode(&key, bytes)?;
    if found.pond_id != pond_id {
        return Err(ReplicateError::ForeignPond {
            place: store.place().to_owned(),
            found: found.pond_id,
            ours: pond_id,
        });
    }
    let forked = (found.parent.is_some(), found.fork_version.is_some(), found.fork_manifest.is_some());
    if found.timeline != timeline
        || !matches!(forked, (true, true, true) | (false, false, false))
        || found.parent.is_some_and(|parent| parent >= timeline)
    {
        return Err(ReplicateError::Corrupt { key, version: None, why: "it contradicts itself".into() });
    }
    Ok(found)
}
