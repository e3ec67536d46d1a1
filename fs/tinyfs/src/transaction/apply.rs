//! Changes made in a scratch, made in the tree that others changed meanwhile: as one operation, so that no cut takes a part of it.

use std::collections::{HashMap, HashSet};

use crate::fs::find_room;
use crate::transaction::changes::{Changes, Made};
use crate::transaction::check::{clashes, named};
use crate::transaction::conflict::NotPublished;
use crate::transaction::fits::{Balance, fits};
use crate::tree::node::{Body, Node};
use crate::{Cut, Errno, FileType, Lsn, NodeId, Stale, Timestamp, TinyFs, Tree};

/// What was published.
#[derive(Debug)]
pub struct PublishedChanges {
    /// The operation that all of it is.
    pub lsn: Lsn,
    /// What a kernel that cached the tree before must be told, in this order. Content of the nodes whose attributes are stale may be, too.
    pub stale: Vec<Stale>,
    /// The rows of what others had done until then.
    pub before: Cut,
    /// The rows of what was published, and of nothing else.
    pub cut: Cut,
}

impl TinyFs {
    /// Makes changes that were made in a scratch of `version` in this tree, which has gone on from that version: all of them in one
    /// operation, or none. Link counts, places in listings and times of directories follow from what is there now. Before and after
    /// a cut is taken, so that the rows of what is published are no others'.
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
        fits(&tip, &changes)?;
        let now = Timestamp::now();
        let before = tip.cut(now.0.div_euclid(1000));
        let (lsn, stale, spills) = apply(&mut tip, &base, changes, now).unwrap_or_else(|errno| {
            // Half of it is made: the process ends by this, rather than have that committed.
            panic!("changes that were found to fit do not: {errno}")
        });
        let cut = tip.cut(now.0.div_euclid(1000));
        drop((tip, base));
        spills.into_iter().for_each(|spill| self.close_spill(Some(spill)));
        Ok(PublishedChanges { lsn, stale, before, cut })
    }
}

/// Makes the changes, which fit; the operation that they are, what is stale, and spill files that nobody needs any more.
fn apply(
    tree: &mut Tree,
    version: &Tree,
    mut changes: Changes,
    now: Timestamp,
) -> Result<(Lsn, Vec<Stale>, Vec<u32>), Errno> {
    let lsn = tree.begin();
    let base = changes.base;
    let mut stale = Vec::new();
    let (names, subdirectories) = Balance::of_names(&changes);
    for made in &mut changes.created {
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

    deepest_first(version, &mut changes);
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
    for (id, count) in subdirectories.iter() {
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
    for made in &mut changes.changed {
        let id = made.node.id;
        put(tree, id, made, lsn)?;
        take_attributes(tree.get_mut(id)?, &made.node, base, now);
        tree.touch(id, lsn);
        stale.push(Stale::Attributes(id));
    }
    let spills = count_links(tree, &changes, &names, lsn, now, &mut stale)?;
    stale.dedup();
    Ok((lsn, stale, spills))
}

/// Puts names in directories that end before the names of those: a kernel can call a directory gone only once it has none in it.
fn deepest_first(version: &Tree, changes: &mut Changes) {
    let ended: HashSet<NodeId> = changes.ended.iter().copied().collect();
    let mut depths: HashMap<NodeId, usize> = HashMap::new();
    for &id in &changes.ended {
        let parent = |id: NodeId| version.get(id).ok()?.directory().ok().map(|directory| directory.parent);
        let above = std::iter::successors(Some(id), |&id| parent(id)).take_while(|id| ended.contains(id));
        depths.insert(id, above.count());
    }
    let depth = |id: NodeId| depths.get(&id).copied().unwrap_or(0);
    changes.names.sort_by_key(|change| std::cmp::Reverse(depth(change.parent)));
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
    let created: HashSet<NodeId> = changes.created.iter().map(|made| made.node.id).collect();
    let mut spills = Vec::new();
    for (id, count) in names.iter().filter(|(id, _)| !created.contains(id)) {
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
fn put(tree: &mut Tree, id: NodeId, made: &mut Made, lsn: Lsn) -> Result<(), Errno> {
    for hole in &made.written.holes {
        tree.punch(id, hole.start, Some(hole.end - hole.start), lsn)?;
    }
    for (offset, bytes) in std::mem::take(&mut made.written.bytes) {
        tree.put_row(id, offset, bytes, lsn)?;
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
