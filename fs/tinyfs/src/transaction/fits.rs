//! Whether changes that clash with nothing can be made: all that making them relies on, looked at before anything is changed.

use std::collections::{HashMap, HashSet};

use crate::transaction::changes::Changes;
use crate::types::limits::MAX_LINKS;
use crate::{Errno, FileType, NodeId, Tree};

/// How many names a node gains or loses.
#[derive(Default)]
pub(crate) struct Balance(HashMap<NodeId, i64>);

impl Balance {
    /// Names of nodes, and of how many subdirectories a directory has more or less.
    pub(crate) fn of_names(changes: &Changes) -> (Balance, Balance) {
        let (mut names, mut subdirectories) = (Balance::default(), Balance::default());
        for change in &changes.names {
            for (target, one) in [(change.before, -1), (change.after, 1)] {
                let Some((child, kind)) = target else { continue };
                names.count(child, one);
                if kind == FileType::Directory {
                    subdirectories.count(change.parent, one);
                }
            }
        }
        (names, subdirectories)
    }

    fn count(&mut self, id: NodeId, one: i64) {
        *self.0.entry(id).or_default() += one;
    }

    pub(crate) fn of(&self, id: NodeId) -> i64 {
        self.0.get(&id).copied().unwrap_or(0)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, i64)> {
        self.0.iter().map(|(&id, &count)| (id, count))
    }
}

/// Why the changes cannot be made in this tree, with which they do not clash.
pub(crate) fn fits(tip: &Tree, changes: &Changes) -> Result<(), Errno> {
    let created: HashMap<NodeId, FileType> =
        changes.created.iter().map(|made| (made.node.id, made.node.kind)).collect();
    if created.keys().any(|&id| tip.find(id).is_ok()) {
        // It takes two equal numbers of 63 random bits; whoever tries again gets others.
        return Err(Errno::AGAIN);
    }
    let kind = |id: NodeId| match created.get(&id) {
        Some(&kind) => Ok(kind),
        None => tip.get(id).map(|node| node.kind),
    };
    let directory = |id: NodeId| match kind(id)? {
        FileType::Directory => Ok(()),
        _ => Err(Errno::NOTDIR),
    };
    for change in &changes.names {
        directory(change.parent)?;
        for (child, expected) in change.before.iter().chain(&change.after) {
            if kind(*child)? != *expected {
                return Err(Errno::STALE);
            }
        }
    }
    changes.filled.keys().try_for_each(|&id| directory(id))?;
    for made in changes.created.iter().chain(&changes.changed) {
        let is_written = !made.written.ranges.is_empty() || !made.written.holes.is_empty();
        if kind(made.node.id)? != made.node.kind || is_written && made.node.kind != FileType::File {
            return Err(Errno::STALE);
        }
    }
    let changed: HashSet<NodeId> = changes.changed.iter().map(|made| made.node.id).collect();
    let (names, _) = Balance::of_names(changes);
    for (id, count) in names.iter() {
        let before = if created.contains_key(&id) { 0 } else { i64::from(tip.get(id)?.nlink) };
        let is_directory = kind(id)? == FileType::Directory;
        // A directory that moves gains as many names as it loses.
        let after = if is_directory { i64::from(before != 0) + count } else { before + count };
        match after {
            ..0 => return Err(Errno::STALE),
            // Content is not given to what ends.
            0 if created.contains_key(&id) || changed.contains(&id) => return Err(Errno::STALE),
            2.. if is_directory => return Err(Errno::STALE),
            after if after > i64::from(MAX_LINKS) => return Err(Errno::MLINK),
            _ => {}
        }
    }
    match changes.created.iter().all(|made| names.of(made.node.id) > 0) {
        true => Ok(()),
        false => Err(Errno::STALE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caller, Make, MemoryPersistence, Timestamp, TinyFs, root_row};

    #[test]
    fn what_making_the_changes_relies_on_is_refused_before_anything_is_changed() {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let version = TinyFs::read_only(store.load().unwrap(), store.clone());
        let scratch = version.scratch(store.clone());
        let root = Caller::root();
        let make = |fs: &TinyFs, parent, name: &[u8], make| fs.make(&root, parent, name, make).unwrap().id;
        let file = make(&scratch, NodeId::ROOT, b"f", Make::File { mode: 0o644 });
        scratch.write(&root, file, 0, b"bytes", crate::WriteFlags::default()).unwrap();
        make(&scratch, NodeId::ROOT, b"d", Make::Directory { mode: 0o755 });
        let tip = TinyFs::new(store.load().unwrap(), store.clone());
        let made = || {
            let mut changes = scratch.changes_since(&version);
            scratch.read_changes(&mut changes).unwrap();
            changes
        };
        fits(&tip.tree(), &made()).unwrap();
        let refused = |spoil: &dyn Fn(&mut Changes)| {
            let mut changes = made();
            spoil(&mut changes);
            let why = fits(&tip.tree(), &changes).unwrap_err();
            let before = tip.last_lsn();
            tip.publish_changes(&version, changes).unwrap_err();
            assert_eq!((tip.last_lsn(), tip.node_count(), tip.is_dirty()), (before, 1, false));
            why
        };
        assert_eq!(refused(&|changes| changes.names.clear()), Errno::STALE);
        assert_eq!(refused(&|changes| changes.names[0].parent = file), Errno::NOTDIR);
        assert_eq!(refused(&|changes| drop(changes.created.pop())), Errno::STALE);
        assert_eq!(refused(&|changes| changes.created[0].node.id = NodeId::ROOT), Errno::AGAIN);
    }
}
