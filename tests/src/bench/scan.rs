//! Cold walks over many files in many directories, by the programs that people use.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::bench::{Contender, Figure, Group, Row};

const DIRECTORIES: usize = 100;

/// What is run in the tree.
const WALKS: [(&str, &[&str]); 3] =
    [("find", &["find"]), ("find -printf %s", &["find", "-printf", "%s\n"]), ("ls -lR", &["ls", "-lR"])];

/// Makes the tree, of so many files, once for all rounds.
pub fn prepare(contender: &Contender, files: usize) {
    let base = contender.directory().join("scan");
    fs::create_dir(&base).expect("the directory is new");
    for directory in 0..DIRECTORIES {
        let directory = base.join(directory.to_string());
        fs::create_dir(&directory).expect("mkdir");
        for n in 0..files / DIRECTORIES {
            File::create(directory.join(format!("file-{n}"))).expect("create");
        }
    }
}

/// Walks over it, each time with nothing cached.
pub fn walks(group: &'static Group, contender: &Contender, files: usize) -> Vec<Figure> {
    let base = contender.directory().join("scan");
    let walk = |(name, command): (&'static str, &[&str])| {
        contender.cool();
        let start = Instant::now();
        let status = Command::new(command[0])
            .args(&command[1..])
            .current_dir(&base)
            .stdout(Stdio::null())
            .status()
            .expect("the program is there");
        let time = start.elapsed();
        assert!(status.success(), "{name}: {status}");
        (Row { group, name, unit: "/s" }, files as f64 / time.as_secs_f64())
    };
    WALKS.into_iter().map(walk).collect()
}
