//! What was taken over is seen in the mount, whatever the kernel had of what was there before.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::{PAUSE, meanwhile, names, pond, txn};

#[test]
fn the_mount_shows_it_at_once_and_what_is_open_goes_on_as_with_any_other_writer() {
    let pond = pond();
    fs::write(pond.path("mapped"), vec![b'a'; 100_000]).unwrap();
    fs::write(pond.path("gone"), "still read").unwrap();
    fs::create_dir_all(pond.path("tree/a/b/c")).unwrap();
    fs::write(pond.path("tree/a/b/c/f"), "deep").unwrap();
    // All of it is in the kernel's caches: contents, attributes, listings, and names that there are not.
    let mut open = File::options().read(true).write(true).open(pond.path("d/f")).unwrap();
    let mut gone = File::open(pond.path("gone")).unwrap();
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    let inode = open.metadata().unwrap().ino();
    let deep = File::open(pond.path("tree/a/b/c")).unwrap();
    let mapped = File::open(pond.path("mapped")).unwrap();
    // SAFETY: a new mapping of a file that is open, read while it is mapped, and given back below.
    let map = unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            100_000,
            libc::PROT_READ,
            libc::MAP_SHARED,
            mapped.as_raw_fd(),
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        std::slice::from_raw_parts(map.cast::<u8>(), 100_000)
    };
    assert!(map.iter().all(|&byte| byte == b'a'));
    names(&pond);
    for missing in ["new", "d/new", "tree/new"] {
        assert!(!pond.path(missing).exists());
    }
    let script = "echo after > d/f; chmod 640 d/f; rm gone; rm -r tree/a; echo > new; echo > d/new; mkdir tree/new; \
                  dd if=/dev/zero of=mapped bs=1000 count=50 seek=10 conv=notrunc status=none";
    txn(&pond, &[], script).success();

    assert_eq!(names(&pond), ["d", "kept", "mapped", "new", "tree"]);
    for there in ["new", "d/new", "tree/new"] {
        assert!(pond.path(there).exists(), "{there}");
    }
    assert!(!pond.path("gone").exists() && !pond.path("tree/a/b/c/f").exists());
    assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "after\n");
    let metadata = fs::metadata(pond.path("d/f")).unwrap();
    assert_eq!((metadata.ino(), metadata.mode() & 0o777), (inode, 0o640));
    assert_eq!((map[9_999], map[10_000], map[59_999], map[60_000]), (b'a', 0, 0, b'a'));
    // SAFETY: it was mapped above, and nobody looks at it any more.
    unsafe { libc::munmap(map.as_ptr().cast_mut().cast(), map.len()) };
    // The same file, open before.
    open.seek(SeekFrom::Start(0)).unwrap();
    text.clear();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "after\n");
    open.write_all(b"and more\n").unwrap();
    assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "after\nand more\n");
    // What has no name any more lives until it is closed.
    text.clear();
    gone.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), gone.metadata().unwrap().nlink()), ("still read", 0));
    assert_eq!(deep.metadata().unwrap().nlink(), 0);
    drop((open, gone, deep, mapped));
    pond.remount();
    assert_eq!(fs::read_to_string(pond.path("d/f")).unwrap(), "after\nand more\n");
    assert_eq!(fs::read(pond.path("mapped")).unwrap()[9_999..10_001], [b'a', 0]);
}

#[test]
fn what_programs_wrote_through_a_mapping_is_part_of_it() {
    let pond = pond();
    fs::write(pond.path("file"), vec![b'a'; 50_000]).unwrap();
    let script = "python3 -c 'import mmap
f = open(\"file\", \"r+b\")
m = mmap.mmap(f.fileno(), 0)
m[20000:20005] = b\"hello\"
import os
os._exit(0)'";
    txn(&pond, &[], script).success();
    let file = File::open(pond.path("file")).unwrap();
    let mut bytes = [0; 7];
    file.read_exact_at(&mut bytes, 19_999).unwrap();
    assert_eq!(&bytes, b"ahelloa");
}

#[test]
fn what_others_have_changed_in_memory_that_they_have_mapped_clashes_with_it() {
    let pond = pond();
    fs::write(pond.path("file"), vec![b'a'; 8192]).unwrap();
    pond.sync();
    let file = File::options().read(true).write(true).open(pond.path("file")).unwrap();
    // SAFETY: a new mapping of a file that is open, given back below.
    let map = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let map = libc::mmap(std::ptr::null_mut(), 8192, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED);
        std::slice::from_raw_parts_mut(map.cast::<u8>(), 8192)
    };
    let said = meanwhile(&pond, &[], &format!("echo short > file; {PAUSE}"), || map[5000] = b'L');
    assert!(said.failure(75).contains("/file"));
    assert_eq!((fs::metadata(pond.path("file")).unwrap().len(), map[5000]), (8192, b'L'));
    // SAFETY: it was mapped above, and nobody looks at it any more.
    unsafe { libc::munmap(map.as_mut_ptr().cast(), map.len()) };
    txn(&pond, &[], "echo short > file").success();
    assert_eq!(fs::read_to_string(pond.path("file")).unwrap(), "short\n");
}
