//! Going through a whole tree that this process has opened.

use pond_tinyfs::{Error, FileType, NodeId, TinyFs};

use crate::path::TreePath;

/// Calls `each` with every node's path, identity and kind: the root first, a directory before what is in it.
/// A node of several names comes several times.
pub fn walk(fs: &TinyFs, each: &mut dyn FnMut(&TreePath, NodeId, FileType)) -> Result<(), Error> {
    each(&TreePath::root(), NodeId::ROOT, FileType::Directory);
    below(fs, NodeId::ROOT, &mut TreePath::root(), each)
}

fn below(
    fs: &TinyFs,
    directory: NodeId,
    path: &mut TreePath,
    each: &mut dyn FnMut(&TreePath, NodeId, FileType),
) -> Result<(), Error> {
    let mut directories = Vec::new();
    fs.readdir(directory, 0, &mut |entry| {
        if !matches!(entry.name, b"." | b"..") {
            path.push(entry.name);
            each(path, entry.id, entry.kind);
            path.pop();
            if entry.kind == FileType::Directory {
                directories.push((entry.name.to_vec(), entry.id));
            }
        }
        true
    })?;
    for (name, id) in directories {
        path.push(&name);
        below(fs, id, path, each)?;
        path.pop();
    }
    Ok(())
}
