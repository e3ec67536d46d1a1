//! `pond sync`, which is also `pond control --mode sync`.

use std::sync::Arc;
use std::time::Duration;

use pond_mount::Request;
use pond_steward::{FactoryStatus, Role, Steward};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::SyncArgs;
use crate::context::Context;
use crate::error::{Failure, Result, without_numbers};
use crate::output::Column;
use crate::target::{Daemon, State};
use crate::time;
use crate::waiting::{self, Wait, in_background};

const WHAT: &str = "sync the pond";

/// How long what was broken off may take to end.
const END: Duration = Duration::from_secs(2);

/// What people are shown of a sync.
#[derive(Deserialize)]
struct Report {
    version: u64,
    timestamp: i64,
    /// Those that were waited for.
    #[serde(default)]
    factories: Vec<FactoryStatus>,
}

/// How a sync ended.
struct Synced {
    report: Report,
    replica: bool,
    /// Whether the pond takes writes, and so has what failed tried again.
    takes_writes: bool,
    /// What to do next, where the time was up before all was done.
    unfinished: Option<&'static str>,
}

/// Commits everything and runs the post-commit factories; pulls on a replica.
pub fn sync(args: &SyncArgs, context: &mut Context) -> Result {
    let synced = match context.pond.state()? {
        State::Mounted(daemon) => sync_mounted(daemon, args, context)?,
        State::Unmounted => sync_unmounted(args, context)?,
    };
    show(&synced, args, context)?;
    let Report { version, factories, .. } = &synced.report;
    if let Some(next) = synced.unfinished {
        let waited = args.timeout.unwrap_or_default().as_secs();
        let why = match synced.replica {
            true => format!("the pull has not ended within {waited} s; version {version} is shown"),
            false => format!(
                "factories have not ended within {waited} s: {}; version {version} holds everything, and is safe in the \
                 pond",
                waited_for(factories)
            ),
        };
        return Err(Failure::new("the sync is not finished", why).next(next));
    }
    let failed: Vec<&FactoryStatus> = factories.iter().filter(|outcome| outcome.failed).collect();
    match failed.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Failure::new(
            format!("{} of {} failed", failed.len(), crate::output::count(factories.len() as u64, "factory")),
            format!("{}: {}", first.path, without_numbers(first.last_message.as_deref().unwrap_or("it does not say why"))),
        )
        .next(match synced.takes_writes {
            true => "everything is committed nevertheless, and safe in the pond; what failed is tried again while the pond is mounted, and by the next sync",
            false => "everything is committed nevertheless, and safe in the pond; see `pond status`",
        })),
    }
}

/// By the daemon. First the commit alone, so that whoever stops waiting knows what is safe.
fn sync_mounted(mut daemon: Daemon, args: &SyncArgs, context: &mut Context) -> Result<Synced> {
    let status = daemon.status()?;
    let replica = status["mode"] == "replica";
    let committed = daemon.call(&Request::Commit, WHAT)?;
    let answer = match args.no_push {
        true => Some(committed.clone()),
        false => {
            // It answers nothing else on this connection until all is done.
            let State::Mounted(mut other) = context.pond.state()? else {
                return Err(
                    Failure::new(format!("cannot {WHAT}"), "its daemon has ended").next("see `pond status`")
                );
            };
            let mut wait = Wait::new(args.timeout, context.notices);
            let mut goes_on = || wait.goes_on(|| waited(replica, &committed, &factories_of(&mut other)));
            daemon.call_while(&Request::Sync, WHAT, &mut goes_on)?
        }
    };
    let now = status_of(context);
    let unfinished = answer.is_none();
    let report = match answer {
        Some(report) => report,
        None => with_factories(committed, now["factories"].clone()),
    };
    context.out.json(&report)?;
    let next = "the pond's daemon goes on with it; see `pond status`";
    let takes_writes = now["read_only_because"].is_null() && now["mounted_read_only"] != true;
    Ok(Synced { report: understood(report)?, replica, takes_writes, unfinished: unfinished.then_some(next) })
}

/// How the pond fares now; nothing where the daemon does not say.
fn status_of(context: &Context) -> Value {
    match context.pond.state() {
        Ok(State::Mounted(mut daemon)) => daemon.try_status().unwrap_or_default(),
        _ => Value::Null,
    }
}

/// In this process.
fn sync_unmounted(args: &SyncArgs, context: &mut Context) -> Result<Synced> {
    let failed = |error| Failure::because(format!("cannot {WHAT}"), &error);
    let steward = match args.no_push {
        true => context.pond.open_without_factories()?,
        false => context.pond.open()?,
    };
    let result = run(&steward, args, context);
    let status = steward.status();
    let (replica, takes_writes) = (status.mode == Some(Role::Replica), status.read_only_because.is_none());
    waiting::close(&steward, context.notices).map_err(failed)?;
    let (report, unfinished) = result?;
    context.out.json(&report)?;
    let next = "it was broken off; the next sync, or mount, goes on with it";
    Ok(Synced { report: understood(report)?, replica, takes_writes, unfinished: unfinished.then_some(next) })
}

/// What was done, and whether it was broken off.
fn run(steward: &Arc<Steward>, args: &SyncArgs, context: &mut Context) -> Result<(Value, bool)> {
    let failed = |error| Failure::because(format!("cannot {WHAT}"), &error);
    let committed = json!(steward.commit_now().map_err(failed)?);
    if args.no_push {
        return Ok((committed, false));
    }
    let replica = steward.status().mode == Some(Role::Replica);
    let mut wait = Wait::new(args.timeout, context.notices);
    let working = steward.clone();
    let done = in_background(
        move || working.sync(),
        || wait.goes_on(|| waited(replica, &committed, &steward.status().factories)),
    )?;
    match done {
        Ok(report) => Ok((json!(report.map_err(failed)?), false)),
        Err(finished) => {
            let factories = steward.status().factories;
            steward.break_off();
            // It ends at once, as a rule; if it does not, closing waits for it.
            finished.recv_timeout(END).ok();
            Ok((with_factories(committed, json!(factories)), true))
        }
    }
}

fn with_factories(mut committed: Value, factories: Value) -> Value {
    committed["factories"] = factories;
    committed
}

fn understood(report: Value) -> Result<Report> {
    serde_json::from_value(report)
        .map_err(|error| Failure::because("cannot understand what the sync reported", &error))
}

/// How the factories fare now; none where the daemon does not say.
fn factories_of(daemon: &mut Daemon) -> Vec<FactoryStatus> {
    let status = daemon.try_status().unwrap_or_default();
    serde_json::from_value(status["factories"].clone()).unwrap_or_default()
}

/// What is waited for, in a sentence.
fn waited(replica: bool, committed: &Value, factories: &[FactoryStatus]) -> String {
    let version = &committed["version"];
    match replica {
        true => format!("waiting for the backup store; version {version} is shown meanwhile"),
        false => format!(
            "version {version} holds everything; waiting for {} (Ctrl-C ends the waiting and loses nothing)",
            waited_for(factories)
        ),
    }
}

/// The factories that run or are behind: `/etc/system.d/10-remote, running for 12 s, 3 versions behind`.
fn waited_for(factories: &[FactoryStatus]) -> String {
    let owing: Vec<String> = factories
        .iter()
        .filter(|node| node.mode.is_some() && (node.running_ms.is_some() || node.behind > 0))
        .map(|node| {
            let mut words = node.path.clone();
            if let Some(milliseconds) = node.running_ms {
                words.push_str(&format!(", running for {} s", milliseconds / 1000));
            }
            if node.behind > 0 {
                words.push_str(&format!(", {} behind", crate::output::count(node.behind, "version")));
            }
            if let (true, Some(message)) = (node.failed, &node.last_message) {
                words.push_str(&format!(", failed before ({message})"));
            }
            words
        })
        .collect();
    match owing.is_empty() {
        true => "factories that run after commits".to_owned(),
        false => owing.join("; "),
    }
}

fn show(synced: &Synced, args: &SyncArgs, context: &mut Context) -> Result {
    let Report { version, timestamp, factories } = &synced.report;
    let committed = time::local_micros(*timestamp);
    context.out.line(&match (synced.replica, args.no_push || synced.unfinished.is_some()) {
        (true, false) => {
            format!("Version {version} of {committed} is the newest in the backup store, and it is here.")
        }
        (true, true) => {
            format!("Version {version} of {committed} is here; the backup store may have newer ones.")
        }
        (false, _) => format!("Version {version} of {committed} holds everything."),
    })?;
    let columns = [Column::text("FACTORY"), Column::text("STATE"), Column::text("LAST MESSAGE")];
    let rows = factories.iter().map(|outcome| {
        let state = match (outcome.running_ms, outcome.failed, outcome.behind) {
            (Some(milliseconds), ..) => format!("running for {} s", milliseconds / 1000),
            (None, true, _) => "failed".to_owned(),
            (None, false, 0) => "done".to_owned(),
            (None, false, behind) => format!("{behind} behind"),
        };
        vec![
            outcome.path.clone(),
            state,
            without_numbers(outcome.last_message.as_deref().unwrap_or_default()),
        ]
    });
    context.out.table(&columns, rows)
}
