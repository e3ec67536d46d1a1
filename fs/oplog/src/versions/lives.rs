//! From when to when paths were there.

use std::collections::{BTreeMap, BTreeSet};

use pond_tinyfs::{EntryOp, Lsn, NodeId};

use crate::versions::past::{Named, Names, Past};
use crate::{CommitInfo, OpLogError, Version};

/// A path, and versions that follow each other which all have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// From the root.
    pub path: Vec<u8>,
    /// The first kept version with it.
    pub first: CommitInfo,
    /// The last kept version with it; none if the newest has it.
    pub last: Option<Version>,
}

impl Past<'_> {
    /// From when to when the paths of which `is_wanted` says so were there, under whatever node; by path, then by version. Where a
    /// directory moves, all below it is gone through.
    pub fn lives(&self, is_wanted: &dyn Fn(&[u8]) -> bool) -> Result<Vec<Life>, OpLogError> {
        let mut names = Names::default();
        let mut there: BTreeMap<Vec<u8>, Lsn> = BTreeMap::new();
        let mut ended: Vec<(Vec<u8>, Lsn, Option<Lsn>)> = Vec::new();
        for step in self.steps() {
            let Some(lsn) = step.named.last().map(|named| named.lsn) else { continue };
            let mut gone = BTreeSet::new();
            step.named.iter().for_each(|named| names.paths_changed(named, is_wanted, &mut gone));
            step.named.iter().for_each(|named| names.apply(named));
            let mut come = BTreeSet::new();
            step.named.iter().for_each(|named| names.paths_changed(named, is_wanted, &mut come));
            for path in gone.difference(&come) {
                if let Some(first) = there.remove(path)
                    && lsn > self.oldest()
                {
                    ended.push((path.clone(), first, Some(lsn)));
                }
            }
            for path in come {
                there.entry(path).or_insert(lsn);
            }
        }
        ended.extend(there.into_iter().map(|(path, first)| (path, first, None)));
        ended.sort();
        let lsns: BTreeSet<Lsn> =
            ended.iter().flat_map(|(_, first, end)| [Some(*first), *end]).flatten().collect();
        let lsns: Vec<Lsn> = lsns.into_iter().collect();
        let commits = self.views.commits_with(&lsns)?;
        let commits: BTreeMap<Lsn, (CommitInfo, Option<Version>)> = lsns.into_iter().zip(commits).collect();
        let life = |(path, first, end): (Vec<u8>, Lsn, Option<Lsn>)| {
            let (first, _) = commits.get(&first)?.clone();
            let last = match end {
                None => None,
                Some(end) => {
                    let (commit, before) = commits.get(&end)?;
                    Some((*before).unwrap_or(commit.position.version))
                }
            };
            // What came and went between two kept versions was in none.
            let is_seen = last.is_none_or(|last| last >= first.position.version);
            is_seen.then_some(Life { path, first, last })
        };
        Ok(ended.into_iter().filter_map(life).collect())
    }
}

impl Names {
    /// Adds the wanted paths that entries of a directory lead to now which a row changes.
    fn paths_changed(&self, named: &Named, is_wanted: &dyn Fn(&[u8]) -> bool, paths: &mut BTreeSet<Vec<u8>>) {
        let mut left: Vec<(Vec<u8>, NodeId)> = Vec::new();
        let mut add = |name: &[u8]| {
            if let Some(child) = self.get(named.directory, name)
                && let Some(path) = self.path(named.directory, name)
            {
                left.push((path, child));
            }
        };
        for change in &named.changes {
            match change.op {
                EntryOp::Reset => {
                    let entries = self.entries.get(&named.directory);
                    entries.into_iter().flatten().for_each(|(name, _)| add(name));
                }
                EntryOp::Insert | EntryOp::Remove => add(&change.name),
            }
        }
        while let Some((path, node)) = left.pop() {
            for (name, child) in self.entries.get(&node).into_iter().flatten() {
                left.push(([&path, b"/".as_slice(), name].concat(), *child));
            }
            if is_wanted(&path) {
                paths.insert(path);
            }
        }
    }
}
