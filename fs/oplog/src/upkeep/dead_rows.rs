//! Which rows of one node no kept version shows.
//!
//! All versions from the floor on are the state at the floor with later rows on top. So of the rows up to the floor
//! those may go without which that state is the same. Some hide others (the end of a node, a hole, a snapshot of a
//! directory): such a row must stay as long as one is left that it hides.
//!
//! Where versions below the floor are kept too, their cuts part the rows into epochs. A row that is hidden at one cut is hidden at
//! all later ones, so the first kept cut that has it decides: it goes if rows of its own epoch hide it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use pond_tinyfs::{EntryChange, EntryOp, Lsn, NodeId, Record, Row};

/// A row up to the floor, without what nobody needs to know here.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) node: NodeId,
    pub(crate) lsn: Lsn,
    pub(crate) seq: u32,
    /// Index of its file.
    pub(crate) file: u32,
    /// Its number in the file.
    pub(crate) row: u32,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Attributes; whether they end the node.
    Node { ended: bool },
    /// Changes of a directory.
    Entries(Vec<EntryChange>),
    /// Bytes of a file, from and to.
    Extent(u64, u64),
    /// A hole, from and to.
    Hole(u64, u64),
}

/// What a row weighs besides content, about, bytes.
const ROW: u64 = 128;
/// What a row of directory changes weighs besides them: the schema of the Arrow stream.
const ENTRIES: u64 = 1024;
/// What a directory change weighs.
const ENTRY: u64 = 64;

impl Fact {
    pub(crate) fn new(row: &Row, file: u32, number: u32) -> Self {
        let what = match &row.record {
            Record::Node(node) => What::Node { ended: node.nlink == 0 },
            Record::Entries(changes) => What::Entries(changes.clone()),
            Record::Extent(extent) => {
                What::Extent(extent.offset, extent.offset.saturating_add(extent.length.into()))
            }
            Record::Hole { offset, length } => {
                What::Hole(*offset, length.map_or(u64::MAX, |length| offset.saturating_add(length)))
            }
        };
        Fact { node: row.node, lsn: row.lsn, seq: row.seq, file, row: number, what }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        let beside = match &self.what {
            What::Entries(changes) => held(changes),
            _ => 0,
        };
        size_of::<Fact>() + beside
    }

    /// Whether it says all that a directory has.
    fn is_snapshot(&self) -> bool {
        match &self.what {
            What::Entries(changes) => changes.first().is_some_and(|change| change.op == EntryOp::Reset),
            _ => false,
        }
    }

    /// Bytes, about.
    pub(crate) fn weight(&self) -> u64 {
        match &self.what {
            What::Node { .. } | What::Hole(..) => ROW,
            What::Entries(changes) => entries_weight(1, changes.len()),
            What::Extent(from, to) => ROW + (to - from),
        }
    }
}

/// Bytes of memory that changes of a directory take, about.
pub(crate) fn held(changes: &[EntryChange]) -> usize {
    changes.iter().map(|change| size_of::<EntryChange>() + change.name.len()).sum()
}

fn entries_weight(rows: usize, changes: usize) -> u64 {
    (ROW + ENTRIES) * rows as u64 + ENTRY * changes as u64
}

/// What becomes of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Stays,
    Goes,
    /// It goes if all that it hides have gone.
    Hides,
    /// A snapshot of the directory takes its place.
    BecomesSnapshot,
}

/// The parts of a node's rows, which are sorted by `(lsn, seq)`, that end at these cuts (ascending), and the rest. None is empty.
fn epochs(facts: &[Fact], cuts: &[Lsn]) -> Vec<Range<usize>> {
    let mut epochs = Vec::new();
    let (mut begin, mut cuts) = (0, cuts);
    while begin < facts.len() {
        // Only cuts that part these rows matter, and there may be many that do not.
        cuts = &cuts[cuts.partition_point(|cut| *cut < facts[begin].lsn)..];
        let end = match cuts.first() {
            Some(cut) => begin + facts[begin..].partition_point(|fact| fact.lsn <= *cut),
            None => facts.len(),
        };
        epochs.push(begin..end);
        begin = end;
    }
    epochs
}

/// The fate of each row of a node, which are sorted by `(lsn, seq)` and all there are up to the floor, if all
/// their files were written anew. `cuts` are those of the kept versions below the floor, ascending.
pub(crate) fn fates(facts: &[Fact], cuts: &[Lsn]) -> Vec<Fate> {
    let mut fates = vec![Fate::Stays; facts.len()];
    let mut listing = Listing::default();
    let mut is_known = false;
    for epoch in epochs(facts, cuts) {
        let (facts, fates) = (&facts[epoch.clone()], &mut fates[epoch]);
        facts.iter().for_each(|fact| listing.apply(fact));
        let last_node = facts.iter().rposition(|fact| matches!(fact.what, What::Node { .. }));
        // Of a node that no row describes nothing is judged.
        is_known |= last_node.is_some();
        if !is_known {
            continue;
        }
        if let Some(last) = last_node {
            if let What::Node { ended: true } = facts[last].what {
                fates.fill(Fate::Goes);
                fates[last] = Fate::Hides;
                continue;
            }
            for (fact, fate) in facts.iter().zip(&mut *fates).take(last) {
                if let What::Node { .. } = fact.what {
                    *fate = Fate::Goes;
                }
            }
        }
        entries_fates(facts, fates, listing.len());
        content_fates(facts, fates);
    }
    fates
}

/// Judges changes of a directory within an epoch, after which it has so many entries.
fn entries_fates(facts: &[Fact], fates: &mut [Fate], entries: usize) {
    let rows: Vec<usize> = (0..facts.len()).filter(|&i| matches!(facts[i].what, What::Entries(_))).collect();
    let Some(&last) = rows.last() else { return };
    let first = rows.iter().rposition(|&row| facts[row].is_snapshot()).unwrap_or(0);
    for &row in &rows[..first] {
        fates[row] = Fate::Goes;
    }
    let since = &rows[first..];
    let changes = |row: usize| match &facts[row].what {
        What::Entries(changes) => changes.len(),
        _ => 0,
    };
    let count: usize = since.iter().map(|&row| changes(row)).sum();
    // Writing a large directory anew must save as much as it costs; a snapshot begins with a reset.
    if since.len() > 1 && entries_weight(since.len(), count) >= 2 * entries_weight(1, entries + 1) {
        for &row in since {
            fates[row] = Fate::Goes;
        }
        fates[last] = Fate::BecomesSnapshot;
    }
}

/// What a directory has after some of its rows.
#[derive(Default)]
struct Listing<'a> {
    by_cookie: BTreeMap<u64, &'a EntryChange>,
    by_name: HashMap<&'a [u8], u64>,
    /// One of the changes, if there was any: what they have in common.
    any: Option<&'a EntryChange>,
}

impl<'a> Listing<'a> {
    fn apply(&mut self, fact: &'a Fact) {
        let What::Entries(changes) = &fact.what else { return };
        for change in changes {
            match change.op {
                EntryOp::Reset => {
                    self.by_cookie.clear();
                    self.by_name.clear();
                }
                EntryOp::Remove | EntryOp::Insert => {
                    if let Some(cookie) = self.by_name.remove(&*change.name) {
                        self.by_cookie.remove(&cookie);
                    }
                }
            }
            if change.op == EntryOp::Insert {
                self.by_name.insert(&change.name, change.cookie);
                self.by_cookie.insert(change.cookie, change);
            }
            self.any.get_or_insert(change);
        }
    }

    fn len(&self) -> usize {
        self.by_cookie.len()
    }
}

/// A directory's entries as one row: what these rows come to.
pub(crate) fn snapshot(facts: &[Fact]) -> Vec<EntryChange> {
    let mut listing = Listing::default();
    facts.iter().for_each(|fact| listing.apply(fact));
    let reset = listing.any.map(|any| EntryChange {
        name: Box::default(),
        cookie: 0,
        op: EntryOp::Reset,
        ..any.clone()
    });
    reset.into_iter().chain(listing.by_cookie.into_values().cloned()).collect()
}

fn content_fates(facts: &[Fact], fates: &mut [Fate]) {
    let mut covered = Ranges::default();
    for (fact, fate) in facts.iter().zip(fates).rev() {
        let (from, to, hides) = match fact.what {
            What::Extent(from, to) => (from, to, false),
            What::Hole(from, to) => (from, to, true),
            _ => continue,
        };
        if covered.contain(from, to) {
            // What lies on top stays, or is itself under something that does.
            *fate = Fate::Goes;
        } else {
            if hides {
                *fate = Fate::Hides;
            }
            covered.insert(from, to);
        }
    }
}

/// Rows of a node that are dropped if only the files for which `is_input` holds are written anew, by their fates, which follow from
/// these cuts. `is_written` says of a row that becomes a directory's snapshot whether that is written.
pub(crate) fn dropped(
    facts: &[Fact],
    fates: &[Fate],
    cuts: &[Lsn],
    is_input: impl Fn(u32) -> bool,
    is_written: impl Fn(usize) -> bool,
) -> Vec<bool> {
    let mut gone: Vec<bool> =
        facts.iter().zip(fates).map(|(fact, fate)| *fate == Fate::Goes && is_input(fact.file)).collect();
    for epoch in epochs(facts, cuts) {
        let becomes = epoch.clone().find(|&row| fates[row] == Fate::BecomesSnapshot);
        if becomes.is_some_and(|row| !is_written(row) || !is_input(facts[row].file)) {
            // There will be no snapshot, so that only what lies under an older one may go.
            let first = epoch.clone().rev().find(|&row| facts[row].is_snapshot()).unwrap_or(epoch.start);
            for row in first..epoch.end {
                if let What::Entries(_) = facts[row].what {
                    gone[row] = false;
                }
            }
        }
    }
    // From the oldest on, so that a hole under a hole is decided first.
    let mut under = Ranges::default();
    for row in 0..facts.len() {
        if let What::Extent(start, end) = facts[row].what
            && !gone[row]
        {
            under.insert(start, end);
        }
        if fates[row] != Fate::Hides || !is_input(facts[row].file) {
            continue;
        }
        gone[row] = match facts[row].what {
            // The end of a node hides all its other rows.
            What::Node { .. } => (0..facts.len()).all(|other| other == row || gone[other]),
            What::Hole(from, to) => !under.overlap(from, to),
            _ => false,
        };
    }
    gone
}

/// Ranges of bytes.
#[derive(Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn contain(&self, from: u64, to: u64) -> bool {
        self.0.range(..=from).next_back().is_some_and(|(_, &end)| end >= to)
    }

    /// Whether they have any byte of these.
    fn overlap(&self, from: u64, to: u64) -> bool {
        self.0.range(..to).next_back().is_some_and(|(_, &end)| end > from)
    }

    fn insert(&mut self, mut from: u64, mut to: u64) {
        if let Some((&start, &end)) = self.0.range(..=from).next_back()
            && end >= from
        {
            from = start;
            to = to.max(end);
        }
        while let Some((&start, &end)) = self.0.range(from..=to).next() {
            self.0.remove(&start);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }
}

#[cfg(test)]
mod tests {
    use pond_tinyfs::FileType;

    use super::*;

    fn fact(lsn: u64, file: u32, what: What) -> Fact {
        Fact { node: NodeId::ROOT, lsn: Lsn(lsn), seq: 0, file, row: 0, what }
    }

    #[test]
    fn an_extent_goes_once_later_ones_cover_it_and_a_hole_once_nothing_is_under_it() {
        let facts = [
            fact(1, 0, What::Node { ended: false }),
            fact(2, 0, What::Extent(0, 100)),
            fact(3, 0, What::Extent(100, 200)),
            fact(4, 1, What::Extent(0, 50)),
            fact(5, 1, What::Hole(40, 120)),
            fact(6, 1, What::Node { ended: false }),
        ];
        let fates = fates(&facts, &[]);
        use Fate::*;
        assert_eq!(fates, [Goes, Goes, Stays, Stays, Hides, Stays]);
        assert_eq!(
            dropped(&facts, &fates, &[], |_| true, |_| true),
            [true, true, false, false, false, false]
        );
        assert_eq!(dropped(&facts, &fates, &[], |file| file == 1, |_| true), [false; 6]);
        let facts =
            [facts[0].clone(), facts[1].clone(), fact(5, 1, What::Hole(0, u64::MAX)), facts[5].clone()];
        let fates = super::fates(&facts, &[]);
        assert_eq!(dropped(&facts, &fates, &[], |_| true, |_| true), [true, true, true, false]);
        assert_eq!(
            dropped(&facts, &fates, &[], |file| file == 1, |_| true),
            [false; 4],
            "the hole hides what stays"
        );
    }

    #[test]
    fn what_a_kept_version_below_the_floor_shows_stays() {
        use Fate::*;
        let facts = [
            fact(1, 0, What::Node { ended: false }),
            fact(2, 0, What::Extent(0, 100)),
            fact(3, 0, What::Extent(0, 100)),
            fact(4, 0, What::Node { ended: false }),
            // Here one is kept.
            fact(5, 0, What::Extent(0, 100)),
            fact(6, 0, What::Hole(0, 100)),
            fact(7, 0, What::Node { ended: false }),
            // And here.
            fact(8, 0, What::Extent(0, 50)),
            fact(9, 0, What::Node { ended: true }),
        ];
        let cuts = [Lsn(4), Lsn(7)];
        let fates = fates(&facts, &cuts);
        assert_eq!(fates, [Goes, Goes, Stays, Stays, Goes, Hides, Stays, Goes, Hides]);
        let gone = dropped(&facts, &fates, &cuts, |_| true, |_| true);
        assert_eq!(gone, [true, true, false, false, true, false, false, true, false]);
        // Cuts that part nothing, before, between and behind, change nothing.
        let more = [Lsn(0), Lsn(4), Lsn(7), Lsn(7), Lsn(20), Lsn(30)];
        assert_eq!(super::fates(&facts, &more), fates);
    }

    #[test]
    fn a_directory_gets_a_snapshot_for_each_kept_version_for_which_that_is_less() {
        use Fate::*;
        let rows = |lsn: u64| {
            let (name, kind, op) = (Box::from([lsn as u8]), FileType::File, EntryOp::Insert);
            let change = EntryChange { name, child: NodeId::ROOT, kind, cookie: lsn, op };
            fact(lsn, 0, What::Entries(vec![change]))
        };
        let mut facts = vec![fact(1, 0, What::Node { ended: false })];
        facts.extend((2..20).map(rows));
        let cuts = [Lsn(9)];
        let fates = fates(&facts, &cuts);
        assert_eq!(fates[8], BecomesSnapshot);
        assert_eq!(*fates.last().unwrap(), BecomesSnapshot);
        assert_eq!(fates.iter().filter(|fate| **fate == Goes).count(), 16);
        assert_eq!(snapshot(&facts[..=8]).len(), 1 + 8);
        // Where the first is not written, the rows up to it stay, and those after it go all the same.
        let gone = dropped(&facts, &fates, &cuts, |_| true, |row| row != 8);
        assert_eq!(gone.iter().position(|gone| *gone), Some(9));
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 9);
    }

    #[test]
    fn a_node_that_ended_goes_and_its_end_last() {
        let facts = [
            fact(1, 0, What::Node { ended: false }),
            fact(2, 1, What::Extent(0, 10)),
            fact(3, 2, What::Node { ended: true }),
        ];
        let fates = fates(&facts, &[]);
        assert_eq!(dropped(&facts, &fates, &[], |_| true, |_| true), [true; 3]);
        assert_eq!(dropped(&facts, &fates, &[], |file| file != 1, |_| true), [true, false, false]);
    }

    #[test]
    fn ranges_join_where_they_touch() {
        let mut ranges = Ranges::default();
        ranges.insert(10, 20);
        ranges.insert(30, 40);
        assert!(!ranges.contain(10, 40));
        ranges.insert(20, 30);
        assert!(ranges.contain(10, 40) && !ranges.contain(9, 11));
        assert!(
            ranges.overlap(0, 11)
                && ranges.overlap(39, 50)
                && ranges.overlap(0, 50)
                && ranges.overlap(15, 16)
        );
        assert!(!ranges.overlap(0, 10) && !ranges.overlap(40, 50));
        ranges.insert(0, u64::MAX);
        assert_eq!(ranges.0.len(), 1);
    }
}
