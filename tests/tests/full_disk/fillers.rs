//! Programs that write until the disk is full, and what they were promised.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pond_tests::Random;
use pond_tests::TestPond;
use pond_tests::command::run_within;

use crate::scene::PATIENCE;

/// What a program wrote before it was told that the disk is full.
pub struct Filled {
    /// From its last success to the error.
    pub waited: Duration,
    /// Files, and what each must hold: the first so many bytes of [`block`]s.
    pub accepted: Vec<(PathBuf, u64)>,
    /// Whether a file may hold more than that: of the append that failed some or all may have got in.
    pub may_be_longer: bool,
}

/// What everything is filled with, over and over: no extent of it compresses.
fn block() -> Vec<u8> {
    Random::new(14).bytes(4 << 20)
}

fn is_full(error: &io::Error) {
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
}

/// Panics unless everything accepted is there and right.
pub fn assert_unharmed(filled: &Filled) {
    let block = block();
    let mut buffer = vec![0; block.len()];
    for (path, length) in &filled.accepted {
        let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let size = file.metadata().expect("fstat").len();
        assert!(
            size == *length || filled.may_be_longer && size > *length,
            "{} has {size} bytes, {length} were accepted",
            path.display()
        );
        let mut left = size;
        while left > 0 {
            let part = left.min(block.len() as u64) as usize;
            file.read_exact(&mut buffer[..part])
                .unwrap_or_else(|error| panic!("{}, {left} bytes before its end: {error}", path.display()));
            assert!(
                buffer[..part] == block[..part],
                "{} is damaged {left} bytes before its end",
                path.display()
            );
            left -= part as u64;
        }
    }
}

/// `dd`, as anybody would use it, from a file with more than the disk can take.
pub fn dd(pond: &TestPond, mebibytes: u64) -> Filled {
    let (source, target) = (pond.host("source"), pond.path("dd"));
    let mut from = File::create(&source).expect("a source");
    let block = block();
    (0..mebibytes.div_ceil(4)).for_each(|_| from.write_all(&block).expect("the host has room"));
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        // When the file last grew, as anybody sees it who looks.
        let looking = scope.spawn(|| {
            let (mut grew, mut size) = (Instant::now(), 0);
            while !ended.load(Ordering::Relaxed) {
                let now = fs::metadata(&target).map_or(0, |file| file.len());
                if now > size {
                    (grew, size) = (Instant::now(), now);
                }
                thread::sleep(Duration::from_millis(5));
            }
            grew
        });
        let mut dd = pond.marked("dd");
        dd.arg(format!("if={}", source.display())).arg(format!("of={}", target.display())).arg("bs=1M");
        let finished = run_within(dd.env("LC_ALL", "C"), PATIENCE);
        let end = Instant::now();
        ended.store(true, Ordering::Relaxed);
        let told = finished.failure(1);
        assert!(told.contains("No space left on device"), "{told}");
        let bytes = told.lines().find(|line| line.contains(" copied")).expect("dd says how much it wrote");
        let bytes = bytes.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number");
        fs::remove_file(&source).expect("our own file");
        Filled {
            waited: end - looking.join().expect("nobody panicked"),
            accepted: vec![(target.clone(), bytes)],
            may_be_longer: false,
        }
    })
}

/// Files of 4 KiB, in directories of a thousand, none of them synced.
pub fn small_files(pond: &TestPond) -> Filled {
    let content = &block()[..4096];
    let mut accepted = Vec::new();
    let (mut last, start) = (Instant::now(), Instant::now());
    let error = loop {
        let number = accepted.len();
        let directory = pond.path(format!("small/{:03}", number / 1000));
        let path = directory.join(format!("{number:07}"));
        let made = if number % 1000 == 0 { fs::create_dir_all(&directory) } else { Ok(()) };
        match made.and_then(|()| fs::write(&path, content)) {
            Ok(()) => accepted.push((path, content.len() as u64)),
            Err(error) => break error,
        }
        assert!(start.elapsed() < PATIENCE, "{number} files and no end");
        last = Instant::now();
    };
    is_full(&error);
    Filled { waited: last.elapsed(), accepted, may_be_longer: false }
}

/// Four writers that append 16 KiB and sync, each to a file of its own.
pub fn synced_appends(pond: &TestPond) -> Filled {
    let block = block();
    let append = |path: &Path| {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("open");
        let (mut synced, mut last, start) = (0, Instant::now(), Instant::now());
        let error = loop {
            let from = synced as usize % block.len();
            if let Err(error) =
                file.write_all(&block[from..from + (16 << 10)]).and_then(|()| file.sync_data())
            {
                break error;
            }
            assert!(start.elapsed() < PATIENCE, "{synced} bytes and no end");
            (synced, last) = (synced + (16 << 10), Instant::now());
        };
        is_full(&error);
        (last.elapsed(), path.to_owned(), synced)
    };
    thread::scope(|scope| {
        let paths = ["a", "b", "c", "d"].map(|name| pond.path(format!("appended-{name}")));
        let writers = paths.map(|path| scope.spawn(move || append(&path)));
        let ends = writers.map(|writer| writer.join().expect("a writer"));
        Filled {
            waited: ends.iter().map(|(waited, ..)| *waited).max().expect("four"),
            accepted: ends.into_iter().map(|(_, path, synced)| (path, synced)).collect(),
            may_be_longer: true,
        }
    })
}
