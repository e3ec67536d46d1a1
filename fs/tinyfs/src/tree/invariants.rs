//! What holds in every tree between two operations, by name. The fold refuses rows that would break it, so that opening a pond, taking
//! in a version and checking a pond all ask the same; what only a fault of this program could break is asserted in debug builds.

use std::sync::atomic::Ordering;

use crate::NodeId;
use crate::tree::node::{Body, Content, Node};
use crate::tree::node_map::NodeMap;

/// A directory's links are its name, its own `.`, and the `..` of each directory in it: `stat` says how many to walk.
pub(crate) fn links_count_subdirectories(node: &Node, subdirectories: i64) -> bool {
    i64::from(node.nlink) == 2 + subdirectories
}

/// How many names a node has: a directory one, the root none, anything else as many as it has links. Else removing one of them would
/// free what others still name, or the last would free nothing.
pub(crate) fn names(node: &Node) -> u64 {
    match (node.id == NodeId::ROOT, node.is_directory()) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => u64::from(node.nlink),
    }
}

/// No byte lies beyond the end of its file: extending the file would show it.
pub(crate) fn content_is_within_size(node: &Node, content: &Content) -> bool {
    content.extents.end().is_none_or(|end| end <= node.size)
}

/// No byte of a file lies in two extents: which of them a read gives would be chance.
pub(crate) fn extents_are_disjoint(content: &Content) -> bool {
    let mut end = 0;
    content.extents.iter().all(|(at, extent)| {
        let follows = at >= end;
        end = at + u64::from(extent.length);
        follows
    })
}

/// A directory from which the way up does not lead to the root: directories that lie within each other have a name each, and nobody
/// finds them. `parents` has all directories but the root, each with the one that it is in and knows to be its parent; every directory's
/// link count is right, and nobody refers to a node yet.
///
/// Directories without any in them are taken away, again and again: what is left lies in a ring.
pub(crate) fn unreachable_directory(nodes: &NodeMap, parents: &[(NodeId, NodeId)]) -> Option<NodeId> {
    let node = |id: &NodeId| nodes.get(id).filter(|node| node.is_directory());
    let left = |id: &NodeId| node(id).map(|node| &node.references);
    for (child, _) in parents {
        let node = node(child)?;
        node.references.store(u64::from(node.nlink - 2), Ordering::Relaxed);
    }
    for (leaf, _) in parents.iter().filter(|(child, _)| node(child).is_some_and(|node| node.nlink == 2)) {
        let mut at = *leaf;
        while let Some(Body::Directory(directory)) = node(&at).map(|node| &node.body)
            && directory.parent != NodeId::ROOT
            && let Some(left) = left(&directory.parent)
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            at = directory.parent;
        }
    }
    // All counts are 0 again, but in a ring.
    let is_left = |id: &NodeId| left(id).is_some_and(|left| left.load(Ordering::Relaxed) > 0);
    parents.iter().map(|(child, _)| *child).find(is_left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EntryChange, EntryOp, FileType, Fold, Lsn, NodeRecord, Record, Row, Timestamp, Tree, root_row,
    };

    /// A directory with these in it.
    fn directory(raw: u64, within: &[u64]) -> Vec<Row> {
        let id = |raw: &u64| NodeId::new(*raw).unwrap();
        let record = NodeRecord {
            nlink: 2 + within.len() as u32,
            next_cookie: 100,
            ..NodeRecord::new(FileType::Directory, Timestamp(0))
        };
        let entry = |child: &u64| EntryChange {
            name: child.to_string().into_bytes().into(),
            child: id(child),
            kind: FileType::Directory,
            cookie: 10 + child,
            op: EntryOp::Insert,
        };
        let records =
            [Record::Node(Box::new(record)), Record::Entries(within.iter().map(entry).collect::<Vec<_>>())];
        let row = |(seq, record)| Row {
            part: id(&raw),
            node: id(&raw),
            lsn: Lsn(raw + 1),
            seq: seq as u32,
            version: 1,
            timestamp: 0,
            record,
        };
        records.into_iter().enumerate().map(row).collect()
    }

    /// The tree of these directories, of which the first is the root.
    fn tree(directories: &[(u64, &[u64])]) -> Result<Tree, String> {
        let mut fold = Fold::new();
        fold.push(root_row(Timestamp(0), 0, 0));
        directories.iter().flat_map(|(raw, within)| directory(*raw, within)).for_each(|row| fold.push(row));
        fold.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn directories_that_lie_within_each_other_are_refused() {
        tree(&[(1, &[2, 5]), (2, &[3, 4]), (3, &[]), (4, &[]), (5, &[6]), (6, &[])]).unwrap();
        let refused = tree(&[(1, &[2]), (2, &[]), (3, &[5]), (4, &[3, 6]), (5, &[4]), (6, &[])]).unwrap_err();
        assert!(refused.contains("no way leads up to the root"), "{refused}");
    }
}
