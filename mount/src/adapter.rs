//! The kernel's requests: converted, handed to the service, its answers converted and sent.
//!
//! `open`, `opendir` and `flush` are answered ENOSYS, once: the kernel then keeps its caches and sends nothing on
//! an open.
//!
//! Permissions are the kernel's to check (`default_permissions`); the umask is applied when a mode arrives, since
//! `FUSE_DONT_MASK` is not asked for.

pub(crate) mod convert;
mod init;
mod notifier;
mod reply;
pub(crate) mod session;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request,
};
use pond_tinyfs::{FileType, Make, SetAttributes};

use crate::adapter::convert::{asker, ino};
use crate::adapter::init::Offered;
use crate::inodes::attributes::Keep;
use crate::service::Service;
use crate::service::abort::guarded;
use crate::service::attributes::BLOCK_SIZE;
use crate::service::backing::Backing;
use crate::service::writing::Written;

/// Serves one mount.
pub(crate) struct Adapter<B> {
    service: Arc<Service<B>>,
    offered: Offered,
}

impl<B: Backing> Adapter<B> {
    pub(crate) fn new(service: Arc<Service<B>>) -> Self {
        Adapter { service, offered: Offered::default() }
    }
}

/// Unwraps, or answers with the error and returns.
macro_rules! attempt {
    ($reply:ident, $option:expr, $errno:expr) => {
        match $option {
            Some(value) => value,
            None => return $reply.error($errno),
        }
    };
}

impl<B: Backing> Filesystem for Adapter<B> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.offered = init::agree(config, self.service.follows())?;
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| {
            let answer = self.service.lookup(asker(request), ino(parent), name.as_bytes());
            answer.deliver(|outcome| reply::found(reply, outcome));
        });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, references: u64) {
        guarded(|| self.service.forget(ino(inode), references));
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| reply::attributes(reply, self.service.getattr(asker(request), ino(inode))));
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<fuser::TimeOrNow>,
        mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        guarded(|| {
            let change = SetAttributes {
                mode: mode.map(convert::permissions),
                uid,
                gid,
                size,
                atime: atime.map(convert::time_or_now),
                mtime: mtime.map(convert::time_or_now),
            };
            let outcome = self.service.setattr(asker(request), ino(inode), &change);
            reply::attributes(reply, outcome.map(|attributes| (attributes, Keep::UntilTold)));
        });
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        guarded(|| reply::data(reply, self.service.readlink(ino(inode))));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            let permissions = convert::permissions(mode);
            let what = match attempt!(reply, convert::kind_of_mode(mode), Errno::EINVAL) {
                FileType::File => Make::File { mode: permissions },
                kind => Make::Special { kind, mode: permissions, rdev },
            };
            let made = self.service.make(asker(request), ino(parent), name.as_bytes(), what);
            reply::entry(reply, made);
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            let what = Make::Directory { mode: convert::permissions(mode) };
            let made = self.service.make(asker(request), ino(parent), name.as_bytes(), what);
            reply::entry(reply, made);
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        guarded(|| {
            let what = Make::Symlink { target: target.as_os_str().as_bytes() };
            let made = self.service.make(asker(request), ino(parent), name.as_bytes(), what);
            reply::entry(reply, made);
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        guarded(|| {
            let (mode, exclusive) = (convert::permissions(mode), flags & libc::O_EXCL != 0);
            let by = asker(request);
            reply::created(reply, self.service.create(by, ino(parent), name.as_bytes(), mode, exclusive));
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            reply::empty(reply, self.service.unlink(asker(request), ino(parent), name.as_bytes()));
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            reply::empty(reply, self.service.rmdir(asker(request), ino(parent), name.as_bytes()));
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            let flags = attempt!(reply, convert::rename_flags(flags), Errno::EINVAL);
            let (from, to) = ((ino(parent), name.as_bytes()), (ino(new_parent), new_name.as_bytes()));
            let answer = self.service.rename(asker(request), from, to, flags);
            answer.deliver(|outcome| reply::empty(reply, outcome));
        });
    }

    fn link(&self, request: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| {
            let by = asker(request);
            reply::entry(reply, self.service.link(by, ino(inode), ino(parent), name.as_bytes()));
        });
    }

    fn open(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.offered.no_open {
            reply.error(Errno::ENOSYS)
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE)
        }
    }

    fn opendir(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.service.open_directory() {
            Some(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            None if self.offered.no_opendir => reply.error(Errno::ENOSYS),
            None => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.service.close_directory(handle.0);
        reply.ok();
    }

    fn flush(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded(|| {
            let (answer, ahead) = self.service.read(ino(inode), offset, size);
            answer.deliver(|outcome| reply::data(reply, outcome));
            self.service.read_ahead(ahead);
        });
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: fuser::WriteFlags,
        _open_flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded(|| {
            let how = Written {
                kill_suid_gid: flags.contains(fuser::WriteFlags::FUSE_WRITE_KILL_SUIDGID),
                from_mapping: flags.contains(fuser::WriteFlags::FUSE_WRITE_CACHE),
            };
            let answer = self.service.write(asker(request), ino(inode), offset, data, how);
            answer.deliver(|outcome| reply::written(reply, outcome));
        });
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        guarded(|| self.service.fsync(ino(inode)).deliver(|outcome| reply::empty(reply, outcome)));
    }

    fn fsyncdir(&self, request: &Request, inode: INodeNo, handle: FileHandle, data: bool, reply: ReplyEmpty) {
        self.fsync(request, inode, handle, data, reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            let mode = attempt!(reply, convert::fallocate_mode(mode), Errno::EOPNOTSUPP);
            let answer = self.service.fallocate(asker(request), ino(inode), offset, length, mode);
            answer.deliver(|outcome| reply::empty(reply, outcome));
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        source: INodeNo,
        _source_handle: FileHandle,
        source_offset: u64,
        target: INodeNo,
        _target_handle: FileHandle,
        target_offset: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        guarded(|| {
            let (from, to) = ((ino(source), source_offset), (ino(target), target_offset));
            let answer = self.service.copy(asker(request), from, to, length);
            answer.deliver(|outcome| reply::written(reply, outcome));
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        guarded(|| {
            let offset = attempt!(reply, u64::try_from(offset).ok(), Errno::ENXIO);
            let whence = attempt!(reply, convert::whence(whence), Errno::EINVAL);
            let answer = self.service.seek(ino(inode), offset, whence);
            answer.deliver(|outcome| reply::offset(reply, outcome));
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        guarded(|| {
            if self.service.is_versions(ino(inode)) {
                return self.service.list_versions(offset).deliver(|outcome| reply::versions(reply, outcome));
            }
            let listed = self.service.list(ino(inode), handle.0, offset, &mut |entry| {
                let (number, kind) = (INodeNo(entry.ino.0), convert::file_type(entry.kind));
                // fuser's says whether it is full.
                !reply.add(number, entry.position, kind, OsStr::from_bytes(entry.name))
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(convert::errno(&error)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        guarded(|| {
            let by = asker(request);
            self.service.list_with_lookups(by, ino(inode), handle.0, offset, reply).deliver(reply::listed);
        });
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        guarded(|| {
            let space = self.service.statfs();
            let (free, available) = (space.free, space.available);
            let (files, longest) = (space.files, space.longest_name);
            reply.statfs(space.total, free, available, files, available, BLOCK_SIZE, longest, BLOCK_SIZE);
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            let how = attempt!(reply, convert::set_xattr(flags), Errno::EINVAL);
            let by = asker(request);
            reply::empty(reply, self.service.setxattr(by, ino(inode), name.as_bytes(), value, how));
        });
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded(|| reply::xattr(reply, size, self.service.getxattr(ino(inode), name.as_bytes())));
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        guarded(|| reply::xattr(reply, size, self.service.listxattr(asker(request), ino(inode))));
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            let removed = self.service.removexattr(asker(request), ino(inode), name.as_bytes());
            reply::empty(reply, removed);
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _inode: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _input: &[u8],
        _output_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}
