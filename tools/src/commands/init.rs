//! `pond init`: an empty pond, or a replica from a backup store.

use std::path::Path;

use pond_oplog::{At, Version};
use pond_replicate::{InitOptions, ReplicateError};
use pond_steward::Steward;
use serde_json::json;

use super::Context;
use super::factories::read_configuration;
use crate::cli::InitArgs;
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
    context.out.line(&format!("Made the pond {}. `pond mount MOUNTPOINT` mounts it.", directory.display()))
}

fn from_backup(configuration_path: &Path, args: &InitArgs, context: &mut Context) -> Result {
    let configuration = read_configuration(configuration_path)
        .during(|| format!("cannot read the configuration {}", configuration_path.display()))?;
    let directory = context.pond.directory().to_path_buf();
    let version = args.version.map(|version| At::Version(Version(version)));
    let options = InitOptions { at: version.or(args.timestamp.map(At::Timestamp)), tip: args.tip };
    interrupt::catch();
    let progress = Transfers::new("init", context.notices);
    let made = pond_replicate::init_from_backup(&directory, &configuration, &options, &progress);
    pond_replicate::Progress::end(&progress);
    let position = made.map_err(|error| failed(&error, configuration_path))?;
    let pond_id = context.pond.open_at(At::Tip)?.status().pond_id;
    context.out.json(&json!({
        "path": directory, "pond_id": pond_id, "mode": "replica",
        "version": position.version, "digest": position.digest,
        "timestamp": position.timestamp, "timeline": position.timeline,
    }))?;
    context.out.line(&format!(
        "Made the replica {}, at version {} of {}.\n`pond mount MOUNTPOINT` mounts it and follows the source.",
        directory.display(),
        position.version,
        time::local_micros(position.timestamp)
    ))
}

/// What was fetched and verified is kept in any case, so the same command goes on from there.
fn failed(error: &ReplicateError, configuration: &Path) -> Failure {
    const WHAT: &str = "cannot make the replica";
    let again = format!("pond init --from-backup {}", configuration.display());
    if interrupt::check().is_err() {
        return Failure::new(WHAT, "it was interrupted")
            .next(format!("what was fetched is kept; `{again}` goes on from there"));
    }
    Failure::because(WHAT, error)
}
