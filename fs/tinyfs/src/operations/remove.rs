//! Removing names. All is checked before the first change, so that nothing fails half-way.

use crate::operations::access;
use crate::operations::names::check_name;
use crate::{Caller, Errno, Error, NodeId, Timestamp, TinyFs};

impl TinyFs {
    /// Takes a name from a node that is no directory; says which.
    pub fn unlink(&self, caller: &Caller, parent: NodeId, name: &[u8]) -> Result<NodeId, Error> {
        let mut tree = self.change()?;
        let now = Timestamp::now();
        check_name(parent, name)?;
        let directory = tree.get(parent)?;
        if name == b"." || name == b".." {
            return Err(Errno::ISDIR.into());
        }
        let node = tree.existing(directory, name)?;
        access::permit_removal(caller, directory, node)?;
        if node.is_directory() {
            return Err(Errno::ISDIR.into());
        }
        let (id, ino) = (node.id, node.ino);

        let lsn = tree.begin();
        tree.get_mut(parent)?.directory_mut()?.remove(name);
        tree.entry_changed(parent, lsn, now, 0);
        let spill = tree.drop_link(id, lsn, now);
        drop(tree);
        self.close_spill(spill);
        Ok(ino)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, caller: &Caller, parent: NodeId, name: &[u8]) -> Result<(), Error> {
        let mut tree = self.change()?;
        let now = Timestamp::now();
        if name == b"." {
            return Err(Errno::INVAL.into());
        }
        if name == b".." {
            return Err(Errno::NOTEMPTY.into());
        }
        check_name(parent, name)?;
        let directory = tree.get(parent)?;
        let node = tree.existing(directory, name)?;
        access::permit_removal(caller, directory, node)?;
        if !node.directory()?.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        let id = node.id;

        let lsn = tree.begin();
        tree.get_mut(parent)?.directory_mut()?.remove(name);
        tree.entry_changed(parent, lsn, now, -1);
        tree.drop_link(id, lsn, now);
        Ok(())
    }
}
