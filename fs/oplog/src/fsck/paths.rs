//! Which paths nodes have, from the rows of directories alone: also where they do not make a tree.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use pond_tinyfs::{EntryOp, FileType, Lsn, NodeId, Record, Row};

use super::report::Finding;

/// Paths that a finding lists at most.
const MOST: usize = 100;

/// Place in the order of rows, directory, what happens, name, child.
type Change = (Lsn, u32, NodeId, EntryOp, Box<[u8]>, NodeId);

/// Factory and configuration.
type Configured = (Box<str>, Bytes);

/// Entries of all directories, as rows tell them.
#[derive(Default)]
pub(super) struct Names {
    /// Directory, name and child of each change.
    changes: Vec<Change>,
    /// Nodes that have attributes.
    nodes: BTreeSet<NodeId>,
    /// Factory and configuration of dynamic nodes, as their newest rows have them.
    dynamic: BTreeMap<NodeId, (Lsn, Option<Configured>)>,
}

impl Names {
    /// Takes a row in.
    pub(super) fn push(&mut self, row: &Row) {
        match &row.record {
            Record::Entries(changes) => self.changes.extend(
                changes
                    .iter()
                    .map(|change| (row.lsn, row.seq, row.node, change.op, change.name.clone(), change.child)),
            ),
            Record::Node(record) => {
                self.nodes.insert(row.node);
                if record.kind == FileType::Dynamic
                    && self.dynamic.get(&row.node).is_none_or(|(lsn, _)| *lsn < row.lsn)
                {
                    let configured = record.factory.clone().zip(record.content.clone());
                    self.dynamic.insert(row.node, (row.lsn, configured.filter(|_| record.nlink > 0)));
                }
            }
            _ => {}
        }
    }

    /// Factory and configuration of each dynamic node.
    pub(super) fn configurations(&self) -> Vec<(String, Bytes)> {
        let configured = self.dynamic.values().filter_map(|(_, configured)| configured.clone());
        configured.map(|(factory, configuration)| (factory.into(), configuration)).collect()
    }

    /// Nodes that have names, and no attributes in any row.
    pub(super) fn nameless(&self) -> BTreeSet<NodeId> {
        let named = self.changes.iter().filter(|change| change.3 == EntryOp::Insert).map(|change| change.5);
        named.filter(|child| !self.nodes.contains(child)).collect()
    }

    /// Puts paths for nodes.
    pub(super) fn resolve(mut self, findings: &mut [Finding]) {
        if findings.iter().all(|finding| finding.nodes.is_empty()) {
            return;
        }
        self.changes.sort_by_key(|change| (change.0, change.1));
        let mut directories: BTreeMap<NodeId, BTreeMap<&[u8], NodeId>> = BTreeMap::new();
        let mut removed: BTreeMap<NodeId, (NodeId, &[u8])> = BTreeMap::new();
        for (_, _, directory, op, name, child) in &self.changes {
            let entries = directories.entry(*directory).or_default();
            match op {
                EntryOp::Insert => {
                    entries.insert(name, *child);
                }
                EntryOp::Remove => {
                    if let Some(child) = entries.remove(&**name) {
                        removed.insert(child, (*directory, name));
                    }
                }
                EntryOp::Reset => entries.clear(),
            }
        }
        let mut names: BTreeMap<NodeId, Vec<(NodeId, &[u8])>> = BTreeMap::new();
        for (directory, entries) in &directories {
            for (name, child) in entries {
                names.entry(*child).or_default().push((*directory, name));
            }
        }
        for finding in findings {
            for node in finding.nodes.iter().take(MOST) {
                let live = names.get(node).map(Vec::as_slice).unwrap_or_default();
                let paths = live.iter().filter_map(|&place| path(place, &names, &removed));
                let mut paths: Vec<String> = paths.collect();
                if *node == NodeId::ROOT {
                    paths.push("/".into());
                }
                if paths.is_empty()
                    && let Some(&place) = removed.get(node)
                    && let Some(path) = path(place, &names, &removed)
                {
                    paths.push(format!("{} (removed)", path.trim_end_matches(" (removed)")));
                }
                match paths.is_empty() {
                    true => finding.paths.push(format!("node {node}")),
                    false => finding.paths.append(&mut paths),
                }
            }
            if finding.nodes.len() > MOST {
                finding.paths.push(format!("and {} more", finding.nodes.len() - MOST));
            }
        }
    }
}

type Place<'a> = (NodeId, &'a [u8]);

fn path(
    place: Place<'_>,
    names: &BTreeMap<NodeId, Vec<Place<'_>>>,
    removed: &BTreeMap<NodeId, Place<'_>>,
) -> Option<String> {
    let (mut directory, name) = place;
    let mut components = vec![name.to_vec()];
    let mut gone = false;
    // Rows that make no tree may make a circle.
    while directory != NodeId::ROOT && components.len() < 4096 {
        let (above, name) = match names.get(&directory).and_then(|places| places.first()) {
            Some(&place) => place,
            None => {
                gone = true;
                *removed.get(&directory)?
            }
        };
        components.push(name.to_vec());
        directory = above;
    }
    components.reverse();
    let joined = components.iter().flat_map(|name| [b"/", &name[..]].concat()).collect::<Vec<u8>>();
    let text = String::from_utf8_lossy(&joined).into_owned();
    Some(if gone { text + " (removed)" } else { text })
}
