//! Making nodes and links. All is checked before the first change, so that nothing fails half-way.

use bytes::Bytes;

use crate::operations::access::{self, EXECUTE, SET_GID, WRITE};
use crate::operations::names::check_new_name;
use crate::tree::node::Node;
use crate::types::limits::MAX_LINKS;
use crate::{Attributes, Caller, Errno, Error, FileType, NodeId, NodeRecord, Timestamp, TinyFs};

/// Longest symlink target in bytes: `PATH_MAX` less the terminating NUL.
const MAX_TARGET: usize = 4095;

/// What to make. Modes are permission bits with the umask applied.
#[derive(Clone, Copy, Debug)]
pub enum Make<'a> {
    /// An empty regular file.
    File {
        /// Permission bits.
        mode: u16,
    },
    /// An empty directory.
    Directory {
        /// Permission bits.
        mode: u16,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points: any bytes but NUL, 1 to 4095 of them.
        target: &'a [u8],
    },
    /// A fifo, socket or device node.
    Special {
        /// Which of them.
        kind: FileType,
        /// Permission bits.
        mode: u16,
        /// Device number; 0 where there is none.
        rdev: u32,
    },
    /// A factory's node.
    Dynamic {
        /// The factory's name.
        factory: &'a str,
        /// Its configuration.
        configuration: &'a [u8],
        /// Permission bits.
        mode: u16,
    },
}

impl TinyFs {
    /// Makes a node under a name that is free.
    pub fn make(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        what: Make<'_>,
    ) -> Result<Attributes, Error> {
        let (kind, mut mode, rdev, content) = match what {
            Make::File { mode } => (FileType::File, mode, 0, None),
            Make::Directory { mode } => (FileType::Directory, mode, 0, None),
            Make::Symlink { target } => {
                if target.is_empty() {
                    return Err(Errno::NOENT.into());
                }
                if target.len() > MAX_TARGET {
                    return Err(Errno::NAMETOOLONG.into());
                }
                (FileType::Symlink, 0o777, 0, Some(target))
            }
            Make::Special { kind, mode, rdev } => (kind, mode, rdev, None),
            Make::Dynamic { mode, configuration, .. } => (FileType::Dynamic, mode, 0, Some(configuration)),
        };
        let factory = match what {
            Make::Dynamic { factory, .. } => Some(factory.into()),
            _ => None,
        };
        let mut tree = self.grow(content.map_or(0, |content| content.len() as u64))?;
        let now = Timestamp::now();
        let directory = tree.live_directory(parent)?;
        if name != b"." && name != b".." && tree.child(directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        check_new_name(parent, name)?;
        access::permit(caller, directory, WRITE | EXECUTE)?;
        let is_directory = kind == FileType::Directory;
        if is_directory && directory.nlink >= MAX_LINKS {
            return Err(Errno::MLINK.into());
        }
        let mut gid = caller.gid;
        if directory.mode & SET_GID != 0 {
            gid = directory.gid;
            if is_directory {
                mode |= SET_GID;
            }
        }
        let id = tree.new_id()?;

        let lsn = tree.begin();
        let record = NodeRecord {
            mode: mode & 0o7777,
            uid: caller.uid,
            gid,
            nlink: if is_directory { 2 } else { 1 },
            size: content.map_or(0, |content| content.len() as u64),
            rdev,
            factory,
            content: content.map(Bytes::copy_from_slice),
            ..NodeRecord::new(kind, now)
        };
        let part = if is_directory { id } else { parent };
        let node = Node::from_record(id, part, lsn, 0, record);
        node.refer();
        let attributes = node.attributes();
        tree.add(node);
        tree.set_parent(id, parent);
        if let Ok(directory) = tree.get_mut(parent)?.directory_mut() {
            directory.insert(name, id, kind);
        }
        tree.entry_changed(parent, lsn, now, i32::from(is_directory));
        Ok(attributes)
    }

    /// Gives a node one more name.
    pub fn link(
        &self,
        caller: &Caller,
        id: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<Attributes, Error> {
        let mut tree = self.grow(0)?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        let directory = tree.live_directory(parent)?;
        if name != b"." && name != b".." && tree.child(directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        check_new_name(parent, name)?;
        if node.is_directory() {
            return Err(Errno::PERM.into());
        }
        if node.nlink == 0 {
            return Err(Errno::NOENT.into());
        }
        if node.nlink >= MAX_LINKS {
            return Err(Errno::MLINK.into());
        }
        access::permit(caller, directory, WRITE | EXECUTE)?;
        let kind = node.kind;

        let lsn = tree.begin();
        let node = tree.get_mut(id)?;
        node.nlink += 1;
        node.ctime = now;
        node.refer();
        let attributes = node.attributes();
        tree.touch(id, lsn);
        tree.get_mut(parent)?.directory_mut()?.insert(name, id, kind);
        tree.entry_changed(parent, lsn, now, 0);
        Ok(attributes)
    }
}
