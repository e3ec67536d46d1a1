//! Pruning: rows that no kept version shows are dropped from the data files in which they are many.
//!
//! The small columns of all files that have rows up to the floor are read, and each node's rows judged
//! (`dead_rows.rs`), as many nodes at a time as a budget of memory holds (`facts.rs`); then files of which enough is dead are
//! written anew, in memory bounds, and one commit puts the new ones in their place. Files of which nothing is left are not read again,
//! and where there is little room they go first.

use std::collections::HashMap;

use pond_tinyfs::{EntryChange, Location, NodeId, Record};
use serde::{Deserialize, Serialize};

use crate::files::digests::Digests;
use crate::files::load::{self, Source};
use crate::log::live::LiveFile;
use crate::log::reading;
use crate::rows::encode;
use crate::upkeep::dead_rows::{self, Fact, Fate};
use crate::upkeep::facts::Facts;
use crate::upkeep::merge::MergeLimits;
use crate::upkeep::rewrite::{Collected, Kind, Output, Rewrite};
use crate::{Floor, OpLog, OpLogError, Retained};

/// What a prune drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// Data files that are written anew.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes less than that in the files that take their place; about that where nothing is written.
    pub freed: u64,
    /// Rows that are dropped.
    pub rows: u64,
    /// Data files that stay as they are, because there is no room to write them anew.
    #[serde(default)]
    pub no_room: u64,
}

/// What is to be done.
struct Plan {
    inputs: Vec<Input>,
    report: PruneReport,
}

/// A file that is written anew.
struct Input {
    file: LiveFile,
    dropped: Rows,
    /// Number of its rows.
    rows: u64,
    /// What takes the place of rows, by their numbers.
    snapshots: HashMap<u32, Vec<EntryChange>>,
}

impl Input {
    fn nothing_is_left(&self) -> bool {
        self.dropped.count == self.rows
    }
}

/// Numbers of rows of a file, a bit each.
#[derive(Default)]
struct Rows {
    bits: Vec<u64>,
    count: u64,
}

impl Rows {
    fn insert(&mut self, row: u32) {
        let word = (row / 64) as usize;
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (row % 64);
        self.count += 1;
    }

    fn contains(&self, row: u32) -> bool {
        self.bits.get((row / 64) as usize).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }
}

/// What is known of a file.
#[derive(Clone, Copy, Default)]
struct Account {
    dead: u64,
    total: u64,
    rows: u64,
}

impl Account {
    /// Bytes of a file of `size` that are not dead, about.
    fn left(&self, size: u64) -> u64 {
        (size as f64 * (1.0 - self.dead as f64 / self.total.max(1) as f64)) as u64
    }
}

/// Passes over the facts of all files, a range of nodes each.
struct Passes<'a> {
    oplog: &'a OpLog,
    files: &'a [LiveFile],
    floor: Floor,
    limits: &'a MergeLimits,
    pace: &'a dyn Fn(u64) -> bool,
    accounts: Vec<Account>,
    /// The facts of all nodes, where the budget holds them.
    all: Option<Facts>,
}

impl Passes<'_> {
    /// Hands the facts of each node to `each`; false if that was broken off.
    fn each_node(&mut self, each: &mut dyn FnMut(&mut [Account], &[Fact])) -> Result<bool, OpLogError> {
        let mut from = Some(NodeId::ROOT);
        while let Some(first) = from {
            let facts = match self.all.take() {
                Some(facts) => facts,
                None => match self.read(first)? {
                    Some(facts) => facts,
                    None => return Ok(false),
                },
            };
            for facts in facts.nodes() {
                if !(self.pace)(0) {
                    return Ok(false);
                }
                each(&mut self.accounts, facts);
            }
            from = facts.next();
            if first == NodeId::ROOT && from.is_none() {
                self.all = Some(facts);
            }
        }
        Ok(true)
    }

    /// The facts of the nodes from this one on, as many as there is memory for; `None` if that was broken off.
    fn read(&mut self, from: NodeId) -> Result<Option<Facts>, OpLogError> {
        // As much as the rows take that are in memory while files are written.
        let budget = usize::try_from(2 * self.limits.memory).unwrap_or(usize::MAX);
        let mut facts = Facts::from(from, budget);
        for (index, file) in self.files.iter().enumerate() {
            // The first pass counts rows.
            let is_counted = self.accounts[index].rows > 0;
            let nodes = reading::nodes(&file.add);
            if is_counted && nodes.is_some_and(|(first, last)| !facts.concern_any(first, last)) {
                continue;
            }
            if !(self.pace)(file.add.size.min(self.limits.large)) {
                return Ok(None);
            }
            let source = Source {
                file: file.number,
                path: self.oplog.log().table().join(&file.add.path),
                size: file.add.size,
                digests: Digests::of(&file.add),
            };
            let account = &mut self.accounts[index];
            let mut number = 0;
            load::load_file(&source, self.floor.version, &mut |rows| {
                for row in rows {
                    let fact = || Fact::new(&row, index as u32, number);
                    if !is_counted {
                        account.total += fact().weight();
                        account.rows += 1;
                    }
                    if row.lsn <= self.floor.cut_lsn && facts.concern(row.node) {
                        facts.push(fact());
                    }
                    number += 1;
                }
                true
            })?;
        }
        facts.sort();
        Ok(Some(facts))
    }
}

impl OpLog {
    /// What a prune would drop that is worth it. Reads much; commits go on meanwhile.
    pub fn would_prune(
        &self,
        retained: &Retained,
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<PruneReport, OpLogError> {
        let plan = self.plan_prune(retained, limits, u64::MAX, pace)?;
        Ok(plan.map_or_else(PruneReport::default, |plan| plan.report))
    }

    /// Writes the files anew in which there is much that no kept version shows, out of everyone's sight;
    /// `None` if there are none. To be committed with [`OpLog::commit_rewrite`] once [`OpLog::commit_floor`] says what is kept. Commits go on
    /// meanwhile; merges and other prunes must not. `pace` as in [`OpLog::prepare_merge`].
    ///
    /// About `room` bytes are written at most: first go files of which nothing is left, then those of which least is. Where the report
    /// says that it is of no files there is nothing to commit, and no room.
    pub fn prepare_prune(
        &self,
        retained: &Retained,
        limits: &MergeLimits,
        room: u64,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<Option<(Rewrite, PruneReport)>, OpLogError> {
        let Some(Plan { mut inputs, mut report }) = self.plan_prune(retained, limits, room, pace)? else {
            return Ok(None);
        };
        // Files of a level stay together, so that merging goes on as before.
        let place = |input: &Input| (input.file.add.level(), input.file.add.path.clone());
        inputs.sort_by_cached_key(place);
        let mut outputs = Vec::new();
        match self.write_pruned(&mut inputs, limits, pace, &mut outputs) {
            Ok(true) => {}
            Ok(false) => {
                Output::discard(&outputs);
                return Ok(None);
            }
            Err(error) => {
                Output::discard(&outputs);
                return Err(error);
            }
        }
        let inputs = inputs.into_iter().map(|input| input.file).collect();
        let rewrite = Rewrite::new(Kind::Prune, inputs, outputs);
        report.freed = report.bytes.saturating_sub(rewrite.writes());
        Ok(Some((rewrite, report)))
    }

    fn plan_prune(
        &self,
        retained: &Retained,
        limits: &MergeLimits,
        room: u64,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Plan>, OpLogError> {
        let (floor, cuts) = (retained.floor, retained.cuts());
        let cut_lsn = floor.cut_lsn;
        let files =
            self.live().select(|file| reading::first_lsn(&file.add).is_none_or(|first| first <= cut_lsn));
        let accounts = vec![Account::default(); files.len()];
        let mut passes = Passes { oplog: self, files: &files, floor, limits, pace, accounts, all: None };
        let judged = passes.each_node(&mut |accounts, facts| {
            for (fact, fate) in facts.iter().zip(dead_rows::fates(facts, &cuts)) {
                if matches!(fate, Fate::Goes | Fate::Hides) {
                    accounts[fact.file as usize].dead += fact.weight();
                }
            }
        })?;
        if !judged {
            return Ok(None);
        }
        let (mut inputs, no_room) = chosen(&files, &passes.accounts, limits, room);
        let mut freed = vec![0; files.len()];
        let mut snapshots = 0;
        let decided = passes.each_node(&mut |_, facts| {
            let fates = dead_rows::fates(facts, &cuts);
            let is_input = |file: u32| inputs[file as usize].is_some();
            let mut written = HashMap::new();
            for row in (0..facts.len()).filter(|&row| fates[row] == Fate::BecomesSnapshot) {
                if is_input(facts[row].file) {
                    let changes = dead_rows::snapshot(&facts[..=row]);
                    let held = dead_rows::held(&changes) as u64;
                    // Where memory does not hold it, a directory's changes stay until the next time.
                    if snapshots + held <= limits.memory {
                        snapshots += held;
                        written.insert(row, changes);
                    }
                }
            }
            let is_written = |row: usize| written.contains_key(&row);
            let gone = dead_rows::dropped(facts, &fates, &cuts, is_input, is_written);
            for (fact, _) in facts.iter().zip(gone).filter(|(_, gone)| *gone) {
                if let Some(input) = &mut inputs[fact.file as usize] {
                    input.dropped.insert(fact.row);
                    freed[fact.file as usize] += fact.weight();
                }
            }
            for (row, changes) in written {
                if let Some(input) = &mut inputs[facts[row].file as usize] {
                    input.snapshots.insert(facts[row].row, changes);
                }
            }
        })?;
        if !decided {
            return Ok(None);
        }
        let mut report = PruneReport { no_room, ..PruneReport::default() };
        for (index, input) in inputs.iter().enumerate() {
            let Some(input) = input else { continue };
            report.rows += input.dropped.count + input.snapshots.len() as u64;
            if freed[index] > 0 {
                let size = input.file.add.size;
                report.files += 1;
                report.bytes += size;
                let share = freed[index] as f64 / passes.accounts[index].total.max(1) as f64;
                report.freed += (size as f64 * share) as u64;
            }
        }
        // Also those in which only a snapshot is put: the rows that it stands for go from the others.
        let worth_it = report.files > 0;
        let inputs: Vec<Input> = inputs.into_iter().flatten().filter(|_| worth_it).collect();
        Ok((report.files > 0 || no_room > 0).then_some(Plan { inputs, report }))
    }

    /// Writes what is left of the inputs; false if that was broken off.
    fn write_pruned(
        &self,
        inputs: &mut [Input],
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
        outputs: &mut Vec<Output>,
    ) -> Result<bool, OpLogError> {
        let (mut collected, mut bytes, mut level) = (Collected::default(), 0, 0);
        let mut joined = 0;
        for input in inputs.iter_mut().filter(|input| !input.nothing_is_left()) {
            let file = &input.file;
            if file.add.level() != level && !collected.is_empty() {
                let level = level + u32::from(joined > 1);
                std::mem::take(&mut collected).write(
                    &self.layout().inflight(),
                    Kind::Prune,
                    level,
                    limits.threads,
                    outputs,
                )?;
                (bytes, joined) = (0, 0);
            }
            level = file.add.level();
            joined += 1;
            let opened = self.open_whole(file)?;
            let mut number = 0u32;
            for group in 0..opened.groups() {
                let whole = opened.decode_group(group)?;
                for (mut row, txn_seq) in whole.rows.into_iter().zip(whole.txns) {
                    let location = Location { file: file.number, row: number };
                    number += 1;
                    if input.dropped.contains(location.row) {
                        continue;
                    }
                    if let Some(entries) = input.snapshots.remove(&location.row) {
                        row.record = Record::Entries(entries);
                    }
                    bytes += encode::content_length(&row) as u64 + 256;
                    collected.push(row, txn_seq, location);
                }
                if bytes >= limits.memory {
                    let level = level + u32::from(joined > 1);
                    std::mem::take(&mut collected).write(
                        &self.layout().inflight(),
                        Kind::Prune,
                        level,
                        limits.threads,
                        outputs,
                    )?;
                    (bytes, joined) = (0, 1);
                }
            }
            if !pace(2 * file.add.size) {
                return Ok(false);
            }
        }
        if !collected.is_empty() {
            let level = level + u32::from(joined > 1);
            collected.write(&self.layout().inflight(), Kind::Prune, level, limits.threads, outputs)?;
        }
        Ok(true)
    }
}

/// The files of which enough is dead, as far as there is room for what is left of them, and how many there is none for.
fn chosen(
    files: &[LiveFile],
    accounts: &[Account],
    limits: &MergeLimits,
    room: u64,
) -> (Vec<Option<Input>>, u64) {
    let is_worth_it = |index: &usize| {
        let (size, account) = (files[*index].add.size, accounts[*index]);
        match size < limits.large {
            true => account.dead > 0 && account.dead * 8 >= account.total,
            false => account.dead * 2 >= account.total,
        }
    };
    let left = |index: usize| accounts[index].left(files[index].add.size);
    let mut worth: Vec<usize> = (0..files.len()).filter(is_worth_it).collect();
    worth.sort_by_key(|&index| left(index));
    let (mut inputs, mut no_room, mut written) = (Vec::new(), 0, 0u64);
    inputs.resize_with(files.len(), || None);
    for index in worth {
        written = written.saturating_add(left(index));
        if written > room {
            no_room += 1;
            continue;
        }
        let (file, rows) = (files[index].clone(), accounts[index].rows);
        inputs[index] = Some(Input { file, rows, dropped: Rows::default(), snapshots: HashMap::new() });
    }
    (inputs, no_room)
}

#[cfg(test)]
mod tests;
