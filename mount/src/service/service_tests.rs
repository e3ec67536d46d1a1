//! The service without a kernel: what is answered now, what later, and what the kernel would be told.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pond_tinyfs::{
    Errno, Fallocate, FileType, Location, Make, MemoryPersistence, PersistenceLayer, RenameFlags,
    SetAttributes, Space, Stale, StorageError,
};

use crate::coherence::kernel::Kernel;
use crate::coherence::stale;
use crate::inodes::attributes::{Entry, Keep};
use crate::inodes::table::Ino;
use crate::service::answer::{Answer, Outcome};
use crate::service::guard::ShownTo;
use crate::service::listing::Sink;
use crate::service::memory::{self, Memory};
use crate::service::names::Found;
use crate::service::reading::Whence;
use crate::service::request::Request;
use crate::service::writing::Written;
use crate::service::{Service, Settings};

const ROOT_USER: Request = Request { uid: 0, gid: 0, thread: 1 };
const OTHER_THREAD: Request = Request { thread: 2, ..ROOT_USER };
const BY_PROGRAM: Written = Written { kill_suid_gid: false, from_mapping: false };

/// A service over a tree, and the threads that it has wait.
struct Served {
    service: Service<Memory>,
    backing: Arc<Memory>,
    _runtime: tokio::runtime::Runtime,
}

impl std::ops::Deref for Served {
    type Target = Service<Memory>;

    fn deref(&self) -> &Service<Memory> {
        &self.service
    }
}

impl Served {
    fn new() -> Self {
        Self::over(Memory::new(), false)
    }

    fn over(backing: Arc<Memory>, inode32: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let versions = Some(ShownTo::default());
        let idle = Duration::from_secs(60);
        let settings = Settings { owner: (7, 8), inode32, askers: 2, versions, idle };
        let service = Service::new(backing.clone(), runtime.handle().clone(), settings).unwrap();
        Served { service, backing, _runtime: runtime }
    }

    fn find(&self, parent: Ino, name: &str) -> Outcome<Option<Entry>> {
        self.lookup(ROOT_USER, parent, name.as_bytes()).now().map(|found| match found {
            Found::Entry(entry) => Some(entry),
            Found::Nothing => None,
        })
    }

    fn file(&self, name: &str, content: &[u8]) -> Ino {
        let made = self.make(ROOT_USER, Ino::ROOT, name.as_bytes(), Make::File { mode: 0o644 }).unwrap();
        let ino = made.attributes.ino;
        assert_eq!(self.write(ROOT_USER, ino, 0, content, BY_PROGRAM).now().unwrap(), content.len());
        ino
    }

    fn directory(&self, name: &str) -> Ino {
        let what = Make::Directory { mode: 0o755 };
        self.make(ROOT_USER, Ino::ROOT, name.as_bytes(), what).unwrap().attributes.ino
    }

    fn own(&self, name: &str) -> Entry {
        let own = self.find(Ino::ROOT, ".pond").unwrap().unwrap().attributes.ino;
        match wait(self.lookup(ROOT_USER, own, name.as_bytes())).unwrap() {
            Found::Entry(entry) => entry,
            Found::Nothing => panic!("{name} is not there"),
        }
    }
}

/// The outcome of what must wait.
fn wait<T: Send + 'static>(answer: Answer<T>) -> Outcome<T> {
    answer.later().recv_timeout(Duration::from_secs(60)).expect("an answer")
}

fn errno<T>(outcome: Outcome<T>) -> Errno {
    Errno(outcome.err().expect("a failure").errno())
}

/// What a kernel was told.
#[derive(Default)]
struct Told(Mutex<Vec<(&'static str, Ino)>>);

impl Told {
    fn note(&self, what: &'static str, ino: Ino) -> io::Result<()> {
        self.0.lock().push((what, ino));
        Ok(())
    }

    fn attach(served: &Served) -> Arc<Told> {
        let told = Arc::new(Told::default());
        served.coherence().start(told.clone()).unwrap();
        told
    }
}

impl Kernel for Told {
    fn drop_name(&self, parent: Ino, _name: &[u8]) -> io::Result<()> {
        self.note("name", parent)
    }

    fn name_is_gone(&self, _parent: Ino, _name: &[u8], child: Ino) -> io::Result<()> {
        self.note("gone", child)
    }

    fn drop_attributes(&self, ino: Ino) -> io::Result<()> {
        self.note("attributes", ino)
    }

    fn drop_pages(&self, ino: Ino) -> io::Result<()> {
        self.note("pages", ino)
    }
}

#[test]
fn metadata_is_answered_now_and_kept_until_told() {
    let served = Served::new();
    let file = served.file("file", b"content");
    let found = served.find(Ino::ROOT, "file").unwrap().unwrap();
    assert_eq!((found.attributes.ino, found.attributes.size, found.keep), (file, 7, Keep::UntilTold));
    assert_eq!(served.getattr(ROOT_USER, file).unwrap(), (found.attributes, Keep::UntilTold));
    let change = SetAttributes { mode: Some(0o600), ..SetAttributes::default() };
    assert_eq!(served.setattr(ROOT_USER, file, &change).unwrap().mode, 0o600);
    let flags = RenameFlags::default();
    served.rename(ROOT_USER, (Ino::ROOT, b"file"), (Ino::ROOT, b"other"), flags).now().unwrap();
    served.unlink(ROOT_USER, Ino::ROOT, b"other").unwrap();
    assert_eq!(served.getattr(ROOT_USER, file).unwrap().0.nlink, 0);
    served.forget(file, 2);
    assert_eq!(errno(served.getattr(ROOT_USER, file)), Errno::STALE);
}

#[test]
fn that_a_name_is_missing_is_kept_where_all_changes_come_through_here() {
    let served = Served::new();
    assert_eq!(served.find(Ino::ROOT, "missing").unwrap(), None);
    let follower = Served::over(Memory::over(memory::tree(MemoryPersistence::new()), true), false);
    assert_eq!(errno(follower.find(Ino::ROOT, "missing")), Errno::NOENT);
}

#[test]
fn a_file_that_came_meanwhile_is_looked_at_again_unless_it_had_to_be_new() {
    let served = Served::new();
    served.file("file", b"");
    let create = |exclusive| served.create(ROOT_USER, Ino::ROOT, b"file", 0o644, exclusive);
    assert_eq!((errno(create(false)), errno(create(true))), (Errno::STALE, Errno::EXIST));
}

#[test]
fn writes_without_room_wait_and_everything_else_goes_on() {
    let served = Served::new();
    let file = served.file("file", b"before");
    served.backing.room.store(false, Ordering::SeqCst);
    let written = served.write(ROOT_USER, file, 0, b"after!", BY_PROGRAM).later();
    let allocated = served.fallocate(ROOT_USER, file, 0, 100, Fallocate::Allocate).later();
    // A hole needs no room, and reading none.
    served.fallocate(ROOT_USER, file, 0, 1, Fallocate::PunchHole).now().unwrap();
    served.directory("made meanwhile");
    assert_eq!(served.read(file, 0, 100).0.now().unwrap(), b"\0efore");
    assert!(written.try_recv().is_err() && allocated.try_recv().is_err());
    served.backing.room.store(true, Ordering::SeqCst);
    assert_eq!(written.recv().unwrap().unwrap(), 6);
    allocated.recv().unwrap().unwrap();
    assert_eq!(served.read(file, 0, 6).0.now().unwrap(), b"after!");
}

#[test]
fn what_takes_long_is_not_done_by_who_asks() {
    let served = Served::new();
    let (file, target) = (served.file("file", &[1; 100_000]), served.file("target", b""));
    wait(served.fallocate(ROOT_USER, file, 0, 2 << 20, Fallocate::Allocate)).unwrap();
    assert_eq!(wait(served.copy(ROOT_USER, (file, 0), (target, 10), 90_000)).unwrap(), 90_000);
    assert_eq!(served.getattr(ROOT_USER, target).unwrap().0.size, 90_010);
    wait(served.fsync(target)).unwrap();
    assert_eq!(served.backing.fsyncs.load(Ordering::SeqCst), 1);
}

/// Extents that are on a disk until somebody reads them ahead.
struct OnDisk {
    store: Arc<MemoryPersistence>,
    cached: AtomicBool,
}

impl PersistenceLayer for OnDisk {
    fn read(&self, location: Location, skip: u32, length: u32) -> Result<Bytes, StorageError> {
        self.store.read(location, skip, length)
    }

    fn read_cached(&self, location: Location, skip: u32, length: u32) -> Option<Bytes> {
        let cached = self.cached.load(Ordering::SeqCst);
        self.store.read_cached(location, skip, length).filter(|_| cached)
    }

    fn prefetch(&self, _location: Location) {
        self.cached.store(true, Ordering::SeqCst);
    }

    fn prefetch_budget(&self) -> u64 {
        64 << 20
    }

    fn space(&self) -> Space {
        self.store.space()
    }

    fn open_spill(&self) -> Result<u32, StorageError> {
        self.store.open_spill()
    }

    fn write_spill(&self, spill: u32, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.store.write_spill(spill, offset, data)
    }

    fn close_spill(&self, spill: u32) {
        self.store.close_spill(spill);
    }
}

#[test]
fn cold_reads_wait_and_who_reads_on_is_read_ahead_of() {
    let store = MemoryPersistence::new();
    let disk = Arc::new(OnDisk { store: store.clone(), cached: AtomicBool::new(false) });
    let served = Served::over(Memory::over(memory::tree(disk.clone()), false), false);
    let content: Vec<u8> = (0..8u32 << 20).map(|n| (n / 1000) as u8).collect();
    let file = served.file("file", &content);
    served.backing.fs.stored(&store.store(&served.backing.fs.cut().rows));
    let mut read = 0;
    while !disk.cached.load(Ordering::SeqCst) {
        let (answer, ahead) = served.read(file, read as u64, 128 << 10);
        assert!(matches!(answer, Answer::Later(_)) || disk.cached.load(Ordering::SeqCst));
        let data = match answer {
            Answer::Now(outcome) => outcome.unwrap(),
            later => wait(later).unwrap(),
        };
        served.read_ahead(ahead);
        assert_eq!(data, content[read..read + (128 << 10)]);
        read += 128 << 10;
        assert!(read < 4 << 20, "nothing was read ahead");
        // Reading ahead is another thread's.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(served.read(file, 5 << 20, 4096).0.now().unwrap(), content[5 << 20..(5 << 20) + 4096]);
}

#[test]
fn what_a_mapping_may_hold_is_written_back_before_a_hole_is_called_one() {
    let served = Served::new();
    let told = Told::attach(&served);
    let file = served.file("file", b"");
    served.write(ROOT_USER, file, 1 << 20, b"data", BY_PROGRAM).now().unwrap();
    assert_eq!(served.seek(file, 1 << 20, Whence::Data).now().unwrap(), 1 << 20);
    assert!(told.0.lock().is_empty());
    assert_eq!(wait(served.seek(file, 0, Whence::Data)).unwrap(), 1 << 20);
    assert_eq!(*told.0.lock(), [("pages", file)]);
}

#[test]
fn a_directory_that_moved_has_its_listing_dropped_before_that_is_answered() {
    let served = Served::new();
    let told = Told::attach(&served);
    let (from, to) = (served.directory("from"), served.directory("to"));
    let flags = RenameFlags::default();
    served.rename(ROOT_USER, (Ino::ROOT, b"to"), (Ino::ROOT, b"into"), flags).now().unwrap();
    wait(served.rename(ROOT_USER, (Ino::ROOT, b"from"), (to, b"from"), flags)).unwrap();
    assert_eq!(*told.0.lock(), [("pages", from)]);
}

#[test]
fn attributes_that_may_be_on_their_way_to_another_thread_are_taken_back() {
    let served = Served::new();
    let told = Told::attach(&served);
    let file = served.file("file", b"");
    served.getattr(ROOT_USER, file).unwrap();
    served.link(ROOT_USER, file, Ino::ROOT, b"by the same").unwrap();
    served.getattr(OTHER_THREAD, file).unwrap();
    served.link(ROOT_USER, file, Ino::ROOT, b"by another").unwrap();
    // Messages go by a thread of their own, in their order.
    served.coherence().tell(vec![stale::Note::Settle(pond_tinyfs::NodeId::ROOT)]);
    assert_eq!(*told.0.lock(), [("attributes", file), ("name", Ino::ROOT)]);
}

#[test]
fn what_the_mount_says_of_itself_can_be_read_and_not_changed() {
    for inode32 in [false, true] {
        let served = Served::over(Memory::new(), inode32);
        let first = served.own("position").attributes;
        let second = served.own("position");
        assert_eq!((second.keep, second.attributes.uid, second.attributes.mode), (Keep::Never, 7, 0o444));
        assert_ne!(first.ino, second.attributes.ino);
        let read = |ino| String::from_utf8(served.read(ino, 0, 100).0.now().unwrap()).unwrap();
        assert_eq!((&*read(first.ino), &*read(second.attributes.ino)), ("position 0\n", "position 1\n"));
        assert_eq!(served.read(first.ino, 9, 1).0.now().unwrap(), b"0");
        assert_eq!(served.getattr(ROOT_USER, first.ino).unwrap(), (first, Keep::Never));
        served.fsync(first.ino).now().unwrap();
        let ino = first.ino;
        assert_eq!(errno(served.write(ROOT_USER, ino, 0, b"x", BY_PROGRAM).now()), Errno::PERM);
        assert_eq!(errno(served.setattr(ROOT_USER, ino, &SetAttributes::default())), Errno::PERM);
        assert_eq!(errno(served.link(ROOT_USER, ino, Ino::ROOT, b"link")), Errno::PERM);
        assert_eq!(errno(served.unlink(ROOT_USER, Ino::ROOT, b".pond")), Errno::PERM);
        let what = Make::Directory { mode: 0o755 };
        assert_eq!(errno(served.make(ROOT_USER, Ino::ROOT, b".pond", what)), Errno::PERM);
        served.forget(ino, 1);
        assert_eq!(errno(served.getattr(ROOT_USER, ino)), Errno::STALE);
    }
}

/// Takes so many entries.
#[derive(Default)]
struct Few {
    room: usize,
    taken: Vec<(String, u64, Ino)>,
}

impl Sink for Few {
    fn add(&mut self, name: &[u8], position: u64, entry: &Entry) -> bool {
        if self.taken.len() == self.room {
            return false;
        }
        let name = String::from_utf8(name.to_vec()).unwrap();
        self.taken.push((name, position, entry.attributes.ino));
        true
    }
}

#[test]
fn listings_go_on_where_they_stopped_and_refer_to_what_they_gave() {
    for inode32 in [false, true] {
        let served = Served::over(Memory::new(), inode32);
        let files: Vec<Ino> = (0..5).map(|n| served.file(&format!("{n}"), b"")).collect();
        let handle = served.open_directory().unwrap_or(0);
        let mut names = Vec::new();
        let each = &mut |entry: &crate::service::listing::Listed<'_>| {
            names.push((String::from_utf8(entry.name.to_vec()).unwrap(), entry.position, entry.ino));
            assert_eq!(entry.kind == FileType::File, !entry.name.starts_with(b"."));
            true
        };
        served.list(Ino::ROOT, handle, 0, each).unwrap();
        let (mut position, mut found) = (0, Vec::new());
        while found.len() < 7 {
            let sink = Few { room: 3, ..Few::default() };
            let listed = served.list_with_lookups(ROOT_USER, Ino::ROOT, handle, position, sink);
            let (sink, outcome) = listed.now().unwrap();
            outcome.unwrap();
            position = sink.taken.last().unwrap().1;
            found.extend(sink.taken);
        }
        assert_eq!(found, names);
        assert!(!inode32 || names.iter().all(|(_, position, ino)| position.max(&ino.0) >> 31 == 0));
        for (n, ino) in files.into_iter().enumerate() {
            served.unlink(ROOT_USER, Ino::ROOT, n.to_string().as_bytes()).unwrap();
            // One reference is from the making, one from the listing.
            served.forget(ino, 1);
            assert_eq!(served.getattr(ROOT_USER, ino).unwrap().0.nlink, 0);
            served.forget(ino, 1);
            assert_eq!(errno(served.getattr(ROOT_USER, ino)), Errno::STALE);
        }
        served.close_directory(handle);
    }
}

#[test]
fn what_others_removed_is_told_of_by_the_number_it_had() {
    for inode32 in [false, true] {
        let served = Served::over(Memory::new(), inode32);
        let told = Told::attach(&served);
        let file = served.file("file", b"");
        let id = served.backing.fs.resolve(b"/file").unwrap().id;
        let caller = pond_tinyfs::Caller::root();
        served.backing.fs.unlink(&caller, pond_tinyfs::NodeId::ROOT, b"file").unwrap();
        let gone =
            Stale::Name { parent: pond_tinyfs::NodeId::ROOT, name: b"file".as_slice().into(), child: id };
        served.coherence().tell(stale::notes(&served.backing.fs, &[gone], false));
        assert_eq!(*told.0.lock(), [("gone", file)]);
        served.forget(file, 1);
        assert_eq!(errno(served.getattr(ROOT_USER, file)), Errno::STALE);
    }
}
