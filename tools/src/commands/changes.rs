//! What differs between two versions, as commands show it.

use pond_oplog::{Change, Link};
use serde::Serialize;

use crate::output::{Column, json_bytes};
use crate::path::escape;

/// What became of a path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was not there before.
    Created,
    /// It is not there any more.
    Removed,
    /// It was there under other names.
    Moved,
    /// It has names that it had not: hard links.
    Linked,
    /// It has fewer names, and others are left.
    Unlinked,
    /// Its content changed.
    Written,
    /// Its attributes changed, or its entries if it is a directory.
    Changed,
}

impl What {
    /// Of a change, in one word.
    pub fn of(change: &Change) -> Self {
        let (gone, come) = (!change.names_gone().is_empty(), !change.names_come().is_empty());
        match (&change.before, &change.after) {
            (None, _) => What::Created,
            (_, None) => What::Removed,
            _ if gone && come => What::Moved,
            _ if come => What::Linked,
            _ if gone => What::Unlinked,
            _ if change.content => What::Written,
            _ => What::Changed,
        }
    }

    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            What::Created => "created",
            What::Removed => "removed",
            What::Moved => "moved",
            What::Linked => "linked",
            What::Unlinked => "unlinked",
            What::Written => "written",
            What::Changed => "changed",
        }
    }
}

/// A change for programs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Shown {
    change: What,
    kind: &'static str,
    node: String,
    /// Bytes after it, before it for what was removed.
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_before: Option<u64>,
    paths: Vec<Name>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    paths_before: Vec<Name>,
    /// Whether its bytes differ.
    content: bool,
    /// Attributes that differ.
    attributes: Vec<&'static str>,
    /// The node that had its name before, if it is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<String>,
}

/// A path in JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Name {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    #[serde(skip)]
    shown: String,
}

impl Name {
    /// A path as the tree has it.
    pub fn new(path: &[u8]) -> Self {
        let (text, path_hex) = json_bytes(path);
        Name { path: text, path_hex, shown: escape(path) }
    }

    /// A fact about it: with `path`, and `path_hex` where that is approximate.
    pub fn with(&self, mut fact: serde_json::Value) -> serde_json::Value {
        fact["path"] = self.path.as_str().into();
        if let Some(hex) = &self.path_hex {
            fact["path_hex"] = hex.as_str().into();
        }
        fact
    }
}

/// The columns of [`Shown::row`].
pub const COLUMNS: [Column; 4] =
    [Column::text("CHANGE"), Column::text("KIND"), Column::number("SIZE"), Column::text("PATH")];

impl Shown {
    /// Of a change.
    pub fn of(change: &Change) -> Self {
        let what = What::of(change);
        let names = |links: &[Link]| links.iter().map(|link| Name::new(&link.path)).collect::<Vec<_>>();
        let side = change.after.as_ref().or(change.before.as_ref());
        let before = change.before.as_ref().filter(|_| change.after.is_some());
        let is_named_anew = matches!(what, What::Moved | What::Linked | What::Unlinked);
        Shown {
            change: what,
            kind: change.kind().map_or("", pond_tinyfs::FileType::name),
            node: change.node.to_string(),
            size: side.map_or(0, |side| side.attributes.size),
            size_before: before.filter(|_| change.content).map(|side| side.attributes.size),
            paths: side.map_or(Vec::new(), |side| names(&side.links)),
            paths_before: before.filter(|_| is_named_anew).map_or(Vec::new(), |side| names(&side.links)),
            content: change.content,
            attributes: change.attributes.iter().map(|attribute| attribute.name()).collect(),
            replaces: change.replaces.map(|node| node.to_string()),
        }
    }

    /// For people.
    pub fn row(&self) -> Vec<String> {
        let list =
            |names: &[Name]| names.iter().map(|name| name.shown.clone()).collect::<Vec<_>>().join(", ");
        let paths = match self.paths_before.is_empty() {
            true => list(&self.paths),
            false => format!("{} -> {}", list(&self.paths_before), list(&self.paths)),
        };
        let mut words = vec![self.change.name()];
        if self.content && self.change != What::Written {
            words.push("written");
        }
        // That times are others goes without saying where anything else is.
        let telling = self.attributes.iter().filter(|name| !matches!(**name, "mtime" | "atime"));
        words.extend(telling);
        if words == ["changed"] {
            words.extend(&self.attributes);
        }
        if self.replaces.is_some() {
            words.push("replaced");
        }
        vec![words.join(", "), self.kind.to_owned(), self.size.to_string(), paths]
    }
}
