//! Which step comes after a boundary: what the pond was about when the power failed.

use std::path::Path;

use pond_oplog::Step;

/// What a step is part of.
pub fn kind(steps: &[Step], at: usize) -> &'static str {
    let (path, verb) = match &steps[at] {
        Step::Create { path } => (path, "create"),
        Step::Write { path, .. } => (path, "write"),
        Step::Truncate { path, .. } => (path, "truncate"),
        Step::SyncFile { path } => (path, "sync"),
        Step::SyncDirectory { path } => (path, "sync directory"),
        Step::Rename { from, .. } | Step::Link { from, .. } => (from, "name"),
        Step::Remove { path } | Step::RemoveTree { path } => (path, "remove"),
        Step::MakeDirectory { path } => (path, "make directory"),
        Step::Mark { .. } => return "mark",
    };
    let last = lasting_name(steps, at, path);
    let text = last.to_string_lossy();
    let is_checkpoint = text.contains("checkpoint");
    match (text.contains("/control"), text.contains("/journal"), verb) {
        (true, _, _) if is_checkpoint => "control table: checkpoint",
        (true, _, "remove") if !is_temporary(&text) => "control table: cleaning",
        (true, _, _) => "control table: commit",
        (_, true, _) if text.contains("torn-") => "recovery: torn tail",
        (_, true, "remove") => "journal: release",
        (_, true, "write" | "sync") => "journal: frame",
        (_, true, "truncate") => "recovery: torn tail",
        (_, true, _) => "journal: rotation",
        _ if is_checkpoint => "checkpoint",
        _ if text.contains("/_delta_log") && verb == "remove" && !is_temporary(&text) => "cleaning: log",
        _ if text.contains("/_delta_log") => "commit: log entry",
        _ if text.contains("/data") && verb == "remove" && !text.contains("_inflight") => "cleaning: data",
        _ if text.contains("/data") => "commit: data file",
        _ => "other",
    }
}

fn is_temporary(text: &str) -> bool {
    text.ends_with(".tmp")
}

/// The name that a temporary file is given later on, or was before; a directory's is that of what was last named in it.
fn lasting_name<'a>(steps: &'a [Step], at: usize, path: &'a Path) -> &'a Path {
    let named = |step: &'a Step| match step {
        Step::Rename { from, to } | Step::Link { from, to } => Some((from.as_path(), to.as_path())),
        _ => None,
    };
    if matches!(steps[at], Step::SyncDirectory { .. }) {
        let before = steps[..at].iter().rev().filter_map(named).map(|(_, to)| to);
        return before.take(50).find(|to| to.parent() == Some(path)).unwrap_or(path);
    }
    let around = steps[at..].iter().chain(steps[..at].iter().rev()).filter_map(named);
    around.filter(|(from, _)| *from == path).map(|(_, to)| to).next().unwrap_or(path)
}
