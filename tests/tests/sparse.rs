//! Holes: a sparse file is copied right while it is still being written, and SEEK_HOLE and SEEK_DATA tell no lies.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use pond_tests::{Random, TestPond, succeed};

const SIZE: u64 = 64 << 20;
const BLOCKS: usize = 300;

/// Bytes written at a position.
type Block = (u64, Vec<u8>);

fn blocks(seed: u64) -> Vec<Block> {
    let mut random = Random::new(seed);
    let mut block = || {
        let length = 1 + random.below(20_000);
        (random.below(SIZE - length), random.bytes(length as usize))
    };
    (0..BLOCKS).map(|_| block()).collect()
}

/// Copies a sparse file into the mount and out of it, with cp and with tar; where the copies are.
fn copies(pond: &TestPond, original: &Path) -> Vec<PathBuf> {
    let mut copies = Vec::new();
    for place in [pond.path("copies"), pond.host("copies")] {
        fs::create_dir_all(&place).unwrap();
        let by_cp = place.join("by cp");
        succeed(Command::new("cp").arg("--sparse=auto").arg(original).arg(&by_cp));
        // tar says with 1 that a file changed while it read.
        let script = r#"tar -cSf - -C "$1" "$2" | tar -xSf - -C "$3"; [[ "${PIPESTATUS[*]}" = [01]" 0" ]]"#;
        let (directory, name) = (original.parent().unwrap(), original.file_name().unwrap());
        succeed(Command::new("bash").args(["-c", script, "tar"]).arg(directory).arg(name).arg(&place));
        copies.extend([by_cp, place.join(name)]);
    }
    copies
}

#[test]
fn a_sparse_file_that_is_still_open_for_writing_is_copied_byte_by_byte() {
    let pond = TestPond::mounted();
    let path = pond.path("sparse");
    let file = File::create(&path).unwrap();
    let mut expected = vec![0; SIZE as usize];
    file.set_len(SIZE).unwrap();
    for (number, (at, bytes)) in blocks(1).into_iter().enumerate() {
        file.write_all_at(&bytes, at).unwrap();
        expected[at as usize..][..bytes.len()].copy_from_slice(&bytes);
        if number + 1 == BLOCKS / 2 || number + 1 == BLOCKS {
            for copy in copies(&pond, &path) {
                assert!(fs::read(&copy).unwrap() == expected, "{} differs", copy.display());
                let allocated = fs::metadata(&copy).unwrap().blocks() * 512;
                assert!(allocated < SIZE / 4, "{}: {allocated} bytes: the holes are gone", copy.display());
                fs::remove_file(&copy).unwrap();
            }
        }
    }
    drop(file);
    pond.umount();
}

#[test]
fn a_copy_made_during_the_writing_has_all_that_was_written_before() {
    let pond = TestPond::mounted_with(&["-o", "commit=0.1"]);
    let path = pond.path("sparse");
    let file = File::create(&path).unwrap();
    file.set_len(SIZE).unwrap();
    let blocks = blocks(2);
    // Only blocks that no later block overwrites can be expected in a copy as they were.
    let last: Vec<bool> =
        (0..BLOCKS).map(|i| blocks[i + 1..].iter().all(|later| !overlap(&blocks[i], later))).collect();
    let (written, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            for (at, bytes) in &blocks {
                file.write_all_at(bytes, *at).unwrap();
                written.fetch_add(1, Ordering::SeqCst);
                thread::sleep(std::time::Duration::from_millis(10));
            }
            done.store(true, Ordering::SeqCst);
        });
        let mut rounds = 0;
        while !done.load(Ordering::SeqCst) || rounds == 0 {
            let before = written.load(Ordering::SeqCst);
            for copy in copies(&pond, &path) {
                let copied = fs::read(&copy).unwrap();
                for (number, (at, bytes)) in blocks[..before].iter().enumerate().filter(|(i, _)| last[*i]) {
                    let same = copied[*at as usize..][..bytes.len()] == **bytes;
                    assert!(same, "{} lacks block {number} of {before} at {at}", copy.display());
                }
                fs::remove_file(&copy).unwrap();
            }
            rounds += 1;
        }
    });
    drop(file);
    pond.umount();
}

fn overlap(a: &Block, b: &Block) -> bool {
    a.0 < b.0 + b.1.len() as u64 && b.0 < a.0 + a.1.len() as u64
}

#[test]
fn what_seek_calls_a_hole_reads_as_zeros_and_what_was_written_is_data() {
    let pond = TestPond::mounted();
    let path = pond.path("sparse");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    file.set_len(SIZE).unwrap();
    for (at, bytes) in blocks(3) {
        file.write_all_at(&bytes, at).unwrap();
    }
    check_map(&file);
    pond.sync();
    check_map(&file);
    // Holes in the middle of what is committed.
    for (at, bytes) in blocks(3).into_iter().step_by(3) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: takes no pointers.
        let punched = unsafe { libc::fallocate(file.as_raw_fd(), mode, at as i64, bytes.len() as i64 / 2) };
        assert_eq!(punched, 0, "{}", std::io::Error::last_os_error());
    }
    check_map(&file);
    drop(file);
    pond.remount();
    check_map(&File::open(&path).unwrap());
    pond.umount();
}

/// Walks over data and holes: they take turns, cover the file, and holes are zeros. Then every byte that is not zero
/// lies in data.
fn check_map(file: &File) {
    let content = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let seek = |offset: u64, whence: i32| {
        // SAFETY: takes no pointers.
        let found = unsafe { libc::lseek(file.as_raw_fd(), offset as i64, whence) };
        if found < 0 { Err(std::io::Error::last_os_error().raw_os_error()) } else { Ok(found as u64) }
    };
    let mut at = 0;
    let mut pieces = 0;
    while at < SIZE {
        let data = match seek(at, libc::SEEK_DATA) {
            Ok(data) => data,
            Err(Some(libc::ENXIO)) => SIZE,
            Err(error) => panic!("SEEK_DATA at {at}: {error:?}"),
        };
        assert!(data >= at);
        let zeros = content[at as usize..data as usize].iter().all(|byte| *byte == 0);
        assert!(zeros, "SEEK_DATA calls {at}..{data} a hole, and it is not all zeros");
        if data == SIZE {
            break;
        }
        let hole = seek(data, libc::SEEK_HOLE).unwrap();
        assert!(hole > data && hole <= SIZE, "SEEK_HOLE at {data} says {hole}");
        at = hole;
        pieces += 1;
    }
    assert!(pieces > BLOCKS / 4, "only {pieces} pieces of data: holes are not told apart");
    assert_eq!(seek(SIZE, libc::SEEK_DATA), Err(Some(libc::ENXIO)));
    assert_eq!(seek(SIZE + 1, libc::SEEK_HOLE), Err(Some(libc::ENXIO)));
}
