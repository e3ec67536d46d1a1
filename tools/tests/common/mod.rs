//! Runs the real binary against a pond in a temporary directory.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod mounted;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A pond of its own, and a directory of the host's beside it.
pub struct Bed {
    root: tempfile::TempDir,
}

impl Bed {
    /// Without a pond yet.
    pub fn empty() -> Self {
        Bed { root: tempfile::tempdir().unwrap() }
    }

    /// With an empty pond.
    pub fn new() -> Self {
        let bed = Bed::empty();
        bed.ok(["init"]);
        bed
    }

    pub fn pond(&self) -> PathBuf {
        self.root.path().join("pond")
    }

    /// A path on the host.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// `host:` and a path on the host.
    pub fn host(&self, name: &str) -> String {
        format!("host:{}", self.path(name).display())
    }

    /// Makes a file on the host.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A command on the pond.
    pub fn command(&self) -> Command {
        let mut command = pond();
        command.arg("--pond").arg(self.pond());
        command
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// Runs a command that must succeed; its standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with this exit code; its standard error.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = S>) -> String {
        let output = self.run(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        if code == 1 {
            assert!(text.starts_with("pond: "), "{text}");
        }
        text
    }

    /// Runs a command that must succeed, with `--json`; its lines.
    #[track_caller]
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Vec<Value> {
        let output = self.command().arg("--json").args(args).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The newest version.
    pub fn version(&self) -> u64 {
        self.json(["log", "-n", "1"])[0]["version"].as_u64().unwrap()
    }
}

/// The binary, away from the user's own pond.
pub fn pond() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pond"));
    pond_tests::command::heed_interrupts(&mut command);
    command.env_remove("POND").env_remove("POND_LOG").stdin(Stdio::null());
    command
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Names in a directory of the host.
pub fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
