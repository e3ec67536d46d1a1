//! Paths inside a pond, for the changes that the Steward itself makes to the tree.

use pond_tinyfs::{Attributes, Caller, Errno, Error, FileType, Make, NodeId, Stale, TinyFs};

use crate::StewardError;

/// Is told what of the tree changed other than through whoever cached it.
pub type ChangeWatcher = Box<dyn Fn(&[Stale]) + Send + Sync>;

/// What is to be told of a name that was made.
pub(crate) fn made(parent: NodeId, name: &[u8]) -> [Stale; 2] {
    // It stood for nothing, which may have been noted. No name stands for its own directory, so whoever drops what the
    // name stood for does not hit the new node, should it have been looked up already.
    [Stale::Name { parent, name: name.into(), child: parent }, Stale::Listing(parent)]
}

/// The user that the Steward's own changes belong to: the one whose process it is.
pub(crate) fn owner() -> Caller {
    // SAFETY: neither call has preconditions or fails.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    Caller::checked(uid, gid)
}

/// An absolute path in its parts: no empty ones, no `.` and no `..`.
pub(crate) fn parts(path: &str) -> Result<Vec<&str>, StewardError> {
    let bad = |why| StewardError::BadPath { path: path.to_owned(), why };
    let relative = path.strip_prefix('/').ok_or_else(|| bad("it must begin with `/`"))?;
    let parts: Vec<&str> = relative.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return Err(bad("it must not contain `.` or `..`"));
    }
    if parts.is_empty() {
        return Err(bad("it is the root"));
    }
    Ok(parts)
}

/// The path written the usual way.
pub(crate) fn join(parts: &[&str]) -> String {
    format!("/{}", parts.join("/"))
}

/// Finds the directory in which `path` lies, making what is missing of it. What to tell of directories
/// that were made is added to `stale`, and the nodes changed to `nodes`.
pub(crate) fn make_parents(
    fs: &TinyFs,
    caller: &Caller,
    parts: &[&str],
    stale: &mut Vec<Stale>,
    nodes: &mut Vec<NodeId>,
) -> Result<NodeId, StewardError> {
    let mut directory = NodeId::ROOT;
    for (depth, name) in parts[..parts.len() - 1].iter().enumerate() {
        let failed = |action, source| StewardError::Tree { action, path: join(&parts[..=depth]), source };
        let found = match look_up(fs, directory, name).map_err(|error| failed("look up", error))? {
            Some(found) => found,
            None => {
                let made = make(fs, caller, directory, name, Make::Directory { mode: 0o755 })
                    .map_err(|error| failed("make", error))?;
                stale.extend(self::made(directory, name.as_bytes()));
                nodes.extend([directory, made.id]);
                made
            }
        };
        if found.kind != FileType::Directory {
            return Err(failed("use", Errno::NOTDIR.into()));
        }
        directory = found.id;
    }
    Ok(directory)
}

/// Makes a node, without keeping a reference on it.
pub(crate) fn make(
    fs: &TinyFs,
    caller: &Caller,
    parent: NodeId,
    name: &str,
    what: Make<'_>,
) -> Result<Attributes, Error> {
    let made = fs.make(caller, parent, name.as_bytes(), what)?;
    fs.forget(made.id, 1);
    Ok(made)
}

/// Finds a name in a directory, without keeping a reference on it.
pub(crate) fn look_up(fs: &TinyFs, parent: NodeId, name: &str) -> Result<Option<Attributes>, Error> {
    match fs.lookup(parent, name.as_bytes()) {
        Ok(found) => {
            fs.forget(found.id, 1);
            Ok(Some(found))
        }
        Err(Error::Errno(Errno::NOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_plain() {
        assert_eq!(parts("/etc//system.d/x/").unwrap(), ["etc", "system.d", "x"]);
        for bad in ["etc/x", "/", "", "/a/../b", "/./a"] {
            assert!(matches!(parts(bad), Err(StewardError::BadPath { .. })), "{bad:?}");
        }
    }
}
