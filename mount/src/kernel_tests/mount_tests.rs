//! The adapter under a real kernel: a tree in memory, mounted, and system calls on it.
//!
//! Needs root and `/dev/fuse`; elsewhere these tests say so and do nothing.

use std::cell::Cell;
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use pond_tinyfs::{Error, Fold, MemoryPersistence, Timestamp, TinyFs, root_row};

use crate::adapter::Adapter;
use crate::adapter::session::Session;
use crate::coherence::Coherence;
use crate::mounting::mount_point;
use crate::mounting::options::MountOptions;
use crate::service::backing::{Backing, Done};
use crate::service::content::Content;

/// A pond without a disk.
pub(crate) struct Memory {
    pub(crate) fs: TinyFs,
    follows: bool,
    room: AtomicBool,
    parked: AtomicU64,
    fsyncs: AtomicU64,
    looks: AtomicU64,
}

impl Backing for Memory {
    fn fs(&self) -> &TinyFs {
        &self.fs
    }

    fn follows(&self) -> bool {
        self.follows
    }

    fn fsync(&self, done: Done, _here: bool) {
        self.fsyncs.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || done(Ok(())));
    }

    fn has_room(&self) -> bool {
        self.room.load(Ordering::SeqCst)
    }

    fn when_room<T>(&self, _bytes: u64, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.parked.fetch_add(1, Ordering::SeqCst);
        while !self.has_room() {
            thread::sleep(Duration::from_millis(1));
        }
        work()
    }

    fn content(&self, file: Content) -> Vec<u8> {
        format!("{} {}\n", file.name(), self.looks.fetch_add(1, Ordering::SeqCst)).into_bytes()
    }
}

thread_local! {
    /// Whether mounts that this thread makes have inode numbers of 32 bits.
    static INODE32: Cell<bool> = const { Cell::new(false) };
}

/// Does this where all mounts have inode numbers of 32 bits.
pub(crate) fn with_inode32<T>(work: impl FnOnce() -> T) -> T {
    INODE32.set(true);
    let done = work();
    INODE32.set(false);
    done
}

/// A mount that goes away with this value, also when a test fails.
pub(crate) struct TestMount {
    pub(crate) root: PathBuf,
    pub(crate) backing: Arc<Memory>,
    pub(crate) coherence: Arc<Coherence>,
    session: Option<thread::JoinHandle<io::Result<()>>>,
    _runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl TestMount {
    pub(crate) fn new() -> TestMount {
        let mut fold = Fold::new();
        fold.push(root_row(Timestamp::now(), 0, 0));
        Self::over(TinyFs::new(fold.finish().unwrap(), Arc::new(MemoryPersistence::default())), false)
    }

    pub(crate) fn over(fs: TinyFs, follows: bool) -> TestMount {
        assert!(mount_point::is_root(), "mounting is tested as root");
        mount_point::open_fuse().unwrap();
        let directory = tempfile::Builder::new().prefix("pond-mount-test-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = mount_point::absolute(&directory.path().join("mnt")).unwrap();
        mount_point::make(&root).unwrap();
        let backing = Arc::new(Memory {
            fs,
            follows,
            room: AtomicBool::new(true),
            parked: AtomicU64::new(0),
            fsyncs: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let options = MountOptions { inode32: INODE32.get(), ..MountOptions::default() };
        let descriptor = mount_point::mount(directory.path(), &root, follows, &options).unwrap();
        let adapter =
            Adapter::new(backing.clone(), runtime.handle().clone(), (0, 0), options.inode32).unwrap();
        let coherence = adapter.coherence();
        let mut mount =
            TestMount { root, backing, coherence, session: None, _runtime: runtime, _directory: directory };
        mount.session = Some(Session::start(adapter, descriptor, &mount.root).unwrap().thread);
        mount
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        self.backing.room.store(true, Ordering::SeqCst);
        mount_point::unmount(&self.root, true).unwrap();
        if let Some(session) = self.session.take().filter(|_| !thread::panicking()) {
            session.join().unwrap().unwrap();
        }
    }
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn ok(result: i32) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

fn errno(result: i32) -> i32 {
    assert_eq!(result, -1);
    io::Error::last_os_error().raw_os_error().unwrap()
}

pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// As nobody, in a shell.
fn as_nobody(script: &str) -> std::process::Output {
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", script])
        .output()
        .unwrap()
}

#[test]
pub(crate) fn files_and_directories_do_what_programs_expect() {
    let mount = TestMount::new();
    let file = mount.write("file", "one\n");
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b"two\n").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    fs::create_dir_all(mount.path("a/b/c")).unwrap();
    fs::rename(&file, mount.path("a/b/moved")).unwrap();
    assert_eq!(file.metadata().unwrap_err().kind(), ErrorKind::NotFound);
    fs::hard_link(mount.path("a/b/moved"), mount.path("link")).unwrap();
    let linked = mount.path("link").metadata().unwrap();
    assert_eq!((linked.nlink(), linked.len()), (2, 8));
    symlink("a/b/moved", mount.path("symlink")).unwrap();
    assert_eq!(fs::read_link(mount.path("symlink")).unwrap(), Path::new("a/b/moved"));
    assert_eq!(fs::read(mount.path("symlink")).unwrap().len(), 8);
    assert_eq!(names(&mount.root), ["a", "link", "symlink"]);
    assert_eq!(fs::remove_dir(mount.path("a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    fs::remove_dir_all(mount.path("a")).unwrap();
    assert_eq!(mount.path("link").metadata().unwrap().nlink(), 1);
    OpenOptions::new().write(true).truncate(true).open(mount.path("link")).unwrap();
    assert_eq!(mount.path("link").metadata().unwrap().len(), 0);
}

#[test]
pub(crate) fn an_unlinked_open_file_stays_whole_until_it_is_closed() {
    let mount = TestMount::new();
    let path = mount.write("file", vec![7; 300_000]);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all_at(b"end", 300_000).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len(), &bytes[300_000..]), (300_003, b"end".as_slice()));
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let nodes = mount.backing.fs.node_count();
    drop(file);
    let deadline = Instant::now() + Duration::from_secs(60);
    while mount.backing.fs.node_count() == nodes {
        assert!(Instant::now() < deadline, "the node was never forgotten");
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn times_before_1970_survive() {
    let mount = TestMount::new();
    let path = mount.write("file", "");
    for (seconds, nanoseconds) in [(-2, 800_000_000), (-1, 0), (0, 1), (1_700_000_000, 999_999_999)] {
        let time = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        // SAFETY: the path and both times are valid.
        ok(unsafe { libc::utimensat(libc::AT_FDCWD, c(&path).as_ptr(), [time, time].as_ptr(), 0) });
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, nanoseconds));
        assert_eq!((metadata.atime(), metadata.atime_nsec()), (seconds, nanoseconds));
    }
    let now = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    let omit = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    // SAFETY: as above.
    ok(unsafe { libc::utimensat(libc::AT_FDCWD, c(&path).as_ptr(), [now, omit].as_ptr(), 0) });
    let metadata = path.metadata().unwrap();
    assert!(metadata.accessed().unwrap() > UNIX_EPOCH + Duration::from_secs(1_700_000_001));
    assert_eq!(metadata.mtime(), 1_700_000_000);
}

#[test]
fn a_mode_has_the_umask_applied_once() {
    let mount = TestMount::new();
    let script = format!(
        "umask 027 && cd {} && mkdir d && : > f && mkfifo p && umask 0 && mkdir -m 1777 open",
        mount.root.display()
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    for (name, mode) in [("d", 0o750), ("f", 0o640), ("p", 0o640), ("open", 0o1777)] {
        assert_eq!(mount.path(name).metadata().unwrap().mode() & 0o7777, mode, "{name}");
    }
}

#[test]
pub(crate) fn every_kind_of_node_can_be_made() {
    let mount = TestMount::new();
    let device = libc::makedev(259, 300_000);
    for (name, kind) in [
        ("fifo", libc::S_IFIFO),
        ("socket", libc::S_IFSOCK),
        ("char", libc::S_IFCHR),
        ("block", libc::S_IFBLK),
        ("file", libc::S_IFREG),
    ] {
        // SAFETY: the path is valid.
        ok(unsafe { libc::mknod(c(&mount.path(name)).as_ptr(), kind | 0o600, device) });
        let metadata = mount.path(name).symlink_metadata().unwrap();
        assert_eq!(metadata.mode(), kind | 0o600, "{name}");
        let expected = if kind == libc::S_IFCHR || kind == libc::S_IFBLK { device } else { 0 };
        assert_eq!(metadata.rdev(), expected, "{name}");
    }
    assert!(mount.path("fifo").metadata().unwrap().file_type().is_fifo());
    std::os::unix::net::UnixListener::bind(mount.path("bound")).unwrap();
}

#[test]
pub(crate) fn rename_flags_are_honoured() {
    let mount = TestMount::new();
    let (a, b) = (mount.write("a", "A"), mount.write("b", "BB"));
    let rename = |flags| {
        // SAFETY: both paths are valid.
        unsafe { libc::renameat2(libc::AT_FDCWD, c(&a).as_ptr(), libc::AT_FDCWD, c(&b).as_ptr(), flags) }
    };
    assert_eq!(errno(rename(libc::RENAME_NOREPLACE)), libc::EEXIST);
    ok(rename(libc::RENAME_EXCHANGE));
    assert_eq!(fs::read(&a).unwrap(), b"BB");
    assert_eq!(errno(rename(libc::RENAME_WHITEOUT)), libc::EINVAL);
    ok(rename(0));
    assert_eq!(names(&mount.root), ["b"]);
    assert_eq!(fs::read(&b).unwrap(), b"BB");
}

#[test]
pub(crate) fn holes_are_holes() {
    let mount = TestMount::new();
    let file = File::create_new(mount.path("file")).unwrap();
    file.write_all_at(&[1; 8192], 1 << 20).unwrap();
    file.set_len(2 << 20).unwrap();
    let seek = |offset, whence| {
        // SAFETY: the descriptor is open.
        unsafe { libc::lseek(file.as_raw_fd(), offset, whence) }
    };
    assert_eq!(seek(0, libc::SEEK_DATA), 1 << 20);
    assert_eq!(seek(1 << 20, libc::SEEK_HOLE), (1 << 20) + 8192);
    assert_eq!(seek((1 << 20) + 8192, libc::SEEK_DATA), -1);
    let fallocate = |mode, offset, length| {
        // SAFETY: the descriptor is open.
        unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) }
    };
    ok(fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 1 << 20, 4096));
    let mut start = [9; 8192];
    file.read_exact_at(&mut start, 1 << 20).unwrap();
    assert!(start[..4096].iter().all(|&byte| byte == 0) && start[4096..].iter().all(|&byte| byte == 1));
    ok(fallocate(0, 0, 5 << 20));
    assert_eq!(file.metadata().unwrap().len(), 5 << 20);
    assert_eq!(errno(fallocate(libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096)), libc::EOPNOTSUPP);
}

#[test]
fn holes_are_whole_blocks_and_hide_no_data() {
    let mount = TestMount::new();
    let file = File::create_new(mount.path("file")).unwrap();
    // Neither written piece begins or ends where a block does; the second lies in the last block.
    file.write_all_at(&[1; 129], 5000).unwrap();
    file.write_all_at(&[1; 10], 20_000).unwrap();
    file.set_len(20_100).unwrap();
    let seek = |offset, whence| {
        // SAFETY: the descriptor is open.
        unsafe { libc::lseek(file.as_raw_fd(), offset, whence) }
    };
    for (from, data, hole) in [(0, 4096, 0), (4096, 4096, 8192), (8191, 8191, 8192), (5500, 5500, 8192)] {
        assert_eq!((seek(from, libc::SEEK_DATA), seek(from, libc::SEEK_HOLE)), (data, hole), "from {from}");
    }
    for (from, data, hole) in [(8192, 16_384, 8192), (16_383, 16_384, 16_383), (20_050, 20_050, 20_100)] {
        assert_eq!((seek(from, libc::SEEK_DATA), seek(from, libc::SEEK_HOLE)), (data, hole), "from {from}");
    }
}

#[test]
pub(crate) fn a_directory_that_moved_lists_its_new_parent() {
    let mount = TestMount::new();
    for name in ["a", "b", "a/moved", "b/other"] {
        fs::create_dir(mount.path(name)).unwrap();
    }
    let parent_of = |name: &str| {
        let listed = entries(&mount.path(name));
        listed.iter().find(|(_, _, name)| name == b"..").unwrap().1
    };
    let inode = |name: &str| mount.path(name).metadata().unwrap().ino();
    for _ in 0..2 {
        // The second time the kernel answers from what it kept.
        assert_eq!(parent_of("a/moved"), inode("a"));
        assert_eq!(parent_of("b/other"), inode("b"));
    }
    fs::rename(mount.path("a/moved"), mount.path("b/moved")).unwrap();
    assert_eq!(parent_of("b/moved"), inode("b"));
    assert_eq!(parent_of("b/moved"), inode("b"));
    let (from, to) = (c(&mount.path("b/other")), c(&mount.path("a/other")));
    fs::create_dir(mount.path("a/other")).unwrap();
    fs::create_dir(mount.path("a/other/below")).unwrap();
    assert_eq!(parent_of("a/other"), inode("a"));
    // SAFETY: both paths are valid.
    ok(unsafe {
        libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::RENAME_EXCHANGE)
    });
    assert_eq!((parent_of("a/other"), parent_of("b/other")), (inode("a"), inode("b")));
}

#[test]
fn a_listing_goes_on_from_wherever_a_program_seeks_to() {
    let mount = TestMount::new();
    for number in 0..50 {
        mount.write(&format!("{number:02}"), "");
    }
    let all = entries(&mount.root);
    let positions: Vec<i64> = all.iter().map(|entry| entry.0).collect();
    assert!(positions.is_sorted() && positions[0] > 0);
    let from = |position: i64| -> Vec<Vec<u8>> {
        entries_from(&mount.root, position).into_iter().map(|(_, _, name)| name).collect()
    };
    let names = |entries: &[(i64, u64, Vec<u8>)]| -> Vec<Vec<u8>> {
        entries.iter().map(|(_, _, name)| name.clone()).collect()
    };
    for position in [1, 3, 1 << 30, 1 << 40, positions[0] / 2, positions[0] - 1] {
        assert_eq!(from(position), names(&all), "from {position}, below all");
    }
    for (at, position) in positions.iter().enumerate() {
        assert_eq!(from(*position), names(&all[at + 1..]));
    }
    // Entries that go leave positions that none has any more.
    for number in (0..50).filter(|number| number % 3 != 0) {
        fs::remove_file(mount.path(&format!("{number:02}"))).unwrap();
    }
    let left = entries(&mount.root);
    for position in &positions {
        let after = left.iter().filter(|entry| {
            let name = &all.iter().find(|old| old.2 == entry.2).unwrap().2;
            all.iter().position(|old| &old.2 == name) > positions.iter().position(|other| other == position)
        });
        assert_eq!(from(*position), after.map(|entry| entry.2.clone()).collect::<Vec<_>>());
    }
}

/// What `readdir` gives from the start: the position after each entry, its inode number, its name.
pub(crate) fn entries(directory: &Path) -> Vec<(i64, u64, Vec<u8>)> {
    entries_from(directory, 0)
}

/// The same from a position on, as `seekdir` sets it.
pub(crate) fn entries_from(directory: &Path, position: i64) -> Vec<(i64, u64, Vec<u8>)> {
    let directory = File::open(directory).unwrap();
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::lseek(directory.as_raw_fd(), position, libc::SEEK_SET) }, position);
    let mut found = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        // SAFETY: the kernel writes at most as much as the buffer holds.
        let length = unsafe {
            libc::syscall(libc::SYS_getdents64, directory.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        assert!(length >= 0, "{}", io::Error::last_os_error());
        let mut rest = &buffer[..length as usize];
        if rest.is_empty() {
            return found;
        }
        // struct linux_dirent64: inode, offset, length of the record, kind, name with a zero at its end.
        while !rest.is_empty() {
            let number = |at: usize| u64::from_ne_bytes(rest[at..at + 8].try_into().unwrap());
            let size = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[19..size].split(|&byte| byte == 0).next().unwrap().to_vec();
            found.push((number(8).cast_signed(), number(0), name));
            rest = &rest[size..];
        }
    }
}

/// Writes by Linux's asynchronous I/O, and returns once that is acknowledged.
fn write_asynchronously(file: &File, data: &[u8]) {
    /// struct iocb of linux/aio_abi.h, on a little-endian machine.
    #[repr(C)]
    #[derive(Default)]
    struct Request {
        data: u64,
        key: u32,
        flags: i32,
        opcode: u16,
        priority: i16,
        descriptor: u32,
        buffer: u64,
        bytes: u64,
        offset: i64,
        reserved: u64,
        more_flags: u32,
        event_descriptor: u32,
    }
    const WRITE: u16 = 1;
    let mut context = 0u64;
    let mut request = Request {
        opcode: WRITE,
        descriptor: file.as_raw_fd() as u32,
        buffer: data.as_ptr() as u64,
        bytes: data.len() as u64,
        ..Default::default()
    };
    let mut requests = [&raw mut request];
    let mut events = [[0i64; 4]; 1];
    let none = ptr::null_mut::<libc::timespec>();
    // SAFETY: everything that the kernel is given outlives the last of these calls.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_io_setup, 1, &raw mut context), 0);
        assert_eq!(libc::syscall(libc::SYS_io_submit, context, 1, requests.as_mut_ptr()), 1);
        assert_eq!(libc::syscall(libc::SYS_io_getevents, context, 1, 1, events.as_mut_ptr(), none), 1);
        assert_eq!(libc::syscall(libc::SYS_io_destroy, context), 0);
    }
    assert_eq!(events[0][2], data.len() as i64);
}

#[test]
fn who_reads_beside_asynchronous_direct_writes_sees_them_once_they_are_acknowledged() {
    const SIZE: usize = 640 << 10;
    let mount = TestMount::new();
    let path = mount.write("file", vec![0u8; SIZE]);
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    let file = File::open(&path).unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut buffer = vec![0; SIZE];
                while !end.load(Ordering::Relaxed) {
                    file.read_exact_at(&mut buffer, 0).unwrap();
                }
            });
        }
        let stale = (1..50u8).find(|&round| {
            let mut data = vec![round; SIZE + 4096];
            let aligned = data.as_ptr().align_offset(4096);
            write_asynchronously(&direct, &data[aligned..aligned + SIZE]);
            file.read_exact_at(&mut data[..SIZE], 0).unwrap();
            data[..SIZE].iter().any(|&byte| byte != round)
        });
        end.store(true, Ordering::Relaxed);
        assert_eq!(stale, None, "old bytes after this write was acknowledged");
    });
}

#[test]
pub(crate) fn what_a_mapping_holds_is_no_hole() {
    let mount = TestMount::new();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(mount.path("mapped"))
        .unwrap();
    file.set_len(1 << 20).unwrap();
    // SAFETY: the mapping is as long as the file, and is taken away before the file is closed.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(ptr::null_mut(), 1 << 20, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        map.cast::<u8>().add(5000).write(1);
        assert_eq!(libc::lseek(file.as_raw_fd(), 0, libc::SEEK_DATA), 4096);
        assert_eq!(libc::lseek(file.as_raw_fd(), 0, libc::SEEK_HOLE), 0);
        map.cast::<u8>().write(1);
        assert_eq!(libc::lseek(file.as_raw_fd(), 0, libc::SEEK_HOLE), 8192);
        assert_eq!(libc::munmap(map, 1 << 20), 0);
    }
}

#[test]
fn extended_attributes_tell_their_size() {
    let mount = TestMount::new();
    let path = c(&mount.write("file", ""));
    let (name, value) = (c"user.name", b"value");
    let set = |name: &std::ffi::CStr, flags| {
        // SAFETY: all pointers are valid.
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) }
    };
    let mut buffer = [0u8; 64];
    let mut get = |size: usize| {
        // SAFETY: the buffer has at least this size.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), size) }
    };
    assert_eq!(get(0), -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENODATA));
    assert_eq!(errno(set(name, libc::XATTR_REPLACE)), libc::ENODATA);
    ok(set(name, libc::XATTR_CREATE));
    assert_eq!(errno(set(name, libc::XATTR_CREATE)), libc::EEXIST);
    assert_eq!((get(0), get(64)), (5, 5));
    assert_eq!(get(4), -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ERANGE));
    let mut list = [0u8; 64];
    // SAFETY: the buffer has this size.
    let length = unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    assert_eq!(&list[..length as usize], b"user.name\0");
    assert_eq!(errno(set(c"system.posix_acl_access", 0)), libc::EOPNOTSUPP);
    // SAFETY: both strings are valid.
    ok(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) });
}

#[test]
fn a_write_by_another_user_clears_setuid() {
    let mount = TestMount::new();
    let path = mount.write("program", "x");
    let mode = || path.metadata().unwrap().mode() & 0o7777;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    fs::write(&path, "by root").unwrap();
    assert_eq!(mode(), 0o6777);
    assert!(as_nobody(&format!("echo more >> {}", path.display())).status.success());
    assert_eq!(mode(), 0o777);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    chown(&path, Some(65534), Some(65534)).unwrap();
    assert_eq!(mode(), 0o755);
    assert!(!as_nobody(&format!("chown 0 {}", path.display())).status.success());
}

#[test]
pub(crate) fn permissions_are_enforced_for_everybody_else() {
    let mount = TestMount::new();
    let secret = mount.write("secret", "");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!as_nobody(&format!("cat {}", secret.display())).status.success());
    assert!(!as_nobody(&format!("touch {}/mine", mount.root.display())).status.success());
    fs::set_permissions(&mount.root, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(as_nobody(&format!("touch {}/mine", mount.root.display())).status.success());
    assert_eq!(mount.path("mine").metadata().unwrap().uid(), 65534);
    assert!(!as_nobody(&format!("rm -f {}", secret.display())).status.success());
    assert!(!as_nobody(&format!("cat {}/.pond/position", mount.root.display())).status.success());
}

#[test]
pub(crate) fn a_large_directory_is_listed_once_and_whole() {
    let mount = TestMount::new();
    for n in 0..5_000 {
        File::create_new(mount.path(&format!("a rather long name, number {n:05}"))).unwrap();
    }
    let listed = names(&mount.root);
    assert_eq!(listed.len(), 5_000);
    assert!(listed.windows(2).all(|pair| pair[0] < pair[1]));
    for (n, entry) in fs::read_dir(&mount.root).unwrap().enumerate() {
        let entry = entry.unwrap();
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), entry.metadata().unwrap().ino());
        if n % 2 == 0 {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    assert_eq!(names(&mount.root).len(), 2_500);
}

#[test]
pub(crate) fn renaming_what_is_listed_comes_to_an_end() {
    let mount = TestMount::new();
    for n in 0..2_000 {
        File::create_new(mount.path(&format!("file-{n:04}"))).unwrap();
    }
    let mut seen = 0;
    for entry in fs::read_dir(&mount.root).unwrap() {
        let path = entry.unwrap().path();
        fs::rename(&path, mount.path("TEMPORARY")).unwrap();
        fs::rename(mount.path("TEMPORARY"), &path).unwrap();
        seen += 1;
        assert!(seen <= 2_000, "the listing goes on with what came after it had begun");
    }
    assert_eq!(seen, 2_000);
    assert_eq!(names(&mount.root).len(), 2_000);
}

#[test]
fn a_program_that_a_stranger_wrote_into_is_not_setuid_any_more() {
    let mount = TestMount::new();
    let program = mount.path("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    let euid = |script: &str| {
        let script = format!("cd {} && {script}", mount.root.display());
        let output = as_nobody(&script);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4777)).unwrap();
    assert_eq!(euid("./id -u"), "0", "the mount takes setuid for what it is");
    assert_eq!(euid("printf x >> id && ./id -u"), "65534");
    assert_eq!(program.metadata().unwrap().mode() & 0o7777, 0o777);
    // Setgid without execution by the group, by somebody who is not of it.
    for script in ["printf x >> id", "fallocate -l 1 id", "fallocate -p -o 0 -l 4096 id"] {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6766)).unwrap();
        euid(script);
        assert_eq!(program.metadata().unwrap().mode() & 0o7777, 0o766, "{script}");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o2766)).unwrap();
        euid(script);
        assert_eq!(program.metadata().unwrap().mode() & 0o7777, 0o766, "{script}");
    }
}

#[test]
fn fsync_is_passed_on_and_synchronous_writes_bring_one_along() {
    let mount = TestMount::new();
    let fsyncs = || mount.backing.fsyncs.load(Ordering::SeqCst);
    let mut file = File::create_new(mount.path("file")).unwrap();
    file.write_all(b"x").unwrap();
    assert_eq!(fsyncs(), 0);
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    assert_eq!(fsyncs(), 2);
    File::open(&mount.root).unwrap().sync_all().unwrap();
    assert_eq!(fsyncs(), 3);
    let synchronous =
        OpenOptions::new().write(true).custom_flags(libc::O_SYNC).open(mount.path("file")).unwrap();
    synchronous.write_all_at(b"y", 0).unwrap();
    assert_eq!(fsyncs(), 4);
}

#[test]
fn a_write_without_room_waits_while_everything_else_goes_on() {
    let mount = TestMount::new();
    let file = mount.write("file", "before");
    mount.backing.room.store(false, Ordering::SeqCst);
    let writer = {
        let file = file.clone();
        thread::spawn(move || fs::write(file, "after"))
    };
    while mount.backing.parked.load(Ordering::SeqCst) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    for n in 0..50 {
        let path = mount.path(&format!("{n}"));
        fs::create_dir(&path).unwrap();
        fs::remove_dir(&path).unwrap();
    }
    assert!(!writer.is_finished());
    mount.backing.room.store(true, Ordering::SeqCst);
    writer.join().unwrap().unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"after");
}

#[test]
pub(crate) fn ranges_are_copied() {
    let mount = TestMount::new();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let source = File::open(mount.write("source", &bytes)).unwrap();
    let target = File::create_new(mount.path("target")).unwrap();
    let mut copied = 0;
    while copied < bytes.len() {
        let (null, length) = (std::ptr::null_mut(), bytes.len() - copied);
        // SAFETY: both descriptors are open, and no offsets are passed.
        let n =
            unsafe { libc::copy_file_range(source.as_raw_fd(), null, target.as_raw_fd(), null, length, 0) };
        assert!(n > 0, "{}", io::Error::last_os_error());
        copied += n as usize;
    }
    assert_eq!(fs::read(mount.path("target")).unwrap(), bytes);
}

#[test]
fn mapped_writes_arrive() {
    let mount = TestMount::new();
    let path = mount.write("file", vec![0; 8192]);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    // SAFETY: the mapping is of an open file, used within its 8192 bytes, and unmapped once.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(std::ptr::null_mut(), 8192, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        map.cast::<u8>().add(5000).write(42);
        ok(libc::msync(map, 8192, libc::MS_SYNC));
        ok(libc::munmap(map, 8192));
    }
    drop(file);
    let id = pond_tinyfs::NodeId::new(path.metadata().unwrap().ino()).unwrap();
    let plan = mount.backing.fs.read(id, 5000, 1).unwrap();
    assert_eq!(plan.fill(mount.backing.fs.persistence().as_ref()).unwrap(), [42]);
}

#[test]
pub(crate) fn a_name_that_was_missing_is_seen_once_it_is_made() {
    let mount = TestMount::new();
    let path = mount.path("late");
    for _ in 0..2 {
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(path.exists());
        fs::rename(&path, mount.path("other")).unwrap();
        assert!(!path.exists());
        fs::rename(mount.path("other"), &path).unwrap();
        assert!(path.exists() && !mount.path("other").exists());
        fs::remove_file(&path).unwrap();
    }
    assert!(!path.exists());
    DirBuilder::new().mode(0o700).create(&path).unwrap();
    assert!(path.is_dir());
}

#[test]
pub(crate) fn what_a_mount_says_about_itself_is_there_but_not_listed() {
    let mount = TestMount::new();
    assert!(names(&mount.root).is_empty());
    let own = mount.path(".pond");
    assert_eq!(names(&own), ["lag", "log", "position", "status.json"]);
    assert_eq!(own.metadata().unwrap().mode(), libc::S_IFDIR | 0o500);
    let mut open = File::open(own.join("position")).unwrap();
    let read = |file: &mut File| {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    let first = read(&mut open);
    let second = fs::read_to_string(own.join("position")).unwrap();
    assert!(first.starts_with("position ") && second.starts_with("position ") && first != second);
    assert_eq!(read(&mut open), first);
    assert_eq!(open.metadata().unwrap().len(), first.len() as u64);

    assert_eq!(fs::create_dir(&own).unwrap_err().kind(), ErrorKind::AlreadyExists);
    for refused in [
        fs::remove_dir(&own),
        fs::rename(&own, mount.path("x")),
        fs::write(own.join("lag"), "1"),
        fs::write(own.join("new"), "1"),
        fs::remove_file(own.join("lag")),
        fs::set_permissions(own.join("lag"), fs::Permissions::from_mode(0o666)),
        fs::hard_link(own.join("lag"), mount.path("lag")),
    ] {
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    let other = mount.write("other", "");
    assert!(fs::rename(&other, &own).is_err());
    fs::create_dir(mount.path("sub")).unwrap();
    fs::create_dir(mount.path("sub/.pond")).unwrap();
}

#[test]
pub(crate) fn a_file_handle_holds_while_the_kernel_has_forgotten_the_inode() {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; 128],
    }
    let mount = TestMount::new();
    fs::create_dir(mount.path("directory")).unwrap();
    let path = c(&mount.write("directory/file", "content"));
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount_id = 0;
    let root = File::open(&mount.root).unwrap();
    let open = |handle: &mut Handle| {
        // SAFETY: the handle is laid out as struct file_handle, with 128 bytes of room.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                root.as_raw_fd(),
                std::ptr::from_mut(handle),
                libc::O_RDONLY,
            )
        };
        // SAFETY: the call gave us a descriptor of our own.
        (descriptor >= 0).then(|| unsafe { File::from_raw_fd(descriptor as i32) })
    };
    let mut name = |handle: &mut Handle| {
        // SAFETY: as above.
        unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                std::ptr::from_mut(handle),
                &raw mut mount_id,
                0,
            )
        }
    };
    assert_eq!(name(&mut handle), 0);
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    let mut text = String::new();
    open(&mut handle).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    fs::remove_file(mount.path("directory/file")).unwrap();
    // The kernel keeps the inode until the RELEASE that follows a close is answered.
    let deadline = Instant::now() + Duration::from_secs(60);
    while open(&mut handle).is_some() {
        assert!(Instant::now() < deadline, "the handle still opens");
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    }
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ESTALE));
}

#[test]
fn what_is_not_offered_says_so() {
    let mount = TestMount::new();
    let anonymous = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(&mount.root);
    assert_eq!(anonymous.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    let file = File::create_new(mount.path("file")).unwrap();
    let mut flags = 0i32;
    // SAFETY: FS_IOC_GETFLAGS writes one int.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    assert_eq!(errno(result), libc::ENOTTY);
    let long = OsStr::from_bytes(&[b'x'; 256]).to_owned();
    assert_eq!(File::create_new(mount.root.join(long)).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    File::create_new(mount.root.join(OsStr::from_bytes(&[0xff; 255]))).unwrap();
}

#[test]
fn statfs_tells_of_the_space_below() {
    let mount = TestMount::new();
    let mut space = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path and the buffer are valid.
    let space = unsafe {
        ok(libc::statvfs(c(&mount.root).as_ptr(), space.as_mut_ptr()));
        space.assume_init()
    };
    let below = mount.backing.fs.statfs();
    assert_eq!(space.f_blocks * space.f_frsize, below.total / 4096 * 4096);
    assert_eq!(space.f_bavail * space.f_frsize, below.available / 4096 * 4096);
    assert_eq!(space.f_namemax, 255);
}
