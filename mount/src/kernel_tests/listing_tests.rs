//! Listings of directories, under a real kernel.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::kernel_tests::harness::{TestMount, c, names, ok};

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
