//! Who refers to nodes: references are taken by lookups and given back, and say by which names files are known.

use crate::tree::node::{Body, Node};
use crate::{NodeId, TinyFs};

impl TinyFs {
    /// Takes a reference on a node that was found by a name.
    pub(crate) fn refer(&self, node: &Node, parent: NodeId, cookie: u64) {
        match &self.found {
            // A directory has one name, and its changes tell of it.
            Some(found) if !node.is_directory() => found.refer(node, parent, cookie),
            _ => node.refer(),
        }
    }

    /// Gives references on a node back; says how many there were.
    pub(crate) fn release(&self, node: &Node, n: u64) -> u64 {
        match &self.found {
            Some(found) if !node.is_directory() => found.release(node, n),
            _ => node.release(n),
        }
    }

    /// Whether a name leads to this id. Once none does, none ever will again: what is unlinked stays so, and an old
    /// version of a file does not come back.
    pub fn has_name(&self, id: NodeId) -> bool {
        let tree = self.tree();
        !tree.is_frozen(id) && tree.find(id).is_ok_and(|node| node.nlink > 0)
    }

    /// The directories in which this node was found: of a directory the one that it lies in, of others those of the
    /// lookups that gave out references that are still held. Only one that is
    /// [`following`](Self::following) knows the latter.
    pub fn found_in(&self, id: NodeId) -> Vec<NodeId> {
        match self.tree().find(id).map(|node| &node.body) {
            Ok(Body::Directory(directory)) => vec![directory.parent],
            Ok(_) => self.found.as_ref().map_or_else(Vec::new, |found| found.parents(id)),
            Err(_) => Vec::new(),
        }
    }

    /// How many old versions of files there are that somebody still refers to.
    pub fn frozen_count(&self) -> u64 {
        self.tree().inos.as_ref().map_or(0, |inos| inos.frozen.len() as u64)
    }
}
