//! Metadata operations on many small files of one directory.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Contender, Figure, Group, Row};

const OPERATIONS: [&str; 9] = [
    "create",
    "write 4 KiB",
    "stat",
    "readdir, per entry",
    "open, read 4 KiB",
    "rename",
    "unlink",
    "rename to another directory",
    "unlink in 100 directories",
];

/// All operations on `files` files, in a new directory.
pub fn operations(group: &'static Group, contender: &Contender, files: usize) -> Vec<Figure> {
    contender.settle();
    let base = contender.directory().join("metadata");
    fs::create_dir(&base).expect("the directory is new");
    let paths = |prefix: &str| (0..files).map(|n| base.join(format!("{prefix}{n}"))).collect::<Vec<_>>();
    let (old, new) = (paths("file"), paths("renamed"));
    // The same, but for the directories.
    let elsewhere = base.join("elsewhere");
    let moved: Vec<_> = (0..files).map(|n| elsewhere.join(format!("renamed{n}"))).collect();
    let spread: Vec<_> = (0..files).map(|n| base.join(format!("directory{}/file{n}", n % 100))).collect();
    let block = [7u8; 4096];
    let mut read = [0u8; 4096];
    let phase = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let times = [
        phase(&mut || old.iter().for_each(|path| drop(File::create(path).expect("create")))),
        phase(&mut || {
            for path in &old {
                let file = OpenOptions::new().write(true).open(path).expect("open");
                file.write_all_at(&block, 0).expect("write");
            }
        }),
        phase(&mut || {
            for path in &old {
                black_box(fs::metadata(path).expect("stat"));
            }
        }),
        phase(&mut || assert_eq!(fs::read_dir(&base).expect("readdir").count(), files)),
        phase(&mut || {
            old.iter().for_each(|path| File::open(path).expect("open").read_exact(&mut read).expect("read"));
        }),
        phase(&mut || old.iter().zip(&new).for_each(|(old, new)| fs::rename(old, new).expect("rename"))),
        phase(&mut || new.iter().for_each(|path| fs::remove_file(path).expect("unlink"))),
        {
            fs::create_dir(&elsewhere).expect("mkdir");
            old.iter().for_each(|path| drop(File::create(path).expect("create")));
            phase(&mut || old.iter().zip(&moved).for_each(|(old, new)| fs::rename(old, new).expect("rename")))
        },
        {
            // passthrough_ll keeps a descriptor for each file that the kernel knows, and has too few for twice as many.
            fs::remove_dir_all(&elsewhere).expect("rmdir");
            for n in 0..files.min(100) {
                fs::create_dir(base.join(format!("directory{n}"))).expect("mkdir");
            }
            spread.iter().for_each(|path| drop(File::create(path).expect("create")));
            phase(&mut || spread.iter().for_each(|path| fs::remove_file(path).expect("unlink")))
        },
    ];
    fs::remove_dir_all(&base).expect("rmdir");
    let rows = OPERATIONS.map(|name| Row { group, name, unit: "/s" });
    rows.into_iter().zip(times.map(|time| files as f64 / time.as_secs_f64())).collect()
}

/// The same while something else in the filesystem changes all the time: 4 KiB appended each 10 ms, so that each commit
/// has something to write.
pub fn operations_beside_a_writer(group: &'static Group, contender: &Contender, files: usize) -> Vec<Figure> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| trickle(&contender.directory().join("trickle"), &done));
        let figures = operations(group, contender, files);
        done.store(true, Ordering::Relaxed);
        figures
    })
}

fn trickle(path: &Path, done: &AtomicBool) {
    let mut file = File::create(path).expect("create");
    while !done.load(Ordering::Relaxed) {
        file.write_all(&[5; 4096]).expect("append");
        thread::sleep(Duration::from_millis(10));
    }
}
