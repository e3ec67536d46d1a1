//! The nodes and what changed since the last cut. Knows nothing of names' rules or permissions.

use std::collections::BTreeSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;

use bytes::Bytes;
use hashbrown::HashMap;

use crate::directory::Directory;
use crate::extent::{ExtentMap, Source};
use crate::node::{Body, Content, Node, PendingContent, PendingCut};
use crate::shared::SharedNode;
use crate::shown::Versions;
use crate::{
    Errno, ExtentContent, ExtentRecord, FileType, Lsn, NodeId, NodeRecord, Placed, Record, Row, Timestamp,
};

/// Hashes node ids: they are random already, one multiplication spreads the root's.
#[derive(Default, Clone, Copy)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming 6.4).
        self.0 = (self.0 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(crate) type NodeMap = HashMap<NodeId, SharedNode, BuildHasherDefault<IdHasher>>;

/// All nodes, in memory.
#[derive(Debug, Default)]
pub struct Tree {
    pub(crate) nodes: NodeMap,
    pub(crate) last_lsn: Lsn,
    /// Nodes with changes that no cut has taken, in the order of their first change.
    dirty: Vec<NodeId>,
    /// Rows of nodes that ended since the last cut.
    ended: Vec<Row>,
    /// Content bytes that no cut has taken.
    pub(crate) uncut_bytes: u64,
    /// Content bytes that a cut has taken and no commit has stored.
    pub(crate) unstored_bytes: u64,
    /// Content bytes of unlinked files that no spill has taken.
    pub(crate) unlinked_bytes: u64,
    /// Content bytes of unlinked files on their way to a spill file.
    pub(crate) spilling_bytes: u64,
    /// The unlinked files that they are in; some may be gone.
    unlinked: BTreeSet<NodeId>,
    /// The one of them that a spill took last.
    last_unlinked: Option<NodeId>,
    /// Ids that lookups gave out, once a publish has made some that differ from those of their nodes.
    pub(crate) versions: Option<Box<Versions>>,
}

/// Bytes of an unlinked file on their way to its spill file.
#[derive(Debug)]
pub(crate) struct Spilling {
    /// The file.
    pub(crate) node: NodeId,
    /// The persistence layer's number of its spill file, if it has one already.
    pub(crate) spill: Option<u32>,
    /// Offset, bytes and last operation of each extent.
    pub(crate) pieces: Vec<(u64, Bytes, Lsn)>,
}

impl Spilling {
    /// How many they are.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, data, _)| data.len() as u64).sum()
    }
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

/// Rows that make a consistent state: all operations up to `cut_lsn`, nothing of later ones.
#[derive(Debug)]
pub struct Cut {
    /// The rows since the cut before, sorted by `(lsn, seq)`.
    pub rows: Vec<Row>,
    /// The last operation of this cut.
    pub cut_lsn: Lsn,
    /// Bytes of content and of extended attributes in the rows.
    pub bytes: u64,
}

impl Tree {
    /// A tree of the same nodes, of which nothing waits to be stored.
    pub(crate) fn share(&self) -> Tree {
        Tree { nodes: self.nodes.clone(), last_lsn: self.last_lsn, ..Tree::default() }
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
            let is_shown = |id: &NodeId| self.versions.is_some() && self.find(*id).is_ok();
            if let Some(id) = candidate.filter(|id| is_free(id) && !is_shown(id)) {
                return Ok(id);
            }
        }
    }

    pub(crate) fn add(&mut self, node: Node) {
        let id = node.id;
        self.nodes.insert(id, SharedNode::new(node));
        if let Some(node) = self.nodes.get_mut(&id) {
            node.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Notes that a node changed in this operation.
    pub(crate) fn touch(&mut self, id: NodeId, lsn: Lsn) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.lsn = lsn;
            // What happens to an unlinked node leaves no rows.
            if !node.dirty && node.nlink > 0 {
                node.dirty = true;
                self.dirty.push(id);
            }
        }
    }

    /// Takes a link from a node; the last one ends it, for the table at least: in memory it
    /// lives on while it is referred to.
    pub(crate) fn drop_link(&mut self, id: NodeId, lsn: Lsn, now: Timestamp) {
        let Some(node) = self.nodes.get_mut(&id).map(|node| &mut **node) else { return };
        node.ctime = now;
        node.nlink = if node.is_directory() { 0 } else { node.nlink.saturating_sub(1) };
        if node.nlink > 0 {
            return self.touch(id, lsn);
        }
        node.lsn = lsn;
        node.dirty = false;
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
            self.ended.push(row);
        }
        if let Body::File(content) = &mut node.body {
            let pending = content.pending.take();
            let open = open_bytes(content);
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
    }

    /// Frees an unlinked node, or an old version, that nobody refers to any more. Returns the spill file that it had.
    pub(crate) fn reap(&mut self, shown: NodeId) -> Option<u32> {
        if self.thaw(shown) {
            return None;
        }
        let id = self.own_id(shown).ok()?;
        let node = self.nodes.get_mut(&id)?;
        if node.nlink > 0 || *node.references.get_mut() > 0 {
            return None;
        }
        let node = self.remove(id)?;
        self.unlinked.remove(&id);
        let Body::File(content) = &node.body else { return None };
        self.unlinked_bytes = self.unlinked_bytes.saturating_sub(open_bytes(content));
        content.pending.as_ref().and_then(|pending| pending.spill)
    }

    fn unlinked_content(&mut self, id: NodeId) -> Option<&mut Content> {
        match self.nodes.get_mut(&id).map(|node| &mut **node) {
            Some(Node { nlink: 0, body: Body::File(content), .. }) => Some(content),
            _ => None,
        }
    }

    /// Takes one of the unlinked files that have open bytes out of their set: after the last one, so that one that cannot be
    /// spilled keeps none of the others in memory.
    fn next_unlinked(&mut self) -> Option<NodeId> {
        let after = self.last_unlinked.map_or(Bound::Unbounded, Bound::Excluded);
        let next =
            self.unlinked.range((after, Bound::Unbounded)).next().or(self.unlinked.first()).copied()?;
        self.unlinked.remove(&next);
        self.last_unlinked = Some(next);
        Some(next)
    }

    /// Takes the open bytes of the next unlinked file that has any, to be written to its spill file.
    pub(crate) fn take_for_spill(&mut self) -> Option<Spilling> {
        while let Some(node) = self.next_unlinked() {
            let Some(content) = self.unlinked_content(node) else { continue };
            let opened = content.pending.as_mut().map(|pending| std::mem::take(&mut pending.opened));
            let pieces = content.extents.hold_open(opened.unwrap_or_default());
            if pieces.is_empty() {
                continue;
            }
            let spill = content.pending.as_ref().and_then(|pending| pending.spill);
            let spilling = Spilling { node, spill, pieces };
            self.spilling_bytes = spilling.bytes();
            self.unlinked_bytes = self.unlinked_bytes.saturating_sub(self.spilling_bytes);
            return Some(spilling);
        }
        None
    }

    /// Notes that these bytes are in this spill file. False if the node is gone, and the spill file without use.
    pub(crate) fn spilled(&mut self, spilling: &Spilling, spill: u32) -> bool {
        self.spilling_bytes = 0;
        let Some(content) = self.unlinked_content(spilling.node) else { return false };
        content.pending.get_or_insert_default().spill = Some(spill);
        for (offset, data, lsn) in &spilling.pieces {
            content.extents.settle_spilled(*offset, data.len() as u32, *lsn, spill);
        }
        true
    }

    /// Takes bytes back that could not be spilled. False if the node is gone.
    pub(crate) fn not_spilled(&mut self, spilling: &Spilling) -> bool {
        self.spilling_bytes = 0;
        let Some(content) = self.unlinked_content(spilling.node) else { return false };
        // What came meanwhile is counted already.
        let (mut opened, mut bytes) = (Vec::new(), 0);
        for (offset, data, lsn) in &spilling.pieces {
            bytes += content.extents.reopen(*offset, data.len() as u32, *lsn, &mut opened);
        }
        content.note_opened(opened);
        self.unlinked_bytes += bytes;
        self.unlinked.insert(spilling.node);
        true
    }

    /// Writes bytes into a file and keeps the accounts. The file exists and is one.
    pub(crate) fn put(&mut self, id: NodeId, offset: u64, data: &[u8], lsn: Lsn) -> Result<(), Errno> {
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        let orphan = node.nlink == 0;
        let content = node.content_mut()?;
        let mut opened = Vec::new();
        let change = content.extents.write(offset, data, lsn, &mut opened);
        content.allocated = content.allocated.saturating_add_signed(change.allocated);
        content.note_opened(opened);
        if orphan {
            self.unlinked_bytes = self.unlinked_bytes.saturating_add_signed(change.open);
            if change.open > 0 {
                self.unlinked.insert(id);
            }
        } else {
            self.uncut_bytes = self.uncut_bytes.saturating_add_signed(change.open);
        }
        Ok(())
    }

    /// Gives open extents of so many bytes to a file in the place of those that it has, and keeps the accounts.
    pub(crate) fn exchange(
        &mut self,
        id: NodeId,
        extents: ExtentMap,
        opened: Vec<u64>,
        bytes: u64,
        lsn: Lsn,
    ) -> Result<ExtentMap, Errno> {
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        let orphan = node.nlink == 0;
        let content = node.content_mut()?;
        let before = open_bytes(content);
        let old = std::mem::replace(&mut content.extents, extents);
        content.allocated = bytes;
        let pending = content.pending.get_or_insert_default();
        pending.opened = opened;
        if orphan {
            self.unlinked_bytes = self.unlinked_bytes.saturating_sub(before) + bytes;
            self.unlinked.insert(id);
        } else {
            pending.cut(PendingCut { lsn, offset: 0, length: None });
            self.uncut_bytes = self.uncut_bytes.saturating_sub(before) + bytes;
        }
        Ok(old)
    }

    /// Makes a hole in a file and keeps the accounts; `None` reaches to the end.
    pub(crate) fn punch(
        &mut self,
        id: NodeId,
        offset: u64,
        length: Option<u64>,
        lsn: Lsn,
    ) -> Result<(), Errno> {
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        let orphan = node.nlink == 0;
        let content = node.content_mut()?;
        let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
        let mut opened = Vec::new();
        let change = content.extents.carve(offset, end, &mut opened);
        content.allocated = content.allocated.saturating_add_signed(change.allocated);
        content.note_opened(opened);
        if orphan {
            self.unlinked_bytes = self.unlinked_bytes.saturating_add_signed(change.open);
        } else {
            let pending = content.pending.get_or_insert_default();
            pending.cut(PendingCut { lsn, offset, length });
            self.uncut_bytes = self.uncut_bytes.saturating_add_signed(change.open);
        }
        Ok(())
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.ended.is_empty()
    }

    /// Nodes that a cut would take now.
    pub(crate) fn dirty_nodes(&self) -> u64 {
        (self.dirty.len() + self.ended.len()) as u64
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

    /// Takes all that changed since the last cut.
    pub(crate) fn cut(&mut self, timestamp: i64) -> Cut {
        let mut rows = std::mem::take(&mut self.ended);
        for id in std::mem::take(&mut self.dirty) {
            let Some(node) = self.nodes.get_mut(&id).filter(|node| node.dirty) else { continue };
            node.dirty = false;
            node.version += 1;
            let (part, lsn, version) = (node.part, node.lsn, u64::from(node.version));
            let row = |lsn, record| Row { part, node: id, lsn, seq: 0, version, timestamp, record };
            match &mut node.body {
                Body::Directory(directory) if directory.is_changed() => {
                    let changes = directory.take_changes();
                    if !changes.is_empty() {
                        rows.push(row(lsn, Record::Entries(changes)));
                    }
                }
                Body::File(content) => {
                    if let Some(pending) = content.pending.take() {
                        take_content(content, *pending, |lsn, record| rows.push(row(lsn, record)));
                    }
                }
                _ => {}
            }
            rows.push(row(lsn, Record::Node(Box::new(node.record()))));
        }
        self.number(&mut rows, timestamp);
        self.hold(&rows);
        self.unstored_bytes += self.uncut_bytes;
        let bytes = std::mem::take(&mut self.uncut_bytes) + xattr_bytes(&rows);
        Cut { rows, cut_lsn: self.last_lsn, bytes }
    }

    /// Sorts rows and gives those of one operation their numbers.
    fn number(&self, rows: &mut [Row], timestamp: i64) {
        let rank = |record: &Record| match record {
            Record::Cut { .. } => 0,
            Record::Extent(_) => 1,
            Record::Entries(_) => 2,
            Record::Node(_) => 3,
        };
        rows.sort_by_key(|row| (row.lsn, rank(&row.record)));
        let mut before = Lsn(0);
        let mut seq = 0;
        for row in rows {
            seq = if row.lsn == before { seq + 1 } else { 0 };
            before = row.lsn;
            row.seq = seq;
            row.timestamp = timestamp;
        }
    }

    /// Lets the tree share the bytes of the extent rows that were just taken.
    fn hold(&mut self, rows: &[Row]) {
        for row in rows {
            let Record::Extent(ExtentRecord { offset, content: ExtentContent::Memory(data), .. }) =
                &row.record
            else {
                continue;
            };
            if let Some(node) = self.nodes.get_mut(&row.node)
                && let Body::File(content) = &mut node.body
                && let Some(extent) = content.extents.get_mut(*offset)
            {
                *extent = crate::extent::Extent::held(data.clone(), row.lsn, row.seq);
            }
        }
    }

    /// The bytes of these rows are in the table: memory may let go of them.
    pub(crate) fn stored(&mut self, placed: &[Placed]) {
        for place in placed {
            self.unstored_bytes = self.unstored_bytes.saturating_sub(u64::from(place.length));
            if let Some(node) = self.nodes.get_mut(&place.node)
                && let Body::File(content) = &mut node.body
            {
                content.extents.settle(place.offset, place.length, place.lsn, place.seq, place.location);
            }
        }
    }
}

/// Bytes of a file that no row holds.
fn open_bytes(content: &Content) -> u64 {
    content
        .extents
        .iter()
        .filter(|(_, extent)| matches!(extent.source, Source::Open(_)))
        .map(|(_, extent)| u64::from(extent.length))
        .sum()
}

fn xattr_bytes(rows: &[Row]) -> u64 {
    let xattrs = rows.iter().filter_map(|row| match &row.record {
        Record::Node(node) => node.xattrs.as_ref(),
        _ => None,
    });
    xattrs.flatten().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// Turns the pending content of one file into rows, and moves the bytes of its open extents into them.
fn take_content(content: &mut Content, mut pending: PendingContent, mut push: impl FnMut(Lsn, Record)) {
    for cut in pending.cuts {
        push(cut.lsn, Record::Cut { offset: cut.offset, length: cut.length });
    }
    pending.opened.sort_unstable();
    pending.opened.dedup();
    for offset in pending.opened {
        let Some(extent) = content.extents.get_mut(offset) else { continue };
        if let Source::Open(open) = &mut extent.source {
            let data = std::mem::take(&mut open.data);
            let lsn = open.lsn;
            let length = extent.length;
            let bytes = Bytes::from(data);
            push(lsn, Record::Extent(ExtentRecord { offset, length, content: ExtentContent::Memory(bytes) }));
        }
    }
}

/// The node row of a pond's root directory: operation 1.
pub fn root_row(now: Timestamp, uid: u32, gid: u32) -> Row {
    let record = NodeRecord {
        kind: FileType::Directory,
        mode: 0o755,
        uid,
        gid,
        nlink: 2,
        size: 0,
        rdev: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        xattrs: None,
        next_cookie: Directory::new(NodeId::ROOT).next_cookie(),
        factory: None,
        content: None,
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
