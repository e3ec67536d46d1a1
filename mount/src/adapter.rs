//! The kernel's requests, answered: convert, call TinyFS, reply.
//!
//! Metadata, writes while there is room, and reads of what is in memory are answered on the session thread: to
//! hand a reply to another thread costs a quarter to a half of the rate. Whatever must wait (cold reads, writes
//! without room, fsync, long copies) takes its reply along to another thread; a session thread never waits.
//!
//! `open`, `opendir` and `flush` are answered ENOSYS, once: the kernel then keeps its caches and sends nothing on
//! an open. State is per inode, and an unlinked file ends with FORGET. There are no handles.
//!
//! Permissions are the kernel's to check (`default_permissions`); the umask is applied when a mode arrives, since
//! `FUSE_DONT_MASK` is not asked for. Every change of the tree comes through this mount or is made known to the
//! kernel, so entries and attributes are cached for long, and so is, but on a replica, that a name does not exist.

pub(crate) mod convert;
mod reply;
pub(crate) mod session;

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request,
};
use pond_tinyfs::{
    Attributes, Error, Fallocate, FileType, MAX_NAME, Make, NodeId, RESERVED_NAME, SetAttributes, TinyFs,
    WriteFlags,
};

use crate::adapter::reply::{NO_TTL, TTL};
use crate::coherence::Coherence;
use crate::mounting::mount_point::MAX_REQUEST;
use crate::service::abort::guarded;
use crate::service::backing::Backing;
use crate::service::content::Content;
use crate::service::inodes::{Ino, Inodes, Shown};
use crate::service::listings::{Listings, Positions};
use crate::service::readahead::Readahead;
use crate::service::readers::Readers;
use crate::service::virtual_files::VirtualFiles;

/// Reads, readaheads and other requests in the background at a time.
const MAX_BACKGROUND: u16 = 64;

/// Most bytes that one `copy_file_range` copies; the caller asks again for the rest.
const MAX_COPY: u64 = 8 << 20;

/// Longest `fallocate`, bytes, that is answered on the session thread.
const INLINE_FALLOCATE: u64 = 1 << 20;

/// Extents that one thread decodes ahead of their reader at a time.
const PREFETCH: usize = 4;

/// A read of so many bytes costs one access to the disk, or a few.
const LITTLE: usize = 16 << 10;

/// What we ask of the kernel, where it can. Not among them: writeback caching, lock forwarding,
/// `ATOMIC_O_TRUNC`, `DONT_MASK`, `POSIX_ACL`; and `ASYNC_DIO`, with which the kernel drops cached pages before a direct write
/// is under way and not after it, so that who reads meanwhile through the cache leaves old bytes there.
const CAPABILITIES: [InitFlags; 6] = [
    InitFlags::FUSE_NO_OPEN_SUPPORT,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_CACHE_SYMLINKS,
    // Any inode can be looked up as "." of itself, and inode numbers are not used again: file handles hold.
    InitFlags::FUSE_EXPORT_SUPPORT,
];

/// Listings that look their names up as well. Not on a replica: of two lookups of a name the kernel puts the one that
/// was answered later in place, but a listing on its way replaces what a lookup found meanwhile, and would show a
/// program an older version of a file than the one that it has just read.
const LISTINGS_WITH_LOOKUPS: [InitFlags; 2] =
    [InitFlags::FUSE_DO_READDIRPLUS, InitFlags::FUSE_READDIRPLUS_AUTO];

/// What `lseek` looks for.
#[derive(Clone, Copy)]
enum Whence {
    Data,
    Hole,
}

impl Whence {
    fn seek(self, fs: &TinyFs, id: NodeId, offset: u64) -> Result<u64, Error> {
        match self {
            Whence::Data => fs.seek_data(id, offset),
            Whence::Hole => fs.seek_hole(id, offset),
        }
    }
}

/// Serves one mount.
pub(crate) struct Adapter<B> {
    backing: Arc<B>,
    runtime: tokio::runtime::Handle,
    inodes: Arc<Inodes>,
    listings: Listings,
    /// Tells inode numbers of this mount from the same ones of another, in file handles that last.
    generation: Generation,
    virtual_files: Arc<VirtualFiles>,
    coherence: Arc<Coherence>,
    readers: Readers,
    readahead: Readahead,
    /// Whether the kernel takes ENOSYS to `open` and `opendir` for "do not ask again".
    no_open: bool,
    no_opendir: bool,
    /// Whether the kernel may remember which names do not exist.
    keep_missing: bool,
}

impl<B: Backing> Adapter<B> {
    /// `.pond/` is for the user and group who mount. With `inode32` inode numbers have 32 bits, and positions in directories 31.
    /// Fails if no thread can be started.
    pub(crate) fn new(
        backing: Arc<B>,
        runtime: tokio::runtime::Handle,
        owner: (u32, u32),
        inode32: bool,
    ) -> io::Result<Self> {
        let inodes = Arc::new(Inodes::new(inode32));
        let virtual_files = VirtualFiles::new(inodes.clone(), owner.0, owner.1);
        Ok(Adapter {
            keep_missing: !backing.follows(),
            readers: Readers::start(session::threads())?,
            readahead: Readahead::new(backing.fs().persistence().prefetch_budget()),
            backing,
            runtime,
            virtual_files: Arc::new(virtual_files),
            coherence: Coherence::new(inodes.clone()),
            generation: generation(inode32),
            listings: Listings::default(),
            inodes,
            no_open: false,
            no_opendir: false,
        })
    }

    fn fs(&self) -> &TinyFs {
        self.backing.fs()
    }

    /// The kernel's caches, to be started with the session.
    pub(crate) fn coherence(&self) -> Arc<Coherence> {
        self.coherence.clone()
    }

    /// Notes that these nodes' attributes changed on behalf of a request, if it succeeded.
    fn changed<T>(
        &self,
        request: &Request,
        result: &Result<T, Error>,
        nodes: impl IntoIterator<Item = NodeId>,
    ) {
        if result.is_ok() {
            for node in nodes {
                self.coherence.changed(node, request.pid());
            }
        }
    }

    /// A node of the pond, for reading it.
    fn node(&self, inode: INodeNo) -> Result<NodeId, Errno> {
        match self.find(inode)? {
            Shown::Node(id) => Ok(id),
            Shown::OwnDirectory | Shown::Snapshot(_) => Err(Errno::EOPNOTSUPP),
        }
    }

    /// A node of the pond, for changing it: what `.pond/` holds cannot be.
    fn changeable(&self, inode: INodeNo) -> Result<NodeId, Errno> {
        match self.find(inode)? {
            Shown::Node(id) => Ok(id),
            Shown::OwnDirectory | Shown::Snapshot(_) => Err(Errno::EPERM),
        }
    }

    /// A directory in which this name may come or go.
    fn changeable_entry(&self, parent: INodeNo, name: &OsStr) -> Result<NodeId, Errno> {
        if is_reserved(parent, name) { Err(Errno::EPERM) } else { self.changeable(parent) }
    }

    fn find(&self, inode: INodeNo) -> Result<Shown, Errno> {
        self.inodes.find(Ino(inode.0)).map_err(|_| Errno::ESTALE)
    }

    fn look_up(&self, request: &Request, parent: NodeId, name: &OsStr) -> Result<FileAttr, Error> {
        let found = self.fs().lookup(parent, name.as_bytes())?;
        let ino = self.inodes.refer(found.id);
        // Looked at anew once it is noted who is shown them.
        self.coherence.show(found.id, request.pid());
        Ok(convert::attributes(ino, &self.fs().getattr(found.id)?))
    }

    /// Runs on another thread what may wait.
    fn offload(&self, work: impl FnOnce() + Send + 'static) {
        self.runtime.spawn_blocking(move || guarded(work));
    }

    /// Has the extents in these bytes of a file decoded, in pieces that several threads take up.
    fn prefetch(&self, id: NodeId, ahead: Range<u64>) {
        // A file that is gone is not read any more.
        let Ok(locations) = self.fs().locations(id, ahead.start, ahead.end - ahead.start) else { return };
        for piece in locations.chunks(PREFETCH) {
            let (persistence, piece) = (self.fs().persistence().clone(), piece.to_vec());
            self.readers.prefetch(move || {
                piece.into_iter().for_each(|location| persistence.prefetch(location));
            });
        }
    }

    fn look_up_virtual(&self, name: &OsStr, reply: ReplyEntry) {
        let Some(file) = Content::from_name(name.as_bytes()) else { return reply.error(Errno::ENOENT) };
        let (backing, files, generation) =
            (self.backing.clone(), self.virtual_files.clone(), self.generation);
        self.offload(move || {
            let attributes = files.look_up(file, backing.content(file));
            reply.entry_with_ttls(&NO_TTL, &NO_TTL, &attributes, generation);
        });
    }

    /// How an answer of a listing names the places in its directory.
    fn positions(&self, handle: FileHandle, offset: u64) -> Positions<'_> {
        if self.inodes.narrow() { self.listings.positions(handle.0, offset) } else { Positions::wide(offset) }
    }

    /// A node that the kernel is given a reference on.
    fn entry(&self, attributes: &Attributes) -> FileAttr {
        convert::attributes(self.inodes.refer(attributes.id), attributes)
    }

    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        what: Make<'_>,
    ) -> Result<FileAttr, Errno> {
        let parent = self.changeable_entry(parent, name)?;
        let made = self.fs().make(&convert::caller(request), parent, name.as_bytes(), what);
        self.changed(request, &made, [parent]);
        made.map(|made| self.entry(&made)).map_err(|error| convert::errno(&error))
    }
}

fn is_reserved(parent: INodeNo, name: &OsStr) -> bool {
    parent == INodeNo::ROOT && name.as_bytes() == RESERVED_NAME
}

/// Numbers of nodes that are not their ids are another mount's tomorrow. Ids are not.
fn generation(inode32: bool) -> Generation {
    let now =
        || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |now| now.as_millis() as u64);
    Generation(if inode32 { now() & u64::from(u32::MAX) | 1 } else { 0 })
}

/// Unwraps, or answers with the error and returns.
macro_rules! attempt {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(errno) => return $reply.error(errno),
        }
    };
}

impl<B: Backing> Filesystem for Adapter<B> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        let listings = LISTINGS_WITH_LOOKUPS.into_iter().filter(|_| !self.backing.follows());
        let wanted = CAPABILITIES.into_iter().chain(listings);
        for capability in wanted.filter(|&capability| offered.contains(capability)) {
            config
                .add_capabilities(capability)
                .map_err(|refused| io::Error::other(format!("the kernel offered and refused {refused:?}")))?;
        }
        let too_large = |largest| io::Error::other(format!("fuser takes no requests above {largest} bytes"));
        config.set_max_write(MAX_REQUEST).map_err(too_large)?;
        config.set_max_background(MAX_BACKGROUND).map_err(|_| io::Error::other("no background requests"))?;
        self.no_open = offered.contains(InitFlags::FUSE_NO_OPEN_SUPPORT);
        self.no_opendir = offered.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| {
            if parent.0 == self.inodes.own_directory().0 {
                return self.look_up_virtual(name, reply);
            }
            if is_reserved(parent, name) {
                return reply.entry(&TTL, &self.virtual_files.directory(), self.generation);
            }
            let parent = attempt!(reply, self.node(parent));
            let found = self.look_up(request, parent, name);
            reply::found(reply, found, self.generation, self.keep_missing);
        });
    }

    fn forget(&self, _request: &Request, inode: INodeNo, references: u64) {
        guarded(|| {
            if let Ok(Shown::Node(id)) = self.find(inode) {
                self.fs().forget(id, references);
            }
            if let Some(id) = self.inodes.forget(Ino(inode.0), references)
                && self.fs().getattr(id).is_err()
            {
                self.inodes.gone(id);
            }
        });
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| {
            let ino = Ino(inode.0);
            match attempt!(reply, self.find(inode)) {
                Shown::Node(id) => {
                    self.coherence.show(id, request.pid());
                    reply::attributes(reply, ino, self.fs().getattr(id));
                }
                Shown::OwnDirectory => reply.attr(&NO_TTL, &self.virtual_files.directory()),
                Shown::Snapshot(snapshot) => reply.attr(&NO_TTL, &self.virtual_files.stat(ino, &snapshot)),
            }
        });
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
            let id = attempt!(reply, self.changeable(inode));
            let change = SetAttributes {
                mode: mode.map(convert::permissions),
                uid,
                gid,
                size,
                atime: atime.map(convert::time_or_now),
                mtime: mtime.map(convert::time_or_now),
            };
            self.coherence.show(id, request.pid());
            reply::attributes(reply, Ino(inode.0), self.fs().setattr(&convert::caller(request), id, &change));
        });
    }

    fn readlink(&self, _request: &Request, inode: INodeNo, reply: ReplyData) {
        guarded(|| {
            let id = attempt!(reply, self.node(inode));
            match self.fs().readlink(id) {
                Ok(target) => reply.data(&target),
                Err(error) => reply.error(convert::errno(&error)),
            }
        });
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
            let what = match convert::kind_of_mode(mode) {
                Some(FileType::File) => Make::File { mode: permissions },
                Some(kind) => Make::Special { kind, mode: permissions, rdev },
                None => return reply.error(Errno::EINVAL),
            };
            reply::entry(reply, self.make(request, parent, name, what), self.generation);
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
            reply::entry(reply, self.make(request, parent, name, what), self.generation);
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        guarded(|| {
            let what = Make::Symlink { target: target.as_os_str().as_bytes() };
            reply::entry(reply, self.make(request, parent, name, what), self.generation);
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
            let what = Make::File { mode: convert::permissions(mode) };
            match self.make(request, parent, name, what) {
                Ok(attributes) => {
                    let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                    reply.created(&TTL, &attributes, self.generation, FileHandle(0), flags);
                }
                // A command made it since the kernel looked: ESTALE has the kernel look again and check
                // permissions on what is there now.
                Err(errno) if errno.code() == libc::EEXIST && flags & libc::O_EXCL == 0 => {
                    reply.error(Errno::ESTALE)
                }
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            let parent = attempt!(reply, self.changeable_entry(parent, name));
            let gone = self.fs().unlink(&convert::caller(request), parent, name.as_bytes());
            self.changed(request, &gone, gone.iter().copied().chain([parent]));
            reply::empty(reply, gone.map(drop));
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            let parent = attempt!(reply, self.changeable_entry(parent, name));
            let gone = self.fs().rmdir(&convert::caller(request), parent, name.as_bytes());
            self.changed(request, &gone, [parent]);
            reply::empty(reply, gone);
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
            let from = attempt!(reply, self.changeable_entry(parent, name));
            let to = attempt!(reply, self.changeable_entry(new_parent, new_name));
            let Some(flags) = convert::rename_flags(flags) else { return reply.error(Errno::EINVAL) };
            let caller = convert::caller(request);
            let renamed = self.fs().rename(&caller, from, name.as_bytes(), to, new_name.as_bytes(), flags);
            let nodes = renamed.iter().flat_map(|renamed| [Some(renamed.moved), renamed.other]).flatten();
            self.changed(request, &renamed, nodes.chain([from, to]));
            let reparented: Vec<_> =
                renamed.iter().flat_map(|renamed| renamed.reparented).flatten().collect();
            if reparented.is_empty() {
                return reply::empty(reply, renamed.map(drop));
            }
            // The kernel keeps listings, and does not know that `..` in these is another directory now.
            let coherence = self.coherence.clone();
            self.offload(move || {
                for id in reparented {
                    if let Err(error) = coherence.drop_pages(id) {
                        tracing::warn!(node = %id, %error, "the kernel may list an old `..` of a directory that moved");
                    }
                }
                reply::empty(reply, renamed.map(drop));
            });
        });
    }

    fn link(&self, request: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| {
            let id = attempt!(reply, self.changeable(inode));
            let parent = attempt!(reply, self.changeable_entry(parent, name));
            let linked = self.fs().link(&convert::caller(request), id, parent, name.as_bytes());
            self.changed(request, &linked, [id, parent]);
            let linked = linked.map(|attributes| self.entry(&attributes));
            reply::entry(reply, linked.map_err(|error| convert::errno(&error)), self.generation);
        });
    }

    fn open(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.no_open {
            reply.error(Errno::ENOSYS)
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE)
        }
    }

    fn opendir(&self, _request: &Request, _inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.inodes.narrow() {
            // Each listing is asked of us, from its beginning: its end is kept beside its positions.
            reply.opened(FileHandle(self.listings.open()), FopenFlags::empty())
        } else if self.no_opendir {
            reply.error(Errno::ENOSYS)
        } else {
            reply.opened(FileHandle(0), FopenFlags::empty())
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
        self.listings.close(handle.0);
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
            let id = match attempt!(reply, self.find(inode)) {
                Shown::Node(id) => id,
                Shown::OwnDirectory => return reply.error(Errno::EISDIR),
                Shown::Snapshot(snapshot) => {
                    let bytes = &snapshot.bytes;
                    let start = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
                    let end = bytes.len().min(start.saturating_add(size as usize));
                    return reply.data(&bytes[start..end]);
                }
            };
            let mut plan = match self.fs().read(id, offset, size as usize) {
                Ok(plan) => plan,
                Err(error) => return reply.error(convert::errno(&error)),
            };
            let persistence = self.fs().persistence();
            let ahead = self.readahead.note(id, offset, plan.len() as u64);
            if let Some(data) = plan.fill_cached(persistence.as_ref()) {
                reply.data(&data);
            } else {
                let persistence = persistence.clone();
                let is_little = plan.len() <= LITTLE;
                let work = move || match plan.fill(persistence.as_ref()) {
                    Ok(data) => reply.data(&data),
                    Err(error) => {
                        tracing::error!(node = %id, offset, %error, "cannot read");
                        reply.error(Errno::from_i32(error.errno));
                    }
                };
                if is_little { self.readers.read_little(work) } else { self.readers.read(work) }
            }
            if let Some(ahead) = ahead {
                self.prefetch(id, ahead);
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: fuser::WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded(|| {
            let id = attempt!(reply, self.changeable(inode));
            let caller = convert::caller(request);
            // For O_APPEND, too, the kernel says where: it holds the inode's lock and knows the size.
            let flags = WriteFlags {
                append: false,
                kill_suid_gid: write_flags.contains(fuser::WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            };
            if self.backing.has_room() {
                let written = self.fs().write(&caller, id, offset, data, flags);
                if write_flags.contains(fuser::WriteFlags::FUSE_WRITE_CACHE) {
                    // Pages that a program changed through a mapping: whoever writes them back is not that program.
                    self.changed(request, &written, [id]);
                }
                return reply::written(reply, written);
            }
            let (backing, data) = (self.backing.clone(), data.to_vec());
            self.offload(move || {
                let write = || backing.fs().write(&caller, id, offset, &data, flags);
                let written = backing.when_room(data.len() as u64, write);
                reply::written(reply, written);
            });
        });
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        guarded(|| {
            let Shown::Node(_) = attempt!(reply, self.find(inode)) else { return reply.ok() };
            let here = self.readers.here();
            self.backing.fsync(Box::new(move |result| reply::empty(reply, result)), here.is_some());
        });
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
            let id = attempt!(reply, self.changeable(inode));
            let Some(mode) = convert::fallocate_mode(mode) else { return reply.error(Errno::EOPNOTSUPP) };
            let caller = convert::caller(request);
            // A hole needs no room: it must work on a full disk.
            let needs_room = mode != Fallocate::PunchHole;
            if length <= INLINE_FALLOCATE && (!needs_room || self.backing.has_room()) {
                let done = self.fs().fallocate(&caller, id, offset, length, mode);
                self.changed(request, &done, [id]);
                return reply::empty(reply, done);
            }
            let (backing, coherence, thread) = (self.backing.clone(), self.coherence.clone(), request.pid());
            self.offload(move || {
                let work = || backing.fs().fallocate(&caller, id, offset, length, mode);
                let done = if needs_room { backing.when_room(0, work) } else { work() };
                if done.is_ok() {
                    coherence.changed(id, thread);
                }
                reply::empty(reply, done);
            });
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
            // EXDEV has the kernel copy by reading and writing.
            let (Ok(source), Ok(target)) = (self.node(source), self.node(target)) else {
                return reply.error(Errno::EXDEV);
            };
            let (backing, caller) = (self.backing.clone(), convert::caller(request));
            let length = length.min(MAX_COPY);
            self.offload(move || {
                let copied = backing.when_room(length, || {
                    backing.fs().copy_range(&caller, source, source_offset, target, target_offset, length)
                });
                reply::written(reply, copied);
            });
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
            let id = attempt!(reply, self.node(inode));
            let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
            let whence = match whence {
                libc::SEEK_DATA => Whence::Data,
                libc::SEEK_HOLE => Whence::Hole,
                _ => return reply.error(Errno::EINVAL),
            };
            let found = whence.seek(self.fs(), id, offset);
            let size = match self.fs().getattr(id) {
                Ok(attributes) => attributes.size,
                Err(error) => return reply.error(convert::errno(&error)),
            };
            // Data stays data whatever the kernel still holds; a hole may have been filled through a mapping.
            let certain = match (&found, whence) {
                (Ok(found), Whence::Data) => *found == offset,
                (Ok(found), Whence::Hole) => *found == size,
                (Err(_), _) => offset >= size,
            };
            if certain || self.fs().is_read_only() {
                return reply::offset(reply, found);
            }
            let (backing, coherence) = (self.backing.clone(), self.coherence.clone());
            self.offload(move || {
                if let Err(error) = coherence.drop_pages(id) {
                    tracing::error!(node = %id, %error, "the kernel does not write back");
                    return reply.error(Errno::EIO);
                }
                reply::offset(reply, whence.seek(backing.fs(), id, offset));
            });
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
            let Shown::Node(id) = attempt!(reply, self.find(inode)) else {
                for (ino, cookie, kind, name) in self.virtual_files.listing(offset) {
                    if reply.add(INodeNo(ino.0), cookie, kind, name) {
                        break;
                    }
                }
                return reply.ok();
            };
            let mut positions = self.positions(handle, offset);
            let listed = self.fs().readdir(id, positions.from, &mut |entry| {
                let (ino, position) = (self.inodes.number(entry.id), positions.of(entry.offset));
                let kind = convert::file_type(entry.kind);
                !reply.add(INodeNo(ino.0), position, kind, OsStr::from_bytes(entry.name))
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
        mut reply: ReplyDirectoryPlus,
    ) {
        guarded(|| {
            let generation = self.generation;
            let Shown::Node(id) = attempt!(reply, self.find(inode)) else {
                let (backing, files, inodes) =
                    (self.backing.clone(), self.virtual_files.clone(), self.inodes.clone());
                return self.offload(move || {
                    for (_, cookie, _, name) in files.listing(offset) {
                        let attributes = match Content::from_name(name.as_bytes()) {
                            Some(file) => files.look_up(file, backing.content(file)),
                            None => files.directory(),
                        };
                        if reply.add(attributes.ino, cookie, name, &NO_TTL, &attributes, generation) {
                            // It was not the kernel's yet, and is no node.
                            let _ = inodes.forget(Ino(attributes.ino.0), 1);
                            break;
                        }
                    }
                    reply.ok();
                });
            };
            let mut positions = self.positions(handle, offset);
            let listed = self.fs().readdir_plus(id, positions.from, &mut |entry, attributes| {
                self.coherence.show(attributes.id, request.pid());
                let attributes = convert::attributes(self.inodes.number(attributes.id), attributes);
                let (name, position) = (OsStr::from_bytes(entry.name), positions.of(entry.offset));
                let added = !reply.add(attributes.ino, position, name, &TTL, &attributes, generation);
                if added && entry.name != b"." && entry.name != b".." {
                    self.inodes.refer_again(Ino(attributes.ino.0));
                }
                added
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(convert::errno(&error)),
            }
        });
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        guarded(|| {
            let space = self.fs().statfs();
            let block = u64::from(convert::BLOCK_SIZE);
            let (free, available) = (space.free / block, space.available / block);
            // A file needs no inode from a table: as many more fit as there are blocks.
            let files = self.fs().node_count() + available;
            reply.statfs(
                space.total / block,
                free,
                available,
                files,
                available,
                convert::BLOCK_SIZE,
                MAX_NAME as u32,
                convert::BLOCK_SIZE,
            );
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
            let id = attempt!(reply, self.changeable(inode));
            let Some(mode) = convert::set_xattr(flags) else { return reply.error(Errno::EINVAL) };
            let set = self.fs().setxattr(&convert::caller(request), id, name.as_bytes(), value, mode);
            self.changed(request, &set, [id]);
            reply::empty(reply, set);
        });
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded(|| {
            let id = attempt!(reply, self.node(inode));
            reply::xattr(reply, size, self.fs().getxattr(id, name.as_bytes()));
        });
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        guarded(|| {
            let id = attempt!(reply, self.node(inode));
            reply::xattr(reply, size, self.fs().listxattr(&convert::caller(request), id));
        });
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            let id = attempt!(reply, self.changeable(inode));
            let removed = self.fs().removexattr(&convert::caller(request), id, name.as_bytes());
            self.changed(request, &removed, [id]);
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
