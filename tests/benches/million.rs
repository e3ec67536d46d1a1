//! A million files: created in the mount, remounted, and how much memory the daemon then has.
//!
//! `cargo bench -p pond-tests --bench million`: in 1,000 directories, and in another pond all in one.

use std::fs::{self, File};
use std::time::Instant;

use pond_tests::TestPond;
use pond_tests::measure::resident;

const FILES: usize = 1_000_000;

fn main() {
    for directories in [1_000, 1] {
        let pond = TestPond::mounted();
        let start = Instant::now();
        for directory in 0..directories {
            let path = pond.path(format!("directory{directory:04}"));
            fs::create_dir(&path).expect("mkdir");
            for file in 0..FILES / directories {
                File::create(path.join(format!("file{file:07}"))).expect("create");
            }
        }
        let created = start.elapsed();
        pond.umount();
        let start = Instant::now();
        pond.mount();
        let mounted = start.elapsed();
        let memory = resident(pond.daemon()) >> 20;
        let last = pond.path(format!("directory{:04}", directories - 1));
        let found = fs::read_dir(last).expect("readdir").count();
        assert_eq!(found, FILES / directories, "a remount loses nothing");
        println!(
            "{FILES} files in {directories} directories: created in {created:.1?}, \
             mounted again in {mounted:.2?}, {memory} MiB resident"
        );
    }
}
