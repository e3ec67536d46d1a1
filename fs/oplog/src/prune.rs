//! Pruning: rows that only versions below the floor show are dropped from the data files in which they are many.
//!
//! The small columns of all files that have rows up to the floor are read, and each node's rows judged
//! (`superseded.rs`); then files of which enough is dead are written anew, in memory bounds, and one commit puts the
//! new ones in their place.

use std::collections::HashMap;

use pond_tinyfs::{EntryChange, Location, Lsn, NodeId, Record};
use serde::{Deserialize, Serialize};

use crate::data_file::Digests;
use crate::live::LiveFile;
use crate::load::{self, Source};
use crate::merge::MergeLimits;
use crate::rewrite::{Collected, Kind, Output, Rewrite, level_of};
use crate::superseded::{self, Fact, Fate};
use crate::{Floor, OpLog, OpLogError, encode, reading};

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
}

/// A row is written anew in one of these ways.
enum Change {
    Drop,
    Snapshot(Vec<EntryChange>),
}

/// What is to be done.
struct Plan {
    inputs: Vec<LiveFile>,
    changes: HashMap<(Lsn, u32), Change>,
    report: PruneReport,
}

/// What is known of a file.
#[derive(Clone, Copy, Default)]
struct Account {
    dead: u64,
    total: u64,
}

impl OpLog {
    /// What a prune would drop that is worth it. Reads much; commits go on meanwhile.
    pub fn would_prune(
        &self,
        floor: Floor,
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<PruneReport, OpLogError> {
        Ok(self.plan_prune(floor, limits, pace)?.map_or_else(PruneReport::default, |plan| plan.report))
    }

    /// Writes the files anew in which there is much that no version from the floor on shows, out of everyone's sight;
    /// `None` if there are none. To be committed with [`OpLog::commit_rewrite`] once the floor is raised. Commits go on
    /// meanwhile; merges and other prunes must not. `pace` as in [`OpLog::prepare_merge`].
    pub fn prepare_prune(
        &self,
        floor: Floor,
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<Option<(Rewrite, PruneReport)>, OpLogError> {
        let Some(Plan { mut inputs, changes, mut report }) = self.plan_prune(floor, limits, pace)? else {
            return Ok(None);
        };
        // Files of a level stay together, so that merging goes on as before.
        inputs.sort_by(|a, b| (level_of(&a.add), &a.add.path).cmp(&(level_of(&b.add), &b.add.path)));
        let mut outputs = Vec::new();
        match self.write_pruned(&inputs, changes, limits, pace, &mut outputs) {
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
        let rewrite = Rewrite::new(Kind::Prune, inputs, outputs);
        report.freed = report.bytes.saturating_sub(rewrite.writes());
        Ok(Some((rewrite, report)))
    }

    fn plan_prune(
        &self,
        floor: Floor,
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Plan>, OpLogError> {
        let cut_lsn = floor.cut_lsn;
        let files =
            self.live().select(|file| reading::first_lsn(&file.add).is_none_or(|first| first <= cut_lsn));
        let mut accounts = vec![Account::default(); files.len()];
        let mut nodes: HashMap<NodeId, Vec<Fact>> = HashMap::new();
        for (index, file) in files.iter().enumerate() {
            if !pace(file.add.size.min(limits.large)) {
                return Ok(None);
            }
            let account = &mut accounts[index];
            let source = Source {
                file: file.number,
                path: self.log().table().join(&file.add.path),
                size: file.add.size,
                digests: Digests::of(&file.add),
            };
            load::load_file(&source, floor.version, &mut |rows| {
                for row in rows {
                    let fact = Fact::new(&row, index as u32);
                    account.total += fact.weight();
                    if row.lsn <= cut_lsn {
                        nodes.entry(row.node).or_default().push(fact);
                    }
                }
                true
            })?;
        }
        for facts in nodes.values_mut() {
            facts.sort_unstable_by_key(|fact| (fact.lsn, fact.seq));
        }
        let fates: HashMap<NodeId, Vec<Fate>> =
            nodes.iter().map(|(&node, facts)| (node, superseded::fates(facts))).collect();
        for (node, fates) in &fates {
            for (fact, fate) in nodes[node].iter().zip(fates) {
                if matches!(fate, Fate::Goes | Fate::Hides) {
                    accounts[fact.file as usize].dead += fact.weight();
                }
            }
        }
        let inputs: Vec<bool> = files
            .iter()
            .zip(&accounts)
            .map(|(file, account)| match file.add.size < limits.large {
                true => account.dead > 0 && account.dead * 8 >= account.total,
                false => account.dead * 2 >= account.total,
            })
            .collect();
        let mut changes = HashMap::new();
        let mut freed = vec![0; files.len()];
        for (node, fates) in &fates {
            if !pace(0) {
                return Ok(None);
            }
            let facts = &nodes[node];
            let is_input = |file: u32| inputs[file as usize];
            for (fact, gone) in facts.iter().zip(superseded::dropped(facts, fates, is_input)) {
                if gone {
                    changes.insert((fact.lsn, fact.seq), Change::Drop);
                    freed[fact.file as usize] += fact.weight();
                }
            }
            if let Some(row) = fates.iter().position(|fate| *fate == Fate::BecomesSnapshot)
                && is_input(facts[row].file)
            {
                let snapshot = superseded::snapshot(&facts[..=row]);
                changes.insert((facts[row].lsn, facts[row].seq), Change::Snapshot(snapshot));
            }
        }
        let mut report = PruneReport { rows: changes.len() as u64, ..PruneReport::default() };
        let mut chosen = Vec::new();
        for (index, file) in files.into_iter().enumerate() {
            if freed[index] > 0 && inputs[index] {
                report.files += 1;
                report.bytes += file.add.size;
                let share = freed[index] as f64 / accounts[index].total.max(1) as f64;
                report.freed += (file.add.size as f64 * share) as u64;
            }
            // Also those in which only a snapshot is put: the rows that it stands for go from the others.
            if inputs[index] {
                chosen.push(file);
            }
        }
        Ok((report.files > 0).then_some(Plan { inputs: chosen, changes, report }))
    }

    /// Writes what is left of the inputs; false if that was broken off.
    fn write_pruned(
        &self,
        inputs: &[LiveFile],
        mut changes: HashMap<(Lsn, u32), Change>,
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
        outputs: &mut Vec<Output>,
    ) -> Result<bool, OpLogError> {
        let (mut collected, mut bytes, mut level) = (Collected::default(), 0, 0);
        let mut joined = 0;
        for file in inputs {
            if level_of(&file.add) != level && !collected.is_empty() {
                let level = level + u32::from(joined > 1);
                std::mem::take(&mut collected).write(self, Kind::Prune, level, limits.threads, outputs)?;
                (bytes, joined) = (0, 0);
            }
            level = level_of(&file.add);
            joined += 1;
            let opened = self.open_whole(file)?;
            let mut number = 0u32;
            for group in 0..opened.groups() {
                let whole = opened.decode_group(group)?;
                for (mut row, txn_seq) in whole.rows.into_iter().zip(whole.txns) {
                    let location = Location { file: file.number, row: number };
                    number += 1;
                    match changes.remove(&(row.lsn, row.seq)) {
                        Some(Change::Drop) => continue,
                        Some(Change::Snapshot(entries)) => row.record = Record::Entries(entries),
                        None => {}
                    }
                    bytes += encode::content_length(&row) as u64 + 256;
                    collected.push(row, txn_seq, location);
                }
                if bytes >= limits.memory {
                    let level = level + u32::from(joined > 1);
                    std::mem::take(&mut collected).write(
                        self,
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
            collected.write(self, Kind::Prune, level, limits.threads, outputs)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
