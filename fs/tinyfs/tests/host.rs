//! Random operations give the same results and the same tree on TinyFS and on a directory of the
//! host's filesystem, with cuts in between, and again after the rows were folded anew.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use pond_tinyfs::*;
use proptest::prelude::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const USER: u32 = 12_345;

#[derive(Clone, Debug)]
enum Op {
    Create(Vec<usize>, u16),
    Mkdir(Vec<usize>, u16),
    Symlink(Vec<usize>, Vec<usize>),
    Fifo(Vec<usize>),
    Link(Vec<usize>, Vec<usize>),
    Unlink(Vec<usize>),
    Rmdir(Vec<usize>),
    Rename(Vec<usize>, Vec<usize>, u32),
    Write(Vec<usize>, u64, usize, u8),
    Truncate(Vec<usize>, u64),
    Punch(Vec<usize>, u64, u64),
    Zero(Vec<usize>, u64, u64, bool),
    Allocate(Vec<usize>, u64, u64),
    Chmod(Vec<usize>, u16),
    Chown(Vec<usize>, Option<u32>, Option<u32>),
    Utimens(Vec<usize>, i64, u32),
    SetXattr(Vec<usize>, u8, usize, u8),
    RemoveXattr(Vec<usize>, u8),
    Copy(Vec<usize>, u64, Vec<usize>, u64, usize),
    Cut,
    Store,
}

fn path() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..NAMES.len(), 1..4)
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..10_000, 0u64..400_000]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (path(), 0u16..0o10000).prop_map(|(p, m)| Op::Create(p, m)),
        5 => (path(), 0u16..0o10000).prop_map(|(p, m)| Op::Mkdir(p, m)),
        1 => (path(), path()).prop_map(|(p, t)| Op::Symlink(p, t)),
        1 => path().prop_map(Op::Fifo),
        2 => (path(), path()).prop_map(|(p, t)| Op::Link(p, t)),
        2 => path().prop_map(Op::Unlink),
        2 => path().prop_map(Op::Rmdir),
        5 => (path(), path(), prop_oneof![4 => Just(0u32), 1 => Just(1), 2 => Just(2)])
            .prop_map(|(p, t, f)| Op::Rename(p, t, f)),
        8 => (path(), offset(), prop_oneof![1usize..100, 1usize..200_000], any::<u8>())
            .prop_map(|(p, o, n, b)| Op::Write(p, o, n, b)),
        3 => (path(), offset()).prop_map(|(p, n)| Op::Truncate(p, n)),
        3 => (path(), offset(), 1u64..200_000).prop_map(|(p, o, n)| Op::Punch(p, o, n)),
        2 => (path(), offset(), 1u64..100_000, any::<bool>()).prop_map(|(p, o, n, k)| Op::Zero(p, o, n, k)),
        1 => (path(), offset(), 1u64..100_000).prop_map(|(p, o, n)| Op::Allocate(p, o, n)),
        2 => (path(), 0u16..0o10000).prop_map(|(p, m)| Op::Chmod(p, m)),
        2 => (path(), 0u32..3, prop::option::of(0u32..3)).prop_map(|(p, u, g)| Op::Chown(p, (u > 0 || g.is_none()).then_some(u), g)),
        1 => (path(), -2_000_000_000i64..9_000_000_000, 0u32..1_000_000_000).prop_map(|(p, s, n)| Op::Utimens(p, s, n)),
        2 => (path(), 0u8..3, 0usize..50, 0u8..3).prop_map(|(p, n, l, m)| Op::SetXattr(p, n, l, m)),
        1 => (path(), 0u8..3).prop_map(|(p, n)| Op::RemoveXattr(p, n)),
        2 => (path(), offset(), path(), offset(), 1usize..300_000).prop_map(|(p, o, t, q, n)| Op::Copy(p, o, t, q, n)),
        2 => Just(Op::Cut),
        1 => Just(Op::Store),
    ]
}

fn text(path: &[usize]) -> String {
    path.iter().map(|i| NAMES[*i]).collect::<Vec<_>>().join("/")
}

/// TinyFS with what a kernel does before it asks: walking paths.
struct Tiny {
    fs: TinyFs,
    store: Arc<MemoryPersistence>,
    taken: Vec<Row>,
    caller: Caller,
}

type Outcome = Result<Vec<u8>, i32>;

fn errno<T>(result: Result<T, Error>) -> Result<T, i32> {
    result.map_err(|error| error.errno())
}

impl Tiny {
    fn new() -> Self {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store.clone());
        Tiny { fs, store, taken: Vec::new(), caller: Caller::root() }
    }

    fn at(&self, path: &[usize]) -> Result<Attributes, i32> {
        errno(self.fs.resolve(text(path).as_bytes()))
    }

    /// The node at a path, symlinks at its end followed.
    fn followed(&self, path: &[usize]) -> Result<NodeId, i32> {
        errno(self.fs.resolve(format!("{}/.", text(path)).as_bytes()))
            .map(|attributes| attributes.id)
            .or_else(|error| if error == libc::ENOTDIR { self.file(text(path), 0) } else { Err(error) })
    }

    fn file(&self, path: String, depth: u32) -> Result<NodeId, i32> {
        if depth > 40 {
            return Err(libc::ELOOP);
        }
        let found = errno(self.fs.resolve(path.as_bytes()))?;
        if found.kind != FileType::Symlink {
            return Ok(found.id);
        }
        let target = errno(self.fs.readlink(found.id))?;
        let base = path.rsplit_once('/').map_or("", |(base, _)| base);
        self.file(format!("{base}/{}", String::from_utf8_lossy(&target)), depth + 1)
    }

    fn parent(&self, path: &[usize]) -> Result<(NodeId, &'static [u8]), i32> {
        let (name, directory) = path.split_last().unwrap();
        let parent = errno(self.fs.resolve(format!("{}/.", text(directory)).as_bytes()))?;
        Ok((parent.id, NAMES[*name].as_bytes()))
    }

    fn apply(&mut self, op: &Op) -> Outcome {
        let fs = &self.fs;
        let caller = &self.caller;
        let done = |_| Vec::new();
        match op {
            Op::Create(p, mode) => {
                let (parent, name) = self.parent(p)?;
                let made = errno(fs.make(caller, parent, name, Make::File { mode: *mode }))?;
                fs.forget(made.id, 1);
                Ok(Vec::new())
            }
            Op::Mkdir(p, mode) => {
                let (parent, name) = self.parent(p)?;
                errno(fs.make(caller, parent, name, Make::Directory { mode: *mode & 0o1777 }))
                    .map(|made| fs.forget(made.id, 1))
                    .map(done)
            }
            Op::Symlink(p, t) => {
                let (parent, name) = self.parent(p)?;
                errno(fs.make(caller, parent, name, Make::Symlink { target: text(t).as_bytes() }))
                    .map(|made| fs.forget(made.id, 1))
                    .map(done)
            }
            Op::Fifo(p) => {
                let (parent, name) = self.parent(p)?;
                errno(fs.make(
                    caller,
                    parent,
                    name,
                    Make::Special { kind: FileType::Fifo, mode: 0o644, rdev: 0 },
                ))
                .map(|made| fs.forget(made.id, 1))
                .map(done)
            }
            Op::Link(p, t) => {
                let node = self.at(p)?;
                let (parent, name) = self.parent(t)?;
                errno(fs.link(caller, node.id, parent, name)).map(|made| fs.forget(made.id, 1)).map(done)
            }
            Op::Unlink(p) => {
                let (parent, name) = self.parent(p)?;
                errno(fs.unlink(caller, parent, name)).map(|_| Vec::new())
            }
            Op::Rmdir(p) => {
                let (parent, name) = self.parent(p)?;
                errno(fs.rmdir(caller, parent, name)).map(done)
            }
            Op::Rename(p, t, flags) => {
                let (parent, name) = self.parent(p)?;
                let (new_parent, new_name) = self.parent(t)?;
                let flags = RenameFlags { no_replace: *flags == 1, exchange: *flags == 2 };
                errno(fs.rename(caller, parent, name, new_parent, new_name, flags)).map(|_| Vec::new())
            }
            Op::Write(p, offset, n, byte) => {
                let id = self.regular(p)?;
                errno(fs.write(caller, id, *offset, &pattern(*n, *byte), WriteFlags::default()))
                    .map(|_| Vec::new())
            }
            Op::Truncate(p, size) => {
                let id = self.regular(p)?;
                let change = SetAttributes { size: Some(*size), ..Default::default() };
                errno(fs.setattr(caller, id, &change)).map(|_| Vec::new())
            }
            Op::Punch(p, o, n) => {
                errno(fs.fallocate(caller, self.regular(p)?, *o, *n, Fallocate::PunchHole)).map(done)
            }
            Op::Zero(p, o, n, keep) => {
                let mode = if *keep { Fallocate::ZeroRangeKeepSize } else { Fallocate::ZeroRange };
                errno(fs.fallocate(caller, self.regular(p)?, *o, *n, mode)).map(done)
            }
            Op::Allocate(p, o, n) => {
                errno(fs.fallocate(caller, self.regular(p)?, *o, *n, Fallocate::Allocate)).map(done)
            }
            Op::Chmod(p, mode) => {
                let change = SetAttributes { mode: Some(*mode), ..Default::default() };
                errno(fs.setattr(caller, self.followed(p)?, &change)).map(|_| Vec::new())
            }
            Op::Chown(p, uid, gid) => {
                let change = SetAttributes { uid: *uid, gid: *gid, ..Default::default() };
                errno(fs.setattr(caller, self.at(p)?.id, &change)).map(|_| Vec::new())
            }
            Op::Utimens(p, s, n) => {
                let time = Some(TimeOrNow::At(Timestamp::from_parts(*s, *n)));
                let change = SetAttributes { atime: time, mtime: time, ..Default::default() };
                errno(fs.setattr(caller, self.at(p)?.id, &change)).map(|_| Vec::new())
            }
            Op::SetXattr(p, name, n, mode) => {
                let mode = [SetXattr::Any, SetXattr::Create, SetXattr::Replace][*mode as usize];
                let id = self.with_xattrs(p)?;
                errno(fs.setxattr(caller, id, &xattr_name(*name), &pattern(*n, *name), mode)).map(done)
            }
            Op::RemoveXattr(p, name) => {
                errno(fs.removexattr(caller, self.with_xattrs(p)?, &xattr_name(*name))).map(done)
            }
            Op::Copy(p, o, t, q, n) => {
                let (source, target) = (self.regular(p)?, self.regular(t)?);
                if source == target {
                    return Ok(Vec::new());
                }
                errno(fs.copy_range(caller, source, *o, target, *q, *n as u64)).map(|_| Vec::new())
            }
            Op::Cut => {
                self.taken.extend(fs.cut().rows);
                Ok(Vec::new())
            }
            Op::Store => {
                self.taken.extend(fs.cut().rows);
                let placed = self.store.store(&self.taken);
                self.taken.clear();
                fs.stored(&placed);
                assert_eq!(fs.dirty_bytes(), 0);
                Ok(Vec::new())
            }
        }
    }

    /// A regular file to open; what is none is left alone, as opening a fifo would block.
    fn regular(&self, path: &[usize]) -> Result<NodeId, i32> {
        let id = self.followed(path)?;
        match errno(self.fs.getattr(id))?.kind {
            FileType::File => Ok(id),
            FileType::Directory => Err(libc::EISDIR),
            _ => Err(libc::ENXIO),
        }
    }

    fn with_xattrs(&self, path: &[usize]) -> Result<NodeId, i32> {
        let node = self.at(path)?;
        match node.kind {
            FileType::File | FileType::Directory => Ok(node.id),
            _ => Err(libc::EPERM),
        }
    }
}

fn pattern(n: usize, byte: u8) -> Vec<u8> {
    (0..n).map(|i| byte.wrapping_add((i / 7) as u8) | 1).collect()
}

fn xattr_name(n: u8) -> Vec<u8> {
    format!("user.x{n}").into_bytes()
}

struct Host<'a>(&'a Path);

fn check(result: i64) -> Outcome {
    if result < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(Vec::new()) }
}

impl Host<'_> {
    fn path(&self, path: &[usize]) -> CString {
        CString::new(self.0.join(text(path)).as_os_str().as_bytes()).unwrap()
    }

    fn open(&self, path: &[usize], flags: i32) -> Result<std::os::fd::OwnedFd, i32> {
        use std::os::fd::FromRawFd;
        let path = self.path(path);
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        check(unsafe { libc::stat(path.as_ptr(), &mut stat) }.into())?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(libc::EISDIR),
            _ => return Err(libc::ENXIO),
        }
        let fd = unsafe { libc::open(path.as_ptr(), flags) };
        check(fd.into())?;
        Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
    }

    fn apply(&self, op: &Op) -> Outcome {
        use std::os::fd::AsRawFd;
        unsafe {
            match op {
                Op::Create(p, mode) => {
                    let path = self.path(p);
                    let fd = libc::open(
                        path.as_ptr(),
                        libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY,
                        *mode as u32,
                    );
                    check(fd.into())?;
                    libc::close(fd);
                    Ok(Vec::new())
                }
                Op::Mkdir(p, mode) => {
                    check(libc::mkdir(self.path(p).as_ptr(), (*mode & 0o1777).into()).into())
                }
                Op::Symlink(p, t) => {
                    let target = CString::new(text(t)).unwrap();
                    check(libc::symlink(target.as_ptr(), self.path(p).as_ptr()).into())
                }
                Op::Fifo(p) => check(libc::mkfifo(self.path(p).as_ptr(), 0o644).into()),
                Op::Link(p, t) => check(libc::link(self.path(p).as_ptr(), self.path(t).as_ptr()).into()),
                Op::Unlink(p) => check(libc::unlink(self.path(p).as_ptr()).into()),
                Op::Rmdir(p) => check(libc::rmdir(self.path(p).as_ptr()).into()),
                Op::Rename(p, t, flags) => check(libc::syscall(
                    libc::SYS_renameat2,
                    libc::AT_FDCWD,
                    self.path(p).as_ptr(),
                    libc::AT_FDCWD,
                    self.path(t).as_ptr(),
                    *flags,
                )),
                Op::Write(p, offset, n, byte) => {
                    let fd = self.open(p, libc::O_WRONLY)?;
                    let data = pattern(*n, *byte);
                    check(libc::pwrite(fd.as_raw_fd(), data.as_ptr().cast(), *n, *offset as i64) as i64)
                }
                Op::Truncate(p, size) => {
                    let fd = self.open(p, libc::O_WRONLY)?;
                    check(libc::ftruncate(fd.as_raw_fd(), *size as i64).into())
                }
                Op::Punch(p, o, n) => {
                    let fd = self.open(p, libc::O_WRONLY)?;
                    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                    check(libc::fallocate(fd.as_raw_fd(), mode, *o as i64, *n as i64).into())
                }
                Op::Zero(p, o, n, keep) => {
                    let fd = self.open(p, libc::O_WRONLY)?;
                    let mode = libc::FALLOC_FL_ZERO_RANGE | if *keep { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
                    check(libc::fallocate(fd.as_raw_fd(), mode, *o as i64, *n as i64).into())
                }
                Op::Allocate(p, o, n) => {
                    let fd = self.open(p, libc::O_WRONLY)?;
                    check(libc::fallocate(fd.as_raw_fd(), 0, *o as i64, *n as i64).into())
                }
                Op::Chmod(p, mode) => check(libc::chmod(self.path(p).as_ptr(), (*mode).into()).into()),
                Op::Chown(p, uid, gid) => check(
                    libc::lchown(self.path(p).as_ptr(), uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX))
                        .into(),
                ),
                Op::Utimens(p, s, n) => {
                    let time = libc::timespec { tv_sec: *s, tv_nsec: (*n).into() };
                    let times = [time, time];
                    let path = self.path(p);
                    check(
                        libc::utimensat(
                            libc::AT_FDCWD,
                            path.as_ptr(),
                            times.as_ptr(),
                            libc::AT_SYMLINK_NOFOLLOW,
                        )
                        .into(),
                    )
                }
                Op::SetXattr(p, name, n, mode) => {
                    let name_text = CString::new(xattr_name(*name)).unwrap();
                    let value = pattern(*n, *name);
                    let path = self.path(p);
                    check(
                        libc::lsetxattr(
                            path.as_ptr(),
                            name_text.as_ptr(),
                            value.as_ptr().cast(),
                            *n,
                            (*mode).into(),
                        )
                        .into(),
                    )
                }
                Op::RemoveXattr(p, name) => {
                    let name = CString::new(xattr_name(*name)).unwrap();
                    check(libc::lremovexattr(self.path(p).as_ptr(), name.as_ptr()).into())
                }
                Op::Copy(p, o, t, q, n) => {
                    let (source, target) = (self.open(p, libc::O_RDONLY)?, self.open(t, libc::O_WRONLY)?);
                    let (mut from, mut to) = (*o as i64, *q as i64);
                    if inode(&source) == inode(&target) {
                        return Ok(Vec::new());
                    }
                    let mut left = *n;
                    loop {
                        let copied = libc::copy_file_range(
                            source.as_raw_fd(),
                            &mut from,
                            target.as_raw_fd(),
                            &mut to,
                            left,
                            0,
                        );
                        check(copied as i64)?;
                        left -= copied as usize;
                        if copied == 0 || left == 0 {
                            return Ok(Vec::new());
                        }
                    }
                }
                Op::Cut | Op::Store => Ok(Vec::new()),
            }
        }
    }
}

fn inode(fd: &std::os::fd::OwnedFd) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::File::from(fd.try_clone().unwrap()).metadata().unwrap().ino()
}

/// What both sides show of a node, inode numbers replaced by the first path they stand at.
#[derive(Debug, PartialEq)]
struct Shown {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    size: u64,
    mtime: Option<(i64, u32)>,
    same_as: String,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Times that an operation set, and not the clock, lie outside these years.
fn set_time(seconds: i64, nanoseconds: u32) -> Option<(i64, u32)> {
    (!(1_700_000_000..2_500_000_000).contains(&seconds)).then_some((seconds, nanoseconds))
}

fn show_tiny(fs: &TinyFs) -> BTreeMap<String, Shown> {
    let mut out = BTreeMap::new();
    let mut first = HashMap::new();
    let mut queue = vec![(String::new(), NodeId::ROOT)];
    while let Some((path, id)) = queue.pop() {
        let mut names = Vec::new();
        fs.readdir(id, 0, &mut |entry| {
            if entry.offset as u32 > 2 {
                names.push((format!("{path}/{}", String::from_utf8_lossy(entry.name)), entry.id));
            }
            true
        })
        .unwrap();
        names.sort();
        for (path, id) in names {
            let attributes = fs.getattr(id).unwrap();
            let is_directory = attributes.kind == FileType::Directory;
            let content = match attributes.kind {
                FileType::File => {
                    let plan = fs.read(id, 0, attributes.size as usize + 10).unwrap();
                    plan.fill(&**fs.persistence()).unwrap()
                }
                FileType::Symlink => fs.readlink(id).unwrap().to_vec(),
                _ => Vec::new(),
            };
            let xattrs = fs
                .listxattr(&Caller::root(), id)
                .unwrap()
                .split(|b| *b == 0)
                .filter(|name| !name.is_empty())
                .map(|name| (name.to_vec(), fs.getxattr(id, name).unwrap()))
                .collect();
            out.insert(
                path.clone(),
                Shown {
                    mode: attributes.kind.mode_bits() | u32::from(attributes.mode),
                    uid: attributes.uid,
                    gid: attributes.gid,
                    nlink: attributes.nlink,
                    size: if is_directory { 0 } else { attributes.size },
                    mtime: set_time(attributes.mtime.seconds(), attributes.mtime.nanoseconds()),
                    same_as: String::new(),
                    content,
                    xattrs,
                },
            );
            first.insert(path.clone(), id.get());
            if is_directory {
                queue.push((path, id));
            }
        }
    }
    with_links(out, first)
}

fn with_links(mut shown: BTreeMap<String, Shown>, inodes: HashMap<String, u64>) -> BTreeMap<String, Shown> {
    let mut names: HashMap<u64, String> = HashMap::new();
    for (path, one) in &mut shown {
        one.same_as = names.entry(inodes[path]).or_insert_with(|| path.clone()).clone();
    }
    shown
}

fn show_host(root: &Path) -> BTreeMap<String, Shown> {
    use std::os::unix::fs::MetadataExt;
    let mut out = BTreeMap::new();
    let mut first = HashMap::new();
    let mut queue = vec![root.to_path_buf()];
    while let Some(directory) = queue.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let kind = meta.file_type();
            let content = if kind.is_file() {
                std::fs::read(&path).unwrap()
            } else if kind.is_symlink() {
                std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
            } else {
                Vec::new()
            };
            let shown = format!("/{}", path.strip_prefix(root).unwrap().display());
            first.insert(shown.clone(), meta.ino());
            out.insert(
                shown,
                Shown {
                    mode: meta.mode(),
                    uid: meta.uid(),
                    gid: meta.gid(),
                    nlink: meta.nlink() as u32,
                    size: if kind.is_dir() { 0 } else { meta.size() },
                    mtime: set_time(meta.mtime(), meta.mtime_nsec() as u32),
                    same_as: String::new(),
                    content,
                    xattrs: host_xattrs(&path),
                },
            );
            if kind.is_dir() {
                queue.push(path);
            }
        }
    }
    with_links(out, first)
}

fn host_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0u8; 4096];
    let n = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    if n < 0 {
        return BTreeMap::new();
    }
    names.truncate(n as usize);
    let mut out = BTreeMap::new();
    for name in names.split(|b| *b == 0).filter(|name| name.starts_with(b"user.")) {
        let text = CString::new(name).unwrap();
        let mut value = vec![0u8; 4096];
        let n =
            unsafe { libc::lgetxattr(path.as_ptr(), text.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        value.truncate(n.max(0) as usize);
        out.insert(name.to_vec(), value);
    }
    out
}

fn run(ops: &[Op]) -> Result<(), TestCaseError> {
    // The umask of this process must not change what the host does.
    unsafe { libc::umask(0) };
    let scratch = tempfile::tempdir().unwrap();
    let host = Host(scratch.path());
    let mut tiny = Tiny::new();
    for op in ops {
        let (ours, theirs) = (tiny.apply(op), host.apply(op));
        prop_assert_eq!(ours, theirs, "{:?}", op);
    }
    let expected = show_host(scratch.path());
    prop_assert_eq!(&show_tiny(&tiny.fs), &expected);
    tiny.apply(&Op::Store).unwrap();
    prop_assert_eq!(&show_tiny(&tiny.fs), &expected);
    let again = TinyFs::new(tiny.store.load().unwrap(), tiny.store.clone());
    prop_assert_eq!(&show_tiny(&again), &expected);
    prop_assert_eq!(again.node_count(), tiny.fs.node_count());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("POND_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_sequence_of_operations_does_what_the_host_does(ops in prop::collection::vec(op(), 1..60)) {
        run(&ops)?;
    }
}

#[test]
fn an_ordinary_user_may_do_what_modes_allow() {
    let tiny = Tiny::new();
    let user = Caller::unchecked(USER, USER, vec![50]);
    let fs = &tiny.fs;
    let refused = fs.make(&user, NodeId::ROOT, b"x", Make::File { mode: 0o644 }).unwrap_err();
    assert_eq!(refused.errno(), libc::EACCES);
    let tmp = fs.make(&Caller::root(), NodeId::ROOT, b"tmp", Make::Directory { mode: 0o1777 }).unwrap();
    let theirs = fs.make(&Caller::root(), tmp.id, b"root", Make::File { mode: 0o666 }).unwrap();
    fs.make(&user, tmp.id, b"mine", Make::File { mode: 0o4755 }).unwrap();
    assert_eq!(fs.unlink(&user, tmp.id, b"root").unwrap_err().errno(), libc::EPERM);
    assert!(fs.unlink(&user, tmp.id, b"mine").is_ok());
    let chmod = SetAttributes { mode: Some(0o777), ..Default::default() };
    assert_eq!(fs.setattr(&user, theirs.id, &chmod).unwrap_err().errno(), libc::EPERM);
    assert_eq!(fs.write(&user, theirs.id, 0, b"x", WriteFlags::default()).map_err(|e| e.errno()), Ok(1));
}

#[test]
fn an_unlinked_file_that_is_still_open_keeps_its_bytes_however_many_are_written() {
    let tiny = Tiny::new();
    let (fs, root) = (&tiny.fs, Caller::root());
    let file = fs.make(&root, NodeId::ROOT, b"gone", Make::File { mode: 0o600 }).unwrap();
    let mut expected = vec![0u8; 30 << 20];
    let mut write = |offset: usize, length: usize, byte: u8| {
        let data = pattern(length, byte);
        fs.write(&root, file.id, offset as u64, &data, WriteFlags::default()).unwrap();
        expected[offset..offset + length].copy_from_slice(&data);
    };
    write(100, 1 << 20, 1);
    fs.unlink(&root, NodeId::ROOT, b"gone").unwrap();
    for round in 0..60usize {
        write(round * 500_000, 400_000, round as u8);
        write((round * 7_919_123) % (29 << 20), 700_001, round as u8 + 100);
        if round % 7 == 0 {
            fs.spill().unwrap();
            assert_eq!(fs.dirty_bytes(), 0);
        }
    }
    fs.fallocate(&root, file.id, 5_000_001, 3_000_000, Fallocate::PunchHole).unwrap();
    expected[5_000_001..8_000_001].fill(0);
    let size = fs.getattr(file.id).unwrap().size as usize;
    let plan = fs.read(file.id, 0, size).unwrap();
    assert!(plan.fill(&**fs.persistence()).unwrap() == expected[..size]);
    assert!(fs.unspilled_bytes() > 0);
    fs.forget(file.id, 1);
    assert_eq!((fs.node_count(), fs.dirty_bytes()), (1, 0));
    assert!(plan.fill(&**fs.persistence()).is_err(), "the spill file is gone with the last reference");
}
