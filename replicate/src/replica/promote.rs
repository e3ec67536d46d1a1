//! Promoting: claiming a timeline in the store, before a replica becomes a source on it.

use std::path::Path;

use pond_oplog::{Timeline, Version, entry_facts, version_files};
use uuid::Uuid;

use crate::ReplicateError;
use crate::config::RemoteConfig;
use crate::history::find;
use crate::history::lineage::Lineage;
use crate::history::timeline::{self, Claim, Fork};
use crate::history::tip;
use crate::store::Store;

/// A timeline that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTimeline {
    /// Its number.
    pub timeline: Timeline,
    /// Its random id.
    pub id: Uuid,
    /// The timeline that it forked from.
    pub parent: Timeline,
    /// The last version that both have: the newest of the replica.
    pub fork: Version,
    /// BLAKE3 of that version's manifest, on which the next one builds.
    pub manifest: String,
    /// The newest version that the store's HEAD names. Those above the fork, if there are any, are given up.
    pub head: Version,
}

/// Claims the next timeline in the store of `config` (YAML) for the replica at `pond`, from its newest version on. From
/// then on the old source can push no more. Blocks; not to be called from a thread that runs async tasks.
///
/// A claim of which nothing came, because the process ended, does no harm: the next one is higher.
///
/// # Errors
///
/// [`ReplicateError::MissingVersion`] if the store does not hold the replica's version, an
/// [`OpLogError::Diverged`](pond_oplog::OpLogError::Diverged) if it holds another one of that number, and if another replica claimed
/// the timeline at the same time. An [`OpLogError::TooNew`](pond_oplog::OpLogError::TooNew) if only a newer program may write to
/// the pond.
pub fn promote(pond: &Path, config: &[u8]) -> Result<ClaimedTimeline, ReplicateError> {
    let store = Store::open(&RemoteConfig::parse(config)?)?;
    promote_in_store(pond, &store)
}

/// [`promote`] with a store that is open already.
///
/// # Errors
///
/// As there.
pub fn promote_in_store(pond: &Path, store: &Store) -> Result<ClaimedTimeline, ReplicateError> {
    let newest = pond_oplog::history(pond, Some(1))?;
    let newest =
        newest.into_iter().next().ok_or_else(|| ReplicateError::Other("the pond is empty".into()))?;
    let version = newest.position.version;
    // A claim that this program could not follow up would only end the old source.
    pond_oplog::may_write(pond, version)?;
    let files = version_files(pond, version)?;
    let position = files.position;
    let pond_id = entry_facts(version, &files.entry)?.pond_id.ok_or_else(|| {
        ReplicateError::Other(format!("the log entry of version {version} does not say whose it is"))
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ReplicateError::io("start a runtime"))?;
    runtime.block_on(async {
        let head = tip::head(store).await?;
        if head.pond_id != pond_id {
            let place = store.place().to_owned();
            return Err(ReplicateError::ForeignPond { place, found: head.pond_id, ours: pond_id });
        }
        // Where our version is: on HEAD's lineage, or on one that was given up.
        let mut lineage = Lineage::load(store, pond_id, head.timeline).await?;
        if lineage.admit(store.place(), &position).is_err() {
            lineage = Lineage::load(store, pond_id, position.timeline).await?;
        }
        let found = find::manifest_of(store, &lineage, pond_id, version, &position.digest).await?;
        let manifest = match found {
            None => {
                return Err(ReplicateError::missing(version, store.place()));
            }
            Some((manifest, _)) if manifest.entry.blake3 != position.digest => {
                let log = pond_oplog::Layout::new(pond).delta_log();
                let path = log.join(crate::format::entry_name(version));
                return Err(pond_oplog::OpLogError::Diverged { version, path }.into());
            }
            Some((_, digest)) => digest,
        };
        let parent = lineage.timeline_of(version);
        let highest = timeline::numbers(store).await?.into_iter().max().unwrap_or(Timeline::FIRST);
        let next = highest.max(head.timeline).max(position.timeline).next();
        let fork = Fork { parent, version, manifest: manifest.clone() };
        match timeline::claim(store, pond_id, next, Uuid::new_v4(), Some(fork)).await? {
            Claim::Ours(ours) => Ok(ClaimedTimeline {
                timeline: next,
                id: ours.id,
                parent,
                fork: version,
                manifest,
                head: Version(head.version),
            }),
            Claim::Taken(theirs) => Err(ReplicateError::Other(format!(
                "timeline {next} in {} was claimed by another replica at the same time ({}): if this one is to be the source \
                 all the same, promote it again",
                store.place(),
                theirs.id
            ))),
        }
    })
}
