//! `pond fsck`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use pond_oplog::fsck::{Finding, Report, Restore, Severity, Watch};
use pond_replicate::Backup;
use pond_steward::fsck;
use serde_json::json;

use super::factories::{read_configuration, shown};
use crate::cli::FsckArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::output::{Notices, count, size};
use crate::progress::{Progress, Transfers};
use crate::registry;

/// Paths of one finding that the text shows.
const MOST_PATHS: usize = 5;

/// Checks the pond, and repairs it if asked to.
pub fn fsck(args: &FsckArgs, context: &mut Context) -> Result {
    interrupt::catch();
    let watch = Bars::new(context.notices);
    let pond = context.pond.directory().to_path_buf();
    let report = match args.repair {
        false => {
            let checked = fsck::check(&pond, &watch);
            watch.end();
            let checked = checked.map_err(|error| Failure::because("cannot check the pond", &error))?;
            interrupt::check()?;
            show(&checked.report, context)?;
            if !checked.exclusive {
                context.notices.warn(
                    "the pond is open elsewhere, or cannot be locked: the journal's end and files that are being written were \
                     not looked at",
                );
            }
            checked.report
        }
        true => repair(args.from_backup.as_deref(), &pond, &watch, context)?,
    };
    summarize(&report, context)?;
    match report.is_clean() {
        true => Ok(()),
        false => Err(Failure::Reported),
    }
}

fn repair(from: Option<&Path>, pond: &Path, watch: &Bars, context: &mut Context) -> Result<Report> {
    let given = match from {
        Some(path) => Some(
            read_configuration(path).during(|| format!("cannot read the configuration {}", shown(path)))?,
        ),
        None => None,
    };
    let transfers = Transfers::new("restore", context.notices);
    let registry = registry::all(Arc::new(Transfers::new("push", context.notices)));
    let mut open =
        |report: &Report, found: &[Vec<u8>]| open_backup(pond, given.as_deref(), report, found, &transfers);
    let repaired = fsck::repair(pond, &registry, &mut open, watch);
    watch.end();
    let repaired = repaired.map_err(|error| Failure::because("cannot repair the pond", &error))?;
    show(&repaired.before, context)?;
    for done in &repaired.repaired.done {
        context.out.json(&json!({"event": "repaired", "what": done}))?;
        context.out.line(&format!("repaired: {done}"))?;
    }
    for failed in &repaired.repaired.failed {
        context.out.json(&json!({"event": "not_repaired", "what": failed}))?;
        context.out.line(&format!("not repaired: {failed}"))?;
    }
    interrupt::check()?;
    if !repaired.before.is_clean() && !repaired.after.is_clean() {
        context.out.line("What is still wrong:")?;
        show(&repaired.after, context)?;
    }
    Ok(repaired.after)
}

/// The first of these stores that can be reached and holds the pond.
fn open_backup<'a>(
    pond: &Path,
    given: Option<&[u8]>,
    report: &Report,
    found: &[Vec<u8>],
    transfers: &'a Transfers,
) -> std::result::Result<Option<Box<dyn Restore + 'a>>, String> {
    let pond_id = report.tip.as_ref().and_then(|tip| {
        let files = pond_oplog::version_files(pond, tip.version).ok()?;
        pond_oplog::entry_facts(tip.version, &files.entry).ok()?.pond_id
    });
    let mut failed = None;
    for configuration in given.into_iter().chain(found.iter().map(Vec::as_slice)) {
        match Backup::open(pond, configuration, pond_id, transfers) {
            Ok(backup) => return Ok(Some(Box::new(backup))),
            Err(error) => {
                failed.get_or_insert(error.to_string());
            }
        }
    }
    failed.map_or(Ok(None), Err)
}

fn show(report: &Report, context: &mut Context) -> Result {
    for finding in &report.findings {
        let mut said = json!(finding);
        said["event"] = json!("finding");
        context.out.json(&said)?;
        context.out.line(&line(finding))?;
    }
    Ok(())
}

fn line(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Notice => "note",
        Severity::Damage => "DAMAGE",
    };
    let mut line = format!("{severity}: {}: {}", finding.file, finding.problem);
    match (finding.first_version, finding.last_version) {
        (Some(first), Some(last)) if first == last => line += &format!(" (version {first})"),
        (Some(first), Some(last)) => line += &format!(" (versions {first} to {last})"),
        (Some(first), None) => line += &format!(" (versions from {first} on)"),
        (None, _) => {}
    }
    for path in finding.paths.iter().take(MOST_PATHS) {
        line += &format!("\n    {path}");
    }
    if finding.paths.len() > MOST_PATHS {
        line += &format!("\n    and {} more", finding.paths.len() - MOST_PATHS);
    }
    line
}

fn summarize(report: &Report, context: &mut Context) -> Result {
    let damaged = report.findings.iter().filter(|finding| finding.severity == Severity::Damage).count();
    let version = report.tip.as_ref().map(|tip| tip.version);
    context.out.json(&json!({
        "event": "summary", "clean": report.is_clean(), "damaged": damaged, "version": version,
        "entries": report.entries, "control_entries": report.control_entries, "checkpoints": report.checkpoints, "files": report.files,
        "bytes": report.bytes, "rows": report.rows, "extents": report.extents, "frames": report.frames,
    }))?;
    let checked = format!(
        "{}, {}, {} ({}), {}, {}, {} were looked at",
        count(report.entries, "version"),
        count(report.checkpoints, "checkpoint"),
        count(report.files, "data file"),
        size(report.bytes),
        count(report.rows, "row"),
        count(report.extents, "extent"),
        count(report.frames, "journal frame")
    );
    context.out.line(&match damaged {
        0 => format!("clean: {checked}"),
        1 => format!("1 thing is damaged or missing: {checked}"),
        damaged => format!("{damaged} things are damaged or missing: {checked}"),
    })
}

/// Shows each stage of a check.
pub struct Bars {
    notices: Notices,
    stage: Mutex<Option<Progress>>,
}

impl Bars {
    /// None yet.
    pub fn new(notices: Notices) -> Self {
        Bars { notices, stage: Mutex::new(None) }
    }

    fn with(&self, change: impl FnOnce(&mut Option<Progress>)) {
        // A bar is whole whatever happened to whoever moved it.
        change(&mut self.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    /// No stage goes on.
    pub fn end(&self) {
        self.with(|stage| {
            if let Some(stage) = stage.take() {
                stage.finish();
            }
        });
    }
}

impl Watch for Bars {
    fn begin(&self, what: &str, bytes: u64) {
        self.end();
        let stage = Progress::new("fsck", bytes, self.notices);
        stage.item(&what);
        self.with(|current| *current = Some(stage));
    }

    fn advance(&self, bytes: u64) {
        self.with(|stage| {
            if let Some(stage) = stage {
                stage.advance(bytes);
            }
        });
    }

    fn cancelled(&self) -> bool {
        interrupt::check().is_err()
    }
}
