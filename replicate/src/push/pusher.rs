//! What a push knows: what is pushed and to where, the chain that the store has, and what packs will be made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use pond_oplog::{PondId, Timeline, Version};
use uuid::Uuid;

use crate::history::chain::Chain;
use crate::store::Store;
use crate::{Progress, ReplicateError};

/// What is pushed, and to where.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) store: Store,
    /// `$POND`.
    pub(crate) pond: PathBuf,
    pub(crate) pond_id: PondId,
    /// The timeline on which the pond commits.
    pub(crate) timeline: Timeline,
    /// The id under which it claimed that one, if it was promoted.
    pub(crate) timeline_id: Option<Uuid>,
    /// zstd level of bundles.
    pub(crate) level: i32,
    /// The newest version that is committed.
    pub(crate) newest: Arc<dyn Fn() -> Version + Send + Sync>,
    pub(crate) progress: Arc<dyn Progress>,
}

/// Pushes one pond to one store.
pub(crate) struct Pusher {
    pub(crate) source: Source,
    /// BLAKE3 of the table's schema.
    pub(crate) schema: String,
    pub(crate) chain: Chain,
    /// What was pushed last, for the pack that it will be in.
    pub(super) recent: Recent,
    /// Last versions of ranges that are complete and have no pack yet.
    pub(super) unpacked: BTreeSet<u64>,
    /// Packs above the tip, left by a push that was cut off.
    pub(super) orphans: Vec<String>,
    /// Whether the store's HEAD is older than the chain.
    pub(super) head_is_old: bool,
    /// Whether a higher timeline was looked for since HEAD was last written.
    pub(super) head_may_follow: bool,
    /// When to look again whether a base is due.
    pub(crate) next_base_check: Version,
    pub(crate) stop: StopOnDrop,
}

/// Ends the threads that make bundles when a push is dropped half-way, also while it is still being opened.
#[derive(Default)]
pub(crate) struct StopOnDrop(pub(crate) Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Manifests and bundles of the last versions, up to a total.
#[derive(Default)]
pub(super) struct Recent {
    versions: BTreeMap<u64, Packable>,
    bytes: usize,
}

/// A version's manifest and those of its bundles that go into a pack.
#[derive(Clone)]
pub(super) struct Packable {
    pub(super) manifest: Bytes,
    pub(super) bundles: Vec<(String, Bytes)>,
}

/// Memory for [`Recent`]. What is not in it is fetched back.
pub(super) const RECENT: usize = 32 << 20;

impl Recent {
    pub(super) fn add(&mut self, version: Version, packable: Packable) {
        self.bytes += packable.bytes();
        self.versions.insert(version.0, packable);
        while self.bytes > RECENT
            && let Some((_, packable)) = self.versions.pop_first()
        {
            self.bytes -= packable.bytes();
        }
    }

    pub(super) fn get(&self, version: Version) -> Option<Packable> {
        self.versions.get(&version.0).cloned()
    }

    pub(super) fn forget_up_to(&mut self, version: Version) {
        self.versions = self.versions.split_off(&(version.0 + 1));
        self.bytes = self.versions.values().map(Packable::bytes).sum();
    }
}

impl Packable {
    pub(super) fn bytes(&self) -> usize {
        self.manifest.len() + self.bundles.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }
}

impl Pusher {
    /// The last version that the store has.
    pub(crate) fn tip(&self) -> Version {
        self.chain.tip
    }

    /// The store.
    pub(crate) fn place(&self) -> &str {
        self.source.store.place()
    }
}

/// What is said where another timeline has taken over.
pub(super) fn superseded(source: &Source, theirs: Timeline, fork: Option<Version>) -> ReplicateError {
    ReplicateError::Superseded { place: source.store.place().to_owned(), ours: source.timeline, theirs, fork }
}

/// Runs something that reads files or computes on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReplicateError> + Send + 'static,
) -> Result<T, ReplicateError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ReplicateError::Other(format!("a thread of the transfer ended early: {error}"))),
    }
}
