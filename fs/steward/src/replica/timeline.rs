//! The timeline that a pond was promoted to: a source commits on it from the moment that it is opened.

use std::path::Path;

use pond_oplog::{Origin, Timeline};

use crate::commit::committer::Committer;
use crate::replica::status::ReplicaStatus;

/// Origin of the first version on a timeline.
const ORIGIN: &str = "promote";

/// Sees to it that a source has a version on this timeline; why it has none yet, where that fails.
pub(crate) fn take_up_timeline(pond: &Path, committer: &Committer, timeline: Timeline) -> Option<String> {
    let origin = Origin::of(ORIGIN);
    let is_below = committer.log().position().timeline < timeline;
    let failure = is_below.then(|| committer.commit_empty(&origin).err()).flatten();
    if let Err(error) = ReplicaStatus::remove(pond) {
        tracing::warn!(%error, "could not remove the state that the pond had as a replica");
    }
    // A pond on a full disk must open; any later commit takes the timeline up just as well.
    failure.map(|error| format!("the first version on timeline {timeline} is not yet committed: {error}"))
}
