//! Bulk content goes past the host's page cache, which is left to readers.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use pond_tests::disk::Disk;
use pond_tests::{Random, TestPond};

/// How much of a file is in the page cache, from 0 to 1.
fn cached(path: &Path) -> f64 {
    const PAGE: usize = 4096;
    let file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    let mut pages = vec![0u8; length.div_ceil(PAGE)];
    // SAFETY: a mapping of our own that nobody touches, told of in as many bytes as it has pages, and then given back.
    unsafe {
        let map =
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(map, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        assert_eq!(libc::mincore(map, length, pages.as_mut_ptr()), 0, "{}", io::Error::last_os_error());
        libc::munmap(map, length);
    }
    pages.iter().filter(|&&page| page & 1 == 1).count() as f64 / pages.len() as f64
}

/// The largest data file of a pond, and its size in bytes.
fn largest(pond: &TestPond) -> (PathBuf, u64) {
    let files = fs::read_dir(pond.directory().join("data")).unwrap().map(|entry| entry.unwrap());
    let sizes = files.filter(|entry| entry.file_type().unwrap().is_file());
    let sizes = sizes.map(|entry| (entry.path(), entry.metadata().unwrap().len()));
    sizes.max_by_key(|(_, size)| *size).unwrap()
}

#[test]
fn bulk_content_does_not_go_through_the_page_cache_of_the_host() {
    let disk = Disk::new(512);
    for compressible in [false, true] {
        let pond = TestPond::in_directory(disk.path().join(format!("pond-{compressible}")));
        pond.mount();
        let mut random = Random::new(1);
        let piece = random.bytes(64 << 10);
        // Text that shrinks to somewhat more than a half.
        let content: Vec<u8> = match compressible {
            false => random.bytes(100 << 20),
            true => (0..200 << 20)
                .map(|at| if at % 2 == 0 { piece[at / 5 % piece.len()] } else { b'x' })
                .collect(),
        };
        fs::write(pond.path("bulk"), &content).unwrap();
        File::open(pond.path("bulk")).unwrap().sync_all().unwrap();
        pond.umount();
        let (path, size) = largest(&pond);
        assert!(size > 8 << 20, "{size}");
        let share = cached(&path);
        assert!(share < 0.1, "{share} of {} is in the page cache", path.display());
        pond.mount();
        assert!(fs::read(pond.path("bulk")).unwrap() == content);
        pond.umount();
    }
}
