//! `pond log`.

use pond_oplog::{CommitInfo, Origin};
use serde_json::{Value, json};

use crate::cli::LogArgs;
use crate::context::Context;
use crate::error::Result;
use crate::output::{Column, size};
use crate::path::escape;
use crate::time;

/// Lists the versions, newest first.
pub fn log(args: &LogArgs, context: &mut Context) -> Result {
    let commits = context.pond.history(args.limit)?;
    for commit in &commits {
        context.out.json(&facts(commit))?;
    }
    const COLUMNS: [Column; 6] = [
        Column::number("VERSION"),
        Column::text("TIME"),
        Column::number("TXN"),
        Column::text("ORIGIN"),
        Column::number("FILES"),
        Column::number("BYTES"),
    ];
    let rows = commits.iter().map(|commit| {
        vec![
            commit.position.version.to_string(),
            time::local_micros(commit.position.timestamp),
            commit.position.txn_seq.to_string(),
            origin(&commit.origin),
            commit.files.to_string(),
            size(commit.bytes),
        ]
    });
    context.out.table(&COLUMNS, rows)
}

/// A commit for programs: what the log entry says, and its time in words too.
pub fn facts(commit: &CommitInfo) -> Value {
    let mut facts = json!(commit);
    facts["time"] = json!(time::rfc3339_micros(commit.position.timestamp));
    facts
}

/// Who asked for a commit, for people, on one line.
pub fn origin(origin: &Origin) -> String {
    let asked = match (&origin.command, origin.kind.as_str()) {
        (Some(command), "transaction") => format!("txn: {command}"),
        (Some(command), _) => command.clone(),
        (None, kind) => kind.to_owned(),
    };
    match origin.message.as_deref().and_then(|message| message.lines().next()) {
        Some(message) => format!("{} ({asked})", escape(message.as_bytes())),
        None => asked,
    }
}
