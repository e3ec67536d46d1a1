//! A node of the tree: attributes in memory, compact, and the body that its kind has.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::tree::directory::Directory;
use crate::tree::extent::Source;
use crate::tree::extent_map::ExtentMap;
use crate::{Attributes, Errno, FileType, Lsn, NodeId, NodeRecord, Timestamp, Xattrs};

/// Sizes of blocks that `st_blocks` is rounded to.
const BLOCK: u64 = 4096;

/// So many pending holes are searched for those that a new one covers.
const FEW_HOLES: usize = 64;
/// A list of so many open extents is not looked through for those that are gone.
const FEW_OPENED: usize = 1024;

/// A hole that was made since the last cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PendingHole {
    pub(crate) lsn: Lsn,
    pub(crate) offset: u64,
    pub(crate) length: Option<u64>,
}

impl PendingHole {
    fn end(&self) -> u64 {
        self.length.map_or(u64::MAX, |length| self.offset.saturating_add(length))
    }

    fn covers(&self, other: &PendingHole) -> bool {
        self.offset <= other.offset && self.end() >= other.end()
    }
}

/// What changed in a file's content since the last cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct PendingContent {
    pub(crate) holes: Vec<PendingHole>,
    /// Offsets at which open extents were put; some may be gone or have moved.
    pub(crate) opened: Vec<u64>,
    /// Of an unlinked file, which leaves no rows: the persistence layer's number of its spill file.
    pub(crate) spill: Option<u32>,
}

impl PendingContent {
    /// Notes a hole. Older ones within it say nothing any more; they are looked for while that is quick, and when
    /// the file is truncated, which programs do over and over.
    pub(crate) fn note_hole(&mut self, hole: PendingHole) {
        if hole.length.is_none() || self.holes.len() < FEW_HOLES {
            self.holes.retain(|older| !hole.covers(older));
        }
        self.holes.push(hole);
    }
}

/// A regular file's content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) extents: ExtentMap,
    /// Bytes that the extents cover.
    pub(crate) allocated: u64,
    pub(crate) pending: Option<Box<PendingContent>>,
}

impl Content {
    /// Notes where open extents were put. The list is looked through each time it has doubled, so that a file which is written and
    /// cut over and over without being stored keeps none that are gone.
    pub(crate) fn note_opened(&mut self, mut new: Vec<u64>) {
        if new.is_empty() {
            return;
        }
        let opened = &mut self.pending.get_or_insert_default().opened;
        if opened.len() + new.len() > opened.capacity().max(FEW_OPENED) {
            opened.sort_unstable();
            opened.dedup();
            opened.retain(|at| self.extents.is_open_at(*at));
            opened.reserve(opened.len() + new.len());
        }
        opened.append(&mut new);
    }

    /// Bytes of the file that no row holds.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.extents
            .iter()
            .filter(|(_, extent)| matches!(extent.source, Source::Open(_)))
            .map(|(_, extent)| u64::from(extent.length))
            .sum()
    }
}

/// A factory and its configuration.
#[derive(Clone, Debug)]
pub(crate) struct Dynamic {
    pub(crate) factory: Box<str>,
    pub(crate) configuration: Bytes,
}

/// What a node has beside attributes.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    File(Content),
    Directory(Box<Directory>),
    Symlink(Box<[u8]>),
    Special,
    Dynamic(Box<Dynamic>),
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// The id that lookups give out.
    pub(crate) ino: NodeId,
    pub(crate) part: NodeId,
    /// The last operation that changed the attributes.
    pub(crate) lsn: Lsn,
    pub(crate) size: u64,
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) btime: Timestamp,
    /// How often the kernel and others hold this node.
    pub(crate) references: AtomicU64,
    pub(crate) xattrs: Option<Box<Xattrs>>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) rdev: u32,
    /// How many node rows were given out.
    pub(crate) version: u32,
    pub(crate) mode: u16,
    pub(crate) kind: FileType,
    /// Whether the node stands in the list of nodes to cut.
    pub(crate) dirty: bool,
    pub(crate) body: Body,
}

impl Clone for Node {
    /// A tree clones a node which it shares with others when it is about to change it: who refers to the tree's node then refers to
    /// the copy.
    fn clone(&self) -> Self {
        let references = AtomicU64::new(self.references.load(Ordering::Acquire));
        Node { references, ..self.copy(self.body.clone()) }
    }
}

impl Node {
    /// A node as its row tells it; its body is still empty.
    pub(crate) fn from_record(id: NodeId, part: NodeId, lsn: Lsn, version: u64, record: NodeRecord) -> Self {
        let body = match record.kind {
            FileType::File => Body::File(Content::default()),
            FileType::Directory => Body::Directory(Box::new(Directory::new(NodeId::ROOT))),
            FileType::Symlink => Body::Symlink(record.content.as_deref().unwrap_or_default().into()),
            FileType::Dynamic => Body::Dynamic(Box::new(Dynamic {
                factory: record.factory.clone().unwrap_or_default(),
                configuration: record.content.clone().unwrap_or_default(),
            })),
            _ => Body::Special,
        };
        let mut node = Node {
            id,
            ino: id,
            part,
            lsn,
            size: 0,
            atime: record.atime,
            mtime: record.mtime,
            ctime: record.ctime,
            btime: record.btime,
            references: AtomicU64::new(0),
            xattrs: None,
            uid: 0,
            gid: 0,
            nlink: 0,
            rdev: record.rdev,
            version: 0,
            mode: 0,
            kind: record.kind,
            dirty: false,
            body,
        };
        node.update(lsn, version, record);
        node
    }

    /// The same node once more with this body, for changing it where nobody sees it yet. Nobody refers to the copy.
    pub(crate) fn copy(&self, body: Body) -> Self {
        Node { references: AtomicU64::new(0), xattrs: self.xattrs.clone(), body, ..*self }
    }

    /// Takes the attributes of a later row.
    pub(crate) fn update(&mut self, lsn: Lsn, version: u64, record: NodeRecord) {
        self.lsn = lsn;
        self.version = u32::try_from(version).unwrap_or(u32::MAX);
        self.size = record.size;
        self.atime = record.atime;
        self.mtime = record.mtime;
        self.ctime = record.ctime;
        self.uid = record.uid;
        self.gid = record.gid;
        self.nlink = record.nlink;
        self.mode = record.mode;
        self.xattrs = record.xattrs.map(Box::new);
        match (&mut self.body, record.content) {
            (Body::Symlink(target), Some(content)) => *target = (&*content).into(),
            (Body::Dynamic(dynamic), Some(content)) => dynamic.configuration = content,
            _ => {}
        }
    }

    /// The row that tells all of this node's attributes.
    pub(crate) fn record(&self) -> NodeRecord {
        let (content, factory, next_cookie) = match &self.body {
            Body::Symlink(target) => (Some(Bytes::copy_from_slice(target)), None, 0),
            Body::Dynamic(dynamic) => (Some(dynamic.configuration.clone()), Some(dynamic.factory.clone()), 0),
            Body::Directory(directory) => (None, None, directory.next_cookie()),
            _ => (None, None, 0),
        };
        NodeRecord {
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size: self.size,
            rdev: self.rdev,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            xattrs: self.xattrs.as_deref().cloned(),
            next_cookie,
            factory,
            content,
        }
    }

    pub(crate) fn attributes(&self) -> Attributes {
        let size = match &self.body {
            Body::Directory(directory) => directory.len() as u64 * 32,
            _ => self.size,
        };
        let allocated = match &self.body {
            Body::File(content) => content.allocated,
            Body::Directory(_) => size,
            _ => 0,
        };
        Attributes {
            id: self.ino,
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size,
            blocks: allocated.div_ceil(BLOCK) * (BLOCK / 512),
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
        }
    }

    pub(crate) fn directory(&self) -> Result<&Directory, Errno> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn directory_mut(&mut self) -> Result<&mut Directory, Errno> {
        match &mut self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn content(&self) -> Result<&Content, Errno> {
        match &self.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::ISDIR),
            Body::Dynamic(_) => Err(Errno::PERM),
            _ => Err(Errno::INVAL),
        }
    }

    pub(crate) fn content_mut(&mut self) -> Result<&mut Content, Errno> {
        match &mut self.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::ISDIR),
            Body::Dynamic(_) => Err(Errno::PERM),
            _ => Err(Errno::INVAL),
        }
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }
}

impl Node {
    pub(crate) fn refer(&self) {
        self.references.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives references back; says how many there were.
    pub(crate) fn release(&self, n: u64) -> u64 {
        self.references
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| Some(held.saturating_sub(n)))
            .unwrap_or(0)
    }
}
