//! How names change in a publish, and whether names and nodes will agree after it.
//!
//! The tree agrees with itself before. So only differences are counted: after the publish each node must have as many
//! names as before, less those that go, plus those that come. That costs as much as what changed, however large the
//! tree and its directories are.

use std::collections::HashMap;

use crate::fold::step::{Step, Touched};
use crate::fold::{FoldError, wrong};
use crate::tree::directory::{Dentry, Directory};
use crate::tree::invariants;
use crate::tree::node::{Body, Node};
use crate::{FileType, NodeId, Tree};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) child: NodeId,
    kind: FileType,
    pub(crate) cookie: u64,
}

/// A name that stands for something else than before.
pub(crate) struct NameChange {
    pub(crate) parent: NodeId,
    pub(crate) name: Box<[u8]>,
    pub(crate) before: Option<Target>,
    pub(crate) after: Option<Target>,
}

impl Target {
    fn of(entry: &Dentry) -> Self {
        Target { child: entry.child, kind: entry.kind, cookie: entry.cookie }
    }
}

impl NameChange {
    /// The entry that there is after it.
    pub(crate) fn entry(&self) -> Option<Dentry> {
        let Target { child, kind, cookie } = self.after?;
        Some(Dentry { cookie, child, name: self.name.clone(), kind })
    }
}

/// Names and subdirectories that come, less those that go.
#[derive(Default)]
struct Balance {
    names: HashMap<NodeId, i64>,
    subdirectories: HashMap<NodeId, i64>,
}

impl Balance {
    fn count(&mut self, parent: NodeId, target: Option<&Target>, one: i64) {
        let Some(target) = target else { return };
        *self.names.entry(target.child).or_default() += one;
        if target.kind == FileType::Directory {
            *self.subdirectories.entry(parent).or_default() += one;
        }
    }
}

/// Checks that names and nodes agree once the step is taken, and says which names change.
pub(crate) fn check(tree: &Tree, step: &Step) -> Result<Vec<NameChange>, FoldError> {
    let alive = |node: &&Node| node.nlink > 0;
    let before = |id: &NodeId| tree.nodes.get(id).map(|node| &**node).filter(alive);
    let after =
        |id: &NodeId| step.nodes.get(id).or_else(|| tree.nodes.get(id)).map(|node| &**node).filter(alive);
    if after(&NodeId::ROOT).is_none() {
        return Err(wrong(NodeId::ROOT, "the root is missing".into()));
    }
    let mut changes = Vec::new();
    for (id, node) in &step.nodes {
        if let Body::Directory(directory) = &node.body {
            let old = before(id).and_then(|old| old.directory().ok());
            let new = (node.nlink > 0).then_some(&**directory);
            compare(*id, old, new, step.touched.get(id), &mut changes);
        }
    }
    let mut balance = Balance::default();
    for change in &changes {
        balance.count(change.parent, change.before.as_ref(), -1);
        balance.count(change.parent, change.after.as_ref(), 1);
        if let Some(target) = &change.after {
            check_target(change, target, after(&target.child))?;
        }
    }
    for (id, node) in &step.nodes {
        check_node(*id, before(id), node, &balance)?;
    }
    for id in step.nodes.keys().chain(balance.names.keys()) {
        let names = names_of(before(id)) + balance.names.get(id).copied().unwrap_or(0);
        let expected = names_of(after(id));
        if names != expected {
            return Err(wrong(*id, format!("has {names} names and should have {expected}")));
        }
    }
    Ok(changes)
}

/// The names that a consistent tree has for a node.
fn names_of(node: Option<&Node>) -> i64 {
    node.map_or(0, |node| invariants::names(node) as i64)
}

fn compare(
    parent: NodeId,
    old: Option<&Directory>,
    new: Option<&Directory>,
    touched: Option<&Touched>,
    changes: &mut Vec<NameChange>,
) {
    let mut compare = |name: &[u8]| {
        let before = old.and_then(|old| old.get(name)).map(Target::of);
        let after = new.and_then(|new| new.get(name)).map(Target::of);
        if before != after {
            changes.push(NameChange { parent, name: name.into(), before, after });
        }
    };
    match (old, new, touched) {
        (Some(_), Some(_), None) => {}
        (Some(_), Some(_), Some(Touched::Names(names))) => names.iter().for_each(|name| compare(name)),
        _ => {
            old.into_iter().flat_map(Directory::iter).for_each(|entry| compare(&entry.name));
            let added = |entry: &&Dentry| old.is_none_or(|old| old.get(&entry.name).is_none());
            new.into_iter().flat_map(Directory::iter).filter(added).for_each(|entry| compare(&entry.name));
        }
    }
}

/// Checks that an entry names a node that is there and is what the entry says.
fn check_target(change: &NameChange, target: &Target, child: Option<&Node>) -> Result<(), FoldError> {
    let name = String::from_utf8_lossy(&change.name);
    let Some(child) = child else {
        let message = format!("entry {name:?} names node {}, which is not there", target.child);
        return Err(wrong(change.parent, message));
    };
    if child.kind != target.kind {
        let message =
            format!("entry {name:?} says {} and its node {}", target.kind.name(), child.kind.name());
        return Err(wrong(change.parent, message));
    }
    Ok(())
}

/// Checks a changed node by itself: link count of a directory, size of a file.
fn check_node(id: NodeId, before: Option<&Node>, node: &Node, balance: &Balance) -> Result<(), FoldError> {
    match &node.body {
        _ if node.nlink == 0 => Ok(()),
        Body::Directory(_) => {
            let subdirectories = before.map_or(0, |before| i64::from(before.nlink) - 2)
                + balance.subdirectories.get(&id).copied().unwrap_or(0);
            let nlink = node.nlink;
            if !invariants::links_count_subdirectories(node, subdirectories) {
                return Err(wrong(
                    id,
                    format!("has {subdirectories} subdirectories and a link count of {nlink}"),
                ));
            }
            Ok(())
        }
        Body::File(content) if !invariants::content_is_within_size(node, content) => {
            let end = content.extents.end().unwrap_or_default();
            Err(wrong(id, format!("has content up to byte {end} and a size of {}", node.size)))
        }
        _ => Ok(()),
    }
}
