//! Ids that lookups gave out, on a tree that others' changes are published to.
//!
//! There a regular file's id stands for one version of its content. A publish that changes the content of a file that
//! somebody refers to keeps the old node, frozen, under the id that it had, and shows the file under a new one. A
//! tree that never published has none of this and pays for none of it: each node is shown under its own id.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use crate::node::{Body, Node};
use crate::shared::SharedNode;
use crate::tree::{IdHasher, NodeMap};
use crate::{Errno, NodeId, TinyFs, Tree};

type IdMap<T> = HashMap<NodeId, T, BuildHasherDefault<IdHasher>>;

/// Ids that differ from those of their nodes.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    /// Ids under which nodes are shown, where those are not their own, and the nodes' own.
    pub(crate) current: IdMap<NodeId>,
    /// Old versions that somebody still refers to, by the id that they had.
    pub(crate) frozen: NodeMap,
}

impl Tree {
    /// The node that an id stands for which a lookup gave out.
    pub(crate) fn find(&self, shown: NodeId) -> Result<&Node, Errno> {
        let Some(versions) = &self.versions else { return self.get(shown) };
        if let Some(frozen) = versions.frozen.get(&shown) {
            return Ok(frozen);
        }
        let id = versions.current.get(&shown).copied().unwrap_or(shown);
        // A node that is shown under another id by now is not found under its own.
        self.get(id).and_then(|node| if node.shown == shown { Ok(node) } else { Err(Errno::STALE) })
    }

    /// The node's own id, for changing it: an old version cannot change.
    pub(crate) fn own_id(&self, shown: NodeId) -> Result<NodeId, Errno> {
        match &self.versions {
            None => Ok(shown),
            Some(versions) if versions.frozen.contains_key(&shown) => Err(Errno::STALE),
            Some(_) => self.find(shown).map(|node| node.id),
        }
    }

    /// The id under which a node is shown.
    pub(crate) fn shown_id(&self, id: NodeId) -> NodeId {
        match &self.versions {
            None => id,
            Some(_) => self.nodes.get(&id).map_or(id, |node| node.shown),
        }
    }

    pub(crate) fn is_frozen(&self, shown: NodeId) -> bool {
        self.versions.as_ref().is_some_and(|versions| versions.frozen.contains_key(&shown))
    }

    /// Takes a node out of the tree.
    pub(crate) fn remove(&mut self, id: NodeId) -> Option<SharedNode> {
        let node = self.nodes.remove(&id)?;
        if let Some(versions) = &mut self.versions {
            versions.current.remove(&node.shown);
        }
        Some(node)
    }

    /// Frees an old version that nobody refers to any more; whether the id was one's.
    pub(crate) fn thaw(&mut self, shown: NodeId) -> bool {
        let Some(versions) = &mut self.versions else { return false };
        let Some(node) = versions.frozen.get_mut(&shown) else { return false };
        if *node.references.get_mut() == 0 {
            versions.frozen.remove(&shown);
        }
        true
    }
}

/// By which names those who refer to a file found it: directories and cookies. A publish has to tell them of each.
#[derive(Default)]
pub(crate) struct Found {
    /// The names are sorted: a file may have very many, and each lookup looks for its own among them.
    names: Mutex<IdMap<Vec<(NodeId, u64)>>>,
}

impl Found {
    /// Takes a reference on a file that was found by this name.
    fn refer(&self, node: &Node, parent: NodeId, cookie: u64) {
        // The lock covers the reference too: a `release` of the last one must not take this name along.
        let mut names = self.names.lock();
        node.refer();
        let names = names.entry(node.shown).or_default();
        if let Err(place) = names.binary_search(&(parent, cookie)) {
            names.insert(place, (parent, cookie));
        }
    }

    fn release(&self, node: &Node, n: u64) -> u64 {
        let mut names = self.names.lock();
        let before = node.release(n);
        if before <= n {
            names.remove(&node.shown);
        }
        before
    }

    /// The names, for a publish that makes them stale; they are not kept.
    pub(crate) fn take(&self, shown: NodeId) -> Vec<(NodeId, u64)> {
        self.names.lock().remove(&shown).unwrap_or_default()
    }

    /// This name does not lead to the file any more.
    pub(crate) fn drop_name(&self, shown: NodeId, parent: NodeId, cookie: u64) {
        if let Some(names) = self.names.lock().get_mut(&shown)
            && let Ok(place) = names.binary_search(&(parent, cookie))
        {
            names.remove(place);
        }
    }

    fn parents(&self, shown: NodeId) -> Vec<NodeId> {
        let mut parents: Vec<NodeId> =
            self.names.lock().get(&shown).into_iter().flatten().map(|(parent, _)| *parent).collect();
        // They are sorted by them.
        parents.dedup();
        parents
    }
}

impl Node {
    pub(crate) fn refer(&self) {
        self.references.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives references back; says how many there were.
    pub(crate) fn release(&self, n: u64) -> u64 {
        self.references
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| Some(held.saturating_sub(n)))
            .unwrap_or(0)
    }
}

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
        self.tree().versions.as_ref().map_or(0, |versions| versions.frozen.len() as u64)
    }
}
