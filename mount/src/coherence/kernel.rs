//! What a kernel can be told.

use std::io;

use crate::inodes::table::Ino;

/// Takes messages about what it has cached. Each may wait for requests that are under way.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// The name in this directory is to be looked up again. Waits for lookups and listings that are under way there.
    fn drop_name(&self, parent: Ino, name: &[u8]) -> io::Result<()>;

    /// The name is gone, and with it what it led to; watchers (inotify) hear of it. Refused where something is mounted on it, say.
    fn name_is_gone(&self, parent: Ino, name: &[u8], child: Ino) -> io::Result<()>;

    /// Attributes are to be asked for again.
    fn drop_attributes(&self, ino: Ino) -> io::Result<()>;

    /// What programs changed in a file through mappings is to be written back, and its pages are to be dropped, with the attributes;
    /// those of a directory are its listing. Waits for pages that are being read.
    fn drop_pages(&self, ino: Ino) -> io::Result<()>;
}
