//! `pond show`: one version, and which paths it changed.
//!
//! The version's rows name the nodes that it touched; the trees before and after say what these were and
//! are called.

use std::collections::{BTreeMap, HashMap};

use pond_oplog::{At, CommitInfo, Version};
use pond_tinyfs::{FileType, NodeId, Record, Row, TinyFs};
use serde::Serialize;
use serde_json::json;

use super::{history, walk};
use crate::cli::ShowArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::output::{Column, count, json_bytes, size};
use crate::path::TreePath;
use crate::time;

/// Shows a version.
pub fn show(args: &ShowArgs, context: &mut Context) -> Result {
    show_version(args.version, context)
}

/// The same for other commands.
pub fn show_version(at: At, context: &mut Context) -> Result {
    let after = context.pond.open_at(at)?;
    let version = after.position().version;
    let before = match version.0.checked_sub(1) {
        Some(earlier) => Some(context.pond.open_at(At::Version(Version(earlier)))?),
        None => None,
    };
    let what = || format!("cannot show version {version}");
    let commit = commit(version, context)?;
    let rows = pond_oplog::changes(context.pond.directory(), version).during(what)?;
    let changes = changes(&rows, before.as_ref().map(|reader| reader.fs().as_ref()), after.fs())
        .map_err(|error| Failure::because(what(), &error))?;

    let mut facts = history::facts(&commit);
    facts["changes"] = json!(changes);
    context.out.json(&facts)?;
    context.out.facts(&[
        ("version", commit.position.version.to_string()),
        ("time", time::local_micros(commit.position.timestamp)),
        ("transaction", commit.position.txn_seq.to_string()),
        ("origin", history::origin(&commit.origin)),
        ("digest", commit.position.digest.clone()),
        (
            "added",
            format!("{}, {}, {}", count(commit.rows, "row"), count(commit.files, "file"), size(commit.bytes)),
        ),
    ])?;
    context.out.line("")?;
    let columns =
        [Column::text("CHANGE"), Column::text("KIND"), Column::number("SIZE"), Column::text("PATH")];
    context.out.table(&columns, changes.iter().map(Change::row))
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

/// What a version did to a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum What {
    /// It was not there before.
    Created,
    /// It is not there any more.
    Removed,
    /// It was there under other names.
    Moved,
    /// Its content changed.
    Written,
    /// Its attributes changed, or its entries if it is a directory.
    Changed,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Change {
    change: What,
    kind: &'static str,
    node: String,
    /// Bytes after the version, before it for what was removed.
    size: u64,
    paths: Vec<Name>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths_before: Vec<Name>,
}

/// A path in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Name {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip)]
    shown: String,
}

impl Change {
    fn row(&self) -> Vec<String> {
        let list =
            |names: &[Name]| names.iter().map(|name| name.shown.clone()).collect::<Vec<_>>().join(", ");
        let paths = match self.paths_before.is_empty() {
            true => list(&self.paths),
            false => format!("{} -> {}", list(&self.paths_before), list(&self.paths)),
        };
        let change = match self.change {
            What::Created => "created",
            What::Removed => "removed",
            What::Moved => "moved",
            What::Written => "written",
            What::Changed => "changed",
        };
        vec![change.to_owned(), self.kind.to_owned(), self.size.to_string(), paths]
    }
}

/// A node on one side.
struct Side {
    kind: FileType,
    size: u64,
    paths: Vec<TreePath>,
}

fn changes(rows: &[Row], before: Option<&TinyFs>, after: &TinyFs) -> Result<Vec<Change>, pond_tinyfs::Error> {
    // Whether content was written, by node.
    let mut touched: BTreeMap<NodeId, bool> = BTreeMap::new();
    for row in rows {
        let written = matches!(row.record, Record::Extent(_) | Record::Hole { .. });
        *touched.entry(row.node).or_default() |= written;
        if let Record::Entries(entries) = &row.record {
            for entry in entries {
                touched.entry(entry.child).or_default();
            }
        }
    }
    let mut earlier = match before {
        Some(fs) => sides(fs, &touched)?,
        None => HashMap::new(),
    };
    let mut later = sides(after, &touched)?;
    let mut changes = Vec::new();
    for (node, written) in touched {
        let (old, new) = (earlier.remove(&node), later.remove(&node));
        let (change, side, old_paths) = match (old, new) {
            // It came and went within the version.
            (None, None) => continue,
            (None, Some(new)) => (What::Created, new, Vec::new()),
            (Some(old), None) => (What::Removed, old, Vec::new()),
            (Some(old), Some(new)) if old.paths != new.paths => (What::Moved, new, old.paths),
            (Some(_), Some(new)) if written => (What::Written, new, Vec::new()),
            (Some(_), Some(new)) => (What::Changed, new, Vec::new()),
        };
        changes.push(Change {
            change,
            kind: side.kind.name(),
            node: node.to_string(),
            size: side.size,
            paths: names(&side.paths),
            paths_before: names(&old_paths),
        });
    }
    changes.sort_by(|a, b| {
        a.paths.first().map(|name| &name.shown).cmp(&b.paths.first().map(|name| &name.shown))
    });
    Ok(changes)
}

fn sides(fs: &TinyFs, touched: &BTreeMap<NodeId, bool>) -> Result<HashMap<NodeId, Side>, pond_tinyfs::Error> {
    let mut found: HashMap<NodeId, Side> = HashMap::new();
    walk::walk(fs, &mut |path, node, kind| {
        if touched.contains_key(&node) {
            let side = found.entry(node).or_insert_with(|| Side { kind, size: 0, paths: Vec::new() });
            side.paths.push(path.clone());
        }
    })?;
    for (node, side) in &mut found {
        side.size = fs.getattr(*node)?.size;
        side.paths.sort_by_key(TreePath::to_bytes);
    }
    Ok(found)
}

fn names(paths: &[TreePath]) -> Vec<Name> {
    paths
        .iter()
        .map(|path| {
            let (text, path_hex) = json_bytes(&path.to_bytes());
            Name { path: text, path_hex, shown: path.to_string() }
        })
        .collect()
}
