//! Whether changes made in a scratch can be made in the tree that others changed meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::transaction::changes::{Changes, has_same_attributes, paths};
use crate::transaction::conflict::{Clash, Conflict};
use crate::tree::node::Node;
use crate::{FileType, NodeId, Tree};

/// A place by its node, or by a name in it, and what happened there on both sides.
type Clashes<'a> = BTreeSet<((NodeId, Option<&'a [u8]>), Clash)>;

/// Where the changes and what was done in `tip` since `base` clash.
pub(crate) fn clashes<'a>(base: &Tree, tip: &Tree, changes: &'a Changes) -> Clashes<'a> {
    let mut clashes = Clashes::new();
    let alive = |id: NodeId| tip.nodes.get(&id).filter(|node| node.nlink > 0).map(|node| &**node);
    let touched = |node: &Node| node.lsn > changes.base;
    let created: HashSet<NodeId> = changes.created.iter().map(|made| made.node.id).collect();
    for made in &changes.changed {
        let id = made.node.id;
        match (alive(id), base.get(id)) {
            (None, _) => drop(clashes.insert(((id, None), Clash::EndedThere))),
            // Its entries are looked at one by one.
            (Some(now), Ok(before)) if now.is_directory() && has_same_attributes(before, now) => {}
            (Some(now), _) if now.is_directory() || touched(now) => {
                clashes.insert(((id, None), Clash::Changed));
            }
            _ => {}
        }
    }
    for &id in &changes.ended {
        // What ended on both sides had its names taken on both.
        if alive(id).is_some_and(touched) {
            clashes.insert(((id, None), Clash::EndedHere));
        }
    }
    for change in &changes.names {
        if let Some((child, _)) = change.after
            && !created.contains(&child)
            && alive(child).is_none()
        {
            clashes.insert(((child, None), Clash::EndedThere));
        }
        if created.contains(&change.parent) {
            continue;
        }
        match alive(change.parent).and_then(|parent| parent.directory().ok()) {
            // Both ended it: then its own name clashes, too.
            None if change.after.is_none() => {
                clashes.insert(((change.parent, Some(&change.name)), Clash::Name));
            }
            None => drop(clashes.insert(((change.parent, None), Clash::EndedThere))),
            Some(directory) => {
                let now = directory.get(&change.name).map(|entry| entry.child);
                if now != change.before.map(|(child, _)| child) {
                    clashes.insert(((change.parent, Some(&change.name)), Clash::Name));
                }
            }
        }
    }
    if clashes.is_empty() {
        clashes.extend(cycles(tip, changes).into_iter().map(|id| ((id, None), Clash::Cycle)));
    }
    clashes
}

/// Directories that were moved in the scratch and would lie in themselves.
fn cycles(tip: &Tree, changes: &Changes) -> Vec<NodeId> {
    let placed = changes.names.iter().filter_map(|change| match change.after {
        Some((child, FileType::Directory)) => Some((child, change.parent)),
        _ => None,
    });
    let parents: HashMap<NodeId, NodeId> = placed.collect();
    let parent = |id: NodeId| {
        let in_tip = || tip.get(id).ok()?.directory().ok().map(|directory| directory.parent);
        parents.get(&id).copied().or_else(in_tip)
    };
    let lies_in_itself = |id: NodeId| {
        let mut seen = HashSet::new();
        let mut at = id;
        while at != NodeId::ROOT {
            if !seen.insert(at) {
                return true;
            }
            // A parent that is nowhere is reached from nowhere.
            let Some(above) = parent(at) else { return true };
            at = above;
        }
        false
    };
    parents.keys().copied().filter(|&id| lies_in_itself(id)).collect()
}

/// The same by their paths in the version as which the scratch began. Goes through the whole tree.
pub(crate) fn named(base: &Tree, clashes: &Clashes<'_>) -> Vec<Conflict> {
    let wanted: BTreeMap<NodeId, ()> = clashes.iter().map(|((id, _), _)| (*id, ())).collect();
    let found = paths(base, &wanted);
    let path = |id: &NodeId| found.get(id).cloned().unwrap_or_else(|| format!("(node {id})").into_bytes());
    let mut conflicts: Vec<Conflict> = clashes
        .iter()
        .map(|((id, name), clash)| {
            let path = match name {
                Some(name) => [&path(id)[..], b"/", name].concat(),
                None if *id == NodeId::ROOT => b"/".to_vec(),
                None => path(id),
            };
            Conflict { path, clash: *clash }
        })
        .collect();
    conflicts.sort();
    conflicts
}
