//! The tree of another version, made from that of one near it.
//!
//! What rows between the two do not speak of is the same in both, and is kept once for both: a version costs a table of its
//! nodes' numbers, and what changed.

use std::collections::HashMap;

use crate::fold::names::check;
use crate::fold::step::Copies;
use crate::fold::{FoldError, wrong};
use crate::tree::node::Node;
use crate::tree::shared::SharedNode;
use crate::{Lsn, NodeId, Row, TinyFs, Tree};

/// The tree of a later version.
#[derive(Debug)]
pub struct Later {
    /// The tree.
    pub tree: Tree,
    /// Entries of directories that it does not share with the tree that it was made from.
    pub entries: u64,
}

impl TinyFs {
    /// The tree of a later version than that of this read-only filesystem: `rows` are those of the versions between, and
    /// `cut_lsn` is the last operation of the later one. This one stays as it is.
    pub fn later(&self, rows: Vec<Row>, cut_lsn: Lsn) -> Result<Later, FoldError> {
        if !self.never_changes() {
            return Err(wrong(NodeId::ROOT, "is in a tree that changes".into()));
        }
        let copies = Copies::of(&self.tree(), &rows)?;
        let mut step = copies.replay(rows, cut_lsn)?;
        let tree = self.tree();
        let names = check(&tree, &step)?;
        let mut later = tree.share();
        drop(tree);
        // Who refers to a node does so in this tree, not in the one that is made.
        step.put(&mut later, &names, &HashMap::new(), |_| 0);
        let directories = step.touched.keys().filter_map(|id| later.get(*id).ok()?.directory().ok());
        let entries = directories.map(|directory| directory.len() as u64).sum();
        Ok(Later { tree: later, entries })
    }

    /// Lets `other`, the tree of another version that was loaded by itself, share the nodes that are the same in both.
    /// How many that are; none of a filesystem that changes.
    pub fn share_with(&self, other: &mut Tree) -> usize {
        if !self.never_changes() {
            return 0;
        }
        let tree = self.tree();
        let mut shared = 0;
        for (id, node) in &mut other.nodes {
            if let Some(same) = tree.nodes.get(id).filter(|same| is_same(same, node)) {
                *node = SharedNode::clone(same);
                shared += 1;
            }
        }
        shared
    }

    /// Whether nobody changes it or publishes to it: whoever does counts who refers to its nodes, and must have them alone.
    fn never_changes(&self) -> bool {
        self.is_read_only() && self.found.is_none()
    }
}

/// Whether a node is the same in two versions: each operation on one changes its number.
fn is_same(one: &Node, other: &Node) -> bool {
    let parents = |node: &Node| node.directory().map(|directory| directory.parent).ok();
    one.lsn == other.lsn && one.version == other.version && parents(one) == parents(other)
}
