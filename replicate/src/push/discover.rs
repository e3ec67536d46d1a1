//! What a store has: its timelines, and where the chain of this pond's stands.

use pond_oplog::{Timeline, Version};
use uuid::Uuid;

use super::pusher::{Source, superseded};
use crate::ReplicateError;
use crate::format::{Head, TimelineDocument, in_timeline};
use crate::history::chain::{self, Chain, Chains, Gaps, Hint};
use crate::history::find;
use crate::history::lineage::Lineage;
use crate::history::timeline::{self, Claim, Fork};

/// The chain of this pond's timeline, confirmed to be this pond's history; none in an empty store.
pub(super) async fn chain(source: &Source, pushed: Option<Version>) -> Result<Option<Chain>, ReplicateError> {
    let head = read_head(source).await?;
    let numbers = timeline::numbers(&source.store).await?;
    refuse_if_superseded(source, &numbers).await?;
    let timeline = own_timeline(source, &numbers, head.as_ref(), pushed).await?;
    let chains = chains(source);
    let confirmed = match &head {
        Some(head) if head.timeline == source.timeline => chains.at_head(&timeline, head).await?,
        _ => None,
    };
    let chain = match confirmed {
        Some(chain) => Some(chain),
        None => chains.locate(&timeline, Gaps::End).await?,
    };
    let Some(chain) = chain else { return Ok(None) };
    let chain = chains.forward(source.timeline, chain, u64::MAX).await?;
    confirm(source, &chain).await?;
    Ok(Some(chain))
}

fn chains(source: &Source) -> Chains<'_> {
    Chains { store: &source.store, pond_id: source.pond_id }
}

/// HEAD, if it is there. One that cannot be read is passed over.
async fn read_head(source: &Source) -> Result<Option<Head>, ReplicateError> {
    match chain::read_head(&source.store).await? {
        Hint::Head(head) if head.pond_id != source.pond_id => Err(ReplicateError::ForeignPond {
            place: source.store.place().to_owned(),
            found: head.pond_id,
            ours: source.pond_id,
        }),
        Hint::Head(head) => Ok(Some(head)),
        Hint::Nothing(why) => {
            tracing::info!(why, place = source.store.place(), "HEAD says nothing and is written anew");
            Ok(None)
        }
    }
}

/// Refuses a store in which one of the timelines is above this pond's.
pub(super) async fn refuse_if_superseded(
    source: &Source,
    numbers: &[Timeline],
) -> Result<(), ReplicateError> {
    let Some(&highest) = numbers.last().filter(|&&highest| highest > source.timeline) else { return Ok(()) };
    let higher = timeline::load(&source.store, source.pond_id, highest).await?;
    let fork = higher.and_then(|higher| higher.fork_version).map(Version);
    Err(superseded(source, highest, fork))
}

/// This pond's timeline in the store, begun there if need be.
async fn own_timeline(
    source: &Source,
    numbers: &[Timeline],
    head: Option<&Head>,
    pushed: Option<Version>,
) -> Result<TimelineDocument, ReplicateError> {
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
fn own(source: &Source, found: TimelineDocument) -> Result<TimelineDocument, ReplicateError> {
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
async fn fork_from(source: &Source, parent: Timeline) -> Result<Option<Fork>, ReplicateError> {
    let Some(document) = timeline::load(&source.store, source.pond_id, parent).await? else {
        return Ok(None);
    };
    let Some(chain) = chains(source).locate(&document, Gaps::End).await? else { return Ok(None) };
    let version = chain.tip.min(last_before_timeline(source, chain.root.0, parent)?);
    let lineage = Lineage::load(&source.store, source.pond_id, parent).await?;
    let found = find::manifest(&source.store, &lineage, source.pond_id, version).await?;
    let missing = || ReplicateError::missing(version, source.store.place());
    let (found, manifest) = found.ok_or_else(missing)?;
    confirm_entry(source, version, &found.key(), &found.entry.blake3)?;
    Ok(Some(Fork { parent, version, manifest }))
}

/// The last version that this pond committed on that timeline or one below, or has from it.
fn last_before_timeline(
    source: &Source,
    first: Version,
    parent: Timeline,
) -> Result<Version, ReplicateError> {
    let (mut low, mut high) = (first.0, (source.newest)().0 + 1);
    // Timelines only grow along a history.
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        let timeline = pond_oplog::version_files(&source.pond, Version(middle))?.position.timeline;
        if timeline <= parent { low = middle } else { high = middle }
    }
    Ok(Version(low))
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
    // What was not read tells nothing of whose history it is.
    let entry =
        chain.entry.as_deref().ok_or_else(|| ReplicateError::missing(chain.tip, source.store.place()))?;
    confirm_entry(source, chain.tip, &key, entry)
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
