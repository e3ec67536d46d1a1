//! `pond log PATH` and `pond log --deleted`: what became of a file, and what is gone.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pond_oplog::Event;
use serde_json::json;

use super::changes::Name;
use super::history;
use crate::cli::LogArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::Column;
use crate::path::{GivenPath, TreePath, escape};
use crate::pattern::Matching;
use crate::time;

/// Lists versions: all, those in which one file changed, or what is gone.
pub fn log(args: &LogArgs, context: &mut Context) -> Result {
    match (&args.path, &args.deleted) {
        (Some(path), _) => of_path(path, args.limit, context),
        (None, Some(glob)) => deleted(glob.as_deref(), args.limit, context),
        (None, None) => history::log(args, context),
    }
}

/// Lists the versions in which a file changed, newest first.
fn of_path(path: &GivenPath, limit: Option<usize>, context: &mut Context) -> Result {
    let what = || format!("cannot show the history of {path}");
    let tree_path = TreePath::of_names(path).map_err(|why| Failure::usage(what(), why))?;
    if tree_path.name().is_none() {
        return Err(Failure::usage(what(), "every version is one of the root").next("`pond log` lists them"));
    }
    let views = context.pond.versions()?;
    let mut events = views.past().and_then(|past| past.of_path(&tree_path.to_bytes())).during(what)?;
    if events.is_empty() {
        let failure = Failure::new(what(), "no version that is kept has it");
        return Err(failure.next("`pond log --deleted` lists what is gone, `pond list` what is there"));
    }
    events.reverse();
    events.truncate(limit.unwrap_or(usize::MAX));
    for event in &events {
        let mut facts = history::facts(&event.commit);
        facts["change"] = json!(event.what.name());
        facts["kind"] = json!(event.kind.name());
        facts["size"] = json!(event.size);
        let names = |paths: &[Vec<u8>]| paths.iter().map(|path| Name::new(path)).collect::<Vec<_>>();
        facts["paths"] = json!(names(&event.paths));
        if !event.paths_before.is_empty() {
            facts["paths_before"] = json!(names(&event.paths_before));
        }
        context.out.json(&facts)?;
    }
    const COLUMNS: [Column; 6] = [
        Column::number("VERSION"),
        Column::text("TIME"),
        Column::text("CHANGE"),
        Column::number("SIZE"),
        Column::text("ORIGIN"),
        Column::text("PATH"),
    ];
    context.out.table(&COLUMNS, events.iter().map(row))
}

fn row(event: &Event) -> Vec<String> {
    let list = |paths: &[Vec<u8>]| paths.iter().map(|path| escape(path)).collect::<Vec<_>>().join(", ");
    let paths = match event.paths_before.is_empty() {
        true => list(&event.paths),
        false => format!("{} -> {}", list(&event.paths_before), list(&event.paths)),
    };
    vec![
        event.commit.position.version.to_string(),
        time::local_micros(event.commit.position.timestamp),
        event.what.name().to_owned(),
        event.size.to_string(),
        history::origin(&event.commit.origin),
        paths,
    ]
}

/// Lists what is gone, newest first, each with the last version that had it.
fn deleted(glob: Option<&OsStr>, limit: Option<usize>, context: &mut Context) -> Result {
    let what = || match glob {
        Some(glob) => format!("cannot list what is gone of {}", escape(glob.as_bytes())),
        None => "cannot list what is gone".to_owned(),
    };
    let pattern = match glob {
        Some(glob) => Some(Matching::new(glob).map_err(|why| Failure::usage(what(), why))?),
        None => None,
    };
    let views = context.pond.versions()?;
    let mut gone = views.past().and_then(|past| past.gone()).during(what)?;
    gone.retain(|gone| !gone.is_taken && pattern.as_ref().is_none_or(|pattern| pattern.matches(&gone.path)));
    gone.truncate(limit.unwrap_or(usize::MAX));
    for gone in &gone {
        context.out.json(&Name::new(&gone.path).with(json!({
            "kind": gone.kind.name(),
            "size": gone.size,
            "last_version": gone.last,
            "gone_in": gone.commit.position.version,
            "time": time::rfc3339_micros(gone.commit.position.timestamp),
            "origin": gone.commit.origin,
        })))?;
    }
    const COLUMNS: [Column; 6] = [
        Column::number("LAST VERSION"),
        Column::text("GONE SINCE"),
        Column::text("KIND"),
        Column::number("SIZE"),
        Column::text("ORIGIN"),
        Column::text("PATH"),
    ];
    let rows = gone.iter().map(|gone| {
        vec![
            gone.last.to_string(),
            time::local_micros(gone.commit.position.timestamp),
            gone.kind.name().to_owned(),
            gone.size.to_string(),
            history::origin(&gone.commit.origin),
            escape(&gone.path),
        ]
    });
    context.out.table(&COLUMNS, rows)
}
