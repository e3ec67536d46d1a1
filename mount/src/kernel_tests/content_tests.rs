//! Content, holes, mappings and durability, under a real kernel.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::kernel_tests::harness::{TestMount, errno, ok};

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
