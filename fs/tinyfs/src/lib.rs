//! The POSIX tree of pond: inodes, directories, permissions, rename, content by extents; in
//! memory, without I/O, testable without FUSE.
//!
//! [`TinyFs`] answers system calls from a [`Tree`]. Every change leaves [`Row`]s behind; a
//! [`Cut`] takes them as one consistent state, whoever keeps them implements
//! [`PersistenceLayer`], and [`Fold`] makes a tree of them again.
#![warn(missing_docs)]

mod fold;
mod fs;
mod memory;
mod operations;
mod persistence;
mod transaction;
mod tree;
mod types;

pub use fold::neighbour::Later;
pub use fold::{Fold, FoldError};
pub use fs::TinyFs;
pub use memory::MemoryPersistence;
pub use operations::attributes::SetXattr;
pub use operations::content::{Fallocate, ReadPlan, WriteFlags};
pub use operations::draft::{Draft, OldContent};
pub use operations::listing::{DirEntry, Listing};
pub use operations::make::Make;
pub use operations::rename::{RenameFlags, Renamed};
pub use operations::since::Since;
pub use persistence::{PersistenceLayer, Space, StorageError};
pub use transaction::apply::PublishedChanges;
pub use transaction::changes::Changes;
pub use transaction::conflict::{Clash, Conflict, NotPublished};
pub use tree::cut::Cut;
pub use tree::{ContentInMemory, Tree, root_row};
pub use types::advice::Advise;
pub use types::attr::{Attributes, Caller, FileType, SetAttributes, TimeOrNow, Timestamp, Xattrs};
pub use types::error::{Errno, Error};
pub use types::id::{Lsn, NodeId};
pub use types::limits::{LARGEST_EXTENT, MAX_EXTENT, MAX_NAME, RESERVED_NAME};
pub use types::row::{
    EntryChange, EntryOp, ExtentContent, ExtentRecord, Location, Moved, NodeRecord, Placed, Record, Row,
};
pub use types::stale::Stale;
