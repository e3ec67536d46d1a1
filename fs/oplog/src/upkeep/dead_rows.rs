//! Which rows of one node no version from the floor on shows.
//!
//! All versions from the floor on are the state at the floor with later rows on top. So of the rows up to the floor
//! those may go without which that state is the same. Some hide others (the end of a node, a hole, a snapshot of a
//! directory): such a row must stay as long as one is left that it hides.

use std::collections::{BTreeMap, HashMap};

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

/// The fate of each row of a node, which are sorted by `(lsn, seq)` and all there are up to the floor, if all
/// their files were written anew.
pub(crate) fn fates(facts: &[Fact]) -> Vec<Fate> {
    let mut fates = vec![Fate::Stays; facts.len()];
    let last_node = facts.iter().rposition(|fact| matches!(fact.what, What::Node { .. }));
    let Some(last_node) = last_node else { return fates };
    if let What::Node { ended: true } = facts[last_node].what {
        fates.fill(Fate::Goes);
        fates[last_node] = Fate::Hides;
        return fates;
    }
    for (fact, fate) in facts.iter().zip(&mut fates).take(last_node) {
        if let What::Node { .. } = fact.what {
            *fate = Fate::Goes;
        }
    }
    entries_fates(facts, &mut fates);
    content_fates(facts, &mut fates);
    fates
}

fn entries_fates(facts: &[Fact], fates: &mut [Fate]) {
    let rows: Vec<usize> = (0..facts.len()).filter(|&i| matches!(facts[i].what, What::Entries(_))).collect();
    let Some(&last) = rows.last() else { return };
    let changes = |i: usize| match &facts[i].what {
        What::Entries(changes) => changes.as_slice(),
        _ => &[],
    };
    let is_snapshot = |i: &usize| changes(*i).first().is_some_and(|change| change.op == EntryOp::Reset);
    let first = rows.iter().rposition(is_snapshot).unwrap_or(0);
    for &row in &rows[..first] {
        fates[row] = Fate::Goes;
    }
    let since = &rows[first..];
    let count: usize = since.iter().map(|&i| changes(i).len()).sum();
    let left = snapshot(facts).len();
    // Writing a large directory anew must save as much as it costs.
    if since.len() > 1 && entries_weight(since.len(), count) >= 2 * entries_weight(1, left) {
        for &row in since {
            fates[row] = Fate::Goes;
        }
        fates[last] = Fate::BecomesSnapshot;
    }
}

/// A directory's entries as one row: what these rows come to.
pub(crate) fn snapshot(facts: &[Fact]) -> Vec<EntryChange> {
    let mut by_cookie: BTreeMap<u64, &EntryChange> = BTreeMap::new();
    let mut by_name: HashMap<&[u8], u64> = HashMap::new();
    let mut reset = None;
    for fact in facts {
        let What::Entries(changes) = &fact.what else { continue };
        for change in changes {
            match change.op {
                EntryOp::Reset => {
                    by_cookie.clear();
                    by_name.clear();
                }
                EntryOp::Remove | EntryOp::Insert => {
                    if let Some(cookie) = by_name.remove(&*change.name) {
                        by_cookie.remove(&cookie);
                    }
                }
            }
            if change.op == EntryOp::Insert {
                by_name.insert(&change.name, change.cookie);
                by_cookie.insert(change.cookie, change);
            }
            reset.get_or_insert(change);
        }
    }
    let reset =
        reset.map(|any| EntryChange { name: Box::default(), cookie: 0, op: EntryOp::Reset, ..any.clone() });
    reset.into_iter().chain(by_cookie.into_values().cloned()).collect()
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

/// Rows of a node that are dropped if only the files for which `is_input` holds are written anew, by their fates. Where a
/// directory's snapshot is not written, `snapshots` says so.
pub(crate) fn dropped(
    facts: &[Fact],
    fates: &[Fate],
    is_input: impl Fn(u32) -> bool,
    snapshots: bool,
) -> Vec<bool> {
    let mut gone: Vec<bool> =
        facts.iter().zip(fates).map(|(fact, fate)| *fate == Fate::Goes && is_input(fact.file)).collect();
    let becomes = fates.iter().position(|fate| *fate == Fate::BecomesSnapshot);
    if becomes.is_some_and(|row| !snapshots || !is_input(facts[row].file)) {
        // There will be no snapshot, so that only what lies under an older one may go.
        let first = facts.iter().rposition(|fact| match &fact.what {
            What::Entries(changes) => changes.first().is_some_and(|change| change.op == EntryOp::Reset),
            _ => false,
        });
        for row in first.unwrap_or(0)..facts.len() {
            if let What::Entries(_) = facts[row].what {
                gone[row] = false;
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
        let fates = fates(&facts);
        use Fate::*;
        assert_eq!(fates, [Goes, Goes, Stays, Stays, Hides, Stays]);
        assert_eq!(dropped(&facts, &fates, |_| true, true), [true, true, false, false, false, false]);
        assert_eq!(dropped(&facts, &fates, |file| file == 1, true), [false; 6]);
        let facts =
            [facts[0].clone(), facts[1].clone(), fact(5, 1, What::Hole(0, u64::MAX)), facts[5].clone()];
        let fates = super::fates(&facts);
        assert_eq!(dropped(&facts, &fates, |_| true, true), [true, true, true, false]);
        assert_eq!(dropped(&facts, &fates, |file| file == 1, true), [false; 4], "the hole hides what stays");
    }

    #[test]
    fn a_node_that_ended_goes_and_its_end_last() {
        let facts = [
            fact(1, 0, What::Node { ended: false }),
            fact(2, 1, What::Extent(0, 10)),
            fact(3, 2, What::Node { ended: true }),
        ];
        let fates = fates(&facts);
        assert_eq!(dropped(&facts, &fates, |_| true, true), [true; 3]);
        assert_eq!(dropped(&facts, &fates, |file| file != 1, true), [true, false, false]);
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
