//! `pond sync`, which is also `pond control --mode sync`.

use pond_mount::Request;
use pond_steward::Role;
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use crate::error::{Failure, Result};
use crate::output::Column;
use crate::target::State;
use crate::time;

/// What people are shown of a sync.
#[derive(Deserialize)]
struct Report {
    version: u64,
    timestamp: i64,
    factories: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    path: String,
    failed: bool,
    behind: u64,
    last_message: Option<String>,
}

/// Commits everything and runs the post-commit factories; pulls on a replica.
pub fn sync(context: &mut Context) -> Result {
    const WHAT: &str = "cannot sync the pond";
    let (report, replica): (Value, bool) = match context.pond.state()? {
        State::Mounted(mut daemon) => {
            let report = daemon.call(&Request::Sync, "sync the pond")?;
            (report, daemon.status()?["mode"] == "replica")
        }
        State::Unmounted => {
            let steward = context.pond.open()?;
            let report = steward.sync().map_err(|error| Failure::because(WHAT, &error));
            steward.close().map_err(|error| Failure::because(WHAT, &error))?;
            let report = serde_json::to_value(report?).map_err(|error| Failure::because(WHAT, &error))?;
            (report, steward.status().mode == Some(Role::Replica))
        }
    };
    context.out.json(&report)?;
    let report: Report = serde_json::from_value(report)
        .map_err(|error| Failure::because("cannot understand what the sync reported", &error))?;
    let Report { version, timestamp, .. } = report;
    let committed = time::local_micros(timestamp);
    context.out.line(&match replica {
        true => {
            format!("Version {version} of {committed} is the newest in the backup store, and it is here.")
        }
        false => format!("Version {version} of {committed} holds everything."),
    })?;
    let columns = [Column::text("FACTORY"), Column::text("STATE"), Column::text("LAST MESSAGE")];
    let rows = report.factories.iter().map(|outcome| {
        let state = match (outcome.failed, outcome.behind) {
            (true, _) => "failed".to_owned(),
            (false, 0) => "done".to_owned(),
            (false, behind) => format!("{behind} behind"),
        };
        vec![outcome.path.clone(), state, outcome.last_message.clone().unwrap_or_default()]
    });
    context.out.table(&columns, rows)?;
    let failed: Vec<&Outcome> = report.factories.iter().filter(|outcome| outcome.failed).collect();
    match failed.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Failure::new(
            format!("{} of {} factories failed", failed.len(), report.factories.len()),
            format!("{}: {}", first.path, first.last_message.as_deref().unwrap_or("it does not say why")),
        )
        .next("everything is committed nevertheless; they are tried again after the next commit, where the pond takes writes (see `pond status`)")),
    }
}
