//! `pond status`.

use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Context;
use crate::cli::StatusArgs;
use crate::error::{Failure, Result};
use crate::output::{Column, count, size};
use crate::target::State;
use crate::time;

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// How often `--wait-version` looks.
const WAIT: Duration = Duration::from_millis(100);

/// Shows the pond's status: once, or whenever something changed.
pub fn status(args: &StatusArgs, context: &mut Context) -> Result {
    if let Some(version) = args.wait_version {
        wait_for(version, context)?;
    }
    let mut last = read(context)?;
    show(&last, context)?;
    if !args.watch {
        return Ok(());
    }
    loop {
        context.out.flush()?;
        thread::sleep(WATCH);
        let now = read(context)?;
        if now == last {
            continue;
        }
        if !context.out.is_json() {
            match context.out.is_terminal() {
                true => context.out.clear_screen()?,
                false => context.out.line("")?,
            }
        }
        show(&now, context)?;
        last = now;
    }
}

/// Returns once a version exists.
fn wait_for(version: u64, context: &Context) -> Result {
    loop {
        let newest = context.pond.history(Some(1))?;
        if newest.first().is_some_and(|commit| commit.position.version.0 >= version) {
            return Ok(());
        }
        thread::sleep(WAIT);
    }
}

/// The status as the daemon has it, or, of a pond that nobody serves, as its files say.
fn read(context: &Context) -> Result<Value> {
    let (mut status, mounted) = match context.pond.state()? {
        State::Mounted(mut daemon) => (daemon.status()?, true),
        State::Unmounted => {
            let mut status = json!(context.pond.open_tip()?.status());
            // They would be this process's own.
            status["pid"] = Value::Null;
            status["log_path"] = Value::Null;
            (status, false)
        }
    };
    status["mounted"] = json!(mounted);
    Ok(status)
}

/// What people are shown of it.
#[derive(Deserialize)]
struct View {
    pond_id: String,
    path: String,
    mounted: bool,
    mountpoint: Option<String>,
    #[serde(default)]
    mounted_read_only: bool,
    pid: Option<u32>,
    log_path: Option<String>,
    mode: Option<String>,
    state: String,
    read_only_because: Option<String>,
    version: u64,
    digest: String,
    timestamp: i64,
    txn_seq: u64,
    nodes: u64,
    uncommitted: Uncommitted,
    commit_error: Option<String>,
    journal: Journal,
    sizes: Sizes,
    factories: Vec<Factory>,
    notes: Vec<String>,
}

#[derive(Deserialize)]
struct Uncommitted {
    rows: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Journal {
    segments: u64,
    bytes: u64,
}

#[derive(Deserialize)]
struct Sizes {
    data: u64,
    journal: u64,
    control: u64,
    mirror: u64,
}

#[derive(Deserialize)]
struct Factory {
    path: String,
    mode: Option<String>,
    watermark: Option<u64>,
    behind: u64,
    failed: bool,
    last_message: Option<String>,
}

fn show(status: &Value, context: &mut Context) -> Result {
    context.out.json(status)?;
    if context.out.is_json() {
        return Ok(());
    }
    let view: View = serde_json::from_value(status.clone())
        .map_err(|error| Failure::because("cannot understand the pond's status", &error))?;
    context.out.facts(&facts(&view))?;
    if !view.factories.is_empty() {
        context.out.line("")?;
        const COLUMNS: [Column; 6] = [
            Column::text("FACTORY"),
            Column::text("MODE"),
            Column::number("DONE TO"),
            Column::number("BEHIND"),
            Column::text("STATE"),
            Column::text("LAST MESSAGE"),
        ];
        context.out.table(&COLUMNS, view.factories.iter().map(factory_row))?;
    }
    Ok(())
}

fn facts(view: &View) -> Vec<(&'static str, String)> {
    let mounted = match (&view.mountpoint, view.pid) {
        (Some(mountpoint), Some(pid)) => {
            let manner = if view.mounted_read_only { ", read-only" } else { "" };
            format!("on {mountpoint}{manner} (process {pid})")
        }
        _ if view.mounted => "yes".to_owned(),
        _ => "no".to_owned(),
    };
    let mut facts = vec![
        ("pond", view.path.clone()),
        ("id", view.pond_id.clone()),
        ("mounted", mounted),
        ("mode", view.mode.clone().unwrap_or_else(|| "unknown".to_owned())),
    ];
    // Of a pond that nobody serves it would only say that it was opened to be looked at.
    if view.mounted {
        facts.push(("state", view.state.clone()));
    }
    let mut add = |name, value: &Option<String>| {
        if let Some(value) = value {
            facts.push((name, value.clone()));
        }
    };
    add("read-only because", &view.read_only_because);
    add("last commit failed", &view.commit_error);
    facts.extend([
        (
            "version",
            format!("{}, {}, transaction {}", view.version, time::local_micros(view.timestamp), view.txn_seq),
        ),
        ("digest", view.digest.clone()),
        ("nodes", view.nodes.to_string()),
    ]);
    if view.mounted {
        let Uncommitted { rows, bytes } = view.uncommitted;
        facts.push(("uncommitted", format!("{}, {}", count(rows, "row"), size(bytes))));
        let Journal { segments, bytes } = view.journal;
        facts.push(("journal", format!("{}, {}", count(segments, "segment"), size(bytes))));
    }
    let Sizes { data, journal, control, mirror } = view.sizes;
    facts.push((
        "on disk",
        format!(
            "data {}, journal {}, control {}, mirror {}",
            size(data),
            size(journal),
            size(control),
            size(mirror)
        ),
    ));
    if let Some(log) = &view.log_path {
        facts.push(("log", log.clone()));
    }
    facts.extend(view.notes.iter().map(|note| ("note", note.clone())));
    facts
}

fn factory_row(factory: &Factory) -> Vec<String> {
    let state = match (factory.failed, &factory.mode, factory.behind) {
        (true, ..) => "failed",
        (_, None, _) => "not here",
        (_, _, 0) => "done",
        _ => "behind",
    };
    vec![
        factory.path.clone(),
        factory.mode.clone().unwrap_or_default(),
        factory.watermark.map(|version| version.to_string()).unwrap_or_default(),
        factory.behind.to_string(),
        state.to_owned(),
        factory.last_message.clone().unwrap_or_default(),
    ]
}
