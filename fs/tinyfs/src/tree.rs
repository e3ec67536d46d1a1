//! The nodes and what changed since the last cut. Knows nothing of names' rules or permissions.

pub(crate) mod cut;
pub(crate) mod directory;
pub(crate) mod extent;
pub(crate) mod found;
pub(crate) mod inos;
pub(crate) mod invariants;
pub(crate) mod node;
pub(crate) mod node_map;
pub(crate) mod shared;
pub(crate) mod spill;
pub(crate) mod writing;

use std::collections::BTreeSet;

use crate::tree::directory::Directory;
use crate::tree::inos::Inos;
use crate::tree::node::{Body, Node, PendingContent};
use crate::tree::node_map::NodeMap;
use crate::tree::shared::SharedNode;
use crate::{Errno, FileType, Lsn, NodeId, NodeRecord, Record, Row, Timestamp};

/// All nodes, in memory.
#[derive(Debug, Default)]
pub struct Tree {
    pub(crate) nodes: NodeMap,
    pub(crate) last_lsn: Lsn,
    /// Nodes with changes that no cut has taken, in the order of their first change.
    dirty: Vec<NodeId>,
    /// Rows that the next cut takes as they are: of nodes that ended, and of content that is shared with its row from the beginning.
    rows: Vec<Row>,
    /// Content bytes that no cut has taken.
    pub(crate) uncut_bytes: u64,
    /// Content bytes that a cut has taken and no commit has stored.
    pub(crate) unstored_bytes: u64,
    /// Whether no row will ever tell of any change: all content goes where that of unlinked files goes.
    pub(crate) is_scratch: bool,
    /// Content bytes of unlinked files that no spill has taken; of a scratch, those of all files.
    pub(crate) unlinked_bytes: u64,
    /// Content bytes of such files on their way to a spill file.
    pub(crate) spilling_bytes: u64,
    /// The files that they are in; some may be gone.
    unlinked: BTreeSet<NodeId>,
    /// The one of them that a spill took last.
    last_unlinked: Option<NodeId>,
    /// Ids that lookups gave out, once a publish has made some that differ from those of their nodes.
    pub(crate) inos: Option<Box<Inos>>,
}

/// Content that no data file and no spill file holds, bytes, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentInMemory {
    /// What the next cut takes.
    pub uncut: u64,
    /// What cuts took and no version holds yet.
    pub cut: u64,
    /// What the next spill takes: content of unlinked files that are still open, which no commit stores.
    pub unspilled: u64,
    /// What a spill is writing.
    pub spilling: u64,
}

impl ContentInMemory {
    /// All of it, bytes.
    pub fn total(&self) -> u64 {
        self.uncut + self.cut + self.unspilled + self.spilling
    }

    /// What a commit stores, bytes.
    pub fn committable(&self) -> u64 {
        self.uncut + self.cut
    }
}

impl Tree {
    /// A tree of the same nodes, of which nothing waits to be stored.
    pub(crate) fn share(&self) -> Tree {
        Tree { nodes: self.nodes.clone(), last_lsn: self.last_lsn, ..Tree::default() }
    }

    /// The same for a scratch.
    pub(crate) fn scratch(&self) -> Tree {
        Tree { is_scratch: true, ..self.share() }
    }

    /// The last operation's number.
    pub fn last_lsn(&self) -> Lsn {
        self.last_lsn
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> u64 {
        self.nodes.len() as u64
    }

    pub(crate) fn begin(&mut self) -> Lsn {
        self.last_lsn = self.last_lsn.next();
        self.last_lsn
    }

    pub(crate) fn get(&self, id: NodeId) -> Result<&Node, Errno> {
        self.nodes.get(&id).map(|node| &**node).ok_or(Errno::STALE)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Result<&mut Node, Errno> {
        self.nodes.get_mut(&id).map(|node| &mut **node).ok_or(Errno::STALE)
    }

    /// A new id: 63 random bits, none that is taken.
    pub(crate) fn new_id(&self) -> Result<NodeId, Errno> {
        loop {
            let mut raw = [0u8; 8];
            // SAFETY: the pointer and the length are those of a live array.
            let got = unsafe { libc::getrandom(raw.as_mut_ptr().cast(), raw.len(), 0) };
            if got != raw.len() as isize {
                return Err(Errno::IO);
            }
            let candidate = NodeId::new(u64::from_ne_bytes(raw) >> 1);
            let is_free = |id: &NodeId| *id != NodeId::ROOT && !self.nodes.contains_key(id);
            let is_shown = |id: &NodeId| self.inos.is_some() && self.find(*id).is_ok();
            if let Some(id) = candidate.filter(|id| is_free(id) && !is_shown(id)) {
                return Ok(id);
            }
        }
    }

    pub(crate) fn add(&mut self, node: Node) {
        let id = node.id;
        self.nodes.insert(id, SharedNode::new(node));
        if let Some(node) = self.nodes.get_mut(&id)
            && !self.is_scratch
        {
            node.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Whether content that this node gets leaves no rows.
    pub(crate) fn is_rowless(&self, node: &Node) -> bool {
        self.is_scratch || node.nlink == 0
    }

    /// Notes that a node changed in this operation.
    pub(crate) fn touch(&mut self, id: NodeId, lsn: Lsn) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lsn = lsn;
            // What happens to an unlinked node, and in a scratch, leaves no rows.
            if !node.dirty && node.nlink > 0 && !self.is_scratch {
                node.dirty = true;
                self.dirty.push(id);
            }
        }
    }

    /// Takes a link from a node; the last one ends it, for the table at least: in memory it
    /// lives on while it is referred to. Returns the spill file that it had, if it is gone.
    pub(crate) fn drop_link(&mut self, id: NodeId, lsn: Lsn, now: Timestamp) -> Option<u32> {
        let node = self.nodes.get_mut(&id).map(|node| &mut **node)?;
        node.ctime = now;
        node.nlink = if node.is_directory() { 0 } else { node.nlink.saturating_sub(1) };
        if node.nlink > 0 {
            self.touch(id, lsn);
            return None;
        }
        node.lsn = lsn;
        node.dirty = false;
        if self.is_scratch {
            return self.reap(id);
        }
        if node.version > 0 {
            node.version += 1;
            let row = Row {
                part: node.part,
                node: id,
                lsn,
                seq: 0,
                version: u64::from(node.version),
                timestamp: 0,
                record: Record::Node(Box::new(node.record())),
            };
            self.rows.push(row);
        }
        if let Body::File(content) = &mut node.body {
            let pending = content.pending.take();
            let open = content.open_bytes();
            self.uncut_bytes -= open;
            if open > 0 && *node.references.get_mut() > 0 {
                self.unlinked_bytes += open;
                self.unlinked.insert(id);
                // Of what was to become rows, a spill needs to know where open extents begin.
                let opened = pending.map_or_else(Vec::new, |pending| pending.opened);
                content.pending = Some(Box::new(PendingContent { opened, ..PendingContent::default() }));
            }
        }
        if *node.references.get_mut() == 0 {
            self.remove(id);
        }
        None
    }

    /// Frees an unlinked node, or an old version, that nobody refers to any more. Returns the spill file that it had.
    pub(crate) fn reap(&mut self, ino: NodeId) -> Option<u32> {
        if self.thaw(ino) {
            return None;
        }
        let id = self.own_id(ino).ok()?;
        let node = self.nodes.get_mut(&id)?;
        if node.nlink > 0 || *node.references.get_mut() > 0 {
            return None;
        }
        let node = self.remove(id)?;
        self.unlinked.remove(&id);
        let Body::File(content) = &node.body else { return None };
        self.unlinked_bytes = self.unlinked_bytes.saturating_sub(content.open_bytes());
        content.pending.as_ref().and_then(|pending| pending.spill)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.rows.is_empty()
    }

    /// Nodes that a cut would take now.
    pub(crate) fn dirty_nodes(&self) -> u64 {
        (self.dirty.len() + self.rows.len()) as u64
    }

    /// Content that no data file and no spill file holds.
    pub(crate) fn content_in_memory(&self) -> ContentInMemory {
        ContentInMemory {
            uncut: self.uncut_bytes,
            cut: self.unstored_bytes,
            unspilled: self.unlinked_bytes,
            spilling: self.spilling_bytes,
        }
    }

    /// The same, bytes in all.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.content_in_memory().total()
    }

    /// The node that an id stands for which a lookup gave out.
    pub(crate) fn find(&self, ino: NodeId) -> Result<&Node, Errno> {
        let Some(inos) = &self.inos else { return self.get(ino) };
        if let Some(frozen) = inos.frozen.get(&ino) {
            return Ok(frozen);
        }
        let id = inos.node_ids.get(&ino).copied().unwrap_or(ino);
        // A node that is shown under another id by now is not found under its own.
        self.get(id).and_then(|node| if node.ino == ino { Ok(node) } else { Err(Errno::STALE) })
    }

    /// The node's own id, for changing it: an old version cannot change.
    pub(crate) fn own_id(&self, ino: NodeId) -> Result<NodeId, Errno> {
        match &self.inos {
            None => Ok(ino),
            Some(inos) if inos.frozen.contains_key(&ino) => Err(Errno::STALE),
            Some(_) => self.find(ino).map(|node| node.id),
        }
    }

    /// The id under which a node is shown.
    pub(crate) fn ino_of(&self, id: NodeId) -> NodeId {
        match &self.inos {
            None => id,
            Some(_) => self.nodes.get(&id).map_or(id, |node| node.ino),
        }
    }

    pub(crate) fn is_frozen(&self, ino: NodeId) -> bool {
        self.inos.as_ref().is_some_and(|inos| inos.frozen.contains_key(&ino))
    }

    /// Takes a node out of the tree.
    pub(crate) fn remove(&mut self, id: NodeId) -> Option<SharedNode> {
        let node = self.nodes.remove(&id)?;
        if let Some(inos) = &mut self.inos {
            inos.node_ids.remove(&node.ino);
        }
        Some(node)
    }

    /// Frees an old version that nobody refers to any more; whether the id was one's.
    pub(crate) fn thaw(&mut self, ino: NodeId) -> bool {
        let Some(inos) = &mut self.inos else { return false };
        let Some(node) = inos.frozen.get_mut(&ino) else { return false };
        if *node.references.get_mut() == 0 {
            inos.frozen.remove(&ino);
        }
        true
    }
}

/// The node row of a pond's root directory: operation 1.
pub fn root_row(now: Timestamp, uid: u32, gid: u32) -> Row {
    let record = NodeRecord {
        mode: 0o755,
        uid,
        gid,
        nlink: 2,
        next_cookie: Directory::new(NodeId::ROOT).next_cookie(),
        ..NodeRecord::new(FileType::Directory, now)
    };
    Row {
        part: NodeId::ROOT,
        node: NodeId::ROOT,
        lsn: Lsn(1),
        seq: 0,
        version: 1,
        timestamp: now.0.div_euclid(1000),
        record: Record::Node(Box::new(record)),
    }
}
pub(crate) mod extent_map;
