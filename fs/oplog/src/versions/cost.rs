//! What history costs: bytes of live data files that the newest version does not need, by age and by path.
//!
//! Each row is needed by the newest version, or has been of no use to later ones since some time. What a row takes on disk is not known:
//! a file's bytes are shared out among its rows by what they weigh, so that all sums are those of the files.

use std::collections::{BTreeMap, HashMap};

use pond_tinyfs::{EntryOp, FileType, Lsn, NodeId, Record};

use crate::files::digests::Digests;
use crate::files::load::{self, Source};
use crate::log::history;
use crate::log::snapshot::Snapshot;
use crate::upkeep::dead_rows::{self, Fact, Fate};
use crate::upkeep::facts::Facts;
use crate::versions::views::Views;
use crate::{At, OpLogError};

/// Rows of so many bytes are looked at at a time.
const BUDGET: usize = 256 << 20;
/// Directories do not lie deeper than this.
const DEEPEST: usize = 1 << 16;

/// What history costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of the live data files.
    pub live: u64,
    /// Of those, bytes that the newest version needs, about.
    pub needed: u64,
    /// Bytes that went out of use since the first of the times that were given, between that and the second, and so on; the last are
    /// those from before the last time. What is told of a retention of some age is the sum of those that are older.
    pub by_age: Vec<u64>,
    /// The same by path: the directories in the one that was asked for, and what lies in that itself.
    pub paths: Vec<PathCost>,
    /// Bytes of data files that others stand for, and which wait to be removed.
    pub replaced: u64,
    /// Bytes of the log's entries and checkpoints.
    pub log: u64,
}

/// What the history of a directory costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathCost {
    /// The directory, from the root.
    pub path: Vec<u8>,
    /// Bytes that the newest version needs.
    pub needed: u64,
    /// Bytes that only older ones need.
    pub history: u64,
}

/// Where directories are, or last were.
#[derive(Default)]
struct Directories(HashMap<NodeId, (Lsn, NodeId, Box<[u8]>)>);

impl Directories {
    fn note(&mut self, lsn: Lsn, parent: NodeId, child: NodeId, name: &[u8]) {
        match self.0.get(&child) {
            Some((noted, ..)) if *noted > lsn => {}
            _ => drop(self.0.insert(child, (lsn, parent, name.into()))),
        }
    }

    /// The names that lead to a directory.
    fn names(&self, mut directory: NodeId) -> Vec<&[u8]> {
        let mut names = Vec::new();
        while let Some((_, parent, name)) = self.0.get(&directory).filter(|_| names.len() < DEEPEST) {
            names.push(&**name);
            directory = *parent;
        }
        names.reverse();
        names
    }
}

/// Shares of the bytes of files.
struct Shares {
    /// What the rows of each file weigh.
    totals: Vec<u64>,
    /// Of those, by file, directory and age; an age of 0 is what is needed.
    weights: HashMap<(u32, u32, u32), u64>,
    /// The directories by their numbers; none for what is not within the path.
    paths: Vec<Option<Vec<u8>>>,
}

impl Views {
    /// What history costs. `times` are in microseconds since 1970 UTC and descend; `within` is a path from the root whose directories are
    /// told apart. Reads the small columns of all live files.
    pub fn cost(&self, times: &[i64], within: &[u8]) -> Result<Cost, OpLogError> {
        let (snapshot, _pin) = self.newest_table()?;
        // From the oldest time on; where the pond is younger, nothing went out of use before.
        let mut cuts = Vec::new();
        for (age, time) in times.iter().enumerate().rev() {
            match self.resolve(At::Timestamp(*time)) {
                Ok(version) => {
                    let commits = history::history_of(self.pond(), version..=version)?;
                    let cut = commits.first().map(|commit| commit.position.cut_lsn);
                    cuts.extend(cut.map(|cut| (cut, age as u32 + 2)));
                }
                Err(OpLogError::NothingYet { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let shares = self.shares(&snapshot, &cuts, within)?;
        let mut cost = Cost { by_age: vec![0; times.len() + 1], ..Cost::default() };
        let sizes: Vec<u64> = snapshot.files.values().map(|add| add.size).collect();
        cost.live = sizes.iter().sum();
        let mut by_path: BTreeMap<u32, PathCost> = BTreeMap::new();
        for ((file, path, age), weight) in shares.weights {
            let file = file as usize;
            let share = (u128::from(sizes[file]) * u128::from(weight)
                / u128::from(shares.totals[file].max(1))) as u64;
            let of_path = by_path.entry(path).or_default();
            match age {
                0 => of_path.needed += share,
                age => {
                    of_path.history += share;
                    cost.by_age[age as usize - 1] += share;
                }
            }
        }
        // What rounding left over is the newest version's, as are files without rows.
        cost.needed = cost.live.saturating_sub(cost.by_age.iter().sum());
        cost.paths = by_path
            .into_iter()
            .filter_map(|(number, cost)| {
                let path = shares.paths.get(number as usize)?.clone()?;
                Some(PathCost { path, ..cost })
            })
            .collect();
        cost.paths.sort_by_key(|cost| std::cmp::Reverse(cost.history));
        (cost.replaced, cost.log) = self.beside(&snapshot)?;
        Ok(cost)
    }

    /// What each file's rows weigh, by directory and age.
    fn shares(&self, snapshot: &Snapshot, cuts: &[(Lsn, u32)], within: &[u8]) -> Result<Shares, OpLogError> {
        let newest = snapshot.position(self.log())?;
        let totals = vec![0; snapshot.files.len()];
        let mut shares = Shares { totals, weights: HashMap::new(), paths: Vec::new() };
        let mut directories = Directories::default();
        let mut groups = Groups::new(within);
        let mut from = Some(NodeId::ROOT);
        while let Some(first) = from {
            let mut facts = Facts::from(first, BUDGET);
            let mut homes: HashMap<NodeId, NodeId> = HashMap::new();
            for (number, add) in snapshot.files.values().enumerate() {
                let path = self.log().table().join(&add.path);
                let source = Source { file: 0, path, size: add.size, digests: Digests::of(add) };
                let mut row_number = 0;
                load::load_file(&source, newest.version, &mut |rows| {
                    for row in rows {
                        if first == NodeId::ROOT {
                            shares.totals[number] += Fact::new(&row, 0, 0).weight();
                            if let Record::Entries(changes) = &row.record {
                                let made = changes.iter().filter(|change| change.op == EntryOp::Insert);
                                for change in made.filter(|change| change.kind == FileType::Directory) {
                                    directories.note(row.lsn, row.node, change.child, &change.name);
                                }
                            }
                        }
                        if facts.concern(row.node) {
                            homes.insert(row.node, row.part);
                            facts.push(Fact::new(&row, number as u32, row_number));
                        }
                        row_number += 1;
                    }
                    true
                })?;
            }
            facts.sort();
            for facts in facts.nodes() {
                let home = facts.first().and_then(|fact| homes.get(&fact.node)).copied();
                let group = groups.of(&directories, home.unwrap_or(NodeId::ROOT));
                for (fact, age) in facts.iter().zip(ages(facts, cuts)) {
                    *shares.weights.entry((fact.file, group, age)).or_default() += fact.weight();
                }
            }
            from = facts.next();
        }
        Ok(Shares { paths: groups.paths, ..shares })
    }
}

/// Since when each row of a node has been of no use: 0 if it is of use, 1 if since the last cut, else the age of the first cut at which it
/// was not. `cuts` ascend.
fn ages(facts: &[Fact], cuts: &[(Lsn, u32)]) -> Vec<u32> {
    let mut ages = vec![0; facts.len()];
    let mut judged = 0;
    let all = (facts.len(), 1);
    let parts = cuts.iter().map(|(cut, age)| (facts.partition_point(|fact| fact.lsn <= *cut), *age));
    for (count, age) in parts.chain([all]) {
        if count == judged {
            continue;
        }
        judged = count;
        for (now, fate) in ages.iter_mut().zip(dead_rows::fates(&facts[..count], &[])) {
            if *now == 0 && matches!(fate, Fate::Goes | Fate::Hides) {
                *now = age;
            }
        }
    }
    ages
}

/// The directories that are told apart.
struct Groups {
    within: Vec<Vec<u8>>,
    numbers: HashMap<Option<Vec<u8>>, u32>,
    paths: Vec<Option<Vec<u8>>>,
    known: HashMap<NodeId, u32>,
}

impl Groups {
    fn new(within: &[u8]) -> Self {
        let names = within.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
        let within = names.map(<[u8]>::to_vec).collect();
        Groups { within, numbers: HashMap::new(), paths: Vec::new(), known: HashMap::new() }
    }

    /// The number of the one that holds this directory.
    fn of(&mut self, directories: &Directories, directory: NodeId) -> u32 {
        if let Some(number) = self.known.get(&directory) {
            return *number;
        }
        let names = directories.names(directory);
        let is_within =
            names.len() >= self.within.len() && self.within.iter().zip(&names).all(|(a, b)| a == b);
        let path = is_within.then(|| {
            let shown = names.iter().take(self.within.len() + 1);
            let path: Vec<u8> = shown.flat_map(|name| [b"/".as_slice(), *name]).flatten().copied().collect();
            if path.is_empty() { b"/".to_vec() } else { path }
        });
        let next = self.paths.len() as u32;
        let number = *self.numbers.entry(path.clone()).or_insert(next);
        if number == next {
            self.paths.push(path);
        }
        self.known.insert(directory, number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::histories::{Pond, Random, operation};
    use crate::{MergeLimits, Options};

    #[test]
    fn what_history_costs_adds_up_to_the_files_and_goes_when_it_is_pruned() {
        let mut random = Random(77);
        let mut pond = Pond::new();
        for _ in 0..30 {
            for _ in 0..6 {
                operation(&pond.fs, &mut random);
            }
            pond.commit();
        }
        let cost = |within: &[u8], times: &[i64]| {
            Views::new(pond.dir.path(), &Options::default()).cost(times, within).unwrap()
        };
        let log = crate::history(pond.dir.path(), None).unwrap();
        let time = |version: usize| log[log.len() - 1 - version].position.timestamp;
        let all = cost(b"/", &[time(20), time(10), time(0) - 1]);
        assert_eq!(all.live, pond.oplog.live_size().1);
        assert_eq!(all.needed + all.by_age.iter().sum::<u64>(), all.live);
        assert_eq!(all.by_age.len(), 4);
        assert!(all.by_age[..3].iter().all(|bytes| *bytes > 0) && all.by_age[3] == 0, "{all:?}");
        // Rounding loses less than a byte of each file for each directory and age.
        let told: u64 = all.paths.iter().map(|path| path.needed + path.history).sum();
        assert!(told <= all.live && all.live - told < 31 * 5 * all.paths.len() as u64 + 1, "{all:?}");
        assert!(all.log > 0 && all.replaced == 0, "{all:?}");
        // Below a directory there is part of it.
        let inner = all.paths.iter().find(|path| path.path != b"/").unwrap();
        let within = cost(&inner.path, &[]);
        let told: u64 = within.paths.iter().map(|path| path.history).sum();
        assert!(told.abs_diff(inner.history) < 1000, "{within:?} {all:?}");
        assert!(within.by_age[0].abs_diff(all.live - all.needed) < 1000, "{within:?} {all:?}");
        // What a floor at the newest version frees is about that.
        let history = all.live - all.needed;
        let newest = pond.oplog.position().version.0;
        pond.prune(newest, &MergeLimits::default());
        let after = Views::new(pond.dir.path(), &Options::default()).cost(&[], b"/").unwrap();
        assert!(
            after.by_age[0] < history / 2 && after.live < all.live && after.replaced > 0,
            "{all:?} {after:?}"
        );
    }
}
