//! The factory `exec-log`: appends a line about each commit to a file on the host.
//!
//! ```yaml
//! path: /var/log/pond-commits.jsonl
//! ```
//!
//! Each line is a JSON object. Each version gets exactly one, also where a run is repeated: the last line of this pond
//! says how far the file goes, and a line that a crash cut off is written anew.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use chrono::{DateTime, SecondsFormat, Utc};
use pond_oplog::{CommitInfo, Version};
use serde::{Deserialize, Serialize};

use crate::factories::configuration;
use crate::{Factory, FactoryContext, FactoryError, PostCommit};

/// The factory `exec-log`.
#[derive(Clone, Copy, Debug)]
pub struct ExecLog;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    /// The file on the host; absolute.
    path: PathBuf,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    pond_id: String,
    version: u64,
    txn_seq: u64,
    time: String,
    cut_lsn: u64,
    origin: String,
    rows: u64,
    files: u64,
    bytes: u64,
}

impl Line {
    fn new(pond_id: &str, commit: &CommitInfo) -> Self {
        let time = DateTime::<Utc>::from_timestamp_micros(commit.position.timestamp).unwrap_or_default();
        Line {
            pond_id: pond_id.to_owned(),
            version: commit.position.version.0,
            txn_seq: commit.position.txn_seq.0,
            time: time.to_rfc3339_opts(SecondsFormat::Micros, true),
            cut_lsn: commit.position.cut_lsn.0,
            origin: commit.origin.kind.clone(),
            rows: commit.rows,
            files: commit.files,
            bytes: commit.bytes,
        }
    }
}

impl Factory for ExecLog {
    fn name(&self) -> &str {
        "exec-log"
    }

    fn description(&self) -> &str {
        "appends a line about each commit to a file on the host (path: /absolute/file)"
    }

    fn validate(&self, configuration: &[u8]) -> Result<(), FactoryError> {
        let Configuration { path } = configuration::check(configuration)?;
        if !path.is_absolute() && !path.to_string_lossy().starts_with("${env:") {
            return Err(FactoryError::new(format!("path: {} is not absolute", path.display())));
        }
        Ok(())
    }

    /// It does the same in both; on a replica one must be set for it to run at all.
    fn modes(&self) -> &'static [&'static str] {
        &["push", "pull"]
    }

    fn writes_to(&self, configuration: &[u8]) -> Result<Vec<PathBuf>, FactoryError> {
        let Configuration { path } = configuration::parse(configuration)?;
        Ok(vec![path])
    }

    fn post_commit(&self) -> Option<&dyn PostCommit> {
        Some(self)
    }
}

impl PostCommit for ExecLog {
    fn run(&self, context: &FactoryContext<'_>) -> Result<String, FactoryError> {
        context.refuse_arguments()?;
        let Configuration { path } = configuration::parse(context.configuration)?;
        if !path.is_absolute() {
            return Err(FactoryError::new(format!("path: {} is not absolute", path.display())));
        }
        let Some(versions) = &context.commits else { return Ok("nothing new".to_owned()) };
        let commits = context.pond.commits(versions.clone()).map_err(FactoryError::because)?;
        let written = append(&path, &context.pond.pond_id(), &commits)
            .map_err(|error| FactoryError::new(format!("{}: {error}", path.display())).caused_by(error))?;
        let lines = crate::plural::count(written as u64, "line");
        Ok(format!("{lines} up to version {} in {}", versions.end(), path.display()))
    }
}

/// Appends the lines that are not there yet and makes them durable; how many there were.
fn append(path: &Path, pond_id: &str, commits: &[CommitInfo]) -> io::Result<usize> {
    let existed = path.exists();
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    let Tail { end, last } = tail(&mut file, pond_id)?;
    let mut text = Vec::new();
    let mut written = 0;
    for commit in commits.iter().filter(|commit| last.is_none_or(|last| commit.position.version > last)) {
        serde_json::to_writer(&mut text, &Line::new(pond_id, commit))?;
        text.push(b'\n');
        written += 1;
    }
    file.set_len(end)?;
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&text)?;
    file.sync_data()?;
    if !existed && let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(written)
}

/// How a file ends.
struct Tail {
    /// Bytes up to the end of the last whole line.
    end: u64,
    /// Version of this pond's last line.
    last: Option<Version>,
}

/// Reads back from the end, in growing steps, to this pond's last line.
fn tail(file: &mut File, pond_id: &str) -> io::Result<Tail> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut step = 64 * 1024;
    loop {
        let start = length.saturating_sub(step);
        file.seek(SeekFrom::Start(start))?;
        let mut reader = BufReader::new(&mut *file);
        let mut tail = Tail { end: start, last: None };
        let mut line = Vec::new();
        // The first line read may be the end of a longer one; it does not parse, or it is whole.
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.last() == Some(&b'\n') {
                tail.end += line.len() as u64;
                if let Ok(line) = serde_json::from_slice::<Line>(&line)
                    && line.pond_id == pond_id
                {
                    tail.last = Some(Version(line.version));
                }
            }
            line.clear();
        }
        if tail.last.is_some() || start == 0 {
            return Ok(tail);
        }
        step *= 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pond_oplog::{Origin, Position, Timeline, TxnSeq};
    use pond_tinyfs::Lsn;

    fn commits(versions: std::ops::RangeInclusive<u64>) -> Vec<CommitInfo> {
        versions
            .map(|version| CommitInfo {
                position: Position {
                    version: Version(version),
                    digest: String::new(),
                    timestamp: 1_000_000 * version as i64,
                    txn_seq: TxnSeq(version + 1),
                    cut_lsn: Lsn(version * 10),
                    timeline: Timeline::FIRST,
                },
                origin: Origin::mount(),
                rows: 1,
                files: 1,
                bytes: 100,
            })
            .collect()
    }

    fn versions(path: &Path, pond: &str) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str::<Line>(line).unwrap())
            .filter(|line| line.pond_id == pond)
            .map(|line| line.version)
            .collect()
    }

    #[test]
    fn each_version_has_one_line_however_often_it_is_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(append(&path, "a", &commits(0..=3)).unwrap(), 4);
        assert_eq!(append(&path, "a", &commits(2..=5)).unwrap(), 2);
        assert_eq!(append(&path, "a", &commits(2..=5)).unwrap(), 0);
        assert_eq!(versions(&path, "a"), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "a", &commits(0..=3)).unwrap();
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        append(&path, "a", &commits(3..=4)).unwrap();
        assert_eq!(versions(&path, "a"), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn ponds_that_share_a_file_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "a", &commits(0..=3)).unwrap();
        append(&path, "b", &commits(0..=2000)).unwrap();
        append(&path, "a", &commits(2..=5)).unwrap();
        assert_eq!(versions(&path, "a"), [0, 1, 2, 3, 4, 5]);
        assert_eq!(versions(&path, "b").len(), 2001);
    }

    #[test]
    fn a_configuration_needs_an_absolute_path_and_nothing_else() {
        ExecLog.validate(b"path: /var/log/pond.jsonl").unwrap();
        ExecLog.validate(b"path: ${env:HOME}/pond.jsonl").unwrap();
        assert!(ExecLog.validate(b"path: pond.jsonl").is_err());
        assert!(ExecLog.validate(b"path: /a\nlevel: 3").is_err());
        assert!(ExecLog.validate(b"").is_err());
    }
}
