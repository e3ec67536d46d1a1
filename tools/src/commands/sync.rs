//! `pond sync`, which is also `pond control --mode sync`.

use pond_mount::Request;
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

/// Commits everything and runs the post-commit factories.
pub fn sync(context: &mut Context) -> Result {
    const WHAT: &str = "cannot sync the pond";
    let report: Value = match context.pond.state()? {
        State::Mounted(mut daemon) => daemon.call(&Request::Sync, "sync the pond")?,
        State::Unmounted => {
            let steward = context.pond.open()?;
            let report = steward.sync().map_err(|error| Failure::because(WHAT, &error));
            steward.close().map_err(|error| Failure::because(WHAT, &error))?;
            serde_json::to_value(report?).map_err(|error| Failure::because(WHAT, &error))?
        }
    };
    context.out.json(&report)?;
    let report: Report = serde_json::from_value(report)
        .map_err(|error| Failure::because("cannot understand what the sync reported", &error))?;
    let Report { version, timestamp, .. } = report;
    context.out.line(&format!("Version {version} of {} holds everything.", time::local_micros(timestamp)))?;
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
        .next("everything is committed nevertheless; they are tried again after the next commit")),
    }
}
