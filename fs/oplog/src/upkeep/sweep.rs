//! Removes what a crash left: files that were being written, and data files that no version ever named.
//!
//! A data file goes only if its transaction's number, which its name carries, was never committed, or was
//! committed by an entry that is there and does not name it. A file of whose transaction nothing can be told stays.
//! Only the newest transactions are looked at: those of older ones were when they were new, and replaced files may be many.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::disk::{durable, listing};
use crate::files::file_name;
use crate::log::commits::commit_info;
use crate::log::delta::Log;
use crate::{OpLog, OpLogError, TxnSeq, Version};

/// How many transactions back files are looked for that nothing names.
const NEWEST: u64 = 1024;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl OpLog {
    /// Removes what an earlier process left behind. To be called once the recovered rows are committed. No commit runs
    /// meanwhile.
    pub fn sweep(&self) -> Result<SweepReport, OpLogError> {
        let _no_commit_meanwhile = self.turn()?;
        let mut report = SweepReport::default();
        for (_, path) in files(&self.layout().inflight())? {
            report.remove(&path)?;
        }
        for directory in [self.layout().delta_log(), self.layout().journal(), self.layout().data()] {
            for (_, path) in files(&directory)?.iter().filter(|(name, _)| durable::is_temporary(name)) {
                report.remove(path)?;
            }
        }
        let position = self.position();
        let mut ledger = Ledger {
            log: self.log(),
            tip: position.version,
            last: position.txn_seq,
            entries: BTreeMap::new(),
        };
        let known: BTreeSet<Box<str>> = self.files().names().into_iter().collect();
        for (name, path) in files(&self.layout().data())? {
            let Some(txn) = file_name::txn_seq(&name) else { continue };
            let is_new = txn.0.saturating_add(NEWEST) > position.txn_seq.0;
            if is_new && !known.contains(name.as_str()) && ledger.never_committed(txn, &name)? {
                report.remove(&path)?;
            }
        }
        Ok(report)
    }
}

impl SweepReport {
    fn remove(&mut self, path: &Path) -> Result<(), OpLogError> {
        let bytes = fs::metadata(path).map_err(OpLogError::io("stat", path))?.len();
        durable::remove(path).map_err(OpLogError::io("remove", path))?;
        self.files += 1;
        self.bytes += bytes;
        Ok(())
    }
}

/// The plain files in a directory: names and paths.
fn files(directory: &Path) -> Result<Vec<(String, PathBuf)>, OpLogError> {
    let names = listing::names(directory)?;
    Ok(names
        .into_iter()
        .map(|name| {
            let path = directory.join(&name);
            (name, path)
        })
        .collect())
}

/// Which transactions were committed, and which files by them: read from the log as far as it is asked.
struct Ledger<'a> {
    log: &'a Log,
    tip: Version,
    last: TxnSeq,
    entries: BTreeMap<u64, Option<Named>>,
}

struct Named {
    txn_seq: u64,
    names: BTreeSet<String>,
}

impl Ledger<'_> {
    fn never_committed(&mut self, txn: TxnSeq, name: &str) -> Result<bool, OpLogError> {
        if txn > self.last {
            return Ok(true);
        }
        // Both numbers grow by one a commit, so that this is nearly always the one; else it is walked to.
        let mut version = txn.0.saturating_sub(1).min(self.tip.0);
        let mut was_below = false;
        loop {
            let Some(entry) = self.entry(version)? else { return Ok(false) };
            if entry.txn_seq == txn.0 {
                return Ok(!entry.names.contains(name));
            }
            let above = entry.txn_seq > txn.0;
            if above && (was_below || version == 0) {
                // The numbers of its neighbours pass it by, unless it came with what a fork was made from.
                return Ok(!(version == 0 && entry.names.contains(name)));
            }
            was_below = !above;
            version = if above { version - 1 } else { version + 1 };
        }
    }

    /// What a version names; `None` if its entry is gone.
    fn entry(&mut self, version: u64) -> Result<Option<&Named>, OpLogError> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.entries.entry(version) {
            let named = match self.log.read(Version(version)) {
                Ok(entry) => {
                    let info = commit_info(self.log, Version(version), &entry)?;
                    let names = entry.actions.iter();
                    let names =
                        names.filter_map(|action| action.add.as_ref().map(|add| add.path.clone())).collect();
                    info.txn_seq.map(|txn_seq| Named { txn_seq, names })
                }
                Err(OpLogError::MissingEntry { .. }) => None,
                Err(error) => return Err(error),
            };
            vacant.insert(named);
        }
        Ok(self.entries.get(&version).and_then(Option::as_ref))
    }
}
