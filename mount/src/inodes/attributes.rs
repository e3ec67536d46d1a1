//! What `stat` shows, and for how long whoever asked may rely on it.

use pond_tinyfs::{FileType, Timestamp};

use crate::inodes::table::Ino;

/// What `stat` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attributes {
    pub(crate) ino: Ino,
    pub(crate) kind: FileType,
    /// Permission bits, without type bits.
    pub(crate) mode: u16,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// In the kernel's `new_encode_dev` form.
    pub(crate) rdev: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Units of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
}

impl Attributes {
    /// A node's, under the number by which it is known.
    #[inline]
    pub(crate) fn of(ino: Ino, node: &pond_tinyfs::Attributes) -> Self {
        Attributes {
            ino,
            kind: node.kind,
            mode: node.mode,
            nlink: node.nlink,
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: node.size,
            blocks: node.blocks,
            atime: node.atime,
            mtime: node.mtime,
            ctime: node.ctime,
        }
    }
}

/// For how long an answer may be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// Until a message takes it back.
    UntilTold,
    /// The attributes until a message takes them back; which name led to them not at all.
    Attributes,
    /// Not at all.
    Never,
}

/// What a name leads to. Whoever is given one has a reference, and gives it back by `forget`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) attributes: Attributes,
    pub(crate) keep: Keep,
    /// Tells this inode number from the same one in another mount, where numbers are not for ever.
    pub(crate) generation: u64,
}

impl Entry {
    /// One that is to be looked up again each time.
    pub(crate) fn unkept(attributes: Attributes, generation: u64) -> Self {
        Entry { attributes, keep: Keep::Never, generation }
    }
}
