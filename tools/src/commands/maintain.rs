//! `pond maintain`.

use pond_mount::Request;
use pond_steward::{MaintainEvent, MaintainOptions, MaintainReport, MaintainStep};
use serde_json::Value;

use crate::cli::MaintainArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::{count, size};
use crate::progress::Progress;
use crate::target::State;

/// Merges, prunes, checkpoints and cleans, or says what that would do.
pub fn maintain(args: MaintainArgs, context: &mut Context) -> Result {
    const WHAT: &str = "cannot maintain the pond";
    let options = MaintainOptions { dry_run: args.dry_run, alone: false, retention: args.retention };
    let report: Value = match context.pond.state()? {
        State::Mounted(mut daemon) => daemon.call(&Request::Maintain(options), "maintain the pond")?,
        State::Unmounted => {
            let options = MaintainOptions { alone: true, ..options };
            let steward = context.pond.open()?;
            let (_, bytes) = steward.oplog().live_size();
            let progress = Progress::new("maintain", bytes, context.notices);
            let report = steward.maintain(&options, &|event| match event {
                MaintainEvent::Step(step) => progress.item(&name(step)),
                MaintainEvent::Bytes(bytes) => progress.advance(bytes),
            });
            progress.finish();
            let closed = steward.close().during(|| WHAT.to_owned());
            let report = report.map_err(|error| Failure::because(WHAT, &error))?;
            closed?;
            serde_json::to_value(report).map_err(|error| Failure::because(WHAT, &error))?
        }
    };
    context.out.json(&report)?;
    let report: MaintainReport = serde_json::from_value(report)
        .map_err(|error| Failure::because("cannot understand what maintenance reported", &error))?;
    context.out.facts(&facts(&report))
}

fn name(step: MaintainStep) -> &'static str {
    match step {
        MaintainStep::Merge => "merging",
        MaintainStep::Prune => "letting go of old versions",
        MaintainStep::Checkpoint => "writing a checkpoint",
        MaintainStep::Clean => "removing what is not needed",
    }
}

fn facts(report: &MaintainReport) -> Vec<(&'static str, String)> {
    let would = if report.dry_run { "would " } else { "" };
    let files = |files: u64, bytes: u64| format!("{}, {}", count(files, "data file"), size(bytes));
    let (pruned, cleaned) = (&report.pruned, &report.cleaned);
    let mut facts = vec![
        ("merge", format!("{would}join {}", files(report.merged_files, report.merged_bytes))),
        (
            "prune",
            format!(
                "{would}drop {} from {}, and free {}",
                count(pruned.rows, "row"),
                files(pruned.files, pruned.bytes),
                size(pruned.freed)
            ),
        ),
    ];
    if pruned.no_room > 0 {
        let files = count(pruned.no_room, "data file");
        facts.push(("no room", format!("to write {files} anew: free some of the disk, and maintain again")));
    }
    if let Some(version) = report.checkpoint {
        facts.push(("checkpoint", format!("of version {version}")));
    }
    facts.push((
        "clean",
        format!(
            "{would}remove {}, {} and {}",
            files(cleaned.files, cleaned.bytes),
            count(cleaned.entries, "log entry"),
            count(cleaned.checkpoints, "checkpoint")
        ),
    ));
    if cleaned.waiting_files > 0 {
        let waiting = files(cleaned.waiting_files, cleaned.waiting_bytes);
        facts.push((
            "waiting",
            format!("{waiting}, replaced, and removed later (`pond maintain --help` says when)"),
        ));
    }
    if let Some(doubt) = &report.doubt {
        facts.push(("in doubt", doubt.clone()));
    }
    match (report.floor, report.kept_below) {
        (None, _) => {}
        (Some(floor), 0) => facts.push(("floor", format!("version {floor} is the oldest that is kept"))),
        (Some(floor), below) => {
            let below = count(below, "version");
            facts.push(("floor", format!("all versions are kept from {floor} on, and {below} before it")));
        }
    }
    facts.push(("live", files(report.live_files, report.live_bytes)));
    facts
}
