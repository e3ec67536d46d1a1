//! `pond mknod`, `pond run` and `pond factories`.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use pond_mount::Request;
use pond_steward::{Registry, Steward, StewardError};
use pond_tinyfs::{FileType, TinyFs};
use serde_json::{Value, json};

use super::walk;
use crate::cli::{MknodArgs, RunArgs};
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::{Column, Notices, json_bytes};
use crate::path::escape;
use crate::target::State;
use crate::waiting::{self, Wait, in_background};

/// What takes long where a node is made.
const TRYING: &str =
    "waiting for the store, or whatever else the configuration names, which is tried out first";

/// Makes a factory's node.
pub fn mknod(args: &MknodArgs, context: &mut Context) -> Result {
    let configuration = read_configuration(&args.config_path)
        .during(|| format!("cannot read the configuration {}", shown(&args.config_path)))?;
    let path = absolute(&args.path);
    for key in pond_steward::configuration::written_secrets(&configuration) {
        context.notices.warn(&format!(
            "{key}: what is written there stays readable in the pond's history and in every backup; write ${{env:NAME}} and set that variable"
        ));
    }
    let what = format!("make the node {} with {}", escape(path.as_bytes()), shown(&args.config_path));
    match context.pond.state()? {
        State::Mounted(mut daemon) => {
            let factory = args.factory.clone();
            let request = Request::Mknod { factory, path: path.clone(), configuration };
            daemon.call_long(&request, &what, TRYING, context.notices)?;
        }
        State::Unmounted => {
            let steward = context.pond.open()?;
            let (making, factory, node) = (steward.clone(), args.factory.clone(), path.clone());
            let made = in_this_process(&what, TRYING, context.notices, move || {
                making.mknod(&factory, &node, &configuration)
            });
            close(&steward, made, context.notices)?;
        }
    }
    context.out.json(&json!({"path": path, "factory": args.factory}))
}

/// Steward and daemon want paths from the root.
fn absolute(path: &str) -> String {
    format!("/{}", path.trim_start_matches('/'))
}

/// How the place of a configuration is told.
pub fn shown(path: &Path) -> Cow<'_, str> {
    if path.as_os_str() == "-" { "standard input".into() } else { path.to_string_lossy() }
}

/// A configuration from a file on the host, or from standard input.
pub fn read_configuration(path: &Path) -> io::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return fs::read(path);
    }
    let mut configuration = Vec::new();
    io::stdin().lock().read_to_end(&mut configuration)?;
    Ok(configuration)
}

/// Does on an open pond what may take long, and then says `waiting`; `what` completes "cannot …".
fn in_this_process<T: Send + 'static>(
    what: &str,
    waiting: &str,
    notices: Notices,
    work: impl FnOnce() -> Result<T, StewardError> + Send + 'static,
) -> Result<T> {
    let mut wait = Wait::new(None, notices);
    match in_background(work, || wait.goes_on(|| waiting.to_owned()))? {
        Ok(done) => done.map_err(|error| Failure::because(format!("cannot {what}"), &error)),
        // It never gives up.
        Err(_) => Err(Failure::new(format!("cannot {what}"), "it took too long")),
    }
}

fn close<T>(steward: &Arc<Steward>, result: Result<T>, notices: Notices) -> Result<T> {
    let closed = waiting::close(steward, notices)
        .map_err(|error| Failure::because("cannot commit the changes", &error));
    match result {
        Ok(value) => closed.map(|_| value),
        Err(failure) => Err(failure),
    }
}

/// Runs a factory's node.
pub fn run(args: RunArgs, context: &mut Context) -> Result {
    let path = absolute(&args.path);
    let what = format!("run {}", escape(path.as_bytes()));
    let waiting = format!("waiting for {}, which runs", escape(path.as_bytes()));
    let report: Value = match context.pond.state()? {
        State::Mounted(mut daemon) => {
            daemon.call_long(&Request::Run { path, args: args.args }, &what, &waiting, context.notices)?
        }
        State::Unmounted => {
            let steward = context.pond.open()?;
            let running = steward.clone();
            let report =
                in_this_process(&what, &waiting, context.notices, move || running.run(&path, &args.args));
            json!(close(&steward, report, context.notices)?)
        }
    };
    context.out.json(&report)?;
    match report["message"].as_str() {
        Some(message) if !message.is_empty() => context.out.line(message),
        _ => Ok(()),
    }
}

/// A factory's node.
struct Node {
    path: Vec<u8>,
    factory: String,
}

/// Lists the kinds and the nodes.
pub fn list(context: &mut Context) -> Result {
    let (kinds, nodes, outcomes) = match context.pond.state()? {
        State::Mounted(mut daemon) => {
            let kinds = daemon.call(&Request::Factories, "ask the pond's daemon for its factories")?;
            // The mount shows nodes as files; as of its last version they are known for what they are.
            let reader = context.pond.open_at(pond_oplog::At::Tip)?;
            (kinds, nodes(reader.fs())?, daemon.status()?)
        }
        State::Unmounted => {
            let reader = context.pond.open_tip()?;
            (kinds(reader.registry()), nodes(reader.fs())?, json!(reader.status()))
        }
    };
    let kinds = kinds.as_array().cloned().unwrap_or_default();
    for kind in &kinds {
        let facts = json!({"type": "kind", "name": kind["name"], "description": kind["description"]});
        context.out.json(&facts)?;
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = kinds.iter().map(|kind| vec![text(&kind["name"]), text(&kind["description"])]);
    context.out.table(&[Column::text("FACTORY"), Column::text("WHAT IT DOES")], rows)?;

    let mut rows = Vec::new();
    for node in &nodes {
        let (path, path_hex) = json_bytes(&node.path);
        let outcome = outcomes["factories"]
            .as_array()
            .and_then(|outcomes| outcomes.iter().find(|outcome| outcome["path"] == path.as_str()));
        let mut facts = json!({"type": "node", "path": path, "factory": node.factory});
        if let Some(hex) = path_hex {
            facts["path_hex"] = json!(hex);
        }
        // What the Steward knows of those that run after each commit.
        facts["after_commit"] = json!(outcome.is_some());
        for key in ["mode", "watermark", "behind", "failed", "last_message"] {
            if let Some(outcome) = outcome {
                facts[key] = outcome[key].clone();
            }
        }
        context.out.json(&facts)?;
        let state = match outcome {
            None => "on demand".to_owned(),
            Some(outcome) if outcome["failed"] == true => "failed".to_owned(),
            Some(outcome) if outcome["mode"].is_null() => "not here".to_owned(),
            Some(_) => "after each commit".to_owned(),
        };
        let message = outcome.map(|outcome| text(&outcome["last_message"])).unwrap_or_default();
        rows.push(vec![escape(&node.path), node.factory.clone(), state, message]);
    }
    if nodes.is_empty() {
        return context.out.line("\nNo nodes; `pond mknod` makes one.");
    }
    context.out.line("")?;
    let columns =
        [Column::text("NODE"), Column::text("FACTORY"), Column::text("RUNS"), Column::text("LAST MESSAGE")];
    context.out.table(&columns, rows)
}

fn kinds(registry: &Registry) -> Value {
    registry
        .iter()
        .map(|factory| json!({"name": factory.name(), "description": factory.description()}))
        .collect()
}

fn nodes(fs: &TinyFs) -> Result<Vec<Node>> {
    let mut found = Vec::new();
    let what = || "cannot look for factories' nodes".to_owned();
    walk::walk(fs, &mut |path, node, kind| {
        if kind == FileType::Dynamic {
            found.push((path.to_bytes(), node));
        }
    })
    .during(what)?;
    found.sort_unstable();
    found
        .into_iter()
        .map(|(path, node)| Ok(Node { path, factory: fs.dynamic(node).during(what)?.0 }))
        .collect()
}
