//! What a tree of files looks like from outside, so that two of them can be compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One path's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u64,
    /// Bytes; 0 for directories, whose size means nothing.
    pub size: u64,
    /// Device number of a device node, else 0.
    pub rdev: u64,
    /// Last change of the content, nanoseconds.
    pub mtime: i128,
    /// Last change of anything, nanoseconds.
    pub ctime: i128,
    /// Inode number.
    pub inode: u64,
    /// The first path, in the order of bytes, that names the same node.
    pub same_as: Vec<u8>,
    /// Of a file the digest (BLAKE3, hex) of its bytes; of a symlink its target.
    pub content: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Nodes by path, relative to the root, which is the empty path.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// What two trees must have in common besides types, permissions, owners, links, sizes, contents and attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Also {
    /// mtime, to the nanosecond.
    pub mtime: bool,
    /// ctime, to the nanosecond.
    pub ctime: bool,
    /// Inode numbers.
    pub inode: bool,
}

impl Also {
    /// Everything: the same tree, looked at again.
    pub const ALL: Also = Also { mtime: true, ctime: true, inode: true };
}

/// Looks at everything below `root`, and at `root` itself; panics where that fails.
#[track_caller]
pub fn look_at(root: &Path) -> Tree {
    try_look_at(root).unwrap_or_else(|error| panic!("{error}"))
}

/// Looks at everything below `root`, and at `root` itself. Errors name the path.
pub fn try_look_at(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut queue = vec![Vec::new()];
    while let Some(path) = queue.pop() {
        let host = root.join(std::ffi::OsStr::from_bytes(&path));
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", host.display()));
        let node = node(&host).map_err(at)?;
        if node.mode & libc::S_IFMT == libc::S_IFDIR {
            for entry in fs::read_dir(&host).map_err(at)? {
                let name = entry.map_err(at)?.file_name();
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                queue.push([&path, separator, name.as_bytes()].concat());
            }
        }
        tree.insert(path, node);
    }
    name_links(&mut tree);
    Ok(tree)
}

/// Fills in `same_as` from the inode numbers.
pub fn name_links(tree: &mut Tree) {
    let mut first: HashMap<u64, Vec<u8>> = HashMap::new();
    for (path, node) in tree {
        node.same_as = first.entry(node.inode).or_insert_with(|| path.clone()).clone();
    }
}

fn node(path: &Path) -> io::Result<Node> {
    let metadata = path.symlink_metadata()?;
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        digest(path)?.into_bytes()
    } else if kind.is_symlink() {
        fs::read_link(path)?.into_os_string().into_vec()
    } else {
        Vec::new()
    };
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let device = matches!(metadata.mode() & libc::S_IFMT, libc::S_IFBLK | libc::S_IFCHR);
    Ok(Node {
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        nlink: metadata.nlink(),
        size: if kind.is_dir() { 0 } else { metadata.size() },
        rdev: if device { metadata.rdev() } else { 0 },
        mtime: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        inode: metadata.ino(),
        same_as: Vec::new(),
        content,
        xattrs: xattrs(path)?,
    })
}

/// BLAKE3 of a file's bytes, hex.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// A path as system calls want it.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("paths hold no NUL")
}

/// All extended attributes of a node itself.
pub fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = c_path(path);
    // SAFETY: the path is NUL-terminated, and the kernel writes at most the length that goes with each buffer.
    let names =
        read_buffer(|buffer, length| unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), length) })?;
    let mut xattrs = BTreeMap::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let text = CString::new(name).expect("split at NUL");
        // SAFETY: as above.
        let value = read_buffer(|buffer, length| unsafe {
            libc::lgetxattr(path.as_ptr(), text.as_ptr(), buffer.cast(), length)
        })?;
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

fn read_buffer(read: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let length =
        usize::try_from(read(buffer.as_mut_ptr(), buffer.len())).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(length);
    Ok(buffer)
}

/// What differs, in words; empty if nothing does.
pub fn differences(left: &Tree, right: &Tree, also: Also) -> String {
    const MOST: usize = 20;
    let mut text = String::new();
    let mut found = 0;
    let paths: std::collections::BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
    for path in paths {
        let difference = match (left.get(path), right.get(path)) {
            (Some(left), Some(right)) => compare(left, right, also),
            (Some(_), None) => "only on the left".to_owned(),
            (None, _) => "only on the right".to_owned(),
        };
        if !difference.is_empty() {
            found += 1;
            if found <= MOST {
                writeln!(text, "  {:?}: {difference}", String::from_utf8_lossy(path))
                    .expect("a String takes all");
            }
        }
    }
    if found > MOST {
        writeln!(text, "  and {} more", found - MOST).expect("a String takes all");
    }
    text
}

fn compare(left: &Node, right: &Node, also: Also) -> String {
    let mut text = String::new();
    let mut field = |name: &str, differs: bool, left: &dyn std::fmt::Debug, right: &dyn std::fmt::Debug| {
        if differs {
            write!(text, "{name} {left:?} and {right:?}; ").expect("a String takes all");
        }
    };
    let octal = |mode: u32| format!("{mode:o}");
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    field("mode", left.mode != right.mode, &octal(left.mode), &octal(right.mode));
    field("uid", left.uid != right.uid, &left.uid, &right.uid);
    field("gid", left.gid != right.gid, &left.gid, &right.gid);
    field("nlink", left.nlink != right.nlink, &left.nlink, &right.nlink);
    field("size", left.size != right.size, &left.size, &right.size);
    field("rdev", left.rdev != right.rdev, &left.rdev, &right.rdev);
    field("same as", left.same_as != right.same_as, &words(&left.same_as), &words(&right.same_as));
    field("content", left.content != right.content, &words(&left.content), &words(&right.content));
    field("xattrs", left.xattrs != right.xattrs, &left.xattrs, &right.xattrs);
    field("mtime", also.mtime && left.mtime != right.mtime, &left.mtime, &right.mtime);
    field("ctime", also.ctime && left.ctime != right.ctime, &left.ctime, &right.ctime);
    field("inode", also.inode && left.inode != right.inode, &left.inode, &right.inode);
    text
}

/// Panics, saying what differs, unless both trees are the same.
#[track_caller]
pub fn assert_same(what: &str, left: &Tree, right: &Tree, also: Also) {
    let differences = differences(left, right, also);
    assert!(differences.is_empty(), "{what}:\n{differences}");
}
