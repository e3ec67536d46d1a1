//! Rows: the facts about nodes that operations leave behind and that the fold reads back.
//!
//! A row is what one journal frame or Delta commit stores; `pond-oplog` gives it its columns.

use bytes::Bytes;

use crate::{FileType, Lsn, NodeId, Timestamp, Xattrs};

/// Where a stored extent lies: the `row`th row (from 0) of data file number `file`, a number
/// that the persistence layer hands out and that means nothing outside the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Location {
    /// The persistence layer's number of the data file.
    pub file: u32,
    /// Row within the file.
    pub row: u32,
}

/// One fact about one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Home directory of the node, fixed when it was created; a directory is its own.
    pub part: NodeId,
    /// The node.
    pub node: NodeId,
    /// Operation that made the row.
    pub lsn: Lsn,
    /// Number of the row within its operation; `(lsn, seq)` is unique in a pond.
    pub seq: u32,
    /// How many node rows this node has had, this one included.
    pub version: u64,
    /// When the row was taken, microseconds since 1970 UTC.
    pub timestamp: i64,
    /// The fact.
    pub record: Record,
}

/// The kinds of facts.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// All attributes; `nlink` 0 is the node's end.
    Node(Box<NodeRecord>),
    /// Changes of a directory's entries, in their order.
    Entries(Vec<EntryChange>),
    /// Bytes of a file.
    Extent(ExtentRecord),
    /// A hole: `length` bytes from `offset`, or to the end if there is none.
    Hole {
        /// First byte.
        offset: u64,
        /// Number of bytes; `None` reaches to the end.
        length: Option<u64>,
    },
}

/// All attributes of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRecord {
    /// Kind.
    pub kind: FileType,
    /// Permission bits (`0o7777`).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links; 0 ends the node.
    pub nlink: u32,
    /// Size in bytes.
    pub size: u64,
    /// Device number.
    pub rdev: u32,
    /// Access time.
    pub atime: Timestamp,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time.
    pub ctime: Timestamp,
    /// Creation time.
    pub btime: Timestamp,
    /// Extended attributes; `None` where there are none.
    pub xattrs: Option<Xattrs>,
    /// On directories: the cookie that the next entry gets; else 0.
    pub next_cookie: u64,
    /// On dynamic nodes: the factory's name.
    pub factory: Option<Box<str>>,
    /// Symlink: the target. Dynamic node: the configuration.
    pub content: Option<Bytes>,
}

impl NodeRecord {
    /// A node of this kind that was made at this time and has nothing else yet: numbers are 0, and what it need not have is not there.
    pub fn new(kind: FileType, made: Timestamp) -> Self {
        NodeRecord {
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 0,
            size: 0,
            rdev: 0,
            atime: made,
            mtime: made,
            ctime: made,
            btime: made,
            xattrs: None,
            next_cookie: 0,
            factory: None,
            content: None,
        }
    }
}

/// What happens to a directory entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryOp {
    /// The name now stands for this child, whatever it stood for before.
    Insert,
    /// The name is gone.
    Remove,
    /// Opens a snapshot: all entries before this are gone. Name, child and cookie say nothing.
    Reset,
}

impl EntryOp {
    /// The word the table stores.
    pub fn name(self) -> &'static str {
        match self {
            EntryOp::Insert => "insert",
            EntryOp::Remove => "remove",
            EntryOp::Reset => "reset",
        }
    }

    /// Reads the word the table stores.
    pub fn from_name(name: &str) -> Option<Self> {
        [EntryOp::Insert, EntryOp::Remove, EntryOp::Reset].into_iter().find(|op| op.name() == name)
    }
}

/// One change of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryChange {
    /// Name: any bytes but NUL and `/`, at most 255.
    pub name: Box<[u8]>,
    /// The node that the name stands (or stood) for.
    pub child: NodeId,
    /// Kind of that node.
    pub kind: FileType,
    /// The entry's readdir cookie, never reused within its directory.
    pub cookie: u64,
    /// What happened.
    pub op: EntryOp,
}

/// Bytes of a file: at most [`LARGEST_EXTENT`](crate::LARGEST_EXTENT), and [`MAX_EXTENT`](crate::MAX_EXTENT) where this
/// program writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtentRecord {
    /// Position of the first byte in the file.
    pub offset: u64,
    /// Number of bytes, at least 1.
    pub length: u32,
    /// The bytes or where they lie.
    pub content: ExtentContent,
}

/// The bytes of an extent or where they lie.
#[derive(Clone, Debug, PartialEq)]
pub enum ExtentContent {
    /// In memory.
    Memory(Bytes),
    /// In a data file.
    Stored(Location),
}

/// Tells TinyFS that a stored extent row was written anew in another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The file.
    pub node: NodeId,
    /// First byte of the row in the file.
    pub offset: u64,
    /// Number of bytes of the row.
    pub length: u32,
    /// Where they lay.
    pub from: Location,
    /// Where they lie too, from now on.
    pub to: Location,
}

/// Tells TinyFS where the bytes of an extent row that it gave out now lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The file.
    pub node: NodeId,
    /// The row's operation.
    pub lsn: Lsn,
    /// The row's number within it.
    pub seq: u32,
    /// First byte of the row in the file.
    pub offset: u64,
    /// Number of bytes of the row.
    pub length: u32,
    /// Where they lie.
    pub location: Location,
}
