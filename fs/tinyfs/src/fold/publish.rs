//! Publishing: later versions' rows into a tree that is being read, in one step.
//!
//! Only the nodes that the rows speak of are copied, and of directories only the entries. The fold replays the rows on
//! the copies, the copies are checked against the rest of the tree, and then take their places. Until that last step
//! nobody sees anything, so whatever is wrong with the rows leaves the tree as it was.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use crate::fold::names::{NameChange, check};
use crate::fold::step::{Copies, Step, Touched};
use crate::fold::{FoldError, wrong};
use crate::tree::directory::Dentry;
use crate::tree::found::Found;
use crate::tree::node::{Body, Node};
use crate::tree::node_map::NodeMap;
use crate::{Lsn, NodeId, Row, Stale, TinyFs, Tree};

/// Stale names with the depth of their directory, and all else that is stale.
#[derive(Default)]
struct Telling {
    names: Vec<(usize, Stale)>,
    rest: Vec<Stale>,
    depths: HashMap<NodeId, usize>,
}

impl TinyFs {
    /// Applies the rows of later versions to a read-only tree, in one step: all or nothing (an error leaves the tree as
    /// it was). `cut_lsn` as in [`Fold::starting_at`]. Content of a changed file that somebody still refers to stays
    /// readable under the id that the file had, which nothing else ever has, until [`forget`](Self::forget) takes the
    /// last reference; the file itself gets another id.
    ///
    /// The filesystem must be [`following`](Self::following). Returns what those must be told who refer to
    /// nodes; of the rest, and of names that are new, nobody can know anything yet.
    pub fn publish(&self, rows: Vec<Row>, cut_lsn: Lsn) -> Result<Vec<Stale>, FoldError> {
        let _turn = self.publishing.lock();
        let Some(found) = &self.found else {
            return Err(wrong(NodeId::ROOT, "is in a tree that does not follow another".into()));
        };
        let copies = Copies::of(&self.tree(), &rows)?;
        let mut step = copies.replay(rows, cut_lsn)?;
        let names = check(&self.tree(), &step)?;
        let mut tree = self.changing();
        if tree.last_lsn != step.base || tree.is_dirty() {
            return Err(wrong(NodeId::ROOT, "is in a tree that was changed otherwise".into()));
        }
        let frozen = step.freeze(&tree)?;
        let stale = step.stale(&tree, found, &names, &frozen);
        let replaced = step.put(&mut tree, &names, &frozen, references);
        drop(tree);
        // Without the lock: there may be much to free.
        drop(replaced);
        Ok(stale)
    }
}

impl Step {
    /// The files whose old version must be kept, and the ids under which they are shown from now on.
    fn freeze(&self, tree: &Tree) -> Result<HashMap<NodeId, NodeId>, FoldError> {
        let mut frozen = HashMap::new();
        for (id, new) in &self.nodes {
            let Some(old) = tree.nodes.get(id) else { continue };
            // What ends keeps its content anyway.
            if new.nlink > 0 && is_referenced(old) && (self.content.contains(id) || !same_content(old, new)) {
                let ino = tree.new_id().map_err(|error| wrong(*id, format!("gets no new id: {error}")))?;
                frozen.insert(*id, ino);
            }
        }
        Ok(frozen)
    }

    /// What changes for those who refer to nodes.
    fn stale(
        &self,
        tree: &Tree,
        found: &Found,
        names: &[NameChange],
        frozen: &HashMap<NodeId, NodeId>,
    ) -> Vec<Stale> {
        let mut telling = Telling::default();
        for change in names {
            if let Some(before) = &change.before
                && let Some(child) = tree.nodes.get(&before.child)
                && is_referenced(child)
            {
                telling.name(tree, change.parent, &change.name, child.ino);
                found.drop_name(child.ino, change.parent, before.cookie);
            }
            // In a directory that moves, `..` is another one.
            if let Some(after) = &change.after
                && let Some(child) = tree.nodes.get(&after.child)
                && is_referenced(child)
                && child.directory().is_ok_and(|directory| directory.parent != change.parent)
            {
                telling.rest.push(Stale::Listing(after.child));
            }
        }
        for id in frozen.keys() {
            let Some(old) = tree.nodes.get(id) else { continue };
            for (parent, cookie) in found.take(old.ino) {
                // A name that is not there any more was told of when it went.
                if let Some(directory) = tree.nodes.get(&parent)
                    && let Body::Directory(entries) = &directory.body
                    && let Some(entry) = entries.at(cookie)
                {
                    telling.name(tree, parent, &entry.name, old.ino);
                    // Listings show ids.
                    telling.rest.push(Stale::Listing(parent));
                }
            }
        }
        let listed: HashSet<NodeId> = names.iter().map(|change| change.parent).collect();
        for (id, new) in &self.nodes {
            let Some(old) = tree.nodes.get(id) else { continue };
            if frozen.contains_key(id) || !(is_referenced(old) || *id == NodeId::ROOT) {
                continue;
            }
            if new.nlink == 0 || listed.contains(id) || !same_attributes(old, new) {
                telling.rest.push(Stale::Attributes(old.ino));
            }
            // Of a directory that ends not even `.` and `..` are left.
            if listed.contains(id) || (new.nlink == 0 && old.is_directory()) {
                telling.rest.push(Stale::Listing(*id));
            }
        }
        telling.in_order()
    }

    /// Puts everything in its place. What it replaces is returned, to be freed.
    /// `references` says how many somebody has on a node of the tree.
    pub(crate) fn put(
        &mut self,
        tree: &mut Tree,
        names: &[NameChange],
        frozen: &HashMap<NodeId, NodeId>,
        references: fn(&Node) -> u64,
    ) -> NodeMap {
        let mut replaced = NodeMap::default();
        let mut listed: HashMap<NodeId, Vec<&NameChange>> = HashMap::new();
        for change in names {
            listed.entry(change.parent).or_default().push(change);
        }
        for (id, mut new) in std::mem::take(&mut self.nodes) {
            let Some(mut old) = tree.nodes.remove(&id) else {
                if new.nlink > 0 {
                    tree.nodes.insert(id, new);
                }
                continue;
            };
            let references = references(&old);
            if new.nlink == 0 && references > 0 {
                // Its bytes are those that it had in the last version that had it, and a directory is empty.
                old.nlink = 0;
                old.ctime = new.ctime;
                if let Body::Directory(directory) = &mut old.body {
                    directory.clear();
                }
                tree.nodes.insert(id, old);
            } else if new.nlink == 0 {
                if let Some(inos) = &mut tree.inos {
                    inos.node_ids.remove(&old.ino);
                }
                replaced.insert(id, old);
            } else if let Some(ino) = frozen.get(&id) {
                let inos = tree.inos.get_or_insert_default();
                inos.node_ids.remove(&old.ino);
                inos.node_ids.insert(*ino, id);
                inos.frozen.insert(old.ino, old);
                new.ino = *ino;
                tree.nodes.insert(id, new);
            } else {
                *new.references.get_mut() = references;
                if !matches!(self.touched.get(&id), Some(Touched::All)) {
                    complete(&mut old, &mut new, listed.get(&id).map_or(&[], Vec::as_slice));
                }
                tree.nodes.insert(id, new);
                replaced.insert(id, old);
            }
        }
        for change in names {
            if let Some(after) = &change.after
                && let Some(node) = tree.nodes.get_mut(&after.child)
                && let Body::Directory(directory) = &mut node.body
            {
                directory.parent = change.parent;
            }
        }
        tree.last_lsn = self.last_lsn;
        tree.unstored_bytes += self.unstored_bytes;
        replaced
    }
}

impl Telling {
    fn name(&mut self, tree: &Tree, parent: NodeId, name: &[u8], child: NodeId) {
        let depth = *self.depths.entry(parent).or_insert_with(|| depth(tree, parent));
        self.names.push((depth, Stale::Name { parent, name: name.into(), child }));
    }

    /// Names first, the deepest before all others, each once.
    fn in_order(mut self) -> Vec<Stale> {
        self.names.sort_unstable_by(|(a, left), (b, right)| b.cmp(a).then_with(|| left.cmp(right)));
        self.names.dedup();
        self.rest.sort_unstable();
        self.rest.dedup();
        self.names.into_iter().map(|(_, name)| name).chain(self.rest).collect()
    }
}

/// How many directories are above this one.
fn depth(tree: &Tree, directory: NodeId) -> usize {
    let above = |id: &NodeId| match tree.nodes.get(id).map(|node| &node.body) {
        Some(Body::Directory(directory)) if *id != NodeId::ROOT => Some(directory.parent),
        _ => None,
    };
    // No path is longer than there are nodes, whatever damaged rows have made of the parents.
    std::iter::successors(Some(directory), above).take(tree.nodes.len()).count()
}

/// Puts the entries that a directory had into an excerpt of it that has changed.
fn complete(old: &mut Node, new: &mut Node, names: &[&NameChange]) {
    let (Body::Directory(whole), Body::Directory(excerpt)) = (&mut old.body, &mut new.body) else { return };
    let gone = names.iter().filter(|change| change.before.is_some()).map(|change| &*change.name);
    let mut come: Vec<Dentry> = names.iter().filter_map(|change| change.entry()).collect();
    come.sort_unstable_by_key(|entry| entry.cookie);
    whole.amend(excerpt, gone, come);
    std::mem::swap(whole, excerpt);
}

/// Whether `stat` shows the same and extended attributes are the same, as long as a directory's entries are.
fn same_attributes(old: &Node, new: &Node) -> bool {
    let (before, mut after) = (old.attributes(), new.attributes());
    if old.is_directory() {
        // The new one may be an excerpt.
        (after.size, after.blocks) = (before.size, before.blocks);
    }
    before == after && old.xattrs == new.xattrs
}

fn references(node: &Node) -> u64 {
    node.references.load(Ordering::Acquire)
}

fn is_referenced(node: &Node) -> bool {
    references(node) > 0
}

/// Whether what a reader sees is the same, as far as attributes tell.
fn same_content(old: &Node, new: &Node) -> bool {
    match (&old.body, &new.body) {
        (Body::File(_), _) => old.size == new.size,
        (Body::Symlink(old), Body::Symlink(new)) => old == new,
        (Body::Dynamic(old), Body::Dynamic(new)) => old.configuration == new.configuration,
        _ => true,
    }
}
