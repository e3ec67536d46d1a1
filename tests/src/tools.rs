//! Other people's programs that the suites need. `.ci/run` installs them all.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;

/// What installs a program.
const INSTALL: &[(&str, &str)] = &[
    ("pjdfstest", "cargo install pjdfstest@0.2.2"),
    ("fsx", "cargo install fsx@0.3.2"),
    ("fio", "apt-get install fio"),
    ("stress-ng", "apt-get install stress-ng"),
    ("dbench", "apt-get install dbench"),
    ("rsync", "apt-get install rsync"),
    ("sqlite3", "apt-get install sqlite3"),
    ("git", "apt-get install git"),
    ("fusermount3", "apt-get install fuse3"),
    ("gcc", "apt-get install gcc"),
    ("pkg-config", "apt-get install pkg-config"),
    ("python3", "apt-get install python3"),
    ("initdb", "apt-get install postgresql"),
    ("mkfs.ext4", "apt-get install e2fsprogs"),
    ("restic", "apt-get install restic"),
    ("zstd", "apt-get install zstd"),
];

/// Where a program lies; panics with the command that installs it if it is missing.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| {
        let hint = INSTALL.iter().find(|(tool, _)| *tool == name).map_or(name, |(_, hint)| hint);
        panic!("{name} is missing; install it with `{hint}`, or everything with `.ci/run`");
    })
}

/// Searches `$PATH`, where cargo installs to, where the system's tools are, and PostgreSQL's own directory.
pub fn find(name: &str) -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    places.push(env::var_os("CARGO_HOME").map_or(home.join(".cargo"), PathBuf::from).join("bin"));
    places.extend(["/usr/sbin".into(), "/sbin".into()]);
    places.extend(postgresql());
    places.into_iter().map(|place| place.join(name)).find(|path| path.is_file())
}

/// Debian keeps PostgreSQL's programs by version; the newest first.
fn postgresql() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut directories: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    directories.sort();
    directories.reverse();
    directories
}

/// Python, once these packages are known to be there.
#[track_caller]
pub fn python(packages: &[&str]) -> Command {
    let python = tool("python3");
    let imports = format!("import {}", packages.join(", "));
    let tried = run(Command::new(&python).args(["-c", &imports]));
    assert!(
        tried.status.success(),
        "a Python package is missing; install with `pip install {}`, or everything with `.ci/run`\n{tried}",
        packages.join(" ")
    );
    Command::new(python)
}

/// A script of the suites, for Python.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name)
}

/// Most suites mount, change owners and run servers as other users.
#[track_caller]
pub fn need_root() {
    // SAFETY: geteuid cannot fail.
    assert_eq!(
        unsafe { libc::geteuid() },
        0,
        "these tests mount filesystems and change owners: run them as root"
    );
    assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing: `modprobe fuse`");
}
