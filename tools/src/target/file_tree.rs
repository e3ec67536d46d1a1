//! A tree of files, as commands see it, whichever it is; what holds for all of them.

use std::io;
use std::ops::Range;

use pond_tinyfs::{FileType, Timestamp};

use crate::path::{GivenPath, TreePath};

/// Which node: equal for all names of one node, and for no two nodes of any trees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Identity {
    /// Where the other two are from: 0 is the kernel, else the address of an open pond's Steward.
    pub realm: usize,
    /// Device.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl Identity {
    /// Of what the kernel has.
    pub fn of_host(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Identity { realm: 0, device: metadata.dev(), inode: metadata.ino() }
    }
}

/// What `lstat` shows of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Which node this is.
    pub identity: Identity,
    /// Kind.
    pub kind: FileType,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Hard links.
    pub nlink: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes allocated; fewer than `size` where there are holes.
    pub allocated: u64,
    /// Device number of a device node: major, minor.
    pub device: (u32, u32),
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
}

impl Stat {
    /// Whether it has a file's bytes.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, FileType::File | FileType::Dynamic)
    }

    /// Whether it is a device node, a fifo or a socket.
    pub fn is_special(&self) -> bool {
        !self.is_file() && !self.is_directory() && self.kind != FileType::Symlink
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileType::Directory
    }
}

/// A file's bytes, to read.
pub trait Source {
    /// Reads at a position; 0 at and beyond the end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// The first stretch at or after `offset` that is not a hole; `None` if there is none up to the end.
    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
}

/// A new file's bytes, to write.
pub trait Sink {
    /// Writes all of it at a position.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Sets the size; what is added is a hole.
    fn set_size(&mut self, size: u64) -> io::Result<()>;
}

/// A tree of files: a pond's or the host's. All paths are as [`resolve`](FileTree::resolve) gives them, and no
/// operation follows a symlink at their end.
pub trait FileTree {
    /// `lstat`.
    fn stat(&self, path: &TreePath) -> io::Result<Stat>;
    /// The entries of a directory, sorted by the bytes of their names.
    fn entries(&self, directory: &TreePath) -> io::Result<Vec<(Vec<u8>, Stat)>>;
    /// The target of a symlink.
    fn read_link(&self, path: &TreePath) -> io::Result<Vec<u8>>;
    /// Opens a file for reading.
    fn open(&self, path: &TreePath) -> io::Result<Box<dyn Source + '_>>;

    /// Opens a file that exists, for writing.
    fn open_to_write(&self, path: &TreePath) -> io::Result<Box<dyn Sink + '_>>;
    /// Creates a file that must not exist, mode 0600.
    fn create(&self, path: &TreePath) -> io::Result<Box<dyn Sink + '_>>;
    /// Makes a directory; `mode` is subject to the umask.
    fn make_directory(&self, path: &TreePath, mode: u32) -> io::Result<()>;
    /// Makes a symlink.
    fn make_symlink(&self, path: &TreePath, target: &[u8]) -> io::Result<()>;
    /// Makes a fifo, socket or device node, mode 0600.
    fn make_special(&self, path: &TreePath, kind: FileType, device: (u32, u32)) -> io::Result<()>;
    /// Makes a hard link.
    fn link(&self, existing: &TreePath, new: &TreePath) -> io::Result<()>;
    /// Removes anything but a directory.
    fn unlink(&self, path: &TreePath) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_directory(&self, path: &TreePath) -> io::Result<()>;
    /// Renames; what `to` names is replaced.
    fn rename(&self, from: &TreePath, to: &TreePath) -> io::Result<()>;

    /// `lchown`.
    fn set_owner(&self, path: &TreePath, uid: u32, gid: u32) -> io::Result<()>;
    /// `chmod`; not for symlinks.
    fn set_mode(&self, path: &TreePath, mode: u32) -> io::Result<()>;
    /// `utimensat`, of a symlink itself.
    fn set_times(&self, path: &TreePath, atime: Timestamp, mtime: Timestamp) -> io::Result<()>;
    /// All extended attributes.
    fn xattrs(&self, path: &TreePath) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Sets an extended attribute.
    fn set_xattr(&self, path: &TreePath, name: &[u8], value: &[u8]) -> io::Result<()>;
    /// Takes an extended attribute away.
    fn remove_xattr(&self, path: &TreePath, name: &[u8]) -> io::Result<()>;

    /// `lstat`, if there is anything.
    fn existing(&self, path: &TreePath) -> io::Result<Option<Stat>> {
        match self.stat(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            stat => stat.map(Some),
        }
    }

    /// Follows symlinks and `..` until none are left in the path; the last component's only if `follow`, or if the
    /// path is written as a directory's. The last component need not exist.
    fn resolve(&self, path: &GivenPath, follow: bool) -> io::Result<TreePath> {
        resolve_within(self, path, follow || path.is_directory_form())
    }

    /// The name that a path means, for what removes, moves or makes names: nothing is followed at its end, even if
    /// it is written `name/`.
    fn place(&self, path: &GivenPath) -> io::Result<TreePath> {
        match path.name() {
            Some(name) => Ok(self.resolve(&path.parent(), true)?.join(name)),
            None => Err(io::Error::other("it has no name of its own")),
        }
    }
}

/// Where things that are copied or moved go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Into this directory, under their own names.
    Into(TreePath),
    /// To this name.
    Exactly(TreePath),
}

impl Destination {
    /// Where a thing of this name goes; one without a name is merged into the directory.
    pub fn of(&self, name: Option<&[u8]>) -> TreePath {
        match (self, name) {
            (Destination::Into(directory), Some(name)) => directory.join(name),
            (Destination::Into(path), None) | (Destination::Exactly(path), _) => path.clone(),
        }
    }

    /// Finds out what `DEST` means; `several` things need a directory.
    pub fn find(tree: &dyn FileTree, path: &GivenPath, several: bool) -> io::Result<Destination> {
        let followed = tree.resolve(path, true)?;
        match tree.existing(&followed)? {
            Some(stat) if stat.is_directory() => Ok(Destination::Into(followed)),
            Some(_) if several || path.is_directory_form() => {
                Err(io::Error::from_raw_os_error(libc::ENOTDIR))
            }
            None if several || path.is_directory_form() => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            _ => tree.place(path).map(Destination::Exactly),
        }
    }
}

/// As many symlinks as Linux follows in one path.
const MAX_SYMLINKS: u32 = 40;

/// Resolves a path as if the tree's root were the root of everything.
fn resolve_within<T: FileTree + ?Sized>(tree: &T, path: &GivenPath, follow: bool) -> io::Result<TreePath> {
    let mut left: Vec<Vec<u8>> = path.components().iter().rev().cloned().collect();
    let mut at = TreePath::root();
    let mut symlinks = 0;
    while let Some(name) = left.pop() {
        if name == b".." {
            at.pop();
            continue;
        }
        at.push(&name);
        if left.is_empty() && !follow {
            break;
        }
        let stat = match tree.stat(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && left.is_empty() => break,
            other => other?,
        };
        match stat.kind {
            FileType::Symlink => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = tree.read_link(&at)?;
                at.pop();
                if target.starts_with(b"/") {
                    at = TreePath::root();
                }
                let names = target.split(|&byte| byte == b'/').rev();
                left.extend(names.filter(|name| !name.is_empty() && *name != b".").map(<[u8]>::to_vec));
            }
            FileType::Directory => {}
            _ if left.is_empty() && !path.is_directory_form() => {}
            _ => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::HostTree;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn given(path: &str) -> GivenPath {
        GivenPath::new(path.as_bytes()).unwrap()
    }

    /// A "pond" with `dir/file` and symlinks of all sorts.
    fn tree() -> (tempfile::TempDir, HostTree) {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("dir/file"), b"x").unwrap();
        symlink("/dir", at("absolute")).unwrap();
        symlink("dir/../dir/file", at("relative")).unwrap();
        symlink("../../../../dir", at("escaping")).unwrap();
        symlink("round", at("round")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let tree = HostTree::mounted(root.path());
        (root, tree)
    }

    fn resolved(tree: &HostTree, path: &str) -> String {
        tree.resolve(&given(path), true).unwrap().to_string()
    }

    #[test]
    fn symlinks_stay_inside_the_pond() {
        let (_root, tree) = tree();
        assert_eq!(resolved(&tree, "absolute/file"), "/dir/file");
        assert_eq!(resolved(&tree, "relative"), "/dir/file");
        assert_eq!(resolved(&tree, "escaping/file"), "/dir/file");
        assert_eq!(resolved(&tree, "../../dir/./file"), "/dir/file");
        assert_eq!(resolved(&tree, "dangling"), "/nowhere");
        let round = tree.resolve(&given("round"), true).unwrap_err();
        assert_eq!(round.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn a_symlink_at_the_end_is_followed_only_where_asked() {
        let (_root, tree) = tree();
        assert_eq!(tree.resolve(&given("absolute"), false).unwrap().to_string(), "/absolute");
        assert_eq!(tree.resolve(&given("absolute/"), false).unwrap().to_string(), "/dir");
        assert_eq!(tree.place(&given("absolute/")).unwrap().to_string(), "/absolute");
        assert!(tree.place(&given("/")).is_err());
    }

    #[test]
    fn a_file_is_no_directory_on_the_way() {
        let (_root, tree) = tree();
        for path in ["dir/file/x", "dir/file/", "relative/.."] {
            let error = tree.resolve(&given(path), true).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR), "{path}");
        }
    }

    #[test]
    fn a_destination_is_a_directory_or_a_name() {
        let (_root, tree) = tree();
        let find = |path: &str, several| Destination::find(&tree, &given(path), several);
        assert_eq!(find("absolute", true).unwrap().of(Some(b"a")).to_string(), "/dir/a");
        assert_eq!(find("dir", false).unwrap().of(None).to_string(), "/dir");
        assert_eq!(find("relative", false).unwrap().of(Some(b"a")).to_string(), "/relative");
        assert_eq!(find("new", false).unwrap().of(Some(b"a")).to_string(), "/new");
        assert!(find("new", true).is_err());
        assert!(find("new/", false).is_err());
        assert!(find("dir/file", true).is_err());
        assert!(find("missing/new", false).is_err());
    }
}
