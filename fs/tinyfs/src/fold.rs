//! The fold: rows, in whatever order they come, into a tree.
//!
//! Mounting, time travel, recovery, followers and checking all read rows through this one place.
//! It sorts by `(lsn, seq)` and never trusts the order in which rows arrive, and it refuses
//! rows that do not make a tree: carrying on would turn a damaged table into wrong files.

pub(crate) mod names;
pub(crate) mod neighbour;
pub(crate) mod publish;
pub(crate) mod step;

use std::sync::atomic::Ordering;

use crate::tree::extent::Extent;
use crate::tree::invariants;
use crate::tree::node::{Body, Node};
use crate::tree::node_map::NodeMap;
use crate::tree::shared::SharedNode;
use crate::{EntryChange, ExtentContent, ExtentRecord, FileType, Lsn, NodeId, Record, Row, Tree};

/// Why rows make no tree.
#[derive(Clone, Debug, thiserror::Error)]
#[error("node {node}: {message}")]
pub struct FoldError {
    /// The node that does not fit.
    pub node: NodeId,
    /// What is wrong with it.
    pub message: String,
}

enum Change {
    Extent(u64, Extent),
    Cut(u64, Option<u64>),
}

/// Rows on their way into a tree.
#[derive(Default)]
pub struct Fold {
    tree: Tree,
    entries: Vec<(Lsn, u32, NodeId, Vec<EntryChange>)>,
    changes: Vec<(Lsn, u32, NodeId, Change)>,
    next_cookies: Vec<(NodeId, Lsn, u64)>,
}

impl Fold {
    /// No rows yet.
    pub fn new() -> Self {
        Fold::default()
    }

    /// No rows yet; operations up to `lsn` have taken place, also those that left no rows, and their
    /// numbers are not given again.
    pub fn starting_at(lsn: Lsn) -> Self {
        let mut fold = Fold::default();
        fold.tree.last_lsn = lsn;
        fold
    }

    /// Goes on from nodes that earlier rows made.
    pub(crate) fn onto(nodes: NodeMap, lsn: Lsn) -> Self {
        let mut fold = Fold::starting_at(lsn);
        fold.tree.nodes = nodes;
        fold
    }

    /// Takes one row.
    pub fn push(&mut self, row: Row) {
        self.tree.last_lsn = self.tree.last_lsn.max(row.lsn);
        match row.record {
            Record::Node(record) => {
                if record.kind == FileType::Directory {
                    self.next_cookies.push((row.node, row.lsn, record.next_cookie));
                }
                match self.tree.nodes.get_mut(&row.node) {
                    Some(node) if node.lsn >= row.lsn => {}
                    Some(node) => node.update(row.lsn, row.version, *record),
                    None => {
                        let node = Node::from_record(row.node, row.part, row.lsn, row.version, *record);
                        self.tree.nodes.insert(row.node, SharedNode::new(node));
                    }
                }
            }
            Record::Entries(changes) => self.entries.push((row.lsn, row.seq, row.node, changes)),
            Record::Extent(ExtentRecord { offset, length, content }) => {
                let extent = match content {
                    ExtentContent::Memory(bytes) => {
                        self.tree.unstored_bytes += u64::from(length);
                        Extent::held(bytes, row.lsn, row.seq)
                    }
                    ExtentContent::Stored(location) => Extent::stored(location, length),
                };
                self.changes.push((row.lsn, row.seq, row.node, Change::Extent(offset, extent)));
            }
            Record::Hole { offset, length } => {
                self.changes.push((row.lsn, row.seq, row.node, Change::Cut(offset, length)));
            }
        }
    }

    /// Puts the rows together and checks that they make a tree.
    pub fn finish(self) -> Result<Tree, FoldError> {
        let mut tree = self.replay()?;
        tree.nodes.retain(|_, node| node.nlink > 0);
        check(&mut tree)?;
        Ok(tree)
    }

    /// Puts the rows together, unchecked. Nodes that ended are still there.
    pub(crate) fn replay(mut self) -> Result<Tree, FoldError> {
        self.replay_entries()?;
        self.replay_content()?;
        Ok(self.tree)
    }

    fn replay_entries(&mut self) -> Result<(), FoldError> {
        self.entries.sort_unstable_by_key(|(lsn, seq, ..)| (*lsn, *seq));
        for (_, _, id, changes) in std::mem::take(&mut self.entries) {
            let node = self.tree.nodes.get_mut(&id).ok_or_else(|| missing(id, "entries"))?;
            let directory = match &mut node.body {
                Body::Directory(directory) => directory,
                _ => return Err(wrong(id, "has entries and is no directory".into())),
            };
            directory.replay(changes).map_err(|message| wrong(id, message))?;
        }
        for (id, lsn, next) in std::mem::take(&mut self.next_cookies) {
            if let Some(node) = self.tree.nodes.get_mut(&id)
                && node.lsn == lsn
                && let Body::Directory(directory) = &mut node.body
            {
                directory.set_next_cookie(next).map_err(|message| wrong(id, message))?;
                directory.shrink();
            }
        }
        Ok(())
    }

    fn replay_content(&mut self) -> Result<(), FoldError> {
        self.changes.sort_unstable_by_key(|(lsn, seq, ..)| (*lsn, *seq));
        let mut opened = Vec::new();
        for (_, _, id, change) in std::mem::take(&mut self.changes) {
            let node = self.tree.nodes.get_mut(&id).ok_or_else(|| missing(id, "content"))?;
            let ended = node.nlink == 0;
            let Body::File(content) = &mut node.body else {
                return Err(wrong(id, "has extents and is no regular file".into()));
            };
            if ended {
                continue;
            }
            match change {
                Change::Cut(offset, length) => {
                    let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
                    let change = content.extents.carve(offset, end, &mut opened);
                    content.allocated = content.allocated.saturating_add_signed(change.allocated);
                }
                Change::Extent(offset, extent) => {
                    let end = offset.saturating_add(u64::from(extent.length));
                    let change = content.extents.carve(offset, end, &mut opened);
                    content.allocated = content.allocated.saturating_add_signed(change.allocated);
                    content.allocated += u64::from(extent.length);
                    content.extents.put(offset, extent);
                }
            }
        }
        Ok(())
    }
}

fn missing(id: NodeId, what: &str) -> FoldError {
    wrong(id, format!("has {what} and no attributes"))
}

pub(crate) fn wrong(node: NodeId, message: String) -> FoldError {
    FoldError { node, message }
}

/// Checks names against nodes, and tells each directory its parent.
fn check(tree: &mut Tree) -> Result<(), FoldError> {
    let root =
        tree.nodes.get(&NodeId::ROOT).ok_or_else(|| wrong(NodeId::ROOT, "the root is missing".into()))?;
    if !root.is_directory() {
        return Err(wrong(NodeId::ROOT, "the root is no directory".into()));
    }
    let mut parents = Vec::new();
    for (id, node) in &tree.nodes {
        let Body::Directory(directory) = &node.body else { continue };
        let mut subdirectories = 0_i64;
        for entry in directory.iter() {
            let name = String::from_utf8_lossy(&entry.name);
            let child = tree.nodes.get(&entry.child).ok_or_else(|| {
                wrong(*id, format!("entry {name:?} names node {}, which is not there", entry.child))
            })?;
            if child.kind != entry.kind {
                let (entry, child) = (entry.kind.name(), child.kind.name());
                return Err(wrong(*id, format!("entry {name:?} says {entry} and its node {child}")));
            }
            // Counts names; nobody refers to a node yet.
            child.references.fetch_add(1, Ordering::Relaxed);
            if child.is_directory() {
                subdirectories += 1;
                parents.push((entry.child, *id));
            }
        }
        if !invariants::links_count_subdirectories(node, subdirectories) {
            let nlink = node.nlink;
            return Err(wrong(
                *id,
                format!("has {subdirectories} subdirectories and a link count of {nlink}"),
            ));
        }
    }
    for (id, node) in &mut tree.nodes {
        if let Body::File(content) = &node.body {
            debug_assert!(invariants::extents_are_disjoint(content), "node {id} has bytes in two extents");
            if !invariants::content_is_within_size(node, content) {
                let end = content.extents.end().unwrap_or_default();
                return Err(wrong(*id, format!("has content up to byte {end} and a size of {}", node.size)));
            }
        }
        let names = std::mem::take(node.references.get_mut());
        let expected = invariants::names(node);
        if names != expected {
            return Err(wrong(*id, format!("has {names} names and should have {expected}")));
        }
    }
    for (child, parent) in &parents {
        if let Some(node) = tree.nodes.get_mut(child)
            && let Body::Directory(directory) = &mut node.body
        {
            directory.parent = *parent;
        }
    }
    if let Some(id) = invariants::unreachable_directory(&tree.nodes, &parents) {
        return Err(wrong(id, "is a directory from which no way leads up to the root".into()));
    }
    Ok(())
}
