//! The net changes of a scratch: what it has that the version as which it began has not.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use bytes::Bytes;

use crate::tree::directory::Dentry;
use crate::tree::extent::{Extent, Source};
use crate::tree::node::{Body, Content, Node};
use crate::{Error, FileType, Lsn, NodeId, TinyFs, Tree};

/// What is done to a file's content.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// What has no bytes any more.
    pub(crate) holes: Vec<Range<u64>>,
    /// Where there are new bytes.
    pub(crate) ranges: Vec<Range<u64>>,
    /// These bytes, with their offsets, once they were read: none crosses a multiple of [`MAX_EXTENT`](crate::MAX_EXTENT).
    pub(crate) bytes: Vec<(u64, Bytes)>,
}

/// A node that came, or was changed but for its names.
#[derive(Debug)]
pub(crate) struct Made {
    /// The node as the scratch has it, without content and entries.
    pub(crate) node: Node,
    /// What of its content is new.
    pub(crate) written: Written,
}

/// What a name stands for: a node, and which kind of node.
pub(crate) type Target = Option<(NodeId, FileType)>;

/// A name that stands for something else than before.
#[derive(Debug)]
pub(crate) struct Renaming {
    pub(crate) parent: NodeId,
    pub(crate) name: Box<[u8]>,
    pub(crate) before: Target,
    pub(crate) after: Target,
}

/// All that a scratch has changed.
#[derive(Debug)]
pub struct Changes {
    /// The last operation of the version as which it began.
    pub(crate) base: Lsn,
    /// Nodes that came.
    pub(crate) created: Vec<Made>,
    /// Nodes whose content or attributes changed.
    pub(crate) changed: Vec<Made>,
    /// Directories whose entries changed: their modification times.
    pub(crate) filled: HashMap<NodeId, crate::Timestamp>,
    /// Nodes that went.
    pub(crate) ended: Vec<NodeId>,
    /// Names, of directories that came and of those that were there; in the order in which the scratch lists them.
    pub(crate) names: Vec<Renaming>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.created.is_empty() && self.changed.is_empty() && self.names.is_empty()
    }

    /// The nodes of the version as which the scratch began that were changed or went, but for those whose names alone changed.
    pub fn touched(&self) -> impl Iterator<Item = NodeId> {
        self.changed.iter().map(|made| made.node.id).chain(self.ended.iter().copied())
    }

    /// Bytes of content that they bring.
    pub fn bytes(&self) -> u64 {
        let made = self.created.iter().chain(&self.changed);
        made.flat_map(|made| &made.written.ranges).map(|range| range.end - range.start).sum()
    }
}

impl TinyFs {
    /// What this scratch has changed since it began as `version`. Nobody may change it meanwhile, or before
    /// [`read_changes`](Self::read_changes). Looks at every node, and costs by what changed.
    pub fn changes_since(&self, version: &TinyFs) -> Changes {
        let (base, mine) = (version.tree(), self.tree());
        let mut changes = Changes {
            base: base.last_lsn,
            created: Vec::new(),
            changed: Vec::new(),
            filled: HashMap::new(),
            ended: Vec::new(),
            names: Vec::new(),
        };
        for (id, node) in &mine.nodes {
            match base.nodes.get(id) {
                Some(before) if before.is_shared_with(node) => {}
                Some(_) if node.nlink == 0 => {}
                Some(before) => compare(before, node, &mut changes),
                None if node.nlink == 0 => {}
                None => create(node, &mut changes),
            }
        }
        let is_gone = |id: &NodeId| mine.nodes.get(id).is_none_or(|node| node.nlink == 0);
        for (id, node) in base.nodes.iter().filter(|(id, _)| is_gone(id)) {
            changes.ended.push(*id);
            if let Ok(directory) = node.directory() {
                let gone = directory.iter().map(|entry| renaming(*id, Some(entry), None));
                changes.names.extend(gone);
            }
        }
        changes
    }

    /// Reads the bytes that changes bring: those that left memory are not brought back, but shared with the file in which they lie.
    /// Blocks on I/O.
    pub fn read_changes(&self, changes: &mut Changes) -> Result<(), Error> {
        let tree = self.tree();
        for made in changes.created.iter_mut().chain(&mut changes.changed) {
            if made.written.ranges.is_empty() {
                continue;
            }
            let content = tree.get(made.node.id)?.content()?;
            for range in &made.written.ranges {
                for (at, extent) in content.extents.overlapping(range.start, range.end) {
                    self.read_extent(at, extent, &mut made.written.bytes)?;
                }
            }
        }
        Ok(())
    }

    fn read_extent(&self, at: u64, extent: &Extent, bytes: &mut Vec<(u64, Bytes)>) -> Result<(), Error> {
        match &extent.source {
            Source::Open(open) => bytes.push((at, Bytes::copy_from_slice(&open.data))),
            Source::Held(held) => {
                let from = extent.skip as usize;
                bytes.push((at, held.data.slice(from..from + extent.length as usize)));
            }
            Source::Stored(_) | Source::Run(_) => {
                let mut at = at;
                for (location, skip, length) in extent.stored_rows(0, extent.length) {
                    bytes.push((at, self.persistence().share(location, skip, length)?));
                    at += u64::from(length);
                }
            }
        }
        Ok(())
    }
}

fn renaming(parent: NodeId, before: Option<&Dentry>, after: Option<&Dentry>) -> Renaming {
    let name = before.or(after).map(|entry| entry.name.clone()).unwrap_or_default();
    let target = |entry: Option<&Dentry>| entry.map(|entry| (entry.child, entry.kind));
    Renaming { parent, name, before: target(before), after: target(after) }
}

/// The node without what it holds.
fn shell(node: &Node) -> Node {
    let body = match &node.body {
        Body::File(_) => Body::File(Content::default()),
        Body::Directory(directory) => {
            Body::Directory(Box::new(crate::tree::directory::Directory::new(directory.parent)))
        }
        other => other.clone(),
    };
    node.copy(body)
}

fn create(node: &Node, changes: &mut Changes) {
    let written = match &node.body {
        Body::File(content) => written(&Content::default(), content),
        _ => Written::default(),
    };
    if let Ok(directory) = node.directory() {
        changes.names.extend(directory.iter().map(|entry| renaming(node.id, None, Some(entry))));
    }
    changes.created.push(Made { node: shell(node), written });
}

fn compare(before: &Node, node: &Node, changes: &mut Changes) {
    let written = match (&before.body, &node.body) {
        (Body::File(before), Body::File(after)) => written(before, after),
        _ => Written::default(),
    };
    if let (Ok(old), Ok(new)) = (before.directory(), node.directory()) {
        let names = changes.names.len();
        let came = |entry: &&Dentry| old.get(&entry.name).is_none_or(|old| old.child != entry.child);
        for entry in new.iter().filter(came) {
            changes.names.push(renaming(node.id, old.get(&entry.name), Some(entry)));
        }
        let went = old.iter().filter(|entry| new.get(&entry.name).is_none());
        changes.names.extend(went.map(|entry| renaming(node.id, Some(entry), None)));
        if changes.names.len() > names {
            changes.filled.insert(node.id, node.mtime);
        }
    }
    let is_written = !written.holes.is_empty() || !written.ranges.is_empty();
    if is_written || !has_same_attributes(before, node) {
        changes.changed.push(Made { node: shell(node), written });
    }
}

/// Whether nothing differs that a caller sets. A directory's modification time follows from its entries.
pub(crate) fn has_same_attributes(one: &Node, other: &Node) -> bool {
    one.mode == other.mode
        && one.uid == other.uid
        && one.gid == other.gid
        && one.size == other.size
        && one.atime == other.atime
        && (one.mtime == other.mtime || one.is_directory())
        && one.xattrs == other.xattrs
}

/// What of a file's content a scratch changed. Its own bytes are in memory or in the file's spill file; all others stand where
/// they stood before.
fn written(before: &Content, after: &Content) -> Written {
    let spill = after.pending.as_ref().and_then(|pending| pending.spill);
    let mut written = Written::default();
    for (at, extent) in after.extents.iter() {
        let is_new = match extent.source {
            Source::Open(_) | Source::Held(_) => true,
            Source::Stored(location) | Source::Run(location) => spill == Some(location.file),
        };
        if is_new {
            push(&mut written.ranges, at..at + u64::from(extent.length));
        }
    }
    for (at, extent) in before.extents.iter() {
        let end = at + u64::from(extent.length);
        let mut position = at;
        for (other, extent) in after.extents.overlapping(at, end) {
            if other > position {
                push(&mut written.holes, position..other);
            }
            position = other + u64::from(extent.length);
        }
        if position < end {
            push(&mut written.holes, position..end);
        }
    }
    written
}

/// Adds a range behind others, joined with the last where they touch.
fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// Paths of these nodes in a tree, one for each that has any. Goes through the whole tree.
pub(crate) fn paths(tree: &Tree, wanted: &BTreeMap<NodeId, ()>) -> HashMap<NodeId, Vec<u8>> {
    let mut found = HashMap::new();
    let mut left = vec![(NodeId::ROOT, Vec::new())];
    while let Some((id, path)) = left.pop() {
        if wanted.contains_key(&id) {
            found.insert(id, path.clone());
        }
        let Ok(directory) = tree.get(id).and_then(|node| node.directory()) else { continue };
        for entry in directory.iter() {
            let path = [&path[..], b"/", &entry.name].concat();
            match entry.kind {
                FileType::Directory => left.push((entry.child, path)),
                _ if wanted.contains_key(&entry.child) => drop(found.insert(entry.child, path)),
                _ => {}
            }
        }
    }
    found
}
