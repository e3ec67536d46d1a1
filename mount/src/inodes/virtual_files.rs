//! `.pond/`: what a mount says about itself, as files.
//!
//! A file's bytes change, and nothing but a new inode keeps the kernel from showing old pages: so each lookup gives an inode whose
//! content is fixed, a fresh one unless the content is still that of the last, and the entry may not be cached. It lives until
//! the kernel forgets it. Beside the files stands `versions`, a directory of the versions that there are (see `service/versions.rs`).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pond_tinyfs::{FileType, Timestamp};

use crate::inodes::attributes::Attributes;
use crate::inodes::content::{Content, Snapshot};
use crate::inodes::table::{Ino, Inodes, Object};

/// The name of the directory of versions.
pub(crate) const VERSIONS: &str = "versions";

/// The files of `.pond/` that the kernel knows.
pub(crate) struct VirtualFiles {
    owner: (u32, u32),
    made: Timestamp,
    inodes: Arc<Inodes>,
    /// Whether there is a directory of versions.
    versions: bool,
    /// The inode of the last lookup of each.
    newest: Mutex<HashMap<Content, Ino>>,
}

impl VirtualFiles {
    /// For the user and group who mount: nobody else but root may look into what tells of more than the versions.
    pub(crate) fn new(inodes: Arc<Inodes>, (uid, gid): (u32, u32), versions: bool) -> Self {
        VirtualFiles { owner: (uid, gid), made: Timestamp::now(), inodes, versions, newest: Mutex::default() }
    }

    /// The entries of `.pond/` after a cookie: inode number (of files only to show), cookie, kind and name.
    pub(crate) fn listing(&self, after: u64) -> impl Iterator<Item = (Ino, u64, FileType, &'static str)> {
        let dots =
            [(self.inodes.own_directory(), ".", FileType::Directory), (Ino::ROOT, "..", FileType::Directory)];
        let files = Content::ALL.into_iter().enumerate();
        let files = files.map(|(n, file)| (self.inodes.only_to_show(n), file.name(), FileType::File));
        let versions = (self.inodes.versions(), VERSIONS, FileType::Directory);
        let entries = dots.into_iter().chain(files).chain(self.versions.then_some(versions)).zip(1..);
        entries
            .map(|((inode, name, kind), cookie)| (inode, cookie, kind, name))
            .filter(move |&(_, cookie, ..)| cookie > after)
    }

    /// An inode for what a file says now, with one reference.
    pub(crate) fn look_up(&self, file: Content, bytes: Vec<u8>) -> Attributes {
        let mut newest = self.newest.lock();
        if let Some(&inode) = newest.get(&file)
            && let Ok(Object::Snapshot(snapshot)) = self.inodes.find(inode)
            && snapshot.file == file
            && *snapshot.bytes == *bytes
            && self.inodes.refer_again(inode)
        {
            return self.stat(inode, &snapshot);
        }
        let snapshot = Arc::new(Snapshot { file, bytes: bytes.into(), made: Timestamp::now() });
        let inode = self.inodes.add(snapshot.clone());
        newest.insert(file, inode);
        self.stat(inode, &snapshot)
    }

    /// Whether there is a directory of versions.
    pub(crate) fn has_versions(&self) -> bool {
        self.versions
    }

    /// What `stat` shows of `.pond` itself.
    pub(crate) fn directory(&self) -> Attributes {
        self.with(
            self.inodes.own_directory(),
            FileType::Directory,
            0o555,
            2 + u32::from(self.versions),
            0,
            self.made,
        )
    }

    /// What `stat` shows of `.pond/versions`, which changed at this time. With one link only, nobody reckons from it how many
    /// directories are in it.
    pub(crate) fn versions(&self, changed: Timestamp) -> Attributes {
        self.with(self.inodes.versions(), FileType::Directory, 0o555, 1, 0, changed)
    }

    /// What `stat` shows of an old version's root before anybody has looked at it.
    pub(crate) fn listed(&self, ino: Ino) -> Attributes {
        self.with(ino, FileType::Directory, 0o555, 2, 0, self.made)
    }

    /// What `stat` shows of one of its files.
    pub(crate) fn stat(&self, inode: Ino, snapshot: &Snapshot) -> Attributes {
        let mode = if snapshot.file.is_for_all() { 0o444 } else { 0o400 };
        self.with(inode, FileType::File, mode, 1, snapshot.bytes.len() as u64, snapshot.made)
    }

    fn with(
        &self,
        ino: Ino,
        kind: FileType,
        mode: u16,
        nlink: u32,
        size: u64,
        time: Timestamp,
    ) -> Attributes {
        Attributes {
            ino,
            kind,
            mode,
            nlink,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(inode32: bool) -> VirtualFiles {
        VirtualFiles::new(Arc::new(Inodes::new(inode32)), (7, 8), true)
    }

    impl VirtualFiles {
        fn bytes(&self, attributes: &Attributes) -> Option<String> {
            match self.inodes.find(attributes.ino) {
                Ok(Object::Snapshot(snapshot)) => Some(String::from_utf8(snapshot.bytes.to_vec()).unwrap()),
                _ => None,
            }
        }

        fn forget(&self, attributes: &Attributes) {
            assert_eq!(self.inodes.forget(attributes.ino, 1), None);
        }
    }

    #[test]
    fn an_inode_keeps_its_bytes_while_new_lookups_see_new_ones() {
        for files in [files(false), files(true)] {
            let first = files.look_up(Content::Position, b"1/aa\n".to_vec());
            let second = files.look_up(Content::Position, b"2/bb\n".to_vec());
            assert_ne!(first.ino, second.ino);
            assert_eq!(files.bytes(&first).unwrap(), "1/aa\n");
            assert_eq!(files.bytes(&second).unwrap(), "2/bb\n");
            assert_eq!((first.uid, first.gid, first.mode), (7, 8, 0o444));
            assert_eq!(files.look_up(Content::Status, Vec::new()).mode, 0o400);
        }
    }

    #[test]
    fn unchanged_content_keeps_its_inode() {
        let files = files(false);
        let first = files.look_up(Content::Lag, b"0\n".to_vec());
        assert_eq!(files.look_up(Content::Lag, b"0\n".to_vec()).ino, first.ino);
        assert_ne!(files.look_up(Content::Status, b"0\n".to_vec()).ino, first.ino);
    }

    #[test]
    fn a_forgotten_inode_is_gone_and_its_number_is_not_used_again() {
        for files in [files(false), files(true)] {
            let first = files.look_up(Content::Lag, b"0\n".to_vec());
            files.look_up(Content::Lag, b"0\n".to_vec());
            files.forget(&first);
            assert!(files.bytes(&first).is_some());
            files.forget(&first);
            assert!(files.bytes(&first).is_none());
            assert_ne!(files.look_up(Content::Lag, b"0\n".to_vec()).ino, first.ino);
        }
    }
}
