//! What is easily lost on the way: renames across directories, hard links, holes, empty directories, a file that becomes a
//! directory, names that are no text. They reach a mount whose kernel has cached what was there before.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use crate::pair::Pair;

const SPARSE: u64 = 5 << 30;

#[test]
fn shapes_that_are_easily_lost_arrive_in_a_mount_that_had_cached_the_old_ones() {
    let pair = Pair::local();
    pair.begin();
    let at = |name: &str| pair.source.path(name);
    for directory in ["a/deep", "b", "becomes-empty"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    for file in ["a/moves", "a/deep/file", "becomes-directory", "becomes-empty/last", "two-names", "a/same"] {
        fs::write(at(file), file).unwrap();
    }
    fs::create_dir(at("becomes-file")).unwrap();
    symlink("a/moves", at("link")).unwrap();
    pair.source.sync();
    pair.restore();
    pair.replica.mount();
    pair.assert_same_trees();
    let unchanged = fs::metadata(pair.replica.path("a/same")).unwrap().ino();

    fs::rename(at("a/moves"), at("b/moved")).unwrap();
    fs::rename(at("a/deep"), at("b/deeper")).unwrap();
    fs::hard_link(at("two-names"), at("b/second-name")).unwrap();
    fs::remove_file(at("becomes-directory")).unwrap();
    fs::create_dir(at("becomes-directory")).unwrap();
    fs::write(at("becomes-directory/inside"), "x").unwrap();
    fs::remove_dir(at("becomes-file")).unwrap();
    fs::write(at("becomes-file"), "a file now").unwrap();
    fs::remove_file(at("becomes-empty/last")).unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::write(pair.source.mountpoint().join(OsStr::from_bytes(b"not \xff text\n")), "odd").unwrap();
    fs::remove_file(at("link")).unwrap();
    symlink("nowhere", at("link")).unwrap();
    pair.source.sync();
    pair.wait();
    pair.assert_same_trees();
    assert_eq!(fs::metadata(pair.replica.path("two-names")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(pair.replica.path("a/same")).unwrap().ino(), unchanged);

    // Not looked at byte by byte, as the others are: most of it is nothing.
    let sparse = File::create(at("sparse")).unwrap();
    sparse.write_all_at(&[7; 100_000], SPARSE / 2 + 1234).unwrap();
    sparse.write_all_at(b"the end", SPARSE - 7).unwrap();
    drop(sparse);
    pair.source.sync();
    pair.wait();
    let (source, replica) = (at("sparse"), pair.replica.path("sparse"));
    let (left, right) = (fs::metadata(&source).unwrap(), fs::metadata(&replica).unwrap());
    assert_eq!((left.size(), left.blocks()), (right.size(), right.blocks()));
    assert_eq!(right.size(), SPARSE);
    assert!(right.blocks() * 512 < 1 << 20, "holes stay holes");
    let data = data(&source);
    assert_eq!(data, self::data(&replica));
    assert!(data.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= 100_007);
    pair.replica.umount();
    pair.finish();
}

/// Everything in a file that is not a hole.
fn data(path: &Path) -> Vec<(i64, Vec<u8>)> {
    let file = File::open(path).unwrap();
    let mut found = Vec::new();
    let mut end = 0;
    loop {
        // SAFETY: lseek takes no pointers.
        let start = unsafe { libc::lseek(file.as_raw_fd(), end, libc::SEEK_DATA) };
        if start < 0 {
            return found;
        }
        // SAFETY: as above.
        end = unsafe { libc::lseek(file.as_raw_fd(), start, libc::SEEK_HOLE) };
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        file.read_exact_at(&mut bytes, start as u64).unwrap();
        found.push((start, bytes));
    }
}
