//! A mount that shows what others do: versions are published to a tree under a real kernel, and system calls look at
//! it.
//!
//! Needs root and `/dev/fuse`.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pond_tinyfs::{
    Caller, ExtentContent, Make, MemoryPersistence, NodeId, Record, RenameFlags, SetAttributes, Timestamp,
    TinyFs, WriteFlags, root_row,
};

use crate::coherence::stale;
use crate::kernel_tests::harness::{TestMount, names};

/// A tree that changes, and the mount of one that follows it.
struct Followed {
    store: Arc<MemoryPersistence>,
    source: TinyFs,
    mount: TestMount,
}

impl Followed {
    fn new() -> Self {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let source = TinyFs::new(store.load().unwrap(), store.clone());
        let follower = TinyFs::following(store.load().unwrap(), store.clone());
        Followed { store, source, mount: TestMount::over(follower, true) }
    }

    /// Shows the source's next version.
    fn publish(&self) {
        let cut = self.source.cut();
        let placed = self.store.store(&cut.rows);
        self.source.stored(&placed);
        let places: HashMap<_, _> =
            placed.iter().map(|place| ((place.lsn, place.seq), place.location)).collect();
        let mut rows = cut.rows;
        for row in &mut rows {
            if let Record::Extent(extent) = &mut row.record {
                extent.content = ExtentContent::Stored(places[&(row.lsn, row.seq)]);
            }
        }
        let fs = &self.mount.backing.fs;
        let stale = fs.publish(rows, cut.cut_lsn).unwrap();
        self.mount.coherence.tell(stale::notes(fs, &stale, true));
    }

    fn id(&self, path: &str) -> NodeId {
        self.source.resolve(path.as_bytes()).unwrap().id
    }

    fn split<'a>(&self, path: &'a str) -> (NodeId, &'a [u8]) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.id(parent), name.as_bytes())
    }

    fn mkdir(&self, path: &str) {
        let (parent, name) = self.split(path);
        let made = self.source.make(&Caller::root(), parent, name, Make::Directory { mode: 0o755 }).unwrap();
        self.source.forget(made.id, 1);
    }

    /// Makes the file or gives it other content.
    fn write(&self, path: &str, bytes: &[u8]) {
        let (parent, name) = self.split(path);
        if let Ok(made) = self.source.make(&Caller::root(), parent, name, Make::File { mode: 0o644 }) {
            self.source.forget(made.id, 1);
        }
        let empty = SetAttributes { size: Some(0), ..SetAttributes::default() };
        self.source.setattr(&Caller::root(), self.id(path), &empty).unwrap();
        self.source.write(&Caller::root(), self.id(path), 0, bytes, WriteFlags::default()).unwrap();
    }

    fn rename(&self, path: &str, to: &str) {
        let ((parent, name), (new_parent, new_name)) = (self.split(path), self.split(to));
        let flags = RenameFlags::default();
        self.source.rename(&Caller::root(), parent, name, new_parent, new_name, flags).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let (parent, name) = self.split(to);
        let linked = self.source.link(&Caller::root(), self.id(path), parent, name).unwrap();
        self.source.forget(linked.id, 1);
    }

    fn remove(&self, path: &str) {
        let (parent, name) = self.split(path);
        if self.source.unlink(&Caller::root(), parent, name).is_err() {
            self.source.rmdir(&Caller::root(), parent, name).unwrap();
        }
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.mount.path(path)).unwrap()
    }

    /// Waits until nobody refers to an old version; the kernel must come to that by itself.
    fn wait_until_thawed(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.mount.backing.fs.frozen_count() > 0 {
            assert!(Instant::now() < deadline, "old versions are never forgotten");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn missing(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// A file's bytes, mapped.
struct Mapping(*mut libc::c_void, usize);

impl Mapping {
    fn new(file: &File) -> Self {
        let length = file.metadata().unwrap().len() as usize;
        // SAFETY: a new mapping of an open file, as long as the file is.
        let map = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(map, libc::MAP_FAILED);
        Mapping(map, length)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is there until this value is dropped.
        unsafe { std::slice::from_raw_parts(self.0.cast(), self.1) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length.
        assert_eq!(unsafe { libc::munmap(self.0, self.1) }, 0);
    }
}

#[test]
pub(crate) fn an_open_file_and_a_mapping_keep_their_bytes_while_a_new_open_sees_the_new_ones() {
    let pond = Followed::new();
    let first = vec![1; 500_000];
    pond.write("file", &first);
    pond.publish();
    let path = pond.mount.path("file");
    let open = File::open(&path).unwrap();
    let mapping = Mapping::new(&open);
    // A part of it is in the kernel's pages, the rest is not yet.
    assert_eq!(mapping.bytes()[0], 1);
    let inode = path.metadata().unwrap().ino();

    pond.write("file", b"second");
    pond.publish();
    assert_eq!(path.metadata().unwrap().len(), 6);
    assert_ne!(path.metadata().unwrap().ino(), inode);
    assert_eq!(pond.read("file"), b"second");
    assert_eq!(mapping.bytes(), first);
    let mut bytes = vec![0; first.len()];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, first);
    assert_eq!(open.metadata().unwrap().len(), 500_000);
    let second = File::open(&path).unwrap();

    // Removed, and replaced by another file: the second version stays too.
    pond.remove("file");
    pond.publish();
    assert!(missing(&path));
    pond.write("other", b"third");
    pond.rename("other", "file");
    pond.publish();
    assert_eq!(pond.read("file"), b"third");
    let mut bytes = Vec::new();
    (&second).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"second");
    assert_eq!(mapping.bytes(), first);
    drop((open, second, mapping));
    pond.wait_until_thawed();
}

#[test]
pub(crate) fn names_come_move_and_go_at_once() {
    let pond = Followed::new();
    for name in ["new", "a", "a/b"] {
        assert!(missing(&pond.mount.path(name)));
    }
    pond.write("new", b"1");
    pond.mkdir("a");
    pond.mkdir("a/b");
    pond.write("a/b/file", b"2");
    pond.publish();
    assert_eq!(names(&pond.mount.root), ["a", "new"]);
    assert_eq!(pond.read("a/b/file"), b"2");
    assert_eq!(names(&pond.mount.path("a/b")), ["file"]);

    // A directory that moves is the same one, with what is open in it.
    let inside = File::open(pond.mount.path("a/b")).unwrap();
    pond.rename("a/b", "c");
    pond.rename("c/file", "c/file 2");
    pond.publish();
    assert!(missing(&pond.mount.path("a/b")) && missing(&pond.mount.path("c/file")));
    assert_eq!(pond.read("c/file 2"), b"2");
    assert_eq!(names(&pond.mount.path("c")), ["file 2"]);
    let again = format!("/proc/self/fd/{}/file 2", inside.as_raw_fd());
    assert_eq!(fs::read(again).unwrap(), b"2");

    // A directory replaced by a file, a file by a directory.
    pond.remove("a");
    pond.write("a", b"now a file");
    pond.remove("new");
    pond.mkdir("new");
    pond.write("new/file", b"3");
    pond.publish();
    assert_eq!((pond.read("a"), pond.read("new/file")), (b"now a file".to_vec(), b"3".to_vec()));
    assert_eq!(names(&pond.mount.root), ["a", "c", "new"]);

    // A whole tree is removed while something in it is open.
    let file = File::open(pond.mount.path("c/file 2")).unwrap();
    pond.remove("c/file 2");
    pond.remove("c");
    pond.publish();
    assert!(missing(&pond.mount.path("c")) && missing(&pond.mount.path("c/file 2")));
    let within = format!("/proc/self/fd/{}/file 2", inside.as_raw_fd());
    assert!(missing(Path::new(&within)));
    let mut bytes = [0];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, file.metadata().unwrap().nlink()), (b"2", 0));
    let nodes = pond.mount.backing.fs.node_count();
    drop((file, inside));
    let deadline = Instant::now() + Duration::from_secs(20);
    while pond.mount.backing.fs.node_count() != nodes - 2 {
        assert!(Instant::now() < deadline, "what was removed is never forgotten");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
pub(crate) fn attributes_and_all_names_of_a_hard_linked_file_follow() {
    let pond = Followed::new();
    pond.mkdir("d");
    pond.write("a", b"1");
    pond.link("a", "b");
    pond.link("a", "d/c");
    pond.publish();
    let stat = |name: &str| pond.mount.path(name).metadata().unwrap();
    for name in ["a", "b", "d/c"] {
        assert_eq!((stat(name).nlink(), stat(name).len()), (3, 1));
    }
    let mode = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    pond.source.setattr(&Caller::root(), pond.id("a"), &mode).unwrap();
    pond.remove("b");
    pond.publish();
    assert!(missing(&pond.mount.path("b")));
    assert_eq!((stat("a").nlink(), stat("a").mode() & 0o777), (2, 0o600));
    assert_eq!(stat("a").ino(), stat("d/c").ino());
    let open = File::open(pond.mount.path("a")).unwrap();
    pond.write("d/c", b"22");
    pond.publish();
    assert_eq!((pond.read("a"), pond.read("d/c")), (b"22".to_vec(), b"22".to_vec()));
    assert_eq!((stat("a").len(), stat("a").nlink()), (2, 2));
    assert_eq!(stat("a").ino(), stat("d/c").ino());
    assert_eq!(open.metadata().unwrap().len(), 1);
    drop(open);
    pond.wait_until_thawed();
}

#[test]
pub(crate) fn listings_show_the_inodes_that_names_lead_to() {
    let pond = Followed::new();
    pond.write("file", b"1");
    pond.publish();
    let check = || {
        let entry = fs::read_dir(&pond.mount.root).unwrap().next().unwrap().unwrap();
        let inode = pond.mount.path("file").metadata().unwrap().ino();
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), inode);
        inode
    };
    let (before, _) = (check(), check());
    pond.write("file", b"2");
    pond.publish();
    assert_ne!(check(), before);
}

#[test]
fn nothing_can_be_written() {
    let pond = Followed::new();
    pond.write("file", b"1");
    pond.publish();
    let path = pond.mount.path("file");
    for refused in [
        OpenOptions::new().write(true).open(&path).map(drop),
        fs::write(pond.mount.path("new"), "x"),
        fs::remove_file(&path),
        fs::create_dir(pond.mount.path("d")),
        fs::rename(&path, pond.mount.path("other")),
    ] {
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EROFS));
    }
}

/// Version `n` of a file: its length and all its bytes tell which it is.
fn content(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(8 + (n * 97 % 4096) as usize)
}

/// Reads a file whole through one descriptor and says which version that is.
fn version(path: &Path) -> u64 {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == content(n), "a mixture of versions, or a part of one: {} bytes", bytes.len());
    n
}

#[test]
pub(crate) fn whoever_reads_lists_and_stats_while_versions_come_sees_whole_ones_and_never_older_ones() {
    const ROUNDS: u64 = 400;
    const FILES: u64 = 4;
    let pond = Followed::new();
    pond.mkdir("d");
    for file in 0..FILES {
        pond.write(&format!("d/{file}"), &content(1));
    }
    pond.link("d/0", "linked");
    // Readers expect it in every listing, so it is there before the first of them looks.
    pond.write("d/extra 1", b"");
    pond.publish();
    let (stop, shown, looks) = (AtomicBool::new(false), AtomicU64::new(1), AtomicU64::new(0));
    let root = &pond.mount.root;
    thread::scope(|scope| {
        for reader in 0..3 {
            let (stop, shown, looks) = (&stop, &shown, &looks);
            scope.spawn(move || {
                let mut seen = [0; FILES as usize];
                let mut lookups = 0;
                while !stop.load(Ordering::SeqCst) {
                    let file = lookups % FILES;
                    lookups += 1;
                    let at_least = shown.load(Ordering::SeqCst).max(seen[file as usize]);
                    let path = match file {
                        0 if reader == 0 => root.join("linked"),
                        _ => root.join(format!("d/{file}")),
                    };
                    let now = version(&path);
                    assert!(now >= at_least, "reader {reader}: version {now} after {at_least}");
                    seen[file as usize] = now;
                    looks.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let at_least = shown.load(Ordering::SeqCst);
                let listed = names(&root.join("d"));
                assert!(listed.len() as u64 > FILES, "{listed:?}");
                let extra: u64 = listed.last().unwrap().strip_prefix("extra ").unwrap().parse().unwrap();
                assert!(extra >= at_least, "a listing of version {extra} after {at_least}");
                let metadata = root.join("d/1").metadata().unwrap();
                let sizes = (at_least..=at_least + ROUNDS).map(|n| content(n).len() as u64);
                assert!(sizes.into_iter().any(|size| size == metadata.len()));
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        for round in 2..=ROUNDS {
            for file in 0..FILES {
                pond.write(&format!("d/{file}"), &content(round));
            }
            // A name in the same version as the bytes.
            pond.rename(&format!("d/extra {}", round - 1), &format!("d/extra {round}"));
            pond.publish();
            shown.store(round, Ordering::SeqCst);
        }
        // As many looks again: nothing hangs.
        let enough = looks.load(Ordering::SeqCst) + 100;
        let deadline = Instant::now() + Duration::from_secs(60);
        while looks.load(Ordering::SeqCst) < enough && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::SeqCst);
        assert!(Instant::now() < deadline, "readers hang");
    });
    pond.wait_until_thawed();
}
