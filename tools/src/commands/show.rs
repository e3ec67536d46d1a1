//! `pond show`: one version, and which paths it changed.
//!
//! It is compared with the one before.

use pond_oplog::{At, Change, CommitInfo, Link, OpLogError, Side, Version, View, Views};
use pond_tinyfs::NodeId;
use serde_json::json;

use super::changes::{COLUMNS, Shown};
use super::history;
use crate::cli::ShowArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::{count, size};
use crate::time;

/// Shows a version.
pub fn show(args: &ShowArgs, context: &mut Context) -> Result {
    show_version(args.version, context)
}

/// The same for other commands.
pub fn show_version(at: At, context: &mut Context) -> Result {
    let what = || format!("cannot show version {at}");
    let views = context.pond.versions()?;
    let after = views.open(at).during(what)?;
    let version = after.position().version;
    let commit = commit(version, context)?;
    let known = changes(&views, &after).during(what)?;
    let changes: Vec<Shown> = known.iter().flatten().map(Shown::of).collect();

    let mut facts = history::facts(&commit);
    facts["changes"] = if known.is_some() { json!(changes) } else { json!(null) };
    context.out.json(&facts)?;
    let mut shown = vec![
        ("version", commit.position.version.to_string()),
        ("time", time::local_micros(commit.position.timestamp)),
        ("transaction", commit.position.txn_seq.to_string()),
        ("origin", history::origin(&commit.origin)),
        ("digest", commit.position.digest.clone()),
        (
            "added",
            format!("{}, {}, {}", count(commit.rows, "row"), count(commit.files, "file"), size(commit.bytes)),
        ),
    ];
    // The origin has its first line.
    if let Some(message) = commit.origin.message.as_deref().filter(|message| message.lines().count() > 1) {
        shown.push(("message", message.to_owned()));
    }
    context.out.facts(&shown)?;
    context.out.line("")?;
    if known.is_none() {
        return context
            .out
            .line("It is the oldest version that is kept: what it changed is no longer known.");
    }
    context.out.table(&COLUMNS, changes.iter().map(Shown::row))
}

/// What it changed; `None` where no version before it is kept.
fn changes(views: &Views, after: &View) -> Result<Option<Vec<Change>>, OpLogError> {
    let version = after.position().version;
    if let Some(before) = version.0.checked_sub(1) {
        let to = At::Version(version);
        let difference = match views.difference(At::Version(Version(before)), to) {
            // The one before was thinned out.
            Err(OpLogError::Thinned { before, .. }) => views.difference(At::Version(before), to),
            // Nothing is kept of what it changed.
            Err(OpLogError::NoLongerKept { .. } | OpLogError::NoSuchVersion { .. }) => return Ok(None),
            difference => difference,
        };
        let difference = difference?;
        let before = views.open(At::Version(difference.from.version))?;
        return Ok(Some(difference.by_paths(&before, after)?.changes));
    }
    // The first version has its root directory, and nothing before it.
    let root = |attributes| Change {
        node: NodeId::ROOT,
        before: None,
        after: Some(Side { attributes, links: vec![Link { path: b"/".to_vec(), parent: NodeId::ROOT }] }),
        content: false,
        entries: false,
        attributes: Vec::new(),
        replaces: None,
    };
    Ok(Some(after.fs().getattr(NodeId::ROOT).ok().map(root).into_iter().collect()))
}

fn commit(version: Version, context: &Context) -> Result<CommitInfo> {
    let history = |limit| context.pond.history(Some(limit));
    // Newest first: as many as the version is deep.
    let newest = history(1)?.first().map_or(version, |commit| commit.position.version);
    let depth = usize::try_from(newest.0.saturating_sub(version.0)).unwrap_or(usize::MAX);
    history(depth.saturating_add(1))?
        .into_iter()
        .find(|commit| commit.position.version == version)
        .ok_or_else(|| Failure::new(format!("cannot show version {version}"), "its log entry is gone"))
}
