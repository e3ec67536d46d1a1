//! Other people's programs that the suites need. `tests/needs` lists them all, and `tests/run` installs them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;

/// What the tests use: a line for each, with the package that has it.
const NEEDS: &str = include_str!("../needs");

/// A line of [`NEEDS`].
struct Need {
    /// `program`, `library`, `python` or `compiler`.
    sort: &'static str,
    name: &'static str,
    /// `apt`, `pip` or `cargo`.
    how: &'static str,
    package: &'static str,
}

impl Need {
    fn all() -> impl Iterator<Item = Need> {
        let lines = NEEDS.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [sort, name, how, package] = words[..] else { panic!("tests/needs: not four words: {line}") };
            Need { sort, name, how, package }
        })
    }

    fn is_there(&self) -> bool {
        match self.sort {
            "program" => find(self.name).is_some(),
            "library" => find("pkg-config")
                .is_some_and(|tool| run(Command::new(tool).args(["--exists", self.name])).status.success()),
            "python" => find("python3").is_some_and(|python| {
                run(Command::new(python).args(["-c", &format!("import {}", self.name)])).status.success()
            }),
            "compiler" => find("cc").is_some_and(|compiler| {
                // Some linkers replace what they write to, and root's /dev/null is everybody's.
                let linked = tempfile::NamedTempFile::new().expect("a temporary file");
                let link = [self.name, "-shared", "-x", "c", "/dev/null", "-o"];
                run(Command::new(compiler).args(link).arg(linked.path())).status.success()
            }),
            sort => panic!("tests/needs: what is a {sort}?"),
        }
    }

    fn hint(&self) -> String {
        let installer = if self.how == "apt" { "apt-get" } else { self.how };
        format!("{installer} install {}", self.package)
    }
}

/// What the tests use and this machine lacks: a line for each, with the command that installs it.
pub fn missing() -> Vec<String> {
    let missing = Need::all().filter(|need| !need.is_there());
    missing.map(|need| format!("{} {}: {}", need.sort, need.name, need.hint())).collect()
}

/// Where a program lies; panics with the command that installs it if it is missing.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| {
        let need = Need::all().find(|need| need.name == name);
        let hint = need.map_or(format!("apt-get install {name}"), |need| need.hint());
        panic!("{name} is missing; install it with `{hint}`, or everything with `tests/run --install`");
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
        "a Python package is missing; install with `pip install {}`, or everything with `tests/run --install`\n{tried}",
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
