//! fsx: random reads, writes, mappings, holes and truncations of one file agree with a copy in memory, while commits
//! go on; and the file is the same after a remount.
//!
//! `POND_FSX_OPERATIONS` operations (default 10,000) with each of `POND_FSX_SEEDS` seeds (default 2); the last seed
//! does an msync after each mapped write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pond_tests::command::run_within;
use pond_tests::scale::scaled;
use pond_tests::{TestPond, tools::tool, tree};

#[test]
fn a_file_holds_what_was_written_to_it_also_after_a_remount() {
    let operations: u64 = scaled("POND_FSX_OPERATIONS", 10_000);
    let seeds: u64 = scaled("POND_FSX_SEEDS", 2);
    let limit = 180 + 3 * operations / 100;
    let pond = TestPond::with_patience(Duration::from_secs(120 + seeds * limit));
    pond.mount_with(&["-o", "commit=0.2"]);
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/fsx.toml");
    let with_msync = without_line(&configuration, "nomsyncafterwrite", pond.host("msync.toml"));

    for seed in 1..=seeds {
        let configuration = if seed == seeds { &with_msync } else { &configuration };
        let file = pond.path(format!("seed-{seed}"));
        let mut fsx = Command::new(tool("fsx"));
        fsx.arg("-q").arg("-f").arg(configuration).args(["-N", &operations.to_string()]);
        fsx.args(["-S", &seed.to_string()]).arg("-P").arg(pond.host_directory(&format!("artifacts-{seed}")));
        let finished = run_within(fsx.arg(&file), Duration::from_secs(limit));
        assert!(finished.status.success(), "seed {seed}: {finished}");
        println!("seed {seed}: {operations} operations in {:?}", finished.took);
        let before = fs::metadata(&file).unwrap().len();
        assert!(before > 0, "fsx left an empty file behind: nothing to compare after the remount");
    }
    let before = tree::look_at(pond.mountpoint());
    pond.remount();
    tree::assert_same("after the remount", &before, &tree::look_at(pond.mountpoint()), tree::Also::ALL);
    pond.umount();
}

/// A copy of a configuration without the line that begins so.
fn without_line(from: &Path, beginning: &str, to: PathBuf) -> PathBuf {
    let text = fs::read_to_string(from).unwrap();
    assert!(text.lines().any(|line| line.starts_with(beginning)), "{beginning} in {text}");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(beginning)).collect();
    fs::write(&to, lines.join("\n")).unwrap();
    to
}
