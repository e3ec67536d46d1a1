//! Repair: only what loses nothing. A damaged file is kept aside before another takes its place, and what comes from a backup is
//! taken only if it is, byte for byte, what the log says.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::log::{self, Kind};
use super::report::{Finding, Part, Report, Severity, Watch};
use crate::disk::durable::{self, Existing};
use crate::disk::listing;
use crate::files::digests::{self, file_digest};
use crate::log::commits::commit_info;
use crate::log::delta::{self, Log};
use crate::log::{checkpoint, snapshot};
use crate::{Layout, OpLogError, Version};

/// Where lost files are had from: a backup. Errors are sentences for the user.
pub trait Restore {
    /// The bytes of a version's log entry.
    fn entry(&mut self, version: Version) -> Result<Vec<u8>, String>;
    /// The bytes of the checkpoint with which history begins at this version.
    fn checkpoint(&mut self, version: Version) -> Result<Vec<u8>, String>;
    /// A data file that this version added, synced, in the pond's own filesystem; it will be moved.
    fn file(&mut self, version: Version, name: &str) -> Result<PathBuf, String>;
}

/// What a repair did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Repaired {
    /// What was done, a sentence each.
    pub done: Vec<String>,
    /// What could not be, and why.
    pub failed: Vec<String>,
}

/// Repairs what a check of the pond at `pond` found in its history. The caller holds the writer's lock. Call it from a
/// thread that runs no async tasks. Cancelled, it ends between two files, of which each is whole.
///
/// # Errors
///
/// If the directories cannot be read. What could not be repaired is in the answer.
pub fn repair(
    pond: &Path,
    report: &Report,
    mut restore: Option<&mut dyn Restore>,
    watch: &dyn Watch,
) -> Result<Repaired, OpLogError> {
    let layout = Layout::new(pond);
    let log = Log::new(&layout.data());
    let mut repaired = Repaired::default();
    let table_name = |file: &str| file.strip_prefix("data/").map(str::to_owned);
    let log_name = |file: &str| file.strip_prefix("data/_delta_log/").map(str::to_owned);
    for name in damaged(report, Part::Entry).filter_map(|finding| log_name(&finding.file)) {
        let Some(version) = name.get(..20).and_then(|digits| digits.parse().ok()).map(Version) else {
            continue;
        };
        if watch.cancelled() {
            return Ok(repaired);
        }
        if log.read(version).is_ok() {
            repaired.failed.push(format!("{name} is what its writer wrote, and contradicts the others"));
            continue;
        }
        let fetched = match restore.as_deref_mut() {
            Some(restore) => restore.entry(version),
            None => Err("there is no backup to take it from".into()),
        };
        let done = fetched.and_then(|bytes| put_entry(&log, version, &bytes, report));
        repaired.note(done, format!("put the log entry of version {version} back"), &name);
    }
    // Files are known by the entries: those that are whole only now name others.
    let again = match repaired.done.is_empty() {
        true => None,
        false => Some(super::check::check(pond, true, watch)?),
    };
    let report = again.as_ref().unwrap_or(report);
    let mut scratch = Report::default();
    let table = log::check(&log, "data", Kind::Oplog, true, &mut scratch)?;
    for name in damaged(report, Part::Data).filter_map(|finding| table_name(&finding.file)) {
        if watch.cancelled() {
            break;
        }
        let Some(named) = table.files.get(&name) else { continue };
        let fetched = match restore.as_deref_mut() {
            Some(restore) => restore.file(named.added, &name),
            None => Err("there is no backup to take it from".into()),
        };
        let said = digests::file_tag(&named.add);
        let done = fetched.and_then(|from| put_file(&log, &name, &from, named.add.size, said.as_deref()));
        repaired.note(done, format!("put the data file {name} back"), &name);
    }
    if watch.cancelled() {
        return Ok(repaired);
    }
    checkpoints(&log, &mut restore, &scratch, &mut repaired)?;
    for finding in damaged(report, Part::Journal) {
        let why = "what it holds is nowhere else, so it is left as it is";
        repaired.failed.push(format!("{}: {why}", finding.file));
    }
    for directory in [layout.data(), layout.delta_log(), layout.journal(), layout.control()] {
        if !directory.is_dir() {
            continue;
        }
        for name in listing::names(&directory)?.iter().filter(|name| durable::is_temporary(name)) {
            let path = directory.join(name);
            let removed = durable::remove(&path).map_err(|error| error.to_string());
            repaired.note(removed, format!("removed {}, which was never finished", path.display()), name);
        }
    }
    Ok(repaired)
}

fn damaged(report: &Report, part: Part) -> impl Iterator<Item = &Finding> {
    let findings = report.findings.iter();
    findings.filter(move |finding| finding.part == part && finding.severity == Severity::Damage)
}

impl Repaired {
    /// Takes note of how one thing went.
    pub fn note(&mut self, result: Result<(), String>, done: String, what: &str) {
        match result {
            Ok(()) => self.done.push(done),
            Err(why) => self.failed.push(format!("{what}: {why}")),
        }
    }
}

/// Makes checkpoints anew where one is damaged, and brings back the one with which history begins.
fn checkpoints(
    log: &Log,
    restore: &mut Option<&mut dyn Restore>,
    found: &Report,
    repaired: &mut Repaired,
) -> Result<(), OpLogError> {
    let names: Vec<&str> = found
        .findings
        .iter()
        .filter(|finding| finding.part == Part::Checkpoint && finding.severity == Severity::Damage)
        .filter_map(|finding| finding.file.strip_prefix("data/_delta_log/"))
        .collect();
    let listing = log.list()?;
    let mut bad: Vec<Version> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".checkpoint.parquet")?.parse().ok().map(Version))
        .collect();
    let first = listing.entries.first().copied().unwrap_or_default();
    // What is readable begins with it: without entries from the first version on, or a whole checkpoint before it, nothing
    // could stand for it. So it is not set aside either.
    let whole = |version: &u64| *version >= first && !bad.contains(&Version(*version));
    let begins = listing.checkpoints.iter().copied().find(whole).unwrap_or(u64::MAX);
    let needed: Vec<Version> =
        bad.iter().copied().filter(|version| first > 0 && version.0 >= first && version.0 < begins).collect();
    bad.retain(|version| !needed.contains(version));
    for version in needed {
        let fetched = match restore.as_deref_mut() {
            Some(restore) => restore.checkpoint(version),
            None => Err("there is no backup to take it from".into()),
        };
        let done = fetched.and_then(|bytes| put_checkpoint(log, version, &bytes));
        let name = delta::checkpoint_name(version);
        repaired.note(done, format!("put the checkpoint of version {version} back"), &name);
    }
    if names.is_empty() {
        return Ok(());
    }
    let hint = log.directory().join("_last_checkpoint");
    if names.contains(&"_last_checkpoint") && hint.exists() {
        durable::remove(&hint).map_err(OpLogError::io("remove", &hint))?;
    }
    let tip = Version(listing.entries.last().copied().unwrap_or_default());
    let made = checkpoint::set_aside(log, &bad)
        .and_then(|()| checkpoint::write(log, tip))
        .map_err(|error| error.to_string());
    repaired.note(
        made,
        format!("made a checkpoint of version {tip}; damaged ones are kept aside"),
        "checkpoints",
    );
    Ok(())
}

fn text(error: OpLogError) -> String {
    error.to_string()
}

/// Keeps a damaged file under another name as well, if there is one: its own stays until the next file takes it over, as a
/// newest log entry that is missing looks like a version that never was.
fn keep_aside(path: &Path) -> Result<(), String> {
    if !path.exists() {
        return Ok(());
    }
    let now = chrono::Utc::now().format("%Y%m%dT%H%M%SZ");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let kept = path.with_file_name(format!("{name}.damaged-{now}"));
    match durable::link_durably(path, &kept) {
        // A repair that was cut off kept it.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked.map_err(|error| format!("cannot keep it as {}: {error}", kept.display())),
    }
}

fn put_entry(log: &Log, version: Version, bytes: &[u8], report: &Report) -> Result<(), String> {
    let path = log.entry_path(version);
    let entry = log.parse(version, bytes).map_err(text)?;
    let info = commit_info(log, version, &entry).map_err(text)?;
    // The neighbours say which history it must be part of.
    let neighbours = [version.0.checked_sub(1), version.0.checked_add(1)];
    for neighbour in neighbours.into_iter().flatten().map(Version) {
        let Ok(other) = log.read(neighbour) else { continue };
        let other = commit_info(log, neighbour, &other).map_err(text)?;
        let (low, high) = if neighbour < version { (other, info) } else { (info, other) };
        let fits = low.pond_id == high.pond_id
            && low.txn_seq < high.txn_seq
            && low.timestamp < high.timestamp
            && low.cut_lsn <= high.cut_lsn
            && low.timeline <= high.timeline;
        if !fits {
            return Err(format!("the one in the backup does not go together with version {neighbour} here"));
        }
    }
    if report.tip.as_ref().is_some_and(|tip| tip.version < version && Some(tip.timeline) != info.timeline) {
        // Nothing here says what came last, and a promoted replica may have made a version of this number.
        return Err("the one in the backup is of another timeline than the versions before it here".into());
    }
    keep_aside(&path)?;
    durable::write_durably(&path, bytes, Existing::Replace).map_err(|error| error.to_string())
}

fn put_file(log: &Log, name: &str, from: &Path, size: u64, digest: Option<&str>) -> Result<(), String> {
    let file = fs::File::open(from).map_err(|error| format!("cannot open what was fetched: {error}"))?;
    let found = file.metadata().map_err(|error| error.to_string())?.len();
    let is_it = found == size
        && digest.is_some()
        && file_digest(&file, size).map_err(|error| error.to_string())?.as_str()
            == digest.unwrap_or_default();
    if !is_it {
        return Err("the one in the backup is not the one that the log means".into());
    }
    let path = log.table().join(name);
    keep_aside(&path)?;
    durable::rename_durably(from, &path).map_err(|error| format!("cannot put it in its place: {error}"))
}

fn put_checkpoint(log: &Log, version: Version, bytes: &[u8]) -> Result<(), String> {
    snapshot::parse_checkpoint(log, version, bytes::Bytes::copy_from_slice(bytes)).map_err(text)?;
    keep_aside(&log.checkpoint_path(version))?;
    checkpoint::install(log, version, bytes).map_err(text)
}
