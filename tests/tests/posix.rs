//! pjdfstest: no system call behaves otherwise than POSIX says, and no test is skipped that ext4 does not skip too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pond_tests::helpers::Helpers;
use pond_tests::{TestPond, run, tools::tool};

/// Tests that may be skipped on a pond although ext4 runs them, each with its reason.
const SKIPPED_FOR_A_REASON: &[(&str, &str)] =
    &[("link::link_count_max", "glibc answers pathconf(_PC_LINK_MAX) itself and does not know FUSE's limit")];

#[test]
fn pjdfstest_finds_nothing_wrong_and_skips_no_more_than_on_ext4() {
    let pond = TestPond::mounted();
    let ext4 = pond.host_directory("ext4");
    let there = outcomes(&configuration(), &ext4, pond.mountpoint(), &[]);
    let here = outcomes(&configuration(), pond.mountpoint(), &ext4, &[]);
    assert_eq!(with(&there, "FAILED"), BTreeSet::new(), "failed on the host's filesystem itself");
    assert_eq!(with(&here, "FAILED"), BTreeSet::new(), "failed on the pond");
    assert!(with(&here, "ok").len() > 350, "pjdfstest ran only {} tests", here.len());

    let excused: BTreeSet<&str> = SKIPPED_FOR_A_REASON.iter().map(|(name, _)| *name).collect();
    let skipped = with(&here, "skipped");
    let unexcused: Vec<_> = skipped.difference(&with(&there, "skipped")).copied().collect();
    let unexcused: Vec<_> = unexcused.into_iter().filter(|name| !excused.contains(name)).collect();
    assert!(unexcused.is_empty(), "skipped on the pond and not on ext4: {unexcused:?}");
    pond.umount();
}

/// These tests remount what they run on, which only a filesystem of our own may be; and alone, as others still have files
/// open for writing.
#[test]
fn pjdfstest_finds_a_mount_read_only_once_it_was_remounted_so() {
    // mount(8) remounts through the helper.
    let _helpers = Helpers::install();
    let pond = TestPond::mounted();
    let remounting = pond.host("pjdfstest.toml");
    let text = fs::read_to_string(configuration()).expect("the configuration");
    assert!(text.contains("allow_remount = false"));
    fs::write(&remounting, text.replace("allow_remount = false", "allow_remount = true")).expect("a copy");
    let here = outcomes(&remounting, pond.mountpoint(), &pond.host_directory("ext4"), &["erofs"]);
    assert_eq!(with(&here, "ok").len(), 13, "{here:?}");
    assert_eq!(here.len(), 13, "{here:?}");
    pond.umount();
}

fn configuration() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/pjdfstest.toml")
}

/// Runs all tests, or those whose names hold a word, in a directory; how each ended. `other` is a directory of another
/// filesystem.
fn outcomes(
    configuration: &Path,
    directory: &Path,
    other: &Path,
    words: &[&str],
) -> BTreeMap<String, String> {
    let mut command = Command::new(tool("pjdfstest"));
    command.arg("-c").arg(configuration).arg("-p").arg(directory).arg("-s").arg(other).args(words);
    let finished = run(&mut command);
    println!("{finished}");
    // Explanations are indented; a test's line is its name and how it ended.
    let lines = finished.stdout.lines().filter(|line| !line.starts_with(char::is_whitespace));
    lines
        .filter_map(|line| line.rsplit_once(char::is_whitespace))
        .filter(|(_, outcome)| ["ok", "skipped", "FAILED"].contains(outcome))
        .map(|(name, outcome)| (name.trim().to_owned(), outcome.to_owned()))
        .collect()
}

fn with<'a>(outcomes: &'a BTreeMap<String, String>, wanted: &str) -> BTreeSet<&'a str> {
    outcomes.iter().filter(|(_, outcome)| *outcome == wanted).map(|(name, _)| name.as_str()).collect()
}
