//! A directory in which a sequence runs: on the pond or on the host, which must not show in any result.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pond_tests::tree::{self, Tree, c_path};

use crate::operation::{Call, SLOTS, Step, Where};

/// Times that a call set, and not the clock, lie outside these seconds.
const CLOCK: std::ops::Range<i128> = 1_700_000_000..2_500_000_000;

/// What a call gave: some bytes, or an error number.
pub type Outcome = Result<Vec<u8>, i32>;

/// The root of a sequence, and the files that it has open.
pub struct World {
    root: PathBuf,
    open: [Option<OwnedFd>; SLOTS],
}

impl World {
    /// Makes the root, in which anybody may do anything.
    pub fn new(root: PathBuf) -> Self {
        DirBuilder::new()
            .mode(0o777)
            .create(&root)
            .unwrap_or_else(|error| panic!("{}: {error}", root.display()));
        World { root, open: Default::default() }
    }

    /// What it looks like now.
    pub fn look(&self) -> Tree {
        tree::look_at(&self.root)
    }

    /// Makes one call as its user.
    pub fn apply(&mut self, step: &Step) -> Outcome {
        let _user = As::user(step.user);
        self.call(&step.call)
    }

    fn path(&self, path: &Where) -> CString {
        c_path(&self.root.join(&path.0))
    }

    fn fd(&self, slot: usize) -> i32 {
        self.open[slot].as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    fn call(&mut self, call: &Call) -> Outcome {
        match call {
            Call::Open { slot, path, flags, mode } => {
                let flags = flags | libc::O_NONBLOCK | libc::O_CLOEXEC;
                // SAFETY: the path is NUL-terminated.
                let fd = unsafe { libc::open(self.path(path).as_ptr(), flags, *mode) };
                done(fd)?;
                // SAFETY: open has just given it to us.
                self.open[*slot] = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                Ok(Vec::new())
            }
            Call::Close { slot } => {
                self.open[*slot] = None;
                Ok(Vec::new())
            }
            Call::Write { .. }
            | Call::Read { .. }
            | Call::ResizeOpen { .. }
            | Call::Allocate { .. }
            | Call::CopyRange { .. }
            | Call::StatOpen { .. }
            | Call::Fsync { .. } => self.on_open_file(call),
            Call::Stat { .. }
            | Call::List { .. }
            | Call::ReadLink { .. }
            | Call::GetXattr { .. }
            | Call::Access { .. } => self.look_up(call),
            _ => self.change(call),
        }
    }

    fn on_open_file(&self, call: &Call) -> Outcome {
        // SAFETY: every buffer is as long as the length that goes with it, and lives until after its call.
        unsafe {
            match call {
                Call::Write { slot, offset, length, byte } => {
                    let bytes = pattern(*length, *byte);
                    number(libc::pwrite(self.fd(*slot), bytes.as_ptr().cast(), *length, *offset as i64))
                }
                Call::Read { slot, offset, length } => {
                    let mut bytes = vec![0; *length];
                    let got = libc::pread(self.fd(*slot), bytes.as_mut_ptr().cast(), *length, *offset as i64);
                    bytes.truncate(checked(got)? as usize);
                    Ok(bytes)
                }
                Call::ResizeOpen { slot, size } => done(libc::ftruncate(self.fd(*slot), *size as i64)),
                Call::Allocate { slot, mode, offset, length } => {
                    done(libc::fallocate(self.fd(*slot), *mode, *offset as i64, *length as i64))
                }
                Call::CopyRange { from, at, to, put, length } => {
                    let (mut at, mut put, mut left) = (*at as i64, *put as i64, *length);
                    let (from, to) = (self.fd(*from), self.fd(*to));
                    // It may always copy less than it was asked for.
                    while left > 0 {
                        match checked(libc::copy_file_range(from, &mut at, to, &mut put, left, 0))? {
                            0 => break,
                            copied => left -= copied as usize,
                        }
                    }
                    number((*length - left) as isize)
                }
                Call::StatOpen { slot } => {
                    let mut stat = std::mem::zeroed::<libc::stat>();
                    done(libc::fstat(self.fd(*slot), &mut stat))?;
                    Ok(shown(&stat))
                }
                Call::Fsync { slot } => done(libc::fsync(self.fd(*slot))),
                _ => unreachable!("not about an open file"),
            }
        }
    }

    fn look_up(&self, call: &Call) -> Outcome {
        // SAFETY: paths and names are NUL-terminated, every buffer is as long as said.
        unsafe {
            match call {
                Call::Stat { path } => {
                    let mut stat = std::mem::zeroed::<libc::stat>();
                    done(libc::lstat(self.path(path).as_ptr(), &mut stat))?;
                    Ok(shown(&stat))
                }
                Call::List { path } => list(&self.root.join(&path.0)),
                Call::ReadLink { path } => {
                    let mut target = vec![0; 4096];
                    let got =
                        libc::readlink(self.path(path).as_ptr(), target.as_mut_ptr().cast(), target.len());
                    target.truncate(checked(got)? as usize);
                    Ok(target)
                }
                Call::GetXattr { path, name } => {
                    let mut value = vec![0; 4096];
                    let (path, name) = (self.path(path), xattr(*name));
                    let got =
                        libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len());
                    value.truncate(checked(got)? as usize);
                    Ok(value)
                }
                // AT_EACCESS: for the user that we are, not for the one that we came from.
                Call::Access { path, mode } => {
                    done(libc::faccessat(libc::AT_FDCWD, self.path(path).as_ptr(), *mode, libc::AT_EACCESS))
                }
                _ => unreachable!("not a look"),
            }
        }
    }

    fn change(&self, call: &Call) -> Outcome {
        const HERE: i32 = libc::AT_FDCWD;
        // SAFETY: paths and names are NUL-terminated, every buffer is as long as said.
        unsafe {
            match call {
                Call::Resize { path, size } => done(libc::truncate(self.path(path).as_ptr(), *size as i64)),
                Call::Mkdir { path, mode } => done(libc::mkdir(self.path(path).as_ptr(), *mode)),
                Call::Mknod { path, mode } => {
                    done(libc::mknod(self.path(path).as_ptr(), *mode, libc::makedev(1, 3)))
                }
                Call::Symlink { path, target } => {
                    let target = CString::new(target.0.as_str()).expect("no NUL");
                    done(libc::symlink(target.as_ptr(), self.path(path).as_ptr()))
                }
                Call::Link { path, new } => {
                    // Over FUSE the kernel judges by the mode it last saw whether a stranger may link to the file
                    // (protected_hardlinks), also after a write that had setgid cleared. A stat shows it the new one.
                    let mut seen = std::mem::zeroed();
                    libc::lstat(self.path(path).as_ptr(), &mut seen);
                    done(libc::link(self.path(path).as_ptr(), self.path(new).as_ptr()))
                }
                Call::Unlink { path } => done(libc::unlink(self.path(path).as_ptr())),
                Call::Rmdir { path } => done(libc::rmdir(self.path(path).as_ptr())),
                Call::Rename { path, new, flags } => {
                    let (path, new) = (self.path(path), self.path(new));
                    done(libc::renameat2(HERE, path.as_ptr(), HERE, new.as_ptr(), *flags))
                }
                Call::Chmod { path, mode } => done(libc::chmod(self.path(path).as_ptr(), *mode)),
                Call::Chown { path, uid, gid } => {
                    let (uid, gid) = (uid.unwrap_or(u32::MAX), gid.unwrap_or(u32::MAX));
                    done(libc::lchown(self.path(path).as_ptr(), uid, gid))
                }
                Call::Utimens { path, seconds, nanoseconds } => {
                    let time = libc::timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                    let (path, times) = (self.path(path), [time, time]);
                    done(libc::utimensat(HERE, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW))
                }
                Call::SetXattr { path, name, length, flags } => {
                    let value = pattern(*length, *name);
                    let (path, name) = (self.path(path), xattr(*name));
                    done(libc::lsetxattr(
                        path.as_ptr(),
                        name.as_ptr(),
                        value.as_ptr().cast(),
                        *length,
                        *flags,
                    ))
                }
                Call::RemoveXattr { path, name } => {
                    done(libc::lremovexattr(self.path(path).as_ptr(), xattr(*name).as_ptr()))
                }
                _ => unreachable!("not a change of the tree"),
            }
        }
    }
}

/// Takes the times of the clock and the inode numbers, which differ between two filesystems, out of a tree.
pub fn comparable(mut tree: Tree) -> Tree {
    for node in tree.values_mut() {
        if CLOCK.contains(&node.mtime.div_euclid(1_000_000_000)) {
            node.mtime = 0;
        }
    }
    tree
}

/// What `stat` must show alike. A directory's size means nothing.
fn shown(stat: &libc::stat) -> Vec<u8> {
    let size = if stat.st_mode & libc::S_IFMT == libc::S_IFDIR { 0 } else { stat.st_size };
    let (mode, links, uid, gid) = (stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid);
    format!("{mode:o} {links} {uid} {gid} {size}").into_bytes()
}

fn list(path: &Path) -> Outcome {
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let kind = entry.file_type().map_err(errno)?;
        let again = names.insert(entry.file_name().as_bytes().to_vec(), format!("{kind:?}"));
        assert!(again.is_none(), "{} lists {:?} twice", path.display(), entry.file_name());
    }
    Ok(format!("{names:?}").into_bytes())
}

fn checked(result: isize) -> Result<isize, i32> {
    if result < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(result) }
}

fn done(result: i32) -> Outcome {
    checked(result as isize).map(|_| Vec::new())
}

fn number(result: isize) -> Outcome {
    checked(result).map(|count| count.to_string().into_bytes())
}

fn xattr(name: u8) -> CString {
    CString::new(format!("user.x{name}")).expect("no NUL")
}

/// Bytes that are never zero and differ along the way.
fn pattern(length: usize, byte: u8) -> Vec<u8> {
    (0..length).map(|i| byte.wrapping_add((i / 7) as u8) | 1).collect()
}

/// This thread acts on files as another user while this value lives. Only the thread: the others, and
/// signals, go on as root.
struct As;

impl As {
    fn user(id: u32) -> Self {
        Self::become_user(id);
        As
    }

    fn become_user(id: u32) {
        // SAFETY: neither takes pointers. They do not report errors; asked with an impossible id they tell the present one.
        let now = unsafe {
            libc::setfsgid(id);
            libc::setfsuid(id);
            (libc::setfsuid(u32::MAX) as u32, libc::setfsgid(u32::MAX) as u32)
        };
        assert_eq!(now, (id, id), "these tests must run as root");
    }
}

impl Drop for As {
    fn drop(&mut self) {
        // SAFETY: neither takes pointers. The user first: it brings back the right to choose the group.
        unsafe {
            libc::setfsuid(0);
            libc::setfsgid(0);
        }
    }
}
