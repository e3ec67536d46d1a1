//! By which names files were found, on a tree that others' changes are published to.

use parking_lot::Mutex;

use crate::NodeId;
use crate::tree::node::Node;
use crate::tree::node_map::IdMap;

/// By which names those who refer to a file found it: directories and cookies. A publish has to tell them of each.
#[derive(Default)]
pub(crate) struct Found {
    /// The names are sorted: a file may have very many, and each lookup looks for its own among them.
    names: Mutex<IdMap<Vec<(NodeId, u64)>>>,
}

impl Found {
    /// Takes a reference on a file that was found by this name.
    pub(crate) fn refer(&self, node: &Node, parent: NodeId, cookie: u64) {
        // The lock covers the reference too: a `release` of the last one must not take this name along.
        let mut names = self.names.lock();
        node.refer();
        let names = names.entry(node.ino).or_default();
        if let Err(place) = names.binary_search(&(parent, cookie)) {
            names.insert(place, (parent, cookie));
        }
    }

    /// Gives references back; says how many there were.
    pub(crate) fn release(&self, node: &Node, n: u64) -> u64 {
        let mut names = self.names.lock();
        let before = node.release(n);
        if before <= n {
            names.remove(&node.ino);
        }
        before
    }

    /// The names, for a publish that makes them stale; they are not kept.
    pub(crate) fn take(&self, ino: NodeId) -> Vec<(NodeId, u64)> {
        self.names.lock().remove(&ino).unwrap_or_default()
    }

    /// This name does not lead to the file any more.
    pub(crate) fn drop_name(&self, ino: NodeId, parent: NodeId, cookie: u64) {
        if let Some(names) = self.names.lock().get_mut(&ino)
            && let Ok(place) = names.binary_search(&(parent, cookie))
        {
            names.remove(place);
        }
    }

    /// The directories in which the file was found.
    pub(crate) fn parents(&self, ino: NodeId) -> Vec<NodeId> {
        let mut parents: Vec<NodeId> =
            self.names.lock().get(&ino).into_iter().flatten().map(|(parent, _)| *parent).collect();
        // They are sorted by them.
        parents.dedup();
        parents
    }
}
