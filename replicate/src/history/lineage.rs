//! Which timeline's folder holds which versions of a chain, and where another chain left it.

use pond_oplog::{PondId, Position, Timeline, Version};

use crate::ReplicateError;
use crate::format::timeline_key;
use crate::history::timeline;
use crate::store::Store;

/// More timelines than anybody promotes, so that a store which always has one more is not followed for ever.
const MOST_TIMELINES: usize = 10_000;

/// A timeline and those that it forked from, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    branches: Vec<Branch>,
}

/// The versions after the fork up to that of the branch before it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Branch {
    timeline: Timeline,
    /// The last version that it shares with the branch it came from. None for the first.
    fork: Option<Version>,
}

/// A timeline that began below the tip of the one that is followed, and will take its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Successor {
    /// Its number.
    pub(crate) timeline: Timeline,
    /// The last version that both have.
    pub(crate) fork: Version,
}

impl Lineage {
    /// The lineage of a timeline. The first has no ancestors, and nothing is read for it.
    pub(crate) async fn load(
        store: &Store,
        pond_id: PondId,
        newest: Timeline,
    ) -> Result<Self, ReplicateError> {
        let mut branches: Vec<Branch> = Vec::new();
        let mut next = Some(newest);
        while let Some(number) = next {
            let document = match number {
                Timeline::FIRST => None,
                _ => Some(timeline::load(store, pond_id, number).await?.ok_or_else(|| {
                    ReplicateError::Corrupt {
                        key: timeline_key(number),
                        version: None,
                        why: "it is not there, although something in the store is on that timeline".into(),
                    }
                })?),
            };
            let parent = document.as_ref().and_then(|document| document.parent);
            let fork = document.as_ref().and_then(|document| document.fork_version).map(Version);
            if branches.len() == MOST_TIMELINES {
                return Err(ReplicateError::Other(format!("{} has no end of timelines", store.place())));
            }
            branches.push(Branch { timeline: number, fork });
            next = parent;
        }
        Ok(Lineage { branches })
    }

    /// The newest timeline of it.
    pub(crate) fn timeline(&self) -> Timeline {
        self.branches[0].timeline
    }

    /// The timeline in whose folder a version is.
    pub(crate) fn timeline_of(&self, version: Version) -> Timeline {
        let holds = |branch: &&Branch| branch.fork.is_none_or(|fork| version > fork);
        self.branches.iter().find(holds).map_or(self.timeline(), |branch| branch.timeline)
    }

    /// Timelines of which versions of this range are, newest first.
    pub(crate) fn timelines(&self, first: Version, last: Version) -> Vec<Timeline> {
        let (low, high) = (self.timeline_of(first), self.timeline_of(last));
        let timelines = self.branches.iter().map(|branch| branch.timeline);
        timelines.filter(|timeline| (low..=high).contains(timeline)).collect()
    }

    /// Where the timelines above `timeline` left it: the last version that is part of all of them.
    fn left_after(&self, timeline: Timeline) -> Option<Version> {
        let above = self.branches.iter().filter(|branch| branch.timeline > timeline);
        above.filter_map(|branch| branch.fork).min()
    }

    /// Refuses a replica that holds versions which are not part of this, or is on a higher timeline.
    pub(crate) fn admit(&self, place: &str, position: &Position) -> Result<(), ReplicateError> {
        if self.timeline() < position.timeline {
            return Err(ReplicateError::LowerTimeline {
                place: place.to_owned(),
                theirs: self.timeline(),
                ours: position.timeline,
            });
        }
        match self.left_after(position.timeline) {
            Some(fork) if position.version > fork => {
                Err(ReplicateError::Diverged { timeline: self.timeline(), fork, ours: position.version })
            }
            _ => Ok(()),
        }
    }

    /// A higher timeline that HEAD does not show yet: whoever claimed it has pushed nothing so far, or a source that has
    /// not noticed wrote HEAD after it. What this timeline has beyond the fork will never be part of the history.
    pub(crate) async fn successor(
        &self,
        store: &Store,
        pond_id: PondId,
    ) -> Result<Option<Successor>, ReplicateError> {
        // Listed, since numbers need not follow each other: one may have been claimed elsewhere, in another store.
        let numbers = timeline::numbers(store).await?;
        let Some(&highest) = numbers.last().filter(|highest| **highest > self.timeline()) else {
            return Ok(None);
        };
        let fork = Lineage::load(store, pond_id, highest).await?.left_after(self.timeline());
        Ok(fork.map(|fork| Successor { timeline: highest, fork }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pond_oplog::TxnSeq;
    use pond_tinyfs::Lsn;

    fn lineage(branches: &[(u64, Option<u64>)]) -> Lineage {
        let branch = |&(timeline, fork): &(u64, Option<u64>)| Branch {
            timeline: Timeline(timeline),
            fork: fork.map(Version),
        };
        Lineage { branches: branches.iter().map(branch).collect() }
    }

    fn position(version: u64, timeline: u64) -> Position {
        Position {
            version: Version(version),
            digest: String::new(),
            timestamp: 0,
            txn_seq: TxnSeq(version + 1),
            cut_lsn: Lsn(version),
            timeline: Timeline(timeline),
        }
    }

    #[test]
    fn a_version_is_in_the_folder_of_the_newest_timeline_that_began_before_it() {
        let lineage = lineage(&[(4, Some(70)), (2, Some(40)), (1, None)]);
        let of = |version| lineage.timeline_of(Version(version)).0;
        assert_eq!([of(0), of(40), of(41), of(70), of(71)], [1, 1, 2, 2, 4]);
        assert_eq!(lineage.timelines(Version(41), Version(90)), [Timeline(4), Timeline(2)]);
        assert_eq!(lineage.timelines(Version(0), Version(3)), [Timeline(1)]);
    }

    #[test]
    fn a_replica_crosses_over_below_the_fork_and_has_diverged_above_it() {
        let lineage = lineage(&[(2, Some(40)), (1, None)]);
        lineage.admit("x", &position(35, 1)).unwrap();
        lineage.admit("x", &position(40, 1)).unwrap();
        lineage.admit("x", &position(60, 2)).unwrap();
        let refused = lineage.admit("x", &position(60, 1)).unwrap_err();
        assert!(
            matches!(
                refused,
                ReplicateError::Diverged { timeline: Timeline(2), fork: Version(40), ours: Version(60) }
            ),
            "{refused}"
        );
        let refused = lineage.admit("x", &position(30, 3)).unwrap_err();
        assert!(
            matches!(refused, ReplicateError::LowerTimeline { theirs: Timeline(2), ours: Timeline(3), .. }),
            "{refused}"
        );
    }

    #[test]
    fn the_lowest_fork_on_the_way_counts() {
        // The second timeline, at 40, was itself given up at 38.
        let lineage = lineage(&[(3, Some(38)), (1, None)]);
        assert!(lineage.admit("x", &position(39, 2)).is_err());
        assert!(lineage.admit("x", &position(38, 1)).is_ok());
    }
}
