//! Names: which are allowed, and what all operations on them ask of the tree.

use crate::tree::node::Node;
use crate::{Errno, MAX_NAME, NodeId, RESERVED_NAME, Timestamp, Tree};

pub(crate) fn check_name(parent: NodeId, name: &[u8]) -> Result<(), Errno> {
    if name.len() > MAX_NAME {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    if parent == NodeId::ROOT && name == RESERVED_NAME {
        return Err(Errno::PERM);
    }
    Ok(())
}

/// A new name must not be one of the two that every directory has.
pub(crate) fn check_new_name(parent: NodeId, name: &[u8]) -> Result<(), Errno> {
    if name == b"." || name == b".." {
        return Err(Errno::EXIST);
    }
    check_name(parent, name)
}

impl Tree {
    /// The directory, if it still has a place in the tree.
    pub(crate) fn live_directory(&self, id: NodeId) -> Result<&Node, Errno> {
        let node = self.get(id)?;
        node.directory()?;
        if node.nlink == 0 { Err(Errno::NOENT) } else { Ok(node) }
    }

    pub(crate) fn child(&self, parent: &Node, name: &[u8]) -> Result<Option<&Node>, Errno> {
        match parent.directory()?.get(name) {
            Some(entry) => Ok(Some(self.get(entry.child)?)),
            None => Ok(None),
        }
    }

    pub(crate) fn existing(&self, parent: &Node, name: &[u8]) -> Result<&Node, Errno> {
        self.child(parent, name)?.ok_or(Errno::NOENT)
    }

    /// Whether `below` is `above` or lies somewhere in it.
    pub(crate) fn is_within(&self, below: NodeId, above: NodeId) -> Result<bool, Errno> {
        let mut at = below;
        loop {
            if at == above {
                return Ok(true);
            }
            if at == NodeId::ROOT {
                return Ok(false);
            }
            at = self.get(at)?.directory()?.parent;
        }
    }

    /// A directory's times after one of its entries changed, and its count of subdirectories.
    pub(crate) fn entry_changed(&mut self, id: NodeId, lsn: crate::Lsn, now: Timestamp, subdirectories: i32) {
        let is_scratch = self.is_scratch;
        if let Ok(node) = self.get_mut(id) {
            if is_scratch && let Ok(directory) = node.directory_mut() {
                directory.forget_changes();
            }
            node.mtime = now;
            node.ctime = now;
            node.nlink = node.nlink.saturating_add_signed(subdirectories);
            self.touch(id, lsn);
        }
    }

    pub(crate) fn set_parent(&mut self, id: NodeId, parent: NodeId) {
        if let Ok(directory) = self.get_mut(id).and_then(Node::directory_mut) {
            directory.parent = parent;
        }
    }
}
