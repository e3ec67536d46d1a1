//! Attributes, extended ones, and what `statfs` tells.

use pond_tinyfs::{MAX_NAME, SetAttributes, SetXattr};

use crate::inodes::attributes::{Attributes, Keep};
use crate::inodes::table::{Ino, Object};
use crate::service::Service;
use crate::service::answer::Outcome;
use crate::service::backing::Backing;
use crate::service::old::{self, Readable};
use crate::service::request::Request;

/// The preferred size of a request, and the unit in which space is counted, bytes.
pub(crate) const BLOCK_SIZE: u32 = 4096;

/// What `statfs` tells; space in units of [`BLOCK_SIZE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) free: u64,
    /// To others than root.
    pub(crate) available: u64,
    /// Files that there are and that fit.
    pub(crate) files: u64,
    /// Bytes.
    pub(crate) longest_name: u32,
}

impl<B: Backing> Service<B> {
    /// What `stat` shows.
    #[inline]
    pub(crate) fn getattr(&self, by: Request, ino: Ino) -> Outcome<(Attributes, Keep)> {
        match self.inodes.find(ino)? {
            Object::Node(id) => {
                self.coherence.show(id, by.thread);
                Ok((Attributes::of(ino, &self.fs().getattr(id)?), Keep::UntilTold))
            }
            Object::OwnDirectory => Ok((self.own.directory(), Keep::Never)),
            Object::Snapshot(snapshot) => Ok((self.own.stat(ino, &snapshot), Keep::Never)),
            Object::Versions => Ok((self.own.versions(self.backing.versions_changed()), Keep::Never)),
            Object::Listed(_) => Ok((self.own.listed(ino), Keep::Never)),
            Object::Old(node) => {
                node.version.touch();
                Ok((old::attributes(ino, &node.version.fs.getattr(node.id)?), Keep::UntilTold))
            }
        }
    }

    /// Changes attributes; what `stat` shows then.
    pub(crate) fn setattr(&self, by: Request, ino: Ino, change: &SetAttributes) -> Outcome<Attributes> {
        let id = self.changeable(ino)?;
        self.coherence.show(id, by.thread);
        Ok(Attributes::of(ino, &self.fs().setattr(&by.caller(), id, change)?))
    }

    /// Sets an extended attribute.
    pub(crate) fn setxattr(
        &self,
        by: Request,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        how: SetXattr,
    ) -> Outcome<()> {
        let id = self.changeable(ino)?;
        let set = self.fs().setxattr(&by.caller(), id, name, value, how);
        self.changed(by, &set, [id]);
        set
    }

    /// An extended attribute's value.
    pub(crate) fn getxattr(&self, ino: Ino, name: &[u8]) -> Outcome<Vec<u8>> {
        match self.readable(ino)? {
            Readable::Live(fs, id) => fs.getxattr(id, name),
            Readable::Old(node) => old::getxattr(&node, name),
        }
    }

    /// The names of the extended attributes that who asks may see, each with a zero after it.
    pub(crate) fn listxattr(&self, by: Request, ino: Ino) -> Outcome<Vec<u8>> {
        match self.readable(ino)? {
            Readable::Live(fs, id) => fs.listxattr(&by.caller(), id),
            Readable::Old(node) => {
                node.version.fs.listxattr(&by.caller(), node.id).map(old::without_capability)
            }
        }
    }

    /// Removes an extended attribute.
    pub(crate) fn removexattr(&self, by: Request, ino: Ino, name: &[u8]) -> Outcome<()> {
        let id = self.changeable(ino)?;
        let removed = self.fs().removexattr(&by.caller(), id, name);
        self.changed(by, &removed, [id]);
        removed
    }

    /// The space of the whole.
    pub(crate) fn statfs(&self) -> Space {
        let space = self.fs().statfs();
        let block = u64::from(BLOCK_SIZE);
        let available = space.available / block;
        Space {
            total: space.total / block,
            free: space.free / block,
            available,
            // A file needs no inode from a table: as many more fit as there are blocks.
            files: self.fs().node_count() + available,
            longest_name: MAX_NAME as u32,
        }
    }
}
