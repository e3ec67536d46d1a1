//! The kernel, as FUSE lets us tell it of what is stale.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use fuser::{INodeNo, Notifier};

use crate::coherence::kernel::Kernel;
use crate::inodes::table::Ino;

impl Kernel for Notifier {
    fn drop_name(&self, parent: Ino, name: &[u8]) -> io::Result<()> {
        self.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name))
    }

    fn name_is_gone(&self, parent: Ino, name: &[u8], child: Ino) -> io::Result<()> {
        self.delete(INodeNo(parent.0), INodeNo(child.0), OsStr::from_bytes(name))
    }

    fn drop_attributes(&self, ino: Ino) -> io::Result<()> {
        // A negative offset means attributes only.
        self.inval_inode(INodeNo(ino.0), -1, 0)
    }

    fn drop_pages(&self, ino: Ino) -> io::Result<()> {
        self.inval_inode(INodeNo(ino.0), 0, 0)
    }
}
