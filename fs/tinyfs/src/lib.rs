//! The POSIX tree of pond: inodes, directories, permissions, rename, content by extents; in
//! memory, without I/O, testable without FUSE.
//!
//! [`TinyFs`] answers system calls from a [`Tree`]. Every change leaves [`Row`]s behind; a
//! [`Cut`] takes them as one consistent state, whoever keeps them implements
//! [`PersistenceLayer`], and [`Fold`] makes a tree of them again.
#![warn(missing_docs)]

mod access;
mod attr;
mod attributes;
mod content;
mod directory;
mod draft;
mod error;
mod extent;
mod fold;
mod fs;
mod id;
mod listing;
mod memory;
mod namespace;
mod neighbour;
mod node;
mod persistence;
mod publish;
mod publish_names;
mod relocate;
mod row;
mod shared;
mod shown;
mod stale;
mod tree;

pub use attr::{Attributes, Caller, FileType, SetAttributes, TimeOrNow, Timestamp};
pub use attributes::SetXattr;
pub use content::{Fallocate, ReadPlan, WriteFlags};
pub use draft::{Draft, OldContent};
pub use error::{Errno, Error};
pub use fold::{Fold, FoldError};
pub use fs::TinyFs;
pub use id::{Lsn, NodeId};
pub use listing::{DirEntry, Listing};
pub use memory::MemoryPersistence;
pub use namespace::{Make, RenameFlags, Renamed};
pub use persistence::{PersistenceLayer, Space, StorageError};
pub use row::{
    EntryChange, EntryOp, ExtentContent, ExtentRecord, Location, Moved, NodeRecord, Placed, Record, Row,
};
pub use stale::Stale;
pub use tree::{ContentInMemory, Cut, Tree, root_row};

/// Extended attributes of a node: names and values are bytes.
pub type Xattrs = std::collections::BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Most bytes of an extent row that is written: a small read decodes all of it.
pub const MAX_EXTENT: usize = 16 << 10;

/// Most bytes of an extent row in any pond: earlier programs wrote larger ones, which are read as they are.
pub const LARGEST_EXTENT: usize = 128 << 10;

/// Longest name of a directory entry in bytes.
pub const MAX_NAME: usize = 255;

/// The name in the root directory that mounts use for themselves.
pub const RESERVED_NAME: &[u8] = b".pond";
