//! `.pond/`: what a mount says about itself, as files.
//!
//! Their inode numbers have the top bit set, which no node of the pond has. A file's bytes change, and nothing but
//! a new inode keeps the kernel from showing old pages: so each lookup gives an inode whose content is fixed, a
//! fresh one unless the content is still that of the last, and the entry may not be cached. It lives until the
//! kernel forgets it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};
use parking_lot::Mutex;

use crate::adapter::convert::BLOCK_SIZE;

/// The top bit: not a node's.
const VIRTUAL: u64 = 1 << 63;

/// The directory `.pond`.
pub(crate) const DIRECTORY: INodeNo = INodeNo(VIRTUAL);

/// Whether an inode is one of these.
pub(crate) fn is_virtual(inode: INodeNo) -> bool {
    inode.0 & VIRTUAL != 0
}

/// The files in `.pond/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Content {
    /// `VERSION/DIGEST` of the version shown.
    Position,
    /// Milliseconds behind the source.
    Lag,
    /// Everything about the pond and the mount, as JSON.
    Status,
    /// The end of the daemon's log.
    Log,
}

impl Content {
    pub(crate) const ALL: [Content; 4] = [Content::Position, Content::Lag, Content::Status, Content::Log];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Content::Position => "position",
            Content::Lag => "lag",
            Content::Status => "status.json",
            Content::Log => "log",
        }
    }

    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|content| content.name().as_bytes() == name)
    }
}

/// The entries of `.pond/` after a cookie: inode number (only to show), cookie, kind and name.
pub(crate) fn listing(after: u64) -> impl Iterator<Item = (INodeNo, u64, FileType, &'static str)> {
    let dots = [(DIRECTORY, ".", FileType::Directory), (INodeNo::ROOT, "..", FileType::Directory)];
    let files = Content::ALL
        .into_iter()
        .zip(1 << 62..)
        .map(|(file, number)| (INodeNo(VIRTUAL | number), file.name(), FileType::RegularFile));
    let entries = dots.into_iter().chain(files).zip(1..);
    entries
        .map(|((inode, name, kind), cookie)| (inode, cookie, kind, name))
        .filter(move |&(_, cookie, ..)| cookie > after)
}

/// One inode: bytes that never change.
struct Snapshot {
    file: Content,
    bytes: Arc<[u8]>,
    made: SystemTime,
    /// Lookups that the kernel has not forgotten.
    references: u64,
}

#[derive(Default)]
struct Inodes {
    next: u64,
    snapshots: HashMap<u64, Snapshot>,
    newest: HashMap<Content, u64>,
}

/// The inodes of `.pond/` that the kernel knows.
pub(crate) struct VirtualFiles {
    owner: (u32, u32),
    made: SystemTime,
    inodes: Mutex<Inodes>,
}

impl VirtualFiles {
    /// For the user and group who mount: nobody else but root may look.
    pub(crate) fn new(uid: u32, gid: u32) -> Self {
        VirtualFiles { owner: (uid, gid), made: SystemTime::now(), inodes: Mutex::default() }
    }

    /// An inode for what a file says now, with one reference.
    pub(crate) fn look_up(&self, file: Content, bytes: Vec<u8>) -> FileAttr {
        let mut inodes = self.inodes.lock();
        let newest = inodes.newest.get(&file).copied();
        if let Some(inode) = newest
            && let Some(snapshot) = inodes.snapshots.get_mut(&inode)
            && *snapshot.bytes == *bytes
        {
            snapshot.references += 1;
            return self.attributes(inode, snapshot);
        }
        inodes.next += 1;
        let inode = VIRTUAL | inodes.next;
        let snapshot = Snapshot { file, bytes: bytes.into(), made: SystemTime::now(), references: 1 };
        let attributes = self.attributes(inode, &snapshot);
        inodes.snapshots.insert(inode, snapshot);
        inodes.newest.insert(file, inode);
        attributes
    }

    /// Gives references back; the last takes the inode with it.
    pub(crate) fn forget(&self, inode: INodeNo, references: u64) {
        let mut inodes = self.inodes.lock();
        let Some(snapshot) = inodes.snapshots.get_mut(&inode.0) else { return };
        snapshot.references = snapshot.references.saturating_sub(references);
        if snapshot.references == 0 {
            let file = snapshot.file;
            inodes.snapshots.remove(&inode.0);
            if inodes.newest.get(&file) == Some(&inode.0) {
                inodes.newest.remove(&file);
            }
        }
    }

    /// What `stat` shows; `None` for a file that was forgotten.
    pub(crate) fn stat(&self, inode: INodeNo) -> Option<FileAttr> {
        if inode == DIRECTORY {
            return Some(self.directory());
        }
        self.inodes.lock().snapshots.get(&inode.0).map(|snapshot| self.attributes(inode.0, snapshot))
    }

    /// A file's bytes; `None` for the directory and for a file that was forgotten.
    pub(crate) fn bytes(&self, inode: INodeNo) -> Option<Arc<[u8]>> {
        self.inodes.lock().snapshots.get(&inode.0).map(|snapshot| snapshot.bytes.clone())
    }

    /// What `stat` shows of `.pond` itself.
    pub(crate) fn directory(&self) -> FileAttr {
        self.with(DIRECTORY.0, FileType::Directory, 0o500, 2, 0, self.made)
    }

    fn attributes(&self, inode: u64, snapshot: &Snapshot) -> FileAttr {
        self.with(inode, FileType::RegularFile, 0o400, 1, snapshot.bytes.len() as u64, snapshot.made)
    }

    fn with(
        &self,
        inode: u64,
        kind: FileType,
        perm: u16,
        nlink: u32,
        size: u64,
        time: SystemTime,
    ) -> FileAttr {
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_keeps_its_bytes_while_new_lookups_see_new_ones() {
        let files = VirtualFiles::new(7, 8);
        let first = files.look_up(Content::Position, b"1/aa\n".to_vec());
        let second = files.look_up(Content::Position, b"2/bb\n".to_vec());
        assert!(is_virtual(first.ino) && first.ino != second.ino);
        assert_eq!(&*files.bytes(first.ino).unwrap(), b"1/aa\n");
        assert_eq!(&*files.bytes(second.ino).unwrap(), b"2/bb\n");
        assert_eq!((first.uid, first.gid, first.perm), (7, 8, 0o400));
    }

    #[test]
    fn unchanged_content_keeps_its_inode() {
        let files = VirtualFiles::new(0, 0);
        let first = files.look_up(Content::Lag, b"0\n".to_vec());
        assert_eq!(files.look_up(Content::Lag, b"0\n".to_vec()).ino, first.ino);
        assert_ne!(files.look_up(Content::Status, b"0\n".to_vec()).ino, first.ino);
    }

    #[test]
    fn a_forgotten_inode_is_gone_and_its_number_is_not_used_again() {
        let files = VirtualFiles::new(0, 0);
        let first = files.look_up(Content::Lag, b"0\n".to_vec());
        files.look_up(Content::Lag, b"0\n".to_vec());
        files.forget(first.ino, 1);
        assert!(files.stat(first.ino).is_some());
        files.forget(first.ino, 1);
        assert!(files.stat(first.ino).is_none() && files.bytes(first.ino).is_none());
        assert_ne!(files.look_up(Content::Lag, b"0\n".to_vec()).ino, first.ino);
    }
}
