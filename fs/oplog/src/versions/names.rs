//! What nodes are called in a tree, of which only directories know where they are.
//!
//! A file is looked for under the names that rows spoke of, then in the directory that it was made in, and only where that does not
//! account for all of its links in the whole tree.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pond_tinyfs::{Error, FileType, NodeId, TinyFs};

/// Where a node may be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hint {
    /// The directory that it was made in.
    pub(crate) home: Option<NodeId>,
    /// Entries that stood for it at some time.
    pub(crate) entries: BTreeSet<(NodeId, Box<[u8]>)>,
}

/// A name of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// From the root, as bytes: `/a/b`.
    pub path: Vec<u8>,
    /// The directory that it is in.
    pub parent: NodeId,
}

impl Link {
    /// The last name of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
    }
}

type Entry = (NodeId, Box<[u8]>);

/// The names of some nodes of a tree, and of all directories above them.
pub(crate) struct Names<'a> {
    fs: &'a TinyFs,
    entries: HashMap<NodeId, BTreeSet<Entry>>,
}

impl<'a> Names<'a> {
    /// Finds the names of those of these nodes that the tree has.
    pub(crate) fn find(fs: &'a TinyFs, wanted: &BTreeMap<NodeId, Hint>) -> Result<Self, Error> {
        let mut names = Names { fs, entries: HashMap::new() };
        let mut directories = BTreeSet::new();
        let mut files = BTreeMap::new();
        for (&node, hint) in wanted {
            let Ok(attributes) = fs.getattr(node) else { continue };
            for (parent, name) in &hint.entries {
                names.look_up(node, *parent, name);
            }
            match attributes.kind {
                FileType::Directory => drop(directories.insert(node)),
                _ => drop(files.insert(node, attributes.nlink as usize)),
            }
        }
        let found = |names: &Names<'_>, node: &NodeId| names.entries.get(node).map_or(0, BTreeSet::len);
        files.retain(|node, links| found(&names, node) < *links);
        let mut homes: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for node in files.keys() {
            if let Some(home) = wanted.get(node).and_then(|hint| hint.home) {
                homes.entry(home).or_default().insert(*node);
            }
        }
        for (home, nodes) in homes {
            // A directory that is gone has none.
            if fs.getattr(home).is_ok_and(|home| home.kind == FileType::Directory) {
                names.scan(home, |node| nodes.contains(&node))?;
            }
        }
        files.retain(|node, links| found(&names, node) < *links);
        if !files.is_empty() {
            names.scan_below(NodeId::ROOT, |node| files.contains_key(&node))?;
        }
        directories.extend(names.entries.values().flatten().map(|(parent, _)| *parent));
        names.find_directories(directories)?;
        Ok(names)
    }

    fn add(&mut self, node: NodeId, parent: NodeId, name: &[u8]) {
        self.entries.entry(node).or_default().insert((parent, name.into()));
    }

    fn look_up(&mut self, node: NodeId, parent: NodeId, name: &[u8]) {
        if let Ok(found) = self.fs.lookup(parent, name) {
            self.fs.forget(found.id, 1);
            if found.id == node {
                self.add(node, parent, name);
            }
        }
    }

    fn scan(&mut self, directory: NodeId, is_wanted: impl Fn(NodeId) -> bool) -> Result<Vec<NodeId>, Error> {
        let (fs, mut below) = (self.fs, Vec::new());
        fs.readdir(directory, 0, &mut |entry| {
            if !matches!(entry.name, b"." | b"..") {
                if is_wanted(entry.id) {
                    self.add(entry.id, directory, entry.name);
                }
                if entry.kind == FileType::Directory {
                    below.push(entry.id);
                }
            }
            true
        })?;
        Ok(below)
    }

    fn scan_below(&mut self, top: NodeId, is_wanted: impl Fn(NodeId) -> bool) -> Result<(), Error> {
        let mut left = vec![top];
        while let Some(directory) = left.pop() {
            left.extend(self.scan(directory, &is_wanted)?);
        }
        Ok(())
    }

    /// Finds the names of these directories and of all that are above them.
    fn find_directories(&mut self, mut wanted: BTreeSet<NodeId>) -> Result<(), Error> {
        while !wanted.is_empty() {
            let mut parents: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
            for node in std::mem::take(&mut wanted) {
                if node == NodeId::ROOT {
                    continue;
                }
                let parent = self.fs.parent(node)?;
                wanted.insert(parent);
                if !self.entries.contains_key(&node) {
                    parents.entry(parent).or_default().insert(node);
                }
            }
            for (parent, nodes) in parents {
                self.scan(parent, |node| nodes.contains(&node))?;
            }
        }
        Ok(())
    }

    /// The names of a node, by their paths; none if the tree has no such node.
    pub(crate) fn of(&self, node: NodeId) -> Vec<Link> {
        if node == NodeId::ROOT {
            return vec![Link { path: b"/".to_vec(), parent: NodeId::ROOT }];
        }
        let entries = self.entries.get(&node).into_iter().flatten();
        let mut links: Vec<Link> = entries
            .map(|(parent, name)| {
                let mut path = self.directory(*parent);
                path.push(b'/');
                path.extend_from_slice(name);
                Link { path, parent: *parent }
            })
            .collect();
        links.sort();
        links
    }

    /// The path of a directory, empty for the root.
    fn directory(&self, mut node: NodeId) -> Vec<u8> {
        let mut above: Vec<&[u8]> = Vec::new();
        while node != NodeId::ROOT {
            let Some((parent, name)) = self.entries.get(&node).and_then(BTreeSet::first) else { break };
            above.push(name);
            node = *parent;
        }
        above.iter().rev().flat_map(|name| [b"/".as_slice(), *name]).flatten().copied().collect()
    }
}
