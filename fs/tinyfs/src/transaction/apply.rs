//! Changes made in a scratch, made in the tree that others changed meanwhile: as one operation, so that no cut takes a part of it.

use std::collections::HashMap;

use crate::fs::find_room;
use crate::transaction::changes::{Changes, Made};
use crate::transaction::check::{clashes, named};
use crate::transaction::conflict::NotPublished;
use crate::tree::node::{Body, Node};
use crate::{Errno, FileType, Lsn, NodeId, Stale, Timestamp, TinyFs, Tree};

/// What was published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublishedChanges {
    /// The operation that all of it is.
    pub lsn: Lsn,
    /// What a kernel that cached the tree before must be told, in this order. Content of the nodes whose attributes are stale may be, too.
    pub stale: Vec<Stale>,
}

impl TinyFs {
    /// Makes changes that were made in a scratch of `version` in this tree, which has gone on from that version: all of them in one
    /// operation, or none. Link counts, places in listings and times of directories follow from what is there now.
    ///
    /// # Errors
    ///
    /// [`NotPublished::Conflicts`] where both sides changed a node's content or attributes, or a name; where one ended what the other
    /// changed, filled or linked; or where a directory would lie in itself. A file that was linked or renamed here counts as changed
    /// here. And [`NotPublished::Failed`] where there is no room, or no changes are taken.
    pub fn publish_changes(
        &self,
        version: &TinyFs,
        changes: Changes,
    ) -> Result<PublishedChanges, NotPublished> {
        let available = self.persistence().space_now().available;
        let base = version.tree();
        let mut tip = self.change()?;
        let found = clashes(&base, &tip, &changes);
        if !found.is_empty() {
            drop(tip);
            return Err(NotPublished::Conflicts(named(&base, &found)));
        }
        find_room(&tip, available, changes.bytes())?;
        if changes.created.iter().any(|made| tip.find(made.node.id).is_ok()) {
            // It takes two equal numbers of 63 random bits; whoever tries again gets others.
            return Err(Errno::AGAIN.into());
        }
        let (published, spills) = apply(&mut tip, changes).unwrap_or_else(|errno| {
            // The process ends by this, rather than have a half of it committed.
            panic!("changes that were found to fit do not: {errno}")
        });
        drop((tip, base));
        spills.into_iter().for_each(|spill| self.close_spill(Some(spill)));
        Ok(published)
    }
}

/// How many names a node gains or loses.
#[derive(Default)]
struct Balance(HashMap<NodeId, i64>);

impl Balance {
    fn count(&mut self, id: NodeId, one: i64) {
        *self.0.entry(id).or_default() += one;
    }

    fn of(&self, id: NodeId) -> i64 {
        self.0.get(&id).copied().unwrap_or(0)
    }
}

/// Makes the changes; spill files that nobody needs any more.
fn apply(tree: &mut Tree, changes: Changes) -> Result<(PublishedChanges, Vec<u32>), Errno> {
    let now = Timestamp::now();
    let lsn = tree.begin();
    let base = changes.base;
    let mut stale = Vec::new();
    let mut names = Balance::default();
    let mut subdirectories = Balance::default();
    for change in &changes.names {
        for (target, one) in [(change.before, -1), (change.after, 1)] {
            let Some((child, kind)) = target else { continue };
            names.count(child, one);
            if kind == FileType::Directory {
                subdirectories.count(change.parent, one);
            }
        }
    }
    for made in &changes.created {
        let mut node = made.node.copy(made.node.body.clone());
        node.nlink = match node.is_directory() {
            true => 2,
            false => u32::try_from(names.of(node.id)).map_err(|_| Errno::MLINK)?,
        };
        (node.lsn, node.version, node.dirty) = (lsn, 0, false);
        let id = node.id;
        tree.add(node);
        put(tree, id, made, lsn)?;
    }

    // All names go before any comes: one may stand where another stood.
    for change in &changes.names {
        let Some((child, _)) = change.before else { continue };
        tree.get_mut(change.parent)?.directory_mut()?.remove(&change.name);
        stale.push(Stale::Name { parent: change.parent, name: change.name.clone(), child });
    }
    for change in &changes.names {
        let Some((child, kind)) = change.after else { continue };
        tree.get_mut(change.parent)?.directory_mut()?.insert(&change.name, child, kind);
        if kind == FileType::Directory {
            tree.set_parent(child, change.parent);
        }
        if change.before.is_none() {
            stale.push(Stale::Name { parent: change.parent, name: change.name.clone(), child });
        }
    }
    for (&id, &count) in &subdirectories.0 {
        let node = tree.get_mut(id)?;
        node.nlink = node.nlink.saturating_add_signed(count as i32);
    }
    for (&id, &mtime) in &changes.filled {
        let node = tree.get_mut(id)?;
        // As the scratch left it, unless others filled it, too.
        node.mtime = if node.lsn > base { now } else { mtime };
        node.ctime = now;
        tree.touch(id, lsn);
        stale.extend([Stale::Listing(id), Stale::Attributes(id)]);
    }
    for made in &changes.changed {
        let id = made.node.id;
        put(tree, id, made, lsn)?;
        take_attributes(tree.get_mut(id)?, &made.node, base, now);
        tree.touch(id, lsn);
        stale.push(Stale::Attributes(id));
    }
    let spills = count_links(tree, &changes, &names, lsn, now, &mut stale)?;
    stale.dedup();
    Ok((PublishedChanges { lsn, stale }, spills))
}

/// Takes up how many names nodes have now that were there before; those without end.
fn count_links(
    tree: &mut Tree,
    changes: &Changes,
    names: &Balance,
    lsn: Lsn,
    now: Timestamp,
    stale: &mut Vec<Stale>,
) -> Result<Vec<u32>, Errno> {
    let created: std::collections::HashSet<NodeId> =
        changes.created.iter().map(|made| made.node.id).collect();
    let mut spills = Vec::new();
    for (&id, &count) in names.0.iter().filter(|(id, _)| !created.contains(id)) {
        let node = tree.get_mut(id)?;
        node.ctime = now;
        match count {
            0 => tree.touch(id, lsn),
            1.. => {
                node.nlink = node.nlink.saturating_add(u32::try_from(count).map_err(|_| Errno::MLINK)?);
                tree.touch(id, lsn);
            }
            ..0 => {
                let times = if node.is_directory() { 1 } else { count.unsigned_abs() };
                for _ in 0..times {
                    spills.extend(tree.drop_link(id, lsn, now));
                }
            }
        }
        stale.push(Stale::Attributes(id));
    }
    Ok(spills)
}

/// Changes a file's content.
fn put(tree: &mut Tree, id: NodeId, made: &Made, lsn: Lsn) -> Result<(), Errno> {
    for hole in &made.written.holes {
        tree.punch(id, hole.start, Some(hole.end - hole.start), lsn)?;
    }
    for (offset, bytes) in &made.written.bytes {
        tree.put(id, *offset, bytes, lsn)?;
    }
    Ok(())
}

fn take_attributes(node: &mut Node, from: &Node, base: Lsn, now: Timestamp) {
    (node.mode, node.uid, node.gid) = (from.mode, from.uid, from.gid);
    (node.size, node.atime) = (from.size, from.atime);
    node.xattrs = from.xattrs.clone();
    if !node.is_directory() || node.lsn <= base {
        node.mtime = from.mtime;
    }
    node.ctime = now;
    if let (Body::Dynamic(dynamic), Body::Dynamic(from)) = (&mut node.body, &from.body) {
        dynamic.configuration = from.configuration.clone();
    }
}
