//! The filesystem: the tree behind one lock, and the persistence layer that keeps its rows.
//!
//! One lock is enough: every operation is a few hundred nanoseconds in memory, I/O happens outside
//! it, and it makes a cut what it has to be, a prefix of all operations.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::tree::ContentInMemory;
use crate::tree::found::Found;
use crate::{Attributes, Cut, Errno, Error, Lsn, NodeId, PersistenceLayer, Placed, Space, Timestamp, Tree};

/// Space that a changed node's rows are taken to need until a commit has them, in bytes.
const ROW_ESTIMATE: u64 = 512;

/// A POSIX filesystem over a persistence layer. All calls may be made from any thread.
///
/// Calls that return the attributes of a named node (`lookup`, `make`, `link`,
/// `readdir_plus`) take one reference on it, as FUSE's lookup count; [`TinyFs::forget`] gives
/// references back. An unlinked node lives until its last reference goes.
pub struct TinyFs {
    tree: RwLock<Tree>,
    persistence: Arc<dyn PersistenceLayer>,
    read_only: AtomicBool,
    /// Held while an unlinked file's bytes are written to its spill file.
    pub(crate) spilling: Mutex<()>,
    /// Held while later versions are published.
    pub(crate) publishing: Mutex<()>,
    /// Where others' changes are published: the names by which files were found.
    pub(crate) found: Option<Found>,
}

/// The tree while it changes. A panic meanwhile ends the process: a half-changed tree must never be
/// committed, and the journal recovers.
pub(crate) struct Changing<'a>(RwLockWriteGuard<'a, Tree>);

impl Deref for Changing<'_> {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.0
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut Tree {
        &mut self.0
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl TinyFs {
    /// A filesystem that can change.
    pub fn new(tree: Tree, persistence: Arc<dyn PersistenceLayer>) -> Self {
        TinyFs {
            tree: RwLock::new(tree),
            persistence,
            read_only: AtomicBool::new(false),
            spilling: Mutex::new(()),
            publishing: Mutex::new(()),
            found: None,
        }
    }

    /// A filesystem in which every change answers `EROFS`.
    pub fn read_only(tree: Tree, persistence: Arc<dyn PersistenceLayer>) -> Self {
        let fs = TinyFs::new(tree, persistence);
        fs.set_read_only(true);
        fs
    }

    /// A [`read_only`](Self::read_only) filesystem to which later versions are [published](Self::publish). For that it
    /// keeps by which names files were found, which costs memory and time in each lookup.
    pub fn following(tree: Tree, persistence: Arc<dyn PersistenceLayer>) -> Self {
        let mut fs = TinyFs::read_only(tree, persistence);
        fs.found = Some(Found::default());
        fs
    }

    /// A filesystem that begins as this one is now, which must be [`read_only`](Self::read_only), and can change: of its changes nobody
    /// will ever ask for rows, and all content that is written there leaves memory by [`spill`](Self::spill). It costs a table of the
    /// nodes, which are shared until they change. `persistence` reads what this one's does, and keeps spill files.
    pub fn scratch(&self, persistence: Arc<dyn PersistenceLayer>) -> TinyFs {
        TinyFs::new(self.tree().scratch(), persistence)
    }

    /// Whether changes answer `EROFS`.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// Switches changes off or on; those under way finish.
    pub fn set_read_only(&self, on: bool) {
        self.read_only.store(on, Ordering::Release);
    }

    /// The layer that keeps the rows.
    pub fn persistence(&self) -> &Arc<dyn PersistenceLayer> {
        &self.persistence
    }

    pub(crate) fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read()
    }

    /// The tree for a change, also where callers may make none.
    pub(crate) fn changing(&self) -> Changing<'_> {
        Changing(self.tree.write())
    }

    /// The tree for a change that needs no space.
    pub(crate) fn change(&self) -> Result<Changing<'_>, Errno> {
        let tree = self.changing();
        // Looked at under the lock, so that after a cut that follows `set_read_only` nothing comes any more.
        if self.is_read_only() { Err(Errno::ROFS) } else { Ok(tree) }
    }

    /// The tree for a change that brings `bytes` of content, or none and only rows.
    pub(crate) fn grow(&self, bytes: u64) -> Result<Changing<'_>, Errno> {
        let available = self.persistence.space().available;
        let tree = self.change()?;
        if find_room(&tree, available, bytes).is_ok() {
            return Ok(tree);
        }
        drop(tree);
        // Room may have been made since somebody last looked; not under the lock, as a disk may take its time.
        let available = self.persistence.space_now().available;
        let tree = self.change()?;
        find_room(&tree, available, bytes)?;
        Ok(tree)
    }

    /// What `stat` shows of a node.
    pub fn getattr(&self, id: NodeId) -> Result<Attributes, Error> {
        Ok(self.tree().find(id)?.attributes())
    }

    /// Gives `n` references back.
    pub fn forget(&self, id: NodeId, n: u64) {
        let unused = {
            let tree = self.tree();
            let Ok(node) = tree.find(id) else { return };
            self.release(node, n) <= n && (node.nlink == 0 || tree.is_frozen(id))
        };
        if unused {
            let spill = self.changing().reap(id);
            self.close_spill(spill);
        }
    }

    /// Gives the spill file of a file that is gone back.
    pub(crate) fn close_spill(&self, spill: Option<u32>) {
        if let Some(spill) = spill {
            self.persistence.close_spill(spill);
        }
    }

    /// How many nodes there are, unlinked ones that are still referred to included.
    pub fn node_count(&self) -> u64 {
        self.tree().nodes.len() as u64
    }

    /// The space that is left, less what was accepted and is not yet stored.
    pub fn statfs(&self) -> Space {
        let space = self.persistence.space();
        let owed = self.dirty_bytes();
        Space {
            total: space.total,
            free: space.free.saturating_sub(owed),
            available: space.available.saturating_sub(owed),
        }
    }

    /// The last operation's number.
    pub fn last_lsn(&self) -> Lsn {
        self.tree().last_lsn()
    }

    /// Takes all rows since the last cut, as one consistent state.
    pub fn cut(&self) -> Cut {
        self.changing().cut(Timestamp::now().0.div_euclid(1000))
    }

    /// Tells where rows that a cut gave out are stored now, so that memory can let go of them.
    pub fn stored(&self, placed: &[Placed]) {
        // In portions, so that nobody waits long for the lock.
        for portion in placed.chunks(1024) {
            self.changing().stored(portion);
        }
    }

    /// Whether a cut would take anything.
    pub fn is_dirty(&self) -> bool {
        self.tree().is_dirty()
    }

    /// Content bytes that are in memory only, or in the journal, and not yet stored.
    pub fn dirty_bytes(&self) -> u64 {
        self.tree().dirty_bytes()
    }

    /// The same, by what becomes of it.
    pub fn content_in_memory(&self) -> ContentInMemory {
        self.tree().content_in_memory()
    }

    /// Content bytes that the next cut takes.
    pub fn uncut_bytes(&self) -> u64 {
        self.tree().uncut_bytes
    }

    /// Content bytes of unlinked files that a [`spill`](Self::spill) is writing.
    pub fn spilling_bytes(&self) -> u64 {
        self.tree().spilling_bytes
    }

    /// Content bytes that the next [`spill`](Self::spill) takes.
    pub fn unspilled_bytes(&self) -> u64 {
        self.tree().unlinked_bytes
    }
}

/// Whether so many bytes of content more, and a row, fit into what is available beside what is owed already.
pub(crate) fn find_room(tree: &Tree, available: u64, bytes: u64) -> Result<(), Errno> {
    let owed = tree.dirty_bytes() + (tree.dirty_nodes() + 1) * ROW_ESTIMATE;
    if owed.saturating_add(bytes) > available { Err(Errno::NOSPC) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caller, Make, MemoryPersistence, WriteFlags, root_row};

    #[test]
    fn bytes_on_their_way_to_a_spill_file_are_counted_once_whatever_happens_meanwhile() {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store);
        let root = Caller::root();
        let file = fs.make(&root, NodeId::ROOT, b"gone", Make::File { mode: 0o600 }).unwrap().id;
        fs.unlink(&root, NodeId::ROOT, b"gone").unwrap();
        let write = |offset: u64, length: usize| {
            fs.write(&root, file, offset, &vec![1; length], WriteFlags::default()).unwrap();
        };
        let counts = || (fs.unspilled_bytes(), fs.spilling_bytes(), fs.dirty_bytes());
        write(0, 100_000);
        assert_eq!(counts(), (100_000, 0, 100_000));
        // It fails, and others write beside and over what it was to take.
        let spilling = fs.changing().take_for_spill().unwrap();
        assert_eq!(counts(), (0, 100_000, 100_000));
        write(90_000, 30_000);
        assert_eq!(counts(), (30_000, 100_000, 130_000));
        assert!(fs.changing().not_spilled(&spilling));
        assert_eq!(counts(), (120_000, 0, 120_000));
        // It succeeds.
        let spilling = fs.changing().take_for_spill().unwrap();
        write(0, 1000);
        let spill = fs.write_spill(&spilling).unwrap();
        assert!(fs.changing().spilled(&spilling, spill));
        assert_eq!(counts(), (1000, 0, 1000));
        // The file goes meanwhile.
        let spilling = fs.changing().take_for_spill().unwrap();
        write(5000, 7000);
        fs.forget(file, 1);
        assert_eq!(counts(), (0, 1000, 1000));
        assert!(!fs.changing().not_spilled(&spilling));
        assert_eq!(counts(), (0, 0, 0));
    }

    #[test]
    fn what_is_there_needs_no_room_to_be_preallocated_and_attributes_have_a_bound() {
        let store = MemoryPersistence::with_capacity(1 << 20);
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store);
        let root = Caller::root();
        let id = fs.make(&root, NodeId::ROOT, b"f", Make::File { mode: 0o644 }).unwrap().id;
        fs.write(&root, id, 0, &[1; 600_000], WriteFlags::default()).unwrap();
        let allocate = |length| fs.fallocate(&root, id, 0, length, crate::Fallocate::Allocate);
        allocate(600_000).unwrap();
        allocate(700_000).unwrap();
        assert_eq!(allocate(1_300_000).unwrap_err().errno(), libc::ENOSPC);
        fs.setattr(&root, id, &crate::SetAttributes { size: Some(0), ..Default::default() }).unwrap();
        let set = |name: String| fs.setxattr(&root, id, name.as_bytes(), &[0; 60_000], crate::SetXattr::Any);
        let fit = (0..100).take_while(|n| set(format!("user.{n:02}")).is_ok()).count();
        assert_eq!(fit, (1 << 20) / 60_007);
        assert_eq!(set("user.more".into()).unwrap_err().errno(), libc::ENOSPC);
        set("user.00".into()).unwrap();
    }

    #[test]
    fn a_deleted_file_that_is_written_and_cut_over_and_over_keeps_no_list_of_it() {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store);
        let root = Caller::root();
        let file = fs.make(&root, NodeId::ROOT, b"gone", Make::File { mode: 0o600 }).unwrap().id;
        fs.write(&root, file, 70_000, b"before", WriteFlags::default()).unwrap();
        fs.unlink(&root, NodeId::ROOT, b"gone").unwrap();
        let noted =
            || fs.tree().get(file).unwrap().content().unwrap().pending.as_ref().unwrap().opened.capacity();
        for n in 0..20_000u64 {
            fs.write(&root, file, n % 3 * 40_000, b"x", WriteFlags::default()).unwrap();
            fs.fallocate(&root, file, 0, 60_000, crate::Fallocate::PunchHole).unwrap();
        }
        assert!(noted() < 5000, "{} are noted", noted());
        fs.spill().unwrap();
        assert_eq!(fs.unspilled_bytes(), 0);
        let read = fs.read(file, 70_000, 10).unwrap().fill(&**fs.persistence()).unwrap();
        assert_eq!(&read[..6], b"before");
    }
}
