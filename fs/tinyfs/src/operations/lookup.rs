//! Finding nodes by names and paths, and what links and dynamic nodes hold.

use bytes::Bytes;

use crate::tree::node::Body;
use crate::{Attributes, Errno, Error, MAX_NAME, NodeId, TinyFs};

/// Most symlinks that resolving one path may follow, as in Linux.
const MAX_SYMLINKS: u32 = 40;

impl TinyFs {
    /// Finds a name in a directory. `.` and `..` are names too.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Attributes, Error> {
        if name.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG.into());
        }
        let tree = self.tree();
        let directory = tree.find(parent)?;
        let node = match name {
            b"." => directory,
            b".." => tree.get(directory.directory()?.parent)?,
            _ => {
                let entry = directory.directory()?.get(name).ok_or(Errno::NOENT)?;
                let node = tree.get(entry.child)?;
                self.refer(node, parent, entry.cookie);
                return Ok(node.attributes());
            }
        };
        node.refer();
        Ok(node.attributes())
    }

    /// Walks an absolute path from the root; a symlink at its end is not followed. Takes no reference.
    pub fn resolve(&self, path: &[u8]) -> Result<Attributes, Error> {
        let tree = self.tree();
        let mut at = NodeId::ROOT;
        let mut links = 0;
        let mut rest: Vec<Vec<u8>> = split(path);
        while let Some(name) = rest.pop() {
            let directory = tree.get(at)?;
            let parent = directory.directory()?.parent;
            let child = match &*name {
                b"." => directory,
                b".." => tree.get(parent)?,
                name => tree.existing(directory, name)?,
            };
            if let Body::Symlink(target) = &child.body
                && !rest.is_empty()
            {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Errno::LOOP.into());
                }
                if target.starts_with(b"/") {
                    at = NodeId::ROOT;
                }
                rest.extend(split(target));
                continue;
            }
            at = child.id;
        }
        Ok(tree.get(at)?.attributes())
    }

    /// The directory that holds a directory; the root is its own.
    pub fn parent(&self, directory: NodeId) -> Result<NodeId, Error> {
        Ok(self.tree().get(directory)?.directory()?.parent)
    }

    /// Where a symlink points.
    pub fn readlink(&self, id: NodeId) -> Result<Bytes, Error> {
        match &self.tree().find(id)?.body {
            Body::Symlink(target) => Ok(Bytes::copy_from_slice(target)),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// A dynamic node's factory and configuration.
    pub fn dynamic(&self, id: NodeId) -> Result<(String, Bytes), Error> {
        match &self.tree().find(id)?.body {
            Body::Dynamic(dynamic) => Ok((dynamic.factory.to_string(), dynamic.configuration.clone())),
            _ => Err(Errno::INVAL.into()),
        }
    }
}

/// The names of a path, last first.
fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).rev().map(<[u8]>::to_vec).collect()
}
