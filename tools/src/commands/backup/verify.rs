//! `pond backup verify`.

use std::collections::HashMap;
use std::path::Path;

use pond_oplog::Version;
use pond_oplog::fsck::Severity as Damage;
use pond_replicate::{Flaw, Inspector, Level, ReplicateError, Severity, Verify, VerifyReport};
use pond_steward::fsck;
use serde_json::json;

use super::super::fsck::Bars;
use super::drill::Drill;
use super::failed::failed;
use super::remote;
use crate::cli::{BackupVerifyArgs, VerifyLevel};
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::output::{count, size};
use crate::progress::Transfers;

const WHAT: &str = "cannot verify the backup store";
/// Paths of one flaw that the text shows.
const MOST_PATHS: usize = 5;

/// Verifies a store.
pub fn verify(args: &BackupVerifyArgs, context: &mut Context) -> Result {
    let reads = matches!(args.level, VerifyLevel::Data | VerifyLevel::Restore);
    let wrong = |option: &str, level: &str| {
        Err(Failure::usage(WHAT, format!("{option} is only of use with --level {level}")))
    };
    if args.subset.is_some() && args.level != VerifyLevel::Data {
        return wrong("--subset", "data");
    }
    if args.resume.is_some() && !reads {
        return wrong("--resume", "data");
    }
    if args.scratch.is_some() && args.level != VerifyLevel::Restore {
        return wrong("--scratch", "restore");
    }
    let (inspector, configuration) = remote::open(&args.store, WHAT, context)?;
    let how = Verify {
        level: match args.level {
            VerifyLevel::Chain => Level::Chain,
            VerifyLevel::Sizes => Level::Sizes,
            VerifyLevel::Data | VerifyLevel::Restore => Level::Data,
        },
        subset: args.subset,
        resume: args.resume.clone(),
    };
    let progress = Transfers::new("verify", context.notices);
    let verified = inspector.verify(&how, &progress);
    pond_replicate::Progress::end(&progress);
    if let (Err(Failure::Interrupted(_)), Some(file)) = (interrupt::check(), &args.resume) {
        context.notices.warn(&format!(
            "stopped; what was found whole is in {}, and the same command goes on with the rest",
            file.display()
        ));
    }
    let mut report = verified.map_err(|error| failed(WHAT, &error))?;
    if args.level == VerifyLevel::Restore {
        let flaws = rehearse(args.scratch.as_deref(), &configuration, &inspector, context)?;
        report.flaws.extend(flaws);
    }
    show(&report, args.level, context)?;
    match report.is_clean() {
        true => Ok(()),
        false => Err(Failure::Reported),
    }
}

/// Restores everything into a scratch place, checks it there as `pond fsck` does, and compares its log with the store's manifests.
fn rehearse(
    scratch: Option<&Path>,
    configuration: &[u8],
    inspector: &Inspector,
    context: &Context,
) -> Result<Vec<Flaw>> {
    let drill = Drill::new(scratch, WHAT)?;
    if let Err(error) = drill.fetch(configuration, "restore", context) {
        interrupt::check()?;
        if matches!(error, ReplicateError::Store(_) | ReplicateError::Io { .. }) {
            return Err(failed(WHAT, &error));
        }
        let whole = error.restorable();
        let what = format!("restoring everything fails: {}", crate::error::chain(&error));
        return Ok(vec![Flaw::of_restore(whole.map(|version| Version(version.0 + 1)), what, Vec::new())]);
    }
    let watch = Bars::new(context.notices);
    let checked = fsck::check(&drill.path(), &watch);
    watch.end();
    interrupt::check()?;
    let checked = checked.during(|| WHAT.to_owned())?;
    let damage = checked.report.findings.into_iter().filter(|finding| finding.severity == Damage::Damage);
    let mut flaws: Vec<Flaw> = damage
        .map(|finding| {
            let what = format!("restored, {} is damaged: {}", finding.file, finding.problem);
            Flaw::of_restore(finding.first_version, what, finding.paths)
        })
        .collect();
    let progress = Transfers::new("verify", context.notices);
    let listed = inspector.list(None, &progress).map_err(|error| failed(WHAT, &error))?;
    let stored: HashMap<Version, String> =
        listed.into_iter().filter_map(|listed| Some((listed.version, listed.facts?.digest))).collect();
    for commit in drill.pond(context).history(None)? {
        let position = commit.position;
        if stored.get(&position.version).is_some_and(|digest| *digest != position.digest) {
            let what = "restored, its log entry is not the one that its manifest names".to_owned();
            flaws.push(Flaw::of_restore(Some(position.version), what, Vec::new()));
        }
    }
    drill.remove()?;
    Ok(flaws)
}

fn show(report: &VerifyReport, level: VerifyLevel, context: &mut Context) -> Result {
    for flaw in &report.flaws {
        let mut said = json!(flaw);
        said["event"] = json!("finding");
        context.out.json(&said)?;
        context.out.line(&line(flaw))?;
    }
    let mut summary = json!(report);
    summary["event"] = json!("summary");
    summary["clean"] = json!(report.is_clean());
    if level == VerifyLevel::Restore {
        summary["level"] = json!("restore");
    }
    if let Some(summary) = summary.as_object_mut() {
        summary.remove("flaws");
    }
    context.out.json(&summary)?;
    for lost in &report.lost {
        context.out.line(&format!("{} cannot be restored", range(*lost)))?;
    }
    let damaged = report.flaws.iter().filter(|flaw| flaw.severity == Severity::Damage).count();
    let looked = match (report.level, report.skipped) {
        (Level::Chain, _) => format!("{} were read", count(report.manifests, "manifest")),
        (Level::Sizes, _) => {
            format!("{} were read, and all objects looked for", count(report.manifests, "manifest"))
        }
        (Level::Data, skipped) => {
            let skipped = match skipped {
                0 => String::new(),
                skipped => format!("; {} were passed over", count(skipped, "object")),
            };
            let read = count(report.objects, "object");
            let restored = match level {
                VerifyLevel::Restore => ", and everything was restored and checked",
                _ => "",
            };
            format!(
                "{} and {read} ({}) were read{skipped}{restored}",
                count(report.manifests, "manifest"),
                size(report.bytes)
            )
        }
    };
    context.out.line(&match damaged {
        0 => format!("clean, versions {} to {}: {looked}", report.oldest, report.newest),
        1 => format!("1 object is damaged or missing: {looked}"),
        damaged => format!("{damaged} objects are damaged or missing: {looked}"),
    })
}

fn range((first, last): (Version, Version)) -> String {
    match first == last {
        true => format!("version {first}"),
        false => format!("versions {first} to {last}"),
    }
}

fn line(flaw: &Flaw) -> String {
    let severity = match flaw.severity {
        Severity::Notice => "note",
        Severity::Damage => "DAMAGE",
    };
    let version = flaw.version.map_or_else(String::new, |version| format!(" (version {version})"));
    let mut line = format!("{severity}: {}{version}: {}", flaw.key, flaw.problem);
    if let Some(hits) = flaw.hits {
        line += &format!("\n    hits {}", range(hits));
    }
    for path in flaw.paths.iter().take(MOST_PATHS) {
        line += &format!("\n    {path}");
    }
    if flaw.paths.len() > MOST_PATHS {
        line += &format!("\n    and {} more", flaw.paths.len() - MOST_PATHS);
    }
    line
}
