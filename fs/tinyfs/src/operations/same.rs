//! Whether two versions hold the same at a path, down to the last change of anything below it.

use crate::tree::node::Node;
use crate::{Errno, Error, NodeId, TinyFs, Tree};

impl TinyFs {
    /// Whether these versions of one history have the same nodes at a path and below, none of which changed between them in content,
    /// attributes or entries; also if neither has any there. A symlink at the path's end is not followed. Costs as much as there is below
    /// the path.
    pub fn is_same_at(&self, other: &TinyFs, path: &[u8]) -> Result<bool, Error> {
        let (one, two) = (self.node_at(path)?, other.node_at(path)?);
        match (one, two) {
            (None, None) => Ok(true),
            (Some(one), Some(two)) => Ok(one == two && is_same(&self.tree(), &other.tree(), one)?),
            _ => Ok(false),
        }
    }

    /// Which node is at a path, if one is.
    fn node_at(&self, path: &[u8]) -> Result<Option<NodeId>, Error> {
        match self.resolve(path) {
            Ok(found) => Ok(Some(found.id)),
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_same(one: &Tree, two: &Tree, top: NodeId) -> Result<bool, Errno> {
    let mut left = vec![top];
    while let Some(id) = left.pop() {
        let node = one.get(id)?;
        let same = two.get(id).is_ok_and(|other| node.lsn == other.lsn && node.version == other.version);
        if !same {
            return Ok(false);
        }
        // What did not change has the same entries on both sides.
        if let Ok(directory) = Node::directory(node) {
            left.extend(directory.iter().map(|entry| entry.child));
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Caller, Make, MemoryPersistence, Timestamp, WriteFlags, root_row};

    #[test]
    fn a_path_is_the_same_until_something_at_it_or_below_it_changes() {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store.clone());
        let root = Caller::root();
        let a = fs.make(&root, NodeId::ROOT, b"a", Make::Directory { mode: 0o755 }).unwrap().id;
        let b = fs.make(&root, a, b"b", Make::Directory { mode: 0o755 }).unwrap().id;
        let f = fs.make(&root, b, b"f", Make::File { mode: 0o644 }).unwrap().id;
        fs.make(&root, NodeId::ROOT, b"other", Make::File { mode: 0o644 }).unwrap();
        let version = || {
            fs.stored(&store.store(&fs.cut().rows));
            TinyFs::read_only(store.load().unwrap(), store.clone())
        };
        let same = |one: &TinyFs, two: &TinyFs| {
            [&b"/"[..], b"/a", b"/a/b/f", b"/other", b"/none/x"]
                .map(|path| one.is_same_at(two, path).unwrap())
                .map(|same| if same { '=' } else { '!' })
                .into_iter()
                .collect::<String>()
        };
        let one = version();
        assert_eq!(same(&one, &version()), "=====");
        fs.write(&root, f, 0, b"x", WriteFlags::default()).unwrap();
        let two = version();
        assert_eq!(same(&one, &two), "!!!==");
        fs.rename(&root, NodeId::ROOT, b"a", NodeId::ROOT, b"c", Default::default()).unwrap();
        let three = version();
        assert_eq!(same(&two, &three), "!!!==");
        assert!(!two.is_same_at(&three, b"/c/b").unwrap());
        fs.make(&root, b, b"g", Make::File { mode: 0o644 }).unwrap();
        let four = version();
        assert!(three.is_same_at(&four, b"/c/b/f").unwrap() && !three.is_same_at(&four, b"/c").unwrap());
    }
}
