//! What differs, by paths: most programs save a file by making another and giving it the name of the first, so what is two nodes
//! is one file to whoever reads a difference.

use std::collections::HashMap;

use pond_tinyfs::{Error, FileType, NodeId};

use super::{Change, Difference, Side, attributes_that_differ, content_differs};
use crate::OpLogError;
use crate::versions::view::View;

impl Difference {
    /// The same with a node that went and one that came in its place, of the same kind and with the same only name in the same
    /// directory (which may have moved meanwhile), as one change.
    /// `from` and `to` are the versions between which it was made.
    pub fn by_paths(mut self, from: &View, to: &View) -> Result<Self, OpLogError> {
        let mut gone: HashMap<(NodeId, Vec<u8>), usize> = HashMap::new();
        for (index, change) in self.changes.iter().enumerate() {
            if let (Some(name), None) = (only_name(change.before.as_ref()), &change.after) {
                gone.insert(name, index);
            }
        }
        let mut replaced = vec![false; self.changes.len()];
        for index in 0..self.changes.len() {
            let change = &self.changes[index];
            let (None, Some(name)) = (&change.before, only_name(change.after.as_ref())) else { continue };
            let Some(&other) = gone.get(&name).filter(|&&other| self.changes[other].kind() == change.kind())
            else {
                continue;
            };
            replaced[other] = true;
            let before = self.changes[other].clone();
            join(&mut self.changes[index], before, from, to).map_err(|source| OpLogError::Compare {
                from: self.from.version,
                to: self.to.version,
                source,
            })?;
        }
        let mut replaced = replaced.into_iter();
        self.changes.retain(|_| !replaced.next().unwrap_or(false));
        Ok(self)
    }
}

/// The directory and the name of a node that has one.
fn only_name(side: Option<&Side>) -> Option<(NodeId, Vec<u8>)> {
    match side?.links.as_slice() {
        [link] => Some((link.parent, link.name().to_vec())),
        _ => None,
    }
}

/// Makes of what came a change of what was there before.
fn join(change: &mut Change, gone: Change, from: &View, to: &View) -> Result<(), Error> {
    if let (Some(before), Some(after)) = (&gone.before, &change.after) {
        let (old, new) = (&before.attributes, &after.attributes);
        let all = (new.kind == FileType::File).then_some(0..new.size).into_iter().collect();
        change.content = content_differs(&from.fs, old, &to.fs, new, all)?;
        change.attributes = attributes_that_differ(&from.fs, old, &to.fs, new)?;
    }
    change.replaces = Some(gone.node);
    change.before = gone.before;
    Ok(())
}
