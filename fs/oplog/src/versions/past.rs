//! What became of paths in all versions that are kept: from one reading of the rows, without the tree of any version.
//!
//! Rows of attributes and of directory changes are gone through in their order. They make a whole state wherever a cut ends, and all
//! rows of a cut have its time.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pond_tinyfs::{EntryChange, EntryOp, FileType, Lsn, NodeId, Record, Row};

use crate::versions::views::Views;
use crate::{CommitInfo, OpLogError, Version};

/// What became of a file in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The version.
    pub commit: CommitInfo,
    /// What.
    pub what: Became,
    /// Its kind.
    pub kind: FileType,
    /// Bytes after it; of what was removed, before it.
    pub size: u64,
    /// Its names after it, from the root; of what was removed, before it.
    pub paths: Vec<Vec<u8>>,
    /// Its names before it, where they were others.
    pub paths_before: Vec<Vec<u8>>,
}

/// What a version did to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Became {
    /// It is as old as the oldest version that is kept, or older.
    Oldest,
    /// It was made.
    Created,
    /// Another file took its name, as where a program writes a new file and renames it over the old one.
    Replaced,
    /// It was written to.
    Written,
    /// Its names are others.
    Moved,
    /// Its attributes are others; of a directory, its entries.
    Changed,
    /// It ended.
    Removed,
}

impl Became {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Became::Oldest => "oldest",
            Became::Created => "created",
            Became::Replaced => "replaced",
            Became::Written => "written",
            Became::Moved => "moved",
            Became::Changed => "changed",
            Became::Removed => "removed",
        }
    }
}

/// A path that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The first version without it.
    pub commit: CommitInfo,
    /// The last kept version with it.
    pub last: Version,
    /// Kind of what it named.
    pub kind: FileType,
    /// Its bytes.
    pub size: u64,
    /// From the root.
    pub path: Vec<u8>,
    /// Whether the newest version has something else of this name.
    pub is_taken: bool,
}

/// A row of attributes.
#[derive(Clone, Copy)]
struct Seen {
    lsn: Lsn,
    seq: u32,
    timestamp: i64,
    node: NodeId,
    size: u64,
    mtime: i64,
    kind: FileType,
    first: bool,
    ended: bool,
}

/// A row of directory changes.
pub(super) struct Named {
    pub(super) lsn: Lsn,
    seq: u32,
    timestamp: i64,
    pub(super) directory: NodeId,
    pub(super) changes: Vec<EntryChange>,
}

/// What rows say of names and attributes, in their order.
pub struct Past<'a> {
    pub(super) views: &'a Views,
    seen: Vec<Seen>,
    named: Vec<Named>,
    /// The cuts of the floor and of kept versions below it, ascending; none where all versions are kept.
    cuts: Vec<Lsn>,
}

impl Views {
    /// Reads what became of names and attributes in all versions that are kept. Takes some 50 bytes of memory for each row of
    /// attributes and each directory change.
    pub fn past(&self) -> Result<Past<'_>, OpLogError> {
        let (mut seen, mut named) = (Vec::new(), Vec::new());
        let cuts = self.each_row_there_is(|row| {
            let Row { lsn, seq, timestamp, node, version, .. } = row;
            match row.record {
                Record::Node(record) => seen.push(Seen {
                    lsn,
                    seq,
                    timestamp,
                    node,
                    size: record.size,
                    mtime: record.mtime.0,
                    kind: record.kind,
                    first: version == 1,
                    ended: record.nlink == 0,
                }),
                Record::Entries(changes) => {
                    named.push(Named { lsn, seq, timestamp, directory: node, changes })
                }
                Record::Extent(_) | Record::Hole { .. } => {}
            }
        })?;
        seen.sort_unstable_by_key(|seen: &Seen| (seen.lsn, seen.seq));
        named.sort_unstable_by_key(|named: &Named| (named.lsn, named.seq));
        Ok(Past { views: self, seen, named, cuts })
    }
}

/// The names that all directories have at one time.
#[derive(Default)]
pub(super) struct Names {
    pub(super) entries: HashMap<NodeId, HashMap<Box<[u8]>, NodeId>>,
    /// Where directories are.
    parents: HashMap<NodeId, (NodeId, Box<[u8]>)>,
}

impl Names {
    pub(super) fn get(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.entries.get(&directory)?.get(name).copied()
    }

    pub(super) fn apply(&mut self, named: &Named) {
        let directory = named.directory;
        for change in &named.changes {
            let entries = self.entries.entry(directory).or_default();
            let place = (directory, change.name.clone());
            match change.op {
                EntryOp::Reset => entries.clear(),
                EntryOp::Remove => {
                    entries.remove(&change.name);
                    // It may have been put elsewhere already.
                    if self.parents.get(&change.child) == Some(&place) {
                        self.parents.remove(&change.child);
                    }
                }
                EntryOp::Insert => {
                    entries.insert(change.name.clone(), change.child);
                    if change.kind == FileType::Directory {
                        self.parents.insert(change.child, place);
                    }
                }
            }
        }
    }

    fn resolve(&self, path: &[u8]) -> Option<NodeId> {
        let mut names = path.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        names.try_fold(NodeId::ROOT, |directory, name| self.get(directory, name))
    }

    /// The path of an entry; none if nothing leads there.
    pub(super) fn path(&self, mut directory: NodeId, name: &[u8]) -> Option<Vec<u8>> {
        let mut above: Vec<&[u8]> = vec![name];
        while directory != NodeId::ROOT {
            // Directories do not hold each other at the end of a cut, and within one it shows here.
            if above.len() > self.parents.len() + 1 {
                return None;
            }
            let (parent, name) = self.parents.get(&directory)?;
            above.push(name);
            directory = *parent;
        }
        Some(above.iter().rev().flat_map(|name| [b"/".as_slice(), *name]).flatten().copied().collect())
    }
}

/// The rows of one cut.
pub(super) struct Step<'a> {
    seen: &'a [Seen],
    pub(super) named: &'a [Named],
}

impl Past<'_> {
    /// What is shown by no version before: all up to the oldest that is kept.
    pub(super) fn oldest(&self) -> Lsn {
        self.cuts.first().copied().unwrap_or_default()
    }

    /// Which state a row is part of: that of a cut, or of the next kept version where rows of others may be gone.
    fn state(&self, lsn: Lsn, timestamp: i64) -> (usize, i64) {
        match self.cuts.partition_point(|cut| *cut < lsn) {
            cuts if cuts < self.cuts.len() => (cuts, 0),
            cuts => (cuts, timestamp),
        }
    }

    /// The rows, state by state.
    pub(super) fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let (mut seen, mut named) = (self.seen.as_slice(), self.named.as_slice());
        let of_seen = |seen: &Seen| self.state(seen.lsn, seen.timestamp);
        let of_named = |named: &Named| self.state(named.lsn, named.timestamp);
        std::iter::from_fn(move || {
            let first = match (seen.first(), named.first()) {
                (Some(seen), Some(named)) if named.lsn < seen.lsn => of_named(named),
                (Some(seen), _) => of_seen(seen),
                (None, Some(named)) => of_named(named),
                (None, None) => return None,
            };
            let till = seen.iter().position(|seen| of_seen(seen) != first).unwrap_or(seen.len());
            let named_till = named.iter().position(|named| of_named(named) != first).unwrap_or(named.len());
            let step = Step { seen: &seen[..till], named: &named[..named_till] };
            (seen, named) = (&seen[till..], &named[named_till..]);
            Some(step)
        })
    }

    /// What became of the file or directory that a path names, or named last, from its making to its end, under whatever names; of
    /// those that had the name before it, as long as they had it. Oldest first; empty if no version that is kept knows the path.
    pub fn of_path(&self, path: &[u8]) -> Result<Vec<Event>, OpLogError> {
        // Which nodes the path named, from which step on.
        let (mut names, mut periods) = (Names::default(), Vec::<(usize, Option<NodeId>)>::new());
        let mut count = 0;
        for (number, step) in self.steps().enumerate() {
            count = number + 1;
            step.named.iter().for_each(|named| names.apply(named));
            let now = names.resolve(path);
            if periods.last().map_or(now.is_some(), |(_, before)| *before != now) {
                periods.push((number, now));
            }
        }
        let last = periods.iter().rev().find_map(|(_, node)| *node);
        let Some(last) = last else { return Ok(Vec::new()) };
        // From when to when each is followed.
        let mut followed: HashMap<NodeId, (usize, usize)> = HashMap::new();
        for (place, (_, node)) in periods.iter().enumerate() {
            let Some(node) = node else { continue };
            let end = periods.get(place + 1).map_or(count, |(next, _)| *next);
            // What it was before it had the name is part of it.
            followed.entry(*node).or_insert((0, end)).1 = if *node == last { count } else { end };
        }
        let mut events = Follower { followed, ..Follower::default() };
        let mut names = Names::default();
        for (number, step) in self.steps().enumerate() {
            let before = names.resolve(path);
            events.before(&step);
            step.named.iter().for_each(|named| names.apply(named));
            let after = names.resolve(path);
            events.after(number, &step, &names, (before, after));
        }
        self.of_versions(events.found)
    }

    /// Puts events of one version together, and finds out which it is.
    fn of_versions(&self, found: Vec<(Lsn, Found)>) -> Result<Vec<Event>, OpLogError> {
        let (old, new): (Vec<_>, Vec<_>) = found.into_iter().partition(|(lsn, _)| *lsn <= self.oldest());
        // Of what lies before the oldest version only what it came to can be told.
        let old = old.into_iter().next_back().filter(|(_, found)| found.what != Became::Removed);
        let old =
            old.map(|(lsn, found)| (lsn, Found { what: Became::Oldest, paths_before: Vec::new(), ..found }));
        let found: Vec<(Lsn, Found)> = old.into_iter().chain(new).collect();
        let lsns: Vec<Lsn> = found.iter().map(|(lsn, _)| *lsn).collect();
        let mut events: Vec<Event> = Vec::new();
        for ((_, found), (commit, _)) in found.into_iter().zip(self.views.commits_with(&lsns)?) {
            let Found { what, kind, size, paths, paths_before } = found;
            let mut event = Event { commit, what, kind, size, paths, paths_before };
            match events.last_mut() {
                Some(before) if before.commit.position.version == event.commit.position.version => {
                    // What was made and then written was made.
                    if event.what != Became::Removed {
                        event.what = event.what.min(before.what);
                    }
                    if !before.paths_before.is_empty() {
                        event.paths_before = std::mem::take(&mut before.paths_before);
                    }
                    *before = event;
                }
                _ => events.push(event),
            }
        }
        Ok(events)
    }

    /// The paths of what ended, each with the last that had the name; the newest first.
    pub fn gone(&self) -> Result<Vec<Gone>, OpLogError> {
        let mut names = Names::default();
        let mut gone: BTreeMap<Vec<u8>, (Lsn, FileType, u64)> = BTreeMap::new();
        for step in self.steps() {
            let ended: HashMap<NodeId, &Seen> = step
                .seen
                .iter()
                .filter(|seen| seen.ended && seen.lsn > self.oldest())
                .map(|seen| (seen.node, seen))
                .collect();
            if !ended.is_empty() {
                for named in step.named {
                    for change in named.changes.iter().filter(|change| change.op != EntryOp::Reset) {
                        let child = names.get(named.directory, &change.name);
                        if let Some(seen) = child.and_then(|child| ended.get(&child))
                            && let Some(path) = names.path(named.directory, &change.name)
                        {
                            gone.insert(path, (seen.lsn, seen.kind, seen.size));
                        }
                    }
                }
            }
            step.named.iter().for_each(|named| names.apply(named));
        }
        let mut gone: Vec<(Vec<u8>, (Lsn, FileType, u64))> = gone.into_iter().collect();
        gone.sort_by_key(|(_, (lsn, ..))| *lsn);
        let lsns: Vec<Lsn> = gone.iter().map(|(_, (lsn, ..))| *lsn).collect();
        let commits = self.views.commits_with(&lsns)?;
        let told = gone.into_iter().zip(commits).map(|((path, (_, kind, size)), (commit, before))| {
            let is_taken = names.resolve(&path).is_some();
            Gone { last: before.unwrap_or(commit.position.version), commit, kind, size, path, is_taken }
        });
        Ok(told.rev().collect())
    }
}

/// What became of a file, before it is known in which version.
struct Found {
    what: Became,
    kind: FileType,
    size: u64,
    paths: Vec<Vec<u8>>,
    paths_before: Vec<Vec<u8>>,
}

/// A directory, and a name in it.
type Place = (NodeId, Box<[u8]>);

/// Follows some nodes, step by step.
#[derive(Default)]
struct Follower {
    /// From which step to which; the one at which it loses the path is part of it.
    followed: HashMap<NodeId, (usize, usize)>,
    links: HashMap<NodeId, BTreeSet<Place>>,
    /// Whose the places are that they have.
    holders: HashMap<Place, NodeId>,
    paths: HashMap<NodeId, Vec<Vec<u8>>>,
    was: HashMap<NodeId, Seen>,
    found: Vec<(Lsn, Found)>,
}

impl Follower {
    /// Notes which names change in a step.
    fn before(&mut self, step: &Step<'_>) {
        for named in step.named {
            for change in &named.changes {
                if change.op == EntryOp::Reset {
                    let is_elsewhere = |place: &Place| place.0 != named.directory;
                    self.holders.retain(|place, _| is_elsewhere(place));
                    self.links.values_mut().for_each(|links| links.retain(is_elsewhere));
                    continue;
                }
                let place = (named.directory, change.name.clone());
                // Whatever had the name has it no more.
                if let Some(links) = self.holders.remove(&place).and_then(|node| self.links.get_mut(&node)) {
                    links.remove(&place);
                }
                if change.op == EntryOp::Insert && self.followed.contains_key(&change.child) {
                    self.holders.insert(place.clone(), change.child);
                    self.links.entry(change.child).or_default().insert(place);
                }
            }
        }
    }

    /// Tells what became of the nodes that the step has rows of. `path` says what the path named before and after.
    fn after(
        &mut self,
        number: usize,
        step: &Step<'_>,
        names: &Names,
        path: (Option<NodeId>, Option<NodeId>),
    ) {
        let mut rows: BTreeMap<NodeId, Seen> = BTreeMap::new();
        let mut first = HashSet::new();
        for seen in step.seen.iter().filter(|seen| self.followed.contains_key(&seen.node)) {
            rows.insert(seen.node, *seen);
            if seen.first {
                first.insert(seen.node);
            }
        }
        for (node, seen) in rows {
            let links = self.links.get(&node);
            let now: Vec<Vec<u8>> =
                links.into_iter().flatten().filter_map(|(parent, name)| names.path(*parent, name)).collect();
            let was = self.was.insert(node, seen);
            let before = self.paths.insert(node, now.clone()).unwrap_or_default();
            let takes_over = path.1 == Some(node) && path.0.is_some_and(|before| before != node);
            let is_taken_over = path.0 == Some(node) && path.1.is_some_and(|after| after != node);
            let (from, to) = self.followed.get(&node).copied().unwrap_or_default();
            // Where another takes its name, that one's event tells of it.
            if !(from..=to).contains(&number) || is_taken_over {
                continue;
            }
            let what = match was {
                _ if seen.ended => Became::Removed,
                _ if takes_over => Became::Replaced,
                None if first.contains(&node) => Became::Created,
                _ if before != now && !before.is_empty() => Became::Moved,
                Some(was)
                    if seen.kind != FileType::Directory
                        && (was.size, was.mtime) != (seen.size, seen.mtime) =>
                {
                    Became::Written
                }
                _ => Became::Changed,
            };
            let (paths, paths_before) = match what {
                Became::Removed => (before, Vec::new()),
                Became::Moved => (now, before),
                _ => (now, Vec::new()),
            };
            let size =
                if what == Became::Removed { was.map_or(seen.size, |was| was.size) } else { seen.size };
            self.found.push((seen.lsn, Found { what, kind: seen.kind, size, paths, paths_before }));
        }
    }
}

#[cfg(test)]
mod tests;
