//! Merging: small data files are joined, level by level, so that their number stays small whatever the rate of commits.
//!
//! Sixty-four files of a level become one of the next, so that a row is written anew once for each factor of 64 in the
//! number of commits. Every row is kept with all its columns; only the files are others. What is large
//! is left alone: joining it would cost much and save nothing.

use std::collections::BTreeSet;

use pond_tinyfs::Location;

use crate::files::digests::Digests;
use crate::files::file_name;
use crate::files::load::{Opened, Source};
use crate::log::live::LiveFile;
use crate::upkeep::rewrite::{Collected, Kind, Output, Rewrite};
use crate::{HistoryFigures, OpLog, OpLogError, TxnSeq};

/// How much is merged at a time.
#[derive(Clone, Copy, Debug)]
pub struct MergeLimits {
    /// So many files of a level are joined into one of the next.
    pub fan_in: usize,
    /// Files of this many bytes or more are left alone.
    pub large: u64,
    /// Most bytes, once decoded, that one merge holds in memory. A file with a quarter of it is left alone.
    pub memory: u64,
    /// Only files that this transaction made, or later ones.
    pub since: TxnSeq,
    /// Cores that encode.
    pub threads: usize,
}

impl Default for MergeLimits {
    fn default() -> Self {
        MergeLimits { fan_in: 64, large: 16 << 20, memory: 64 << 20, since: TxnSeq(0), threads: 1 }
    }
}

impl MergeLimits {
    fn concern(&self, file: &LiveFile) -> bool {
        let is_new = || file_name::txn_seq(&file.add.path).is_none_or(|txn_seq| txn_seq >= self.since);
        file.add.size < self.large
            && file.decoded.is_none_or(|decoded| decoded <= self.memory / 4)
            && (self.since == TxnSeq(0) || is_new())
    }
}

/// What became of files that were to be joined.
enum Joined {
    Fewer(Rewrite),
    /// They are left as they are.
    AsMany,
    BrokenOff,
}

impl OpLog {
    /// How many small files there are where there are enough of one level to be joined; else 0. Cheap.
    pub fn mergeable(&self, limits: &MergeLimits) -> usize {
        let levels = self.live().levels(|file| limits.concern(file));
        match levels.values().any(|&files| files >= limits.fan_in) {
            true => levels.values().sum(),
            false => 0,
        }
    }

    /// How many files there are that merging concerns. Cheap.
    pub fn small_files(&self, limits: &MergeLimits) -> usize {
        self.live().levels(|file| limits.concern(file)).values().sum()
    }

    /// How many files merging would join at first, and their bytes.
    pub fn would_merge(&self, limits: &MergeLimits) -> (u64, u64) {
        let levels = self.live().levels(|file| limits.concern(file));
        let enough = |file: &LiveFile| levels.get(&file.add.level()).is_some_and(|&n| n >= limits.fan_in);
        let files = self.live().select(|file| limits.concern(file) && enough(file));
        (files.len() as u64, files.iter().map(|file| file.add.size).sum())
    }

    /// How much history the version shown has: on a replica, too, while it follows.
    pub fn history_figures(&self) -> HistoryFigures {
        self.followed().figures(self.live())
    }

    /// Number of live data files, and their bytes; of a replica, when it was opened.
    pub fn live_size(&self) -> (u64, u64) {
        self.live().size()
    }

    /// Joins the oldest files of the lowest level that has enough, out of everyone's sight; `None` if none has. To be
    /// committed with [`OpLog::commit_rewrite`]. Commits go on meanwhile; other merges and prunes must not.
    /// `pace` is told of bytes as they are read or written; it may wait, and ends the merge by saying false.
    pub fn prepare_merge(
        &self,
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Rewrite>, OpLogError> {
        let fan_in = limits.fan_in.max(2);
        // Levels whose files would become as many others.
        let mut settled = BTreeSet::new();
        loop {
            let levels = self.live().levels(|file| limits.concern(file));
            let is_due = |level: &u32, files: usize| files >= fan_in && !settled.contains(level);
            let Some(level) =
                levels.iter().find(|(level, files)| is_due(level, **files)).map(|(&level, _)| level)
            else {
                return Ok(None);
            };
            let mut oldest = self.live().select(|file| file.add.level() == level && limits.concern(file));
            oldest.truncate(64.max(fan_in));
            let mut inputs = Vec::new();
            let mut opened = Vec::new();
            let mut total = 0;
            for mut file in oldest {
                let input = self.open_whole(&file)?;
                let decoded = input.decoded_bytes();
                self.live().note_decoded(&file.add.path, decoded);
                file.decoded = Some(decoded);
                if !limits.concern(&file) {
                    continue;
                }
                if total + decoded > limits.memory {
                    break;
                }
                total += decoded;
                inputs.push(file);
                opened.push(input);
            }
            // Fewer than that would write much to join little; those that turned out to be large do not count any more.
            if inputs.len() < 2 {
                continue;
            }
            match self.join(level, inputs, opened, limits, pace)? {
                Joined::Fewer(rewrite) => return Ok(Some(rewrite)),
                Joined::AsMany => settled.insert(level),
                Joined::BrokenOff => return Ok(None),
            };
        }
    }

    fn join(
        &self,
        level: u32,
        inputs: Vec<LiveFile>,
        opened: Vec<Opened>,
        limits: &MergeLimits,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<Joined, OpLogError> {
        let mut all = Collected::default();
        for (file, opened) in inputs.iter().zip(opened) {
            if !pace(file.add.size) {
                return Ok(Joined::BrokenOff);
            }
            let whole = opened.decode()?;
            for (row, (data, txn_seq)) in whole.rows.into_iter().zip(whole.txns).enumerate() {
                all.push(data, txn_seq, Location { file: file.number, row: row as u32 });
            }
        }
        let mut outputs = Vec::new();
        if let Err(error) =
            all.write(&self.layout().inflight(), Kind::Merge, level + 1, limits.threads, &mut outputs)
        {
            Output::discard(&outputs);
            return Err(error);
        }
        // Much content gets files of its own.
        let is_fewer = outputs.len() < inputs.len();
        let rewrite = Rewrite::new(Kind::Merge, inputs, outputs);
        Ok(match pace(rewrite.writes()) {
            true if is_fewer => Joined::Fewer(rewrite),
            true => Joined::AsMany,
            false => Joined::BrokenOff,
        })
    }

    /// Opens a live file to be decoded whole, and written anew.
    ///
    /// # Errors
    ///
    /// [`OpLogError::UnknownColumn`] if a column would be lost by that.
    pub(crate) fn open_whole(&self, file: &LiveFile) -> Result<Opened, OpLogError> {
        let source = Source {
            file: file.number,
            path: self.log().table().join(&file.add.path),
            size: file.add.size,
            digests: Digests::of(&file.add),
        };
        let opened = Opened::new(&source, self.position().version)?;
        opened.check_columns()?;
        Ok(opened)
    }
}

#[cfg(test)]
mod tests;
