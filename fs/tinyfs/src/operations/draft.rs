//! Content that belongs to no node yet: written at leisure, then given to a file in one short change.

use crate::operations::access;
use crate::tree::extent_map::ExtentMap;
use crate::types::limits::MAX_SIZE;
use crate::{Caller, Errno, Error, Lsn, NodeId, Timestamp, TinyFs};

/// Stands for the operation that will give the content to a file.
const NO_OPERATION: Lsn = Lsn(0);

/// Content that belongs to no node yet, in memory.
#[derive(Debug, Default)]
pub struct Draft {
    extents: ExtentMap,
    opened: Vec<u64>,
    length: u64,
}

impl Draft {
    /// A draft without content.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes at its end. They are copied.
    pub fn append(&mut self, data: &[u8]) {
        self.extents.write(self.length, data, NO_OPERATION, &mut self.opened);
        self.length += data.len() as u64;
    }

    /// Bytes that it has.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// Content that a file had. To be dropped where nobody waits: that may free much memory.
#[must_use]
#[derive(Debug)]
pub struct OldContent {
    _extents: ExtentMap,
}

impl TinyFs {
    /// Gives a file this content in the place of what it has, which is given back; all else of the file stays. Nothing is copied, and the
    /// tree is locked for some microseconds for each MiB.
    ///
    /// # Errors
    ///
    /// Those of a [`write`](Self::write) of as many bytes. The file is then as it was.
    pub fn replace(&self, caller: &Caller, id: NodeId, draft: Draft) -> Result<OldContent, Error> {
        let Draft { mut extents, opened, length } = draft;
        let mut tree = self.grow(length)?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        node.content()?;
        access::permit(caller, node, access::WRITE)?;
        if length > MAX_SIZE {
            return Err(Errno::FBIG.into());
        }

        let lsn = tree.begin();
        extents.date(lsn);
        let old = tree.exchange(id, extents, opened, length, lsn)?;
        let node = tree.get_mut(id)?;
        node.size = length;
        node.mtime = now;
        node.ctime = now;
        if !caller.is_root() {
            access::drop_privileges(node);
        }
        tree.touch(id, lsn);
        Ok(OldContent { _extents: old })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Make, MemoryPersistence, SetXattr, WriteFlags, root_row};

    fn content(fs: &TinyFs, id: NodeId) -> Vec<u8> {
        fs.read(id, 0, 1 << 20).unwrap().fill(&**fs.persistence()).unwrap()
    }

    #[test]
    fn a_file_keeps_all_but_its_content_and_what_a_cut_takes_folds_to_the_same() {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store.clone());
        let root = Caller::root();
        let file = fs.make(&root, NodeId::ROOT, b"f", Make::File { mode: 0o640 }).unwrap().id;
        fs.link(&root, file, NodeId::ROOT, b"g").unwrap();
        fs.setxattr(&root, file, b"user.a", b"1", SetXattr::Any).unwrap();
        for (before, cut_between) in [(0usize, false), (10, true), (100_000, false), (100_000, true)] {
            fs.write(&root, file, 7, &vec![9; before], WriteFlags::default()).unwrap();
            if cut_between {
                let cut = fs.cut();
                fs.stored(&store.store(&cut.rows));
            }
            let bytes: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
            let mut draft = Draft::new();
            assert!(draft.is_empty());
            bytes.chunks(7777).for_each(|piece| draft.append(piece));
            assert_eq!(draft.len(), 50_000);
            drop(fs.replace(&root, file, draft).unwrap());
            assert_eq!(fs.uncut_bytes(), 50_000);
            let shown = fs.getattr(file).unwrap();
            assert_eq!((shown.size, shown.nlink, shown.mode, shown.blocks), (50_000, 2, 0o640, 104));
            assert_eq!(content(&fs, file), bytes);
            let cut = fs.cut();
            fs.stored(&store.store(&cut.rows));
            assert_eq!((fs.dirty_bytes(), content(&fs, file)), (0, bytes.clone()));
            let folded = TinyFs::new(store.load().unwrap(), store.clone());
            let (f, g) = (folded.resolve(b"/f").unwrap(), folded.resolve(b"/g").unwrap());
            assert_eq!((f.id, content(&folded, f.id)), (g.id, bytes));
            assert_eq!(folded.getxattr(f.id, b"user.a").unwrap(), b"1");
        }
        drop(fs.replace(&root, file, Draft::new()).unwrap());
        assert_eq!((fs.getattr(file).unwrap().size, content(&fs, file)), (0, Vec::new()));
    }

    #[test]
    fn what_has_no_room_leaves_the_file_as_it_was() {
        let store = MemoryPersistence::with_capacity(100_000);
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store);
        let root = Caller::root();
        let file = fs.make(&root, NodeId::ROOT, b"f", Make::File { mode: 0o640 }).unwrap().id;
        fs.write(&root, file, 0, b"before", WriteFlags::default()).unwrap();
        let mut draft = Draft::new();
        draft.append(&[1; 200_000]);
        assert_eq!(fs.replace(&root, file, draft).unwrap_err().errno(), libc::ENOSPC);
        assert_eq!(content(&fs, file), b"before");
    }
}
