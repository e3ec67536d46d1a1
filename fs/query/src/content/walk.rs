//! Going through the tree of a version, a directory before what is in it.

use std::sync::Arc;

use pond_oplog::View;
use pond_tinyfs::{Attributes, Error, FileType, NodeId};

/// An entry of a directory.
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) attributes: Attributes,
}

/// The entries of a directory, by name.
pub(crate) fn entries(view: &View, directory: NodeId) -> Result<Vec<Entry>, Error> {
    let mut found = Vec::new();
    view.fs().readdir(directory, 0, &mut |entry| {
        if !matches!(entry.name, b"." | b"..") {
            found.push((entry.name.to_vec(), entry.id));
        }
        true
    })?;
    found.sort_unstable();
    found.into_iter().map(|(name, id)| Ok(Entry { name, attributes: view.fs().getattr(id)? })).collect()
}

/// Goes through all that lies below a directory, without asking how it is called: much less work than a [`Walk`]. In no order, but a directory
/// before what is in it; until `each` says `false`. It is told the directory that has the node, and the node.
pub(crate) fn each_node<E: From<Error>>(
    view: &View,
    directory: NodeId,
    mut each: impl FnMut(NodeId, Attributes) -> Result<bool, E>,
) -> Result<(), E> {
    let fs = view.fs();
    let (mut open, mut nodes) = (vec![directory], Vec::new());
    while let Some(directory) = open.pop() {
        fs.readdir(directory, 0, &mut |entry| {
            if !matches!(entry.name, b"." | b"..") {
                nodes.push(entry.id);
            }
            true
        })?;
        for node in nodes.drain(..) {
            let attributes = fs.getattr(node)?;
            if attributes.kind == FileType::Directory {
                open.push(node);
            }
            if !each(directory, attributes)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What a walk comes to.
pub(crate) struct Found {
    /// From the root; the root itself is `/`.
    pub(crate) path: Vec<u8>,
    /// The directory that has it.
    pub(crate) parent: NodeId,
    /// Where its name begins in the path.
    pub(crate) name_at: usize,
    pub(crate) attributes: Attributes,
}

impl Found {
    /// Its last name; none for the root.
    pub(crate) fn name(&self) -> &[u8] {
        &self.path[self.name_at..]
    }
}

/// All that lies below a directory. Not by recursion: a tree may be deeper than a stack.
pub(crate) struct Walk {
    view: Arc<View>,
    open: Vec<Level>,
}

struct Level {
    path: Vec<u8>,
    directory: NodeId,
    rest: std::vec::IntoIter<Entry>,
}

impl Walk {
    /// Below this directory, whose path from the root it is.
    pub(crate) fn below(view: Arc<View>, path: Vec<u8>, directory: NodeId) -> Walk {
        let mut walk = Walk { view, open: Vec::new() };
        // What is no directory has nothing below it.
        walk.enter(path, directory).ok();
        walk
    }

    fn enter(&mut self, mut path: Vec<u8>, directory: NodeId) -> Result<(), Error> {
        let rest = entries(&self.view, directory)?.into_iter();
        if path.last() == Some(&b'/') {
            path.pop();
        }
        self.open.push(Level { path, directory, rest });
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Result<Found, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = self.open.last_mut()?;
            let Some(entry) = level.rest.next() else {
                self.open.pop();
                continue;
            };
            let name_at = level.path.len() + 1;
            let path = [&level.path[..], b"/", &entry.name].concat();
            let parent = level.directory;
            if entry.attributes.kind == FileType::Directory
                && let Err(error) = self.enter(path.clone(), entry.attributes.id)
            {
                return Some(Err(error));
            }
            return Some(Ok(Found { path, parent, name_at, attributes: entry.attributes }));
        }
    }
}
