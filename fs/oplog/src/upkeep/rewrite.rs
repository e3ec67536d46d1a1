//! Data files that stand for others: written out of everyone's sight, and put in the others' place by one commit.
//!
//! Such a version says nothing new. Its `add` actions carry the tag `pond.rewritten`, by which all who ask what a
//! version changed pass them over, and its cut is that of the version before.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use pond_tinyfs::{Location, Lsn, Moved, NodeId, Record, Row};

use crate::clock::now_ms;
use crate::disk::durable;
use crate::files::data_file::{self, Effort};
use crate::files::digests::Digests;
use crate::files::file_name;
use crate::log::action::{Action, Add, LEVEL_TAG, REWRITTEN_TAG, Remove};
use crate::log::live::LiveFile;
use crate::rows::txns::{TxnRanges, Txns};
use crate::{OpLog, OpLogError, Position, TxnSeq};

/// Why files are written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To join them: every row is kept.
    Merge,
    /// To drop rows that no kept version shows.
    Prune,
    /// To leave out what came after the version from which another pond is made.
    Fork,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Merge => "merge",
            Kind::Prune => "prune",
            Kind::Fork => "fork",
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Kind::Merge => "OPTIMIZE",
            Kind::Prune => "PRUNE",
            // Its files are part of a table's first version.
            Kind::Fork => "CREATE TABLE",
        }
    }
}

/// Files that were written and wait to be put in the place of others, with [`OpLog::commit_rewrite`]. Dropped
/// without that, they are removed.
#[derive(Debug)]
pub struct Rewrite {
    kind: Kind,
    inputs: Vec<LiveFile>,
    outputs: Vec<Output>,
}

/// A file that was written, in the directory of files being written.
#[derive(Debug)]
pub(crate) struct Output {
    add: Add,
    path: PathBuf,
    extents: Vec<Extent>,
}

#[derive(Debug)]
struct Extent {
    row: u32,
    node: NodeId,
    offset: u64,
    length: u32,
    from: Location,
}

/// What putting files in the place of others did.
#[derive(Clone, Debug)]
pub struct Rewritten {
    /// The version that did it.
    pub position: Position,
    /// Where extents lie now.
    pub moved: Vec<Moved>,
    /// Data files that others stand for now, and their bytes.
    pub replaced: (u32, u64),
    /// Data files that stand for them, and their bytes.
    pub added: (u32, u64),
}

/// Rows that are to be written anew, with their transactions and the places of extents.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) rows: Vec<Row>,
    txns: Vec<(Lsn, TxnSeq)>,
    places: HashMap<(Lsn, u32), Location>,
}

impl Collected {
    /// Takes the row `row` of file `file`.
    pub(crate) fn push(&mut self, row: Row, txn_seq: TxnSeq, location: Location) {
        self.txns.push((row.lsn, txn_seq));
        if let Record::Extent(_) = &row.record {
            self.places.insert((row.lsn, row.seq), location);
        }
        self.rows.push(row);
    }

    /// Whether nothing was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes and syncs the rows, and makes them files of this level.
    pub(crate) fn write(
        self,
        inflight: &Path,
        kind: Kind,
        level: u32,
        threads: usize,
        outputs: &mut Vec<Output>,
    ) -> Result<(), OpLogError> {
        let txns = TxnRanges::new(self.txns);
        let effort = Effort { threads, pause: &|| {} };
        for plan in data_file::plan(&[&self.rows]) {
            // The name gets its transaction once that is known.
            let written =
                data_file::write_rows(inflight, plan, TxnSeq(0), Txns::Several(&txns), now_ms(), effort)?;
            let extents = written.extents.iter().filter_map(|&(number, row)| match &row.record {
                Record::Extent(extent) => Some(Extent {
                    row: number,
                    node: row.node,
                    offset: extent.offset,
                    length: extent.length,
                    from: *self.places.get(&(row.lsn, row.seq))?,
                }),
                _ => None,
            });
            let extents = extents.collect();
            let mut add = written.add;
            add.data_change = kind != Kind::Merge;
            add.tags.get_or_insert_default().extend([
                (REWRITTEN_TAG.to_string(), Some(kind.name().to_string())),
                (LEVEL_TAG.to_string(), Some(level.to_string())),
            ]);
            outputs.push(Output { add, path: written.path, extents });
        }
        Ok(())
    }
}

impl Rewrite {
    pub(crate) fn new(kind: Kind, inputs: Vec<LiveFile>, outputs: Vec<Output>) -> Self {
        Rewrite { kind, inputs, outputs }
    }

    /// Number of data files that others are to stand for, and their bytes.
    pub fn replaces(&self) -> (u32, u64) {
        (self.inputs.len() as u32, self.inputs.iter().map(|file| file.add.size).sum())
    }

    /// Bytes of the files that were written.
    pub(crate) fn writes(&self) -> u64 {
        self.outputs.iter().map(|output| output.add.size).sum()
    }
}

impl Drop for Rewrite {
    fn drop(&mut self) {
        durable::discard(self.outputs.iter().map(|output| output.path.as_path()));
    }
}

impl Output {
    /// Gives the file its name in `data`, which carries this transaction, and which is durable once the directory is synced.
    pub(crate) fn name(&mut self, data: &Path, txn_seq: TxnSeq) -> Result<&Add, OpLogError> {
        let name = file_name::renamed(&self.add.path, txn_seq);
        let target = data.join(&name);
        durable::rename(&self.path, &target).map_err(OpLogError::io("move", &self.path))?;
        (self.path, self.add.path) = (target, name);
        Ok(&self.add)
    }

    /// The files are of no use: whoever wrote them has failed.
    pub(crate) fn discard(outputs: &[Output]) {
        durable::discard(outputs.iter().map(|output| output.path.as_path()));
    }
}

impl OpLog {
    /// Puts files in the place of others: one version, with the cut of the one before. Commits wait as long as they
    /// would for another commit. Call [`pond_tinyfs::TinyFs::relocated`] with what it gives, before anything else is
    /// committed.
    ///
    /// # Errors
    ///
    /// As [`OpLog::commit`], but that another writer's version is left for the next commit to find, which has rows to set
    /// aside.
    pub fn commit_rewrite(&self, mut rewrite: Rewrite) -> Result<Rewritten, OpLogError> {
        let names: Vec<String> = rewrite.inputs.iter().map(|file| file.add.path.clone()).collect();
        let (kind, replaced) = (rewrite.kind, rewrite.replaces());
        let mut turn = self.turn()?;
        if !self.live().contains_all(&names) {
            let why = "a file that was to be replaced is not part of the table any more".to_string();
            return Err(OpLogError::Encode { path: self.log().table().to_path_buf(), why });
        }
        let next = self.next_maintenance();
        let data = self.layout().data();
        for output in &mut rewrite.outputs {
            output.name(&data, next.txn_seq)?;
        }
        durable::sync_directory(&data).map_err(OpLogError::io("fsync", &data))?;
        let mut actions: Vec<Action> =
            rewrite.inputs.iter().map(|file| removal(&file.add, next.timestamp, kind).into()).collect();
        actions.extend(rewrite.outputs.iter().map(|output| Action::from(output.add.clone())));
        let parameter = ("mode", "Overwrite".to_string());
        let put = turn.settle(self.put_maintenance(&next, kind.operation(), parameter, actions));
        if let Err(OpLogError::Unconfirmed { .. }) = &put {
            // Perhaps it names them.
            rewrite.outputs.clear();
        }
        let position = put?;
        let outputs = std::mem::take(&mut rewrite.outputs);
        let mut moved = Vec::new();
        let mut come = Vec::new();
        let added = (outputs.len() as u32, outputs.iter().map(|output| output.add.size).sum());
        for output in outputs {
            let number = self.files().add(&output.add.path, Digests::of(&output.add).as_ref());
            moved.extend(output.extents.into_iter().map(|extent| Moved {
                node: extent.node,
                offset: extent.offset,
                length: extent.length,
                from: extent.from,
                to: Location { file: number, row: extent.row },
            }));
            come.push((output.add, number));
        }
        self.live().replace(&names, come);
        self.replaced().note(&names, position.version, next.timestamp);
        self.committed(&position);
        Ok(Rewritten { position, moved, replaced, added })
    }
}

fn removal(add: &Add, now: i64, kind: Kind) -> Remove {
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(now),
        data_change: kind == Kind::Prune,
        extended_file_metadata: Some(true),
        partition_values: Some(BTreeMap::new()),
        size: Some(add.size),
    }
}
