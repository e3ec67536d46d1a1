//! `pond init`: an empty pond, or a replica from a backup store.

use std::path::Path;

use pond_oplog::At;
use pond_replicate::{InitOptions, ReplicateError, Shortfall};
use pond_steward::{Steward, StewardError};
use serde_json::json;

use super::factories::{read_configuration, shown};
use crate::cli::InitArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::progress::Transfers;
use crate::time;

/// Makes a pond.
pub fn init(args: &InitArgs, context: &mut Context) -> Result {
    match &args.from_backup {
        Some(configuration) => from_backup(configuration, args, context),
        None => empty(context),
    }
}

fn empty(context: &mut Context) -> Result {
    let directory = context.pond.directory().to_path_buf();
    Steward::init(&directory).map_err(|error| Failure::because("cannot make a pond", &error))?;
    let pond_id = context.pond.open_at(At::Tip)?.status().pond_id;
    context.out.json(&json!({"path": directory, "pond_id": pond_id}))?;
    let (place, pond) = (directory.display(), context.command());
    context.out.line(&format!("Made the pond {place}. `{pond} mount MOUNTPOINT` mounts it."))
}

fn from_backup(configuration_path: &Path, args: &InitArgs, context: &mut Context) -> Result {
    let configuration = read_configuration(configuration_path)
        .during(|| format!("cannot read the configuration {}", shown(configuration_path)))?;
    let directory = context.pond.directory().to_path_buf();
    let options = InitOptions { at: args.version.or(args.timestamp), tip: args.tip };
    interrupt::catch();
    let progress = Transfers::new("init", context.notices);
    let made = pond_replicate::init_from_backup(&directory, &configuration, &options, &progress);
    pond_replicate::Progress::end(&progress);
    if let Err(ReplicateError::Steward(StewardError::AlreadyAReplica { .. })) = &made
        && !options.tip
        && options.at.is_none()
    {
        return fill_in(&configuration, configuration_path, context);
    }
    let made = made.map_err(|error| failed(&error, configuration_path, context))?;
    let (position, shortfall) = (made.position, made.shortfall);
    let pond_id = context.pond.open_at(At::Tip)?.status().pond_id;
    let status = pond_steward::replica_status(&directory)
        .map_err(|error| Failure::because("cannot read the replica's state", &error))?;
    let note = status.and_then(|status| status.note);
    context.out.json(&json!({
        "path": directory, "pond_id": pond_id, "mode": "replica",
        "version": position.version, "digest": position.digest,
        "timestamp": position.timestamp, "timeline": position.timeline, "note": note,
        "missing": shortfall.as_ref().map(missing),
    }))?;
    if let Some(shortfall) = &shortfall {
        context
            .notices
            .warn(&format!("{shortfall}. The replica takes later versions in once they are there"));
    }
    if let Some(note) = note {
        context.out.line(&format!("Not all of its past is there: {note}."))?;
    }
    context.out.line(&format!(
        "Made the replica {}, at version {} of {}.\n`{} mount MOUNTPOINT` mounts it and follows the source.",
        directory.display(),
        position.version,
        time::local_micros(position.timestamp),
        context.command()
    ))
}

/// What a store did not have, for programs: versions that its HEAD names (`null` where HEAD does not say), and a sentence.
fn missing(shortfall: &Shortfall) -> serde_json::Value {
    let (first, last) = match shortfall {
        Shortfall::Missing { first, last, .. } => (Some(first.0), Some(last.0)),
        Shortfall::NoHead { .. } => (None, None),
    };
    json!({"first_version": first, "last_version": last, "why": shortfall.to_string()})
}

/// A replica that was begun with `--tip` is asked for once more without it: it gets what it left out.
fn fill_in(configuration: &[u8], configuration_path: &Path, context: &mut Context) -> Result {
    let directory = context.pond.directory().to_path_buf();
    let progress = Transfers::new("init", context.notices);
    let filled = pond_replicate::fill_in(&directory, configuration, &progress);
    pond_replicate::Progress::end(&progress);
    let filled = filled.map_err(|error| match error {
        // It was whole already.
        ReplicateError::Steward(StewardError::AlreadyAReplica { .. }) => {
            failed(&error, configuration_path, context)
        }
        error => not_filled_in(&error, configuration_path, context),
    })?;
    context.out.json(&json!({
        "path": directory, "mode": "replica", "first_version": filled.first, "began_before_at": filled.before,
    }))?;
    context.out.line(&format!(
        "The replica {} holds versions from {} on now; it began at version {} before.",
        directory.display(),
        filled.first,
        filled.before
    ))
}

fn not_filled_in(error: &ReplicateError, configuration: &Path, context: &Context) -> Failure {
    const WHAT: &str = "cannot fill in the versions that the replica left out";
    let (pond, configuration) = (context.command(), configuration.display());
    let again = format!("`{pond} init --from-backup {configuration}` goes on from there");
    if interrupt::check().is_err() {
        return Failure::new(WHAT, "it was interrupted").next(format!("the replica is whole; {again}"));
    }
    Failure::because(WHAT, error)
}

/// What was fetched and verified is kept in any case, so the same command goes on from there.
fn failed(error: &ReplicateError, configuration: &Path, context: &Context) -> Failure {
    let again = format!("{} init --from-backup {}", context.command(), configuration.display());
    if interrupt::check().is_err() {
        return Failure::new("cannot make the replica", "it was interrupted")
            .next(format!("what was fetched is kept; `{again}` goes on from there"));
    }
    let failure = Failure::because(format!("cannot make the replica with {}", shown(configuration)), error);
    match error {
        // It says so itself.
        ReplicateError::MissingVersion { .. } => failure,
        _ => match error.restorable() {
            Some(version) => failure
                .next(format!("`{again} --version {version}` restores what comes before, if that is whole")),
            None => failure,
        },
    }
}
