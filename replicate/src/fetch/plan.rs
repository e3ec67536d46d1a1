//! Planning: which packs and which single versions bring a replica from one version to another.

use std::sync::Arc;

use pond_oplog::{Timeline, Version};

use crate::ReplicateError;
use crate::format::{packs_folder, parse_pack_key};
use crate::history::lineage::Lineage;
use crate::store::Store;

/// From so many versions on a pack is fetched, and asked for, rather than single versions.
pub(crate) const WORTH_PACKS: u64 = 8;

/// What names of packs in the staging area begin with.
pub(crate) const STAGED_PACK: &str = "pack-";

/// A pack that the store lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pack {
    /// Its key.
    pub(crate) key: String,
    /// The timeline in whose folder it is.
    pub(crate) timeline: Timeline,
    /// The first version that it covers.
    pub(crate) first: Version,
    /// The last one.
    pub(crate) last: Version,
    /// BLAKE3 of its bytes, as its name says.
    pub(crate) blake3: String,
    /// Its bytes.
    pub(crate) length: u64,
}

impl Pack {
    /// Whether a version is in its range.
    pub(crate) fn covers(&self, version: Version) -> bool {
        (self.first..=self.last).contains(&version)
    }

    /// Its name in the staging area.
    pub(crate) fn staged_name(&self) -> String {
        format!("{STAGED_PACK}{}-{}-{}-{}", self.timeline, self.first, self.last, self.blake3)
    }
}

/// The packs of a chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packs(Vec<Arc<Pack>>);

impl Packs {
    /// Lists the packs that may hold versions of this range: one request for each timeline (and 1,000 packs).
    pub(crate) async fn list(
        store: &Store,
        lineage: &Lineage,
        first: Version,
        last: Version,
    ) -> Result<Self, ReplicateError> {
        let mut packs = Vec::new();
        for timeline in lineage.timelines(first, last) {
            for object in store.list(&packs_folder(timeline)).await? {
                // What is no pack is nobody's, or a newer program's.
                let Some((first, last, blake3)) = parse_pack_key(&object.key) else { continue };
                let blake3 = blake3.to_owned();
                packs.push(Arc::new(Pack {
                    timeline,
                    first,
                    last,
                    blake3,
                    length: object.length,
                    key: object.key,
                }));
            }
        }
        Ok(Packs(packs))
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Pack>> {
        self.0.iter()
    }

    /// Leaves out one that cannot be used.
    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.retain(|pack| pack.key != key);
        self
    }

    /// Packs that have a version, those first that reach furthest.
    pub(crate) fn of(&self, lineage: &Lineage, version: Version) -> Vec<Arc<Pack>> {
        let timeline = lineage.timeline_of(version);
        let covering = self.0.iter().filter(|pack| pack.timeline == timeline && pack.covers(version));
        let mut found: Vec<_> = covering.cloned().collect();
        found.sort_by_key(|pack| (std::cmp::Reverse(pack.last), pack.first));
        found
    }
}

/// Versions that are fetched together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The first.
    pub(crate) first: Version,
    /// The last.
    pub(crate) last: Version,
    /// The pack that has them; without one it is a single version.
    pub(crate) pack: Option<Arc<Pack>>,
}

/// What to fetch for the versions from `first` to `last`, in their order.
///
/// A pack is taken where nothing of it is here yet, or where it is staged: whoever was killed while its versions were applied
/// has it. Of a pack whose beginning was fetched otherwise the rest is fetched as single versions, since a pack is
/// fetched whole and nothing is to be fetched twice; where a version is not to be had singly, whoever fetches it
/// falls back to the pack.
pub(crate) fn plan(
    packs: &Packs,
    lineage: &Lineage,
    first: Version,
    last: Version,
    is_staged: &dyn Fn(&Pack) -> bool,
) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut next = first;
    while next <= last {
        let worth = |pack: &Arc<Pack>| {
            // The version before the first is that of a base, which was fetched as such.
            let untouched = pack.first >= first || pack.first.next() == first;
            (untouched && pack.last.min(last).0 - next.0 + 1 >= WORTH_PACKS) || is_staged(pack)
        };
        let pack = packs.of(lineage, next).into_iter().find(worth);
        let end = match &pack {
            None => next,
            Some(pack) => {
                // Beyond a fork the pack has versions that are not of this chain.
                let end = pack.last.min(last);
                (next.0..=end.0)
                    .rev()
                    .map(Version)
                    .find(|&version| lineage.timeline_of(version) == pack.timeline)
                    .unwrap_or(next)
            }
        };
        units.push(Unit { first: next, last: end, pack });
        next = end.next();
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(first: u64, last: u64) -> Arc<Pack> {
        let (first, last) = (Version(first), Version(last));
        Arc::new(Pack {
            key: format!("{first}-{last}"),
            timeline: Timeline::FIRST,
            first,
            last,
            blake3: "0".into(),
            length: 9,
        })
    }

    fn shown(packs: &[(u64, u64)], first: u64, last: u64) -> Vec<(u64, u64, bool)> {
        shown_with(packs, first, last, &|_| false)
    }

    fn shown_with(
        packs: &[(u64, u64)],
        first: u64,
        last: u64,
        is_staged: &dyn Fn(&Pack) -> bool,
    ) -> Vec<(u64, u64, bool)> {
        let packs = Packs(packs.iter().map(|&(first, last)| pack(first, last)).collect());
        let lineage = lineage();
        let units = plan(&packs, &lineage, Version(first), Version(last), is_staged);
        units.iter().map(|unit| (unit.first.0, unit.last.0, unit.pack.is_some())).collect()
    }

    fn lineage() -> Lineage {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let store = Store::new(Arc::new(object_store::memory::InMemory::new()), "memory", "");
            Lineage::load(&store, pond_oplog::PondId::random(), Timeline::FIRST).await.unwrap()
        })
    }

    #[test]
    fn packs_are_taken_whole_and_the_rest_comes_singly() {
        assert_eq!(
            shown(&[(0, 63), (64, 127)], 1, 130),
            [(1, 63, true), (64, 127, true), (128, 128, false), (129, 129, false), (130, 130, false)]
        );
    }

    #[test]
    fn a_pack_of_which_a_part_is_here_is_not_fetched() {
        let units = shown(&[(0, 63), (64, 127)], 41, 127);
        assert_eq!(units.len(), 23 + 1);
        assert_eq!(units[23], (64, 127, true));
    }

    #[test]
    fn a_pack_that_is_staged_is_taken_wherever_in_it_a_killed_run_has_stopped() {
        let staged = |pack: &Pack| pack.first == Version(0);
        assert_eq!(shown_with(&[(0, 63), (64, 127)], 41, 127, &staged), [(41, 63, true), (64, 127, true)]);
        assert_eq!(shown_with(&[(0, 63)], 62, 63, &staged), [(62, 63, true)]);
    }

    #[test]
    fn a_pack_is_taken_for_its_beginning_too_if_that_is_worth_it() {
        assert_eq!(shown(&[(64, 127)], 64, 75), [(64, 75, true)]);
        assert_eq!(shown(&[(64, 127)], 64, 65).len(), 2);
    }

    #[test]
    fn of_packs_that_overlap_the_longest_is_taken() {
        assert_eq!(shown(&[(0, 20), (0, 63), (30, 63)], 1, 63), [(1, 63, true)]);
    }
}
