//! A tree that the kernel serves: the host's, or a pond's below its mountpoint.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::{Path, PathBuf};

use pond_tinyfs::{FileType, Timestamp};

use crate::path::TreePath;
use crate::target::file_tree::{FileTree, Identity, Sink, Source, Stat};

/// Files below some directory of the host.
#[derive(Clone, Debug)]
pub struct HostTree {
    root: PathBuf,
}

impl HostTree {
    /// All of the host.
    pub fn host() -> Self {
        HostTree { root: PathBuf::from("/") }
    }

    /// A pond, below its mountpoint.
    pub fn mounted(mountpoint: &Path) -> Self {
        HostTree { root: mountpoint.to_path_buf() }
    }

    fn at(&self, path: &TreePath) -> PathBuf {
        self.root.join(OsString::from_vec(path.to_relative()))
    }

    fn c_path(&self, path: &TreePath) -> io::Result<CString> {
        c_string(self.at(path).into_os_string().into_vec())
    }
}

fn c_string(bytes: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The result of a system call that says -1 for an error.
fn checked<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn stat_of(metadata: &fs::Metadata) -> Stat {
    let file_type = metadata.file_type();
    let kind = if file_type.is_dir() {
        FileType::Directory
    } else if file_type.is_symlink() {
        FileType::Symlink
    } else if file_type.is_fifo() {
        FileType::Fifo
    } else if file_type.is_socket() {
        FileType::Socket
    } else if file_type.is_char_device() {
        FileType::CharDevice
    } else if file_type.is_block_device() {
        FileType::BlockDevice
    } else {
        FileType::File
    };
    let time = |seconds, nanoseconds: i64| Timestamp::from_parts(seconds, nanoseconds as u32);
    Stat {
        identity: Identity::of_host(metadata),
        kind,
        mode: metadata.mode() & 0o7777,
        nlink: metadata.nlink(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: metadata.size(),
        allocated: metadata.blocks().saturating_mul(512),
        device: (libc::major(metadata.rdev()), libc::minor(metadata.rdev())),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
    }
}

impl Source for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let seek = |from: u64, whence| {
            let from = i64::try_from(from).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
            // SAFETY: the descriptor is open as long as `self` is.
            checked(unsafe { libc::lseek(self.as_raw_fd(), from, whence) }).map(|position| position as u64)
        };
        let start = match seek(offset, libc::SEEK_DATA) {
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Ok(None),
            start => start?,
        };
        Ok(Some(start..seek(start, libc::SEEK_HOLE)?))
    }
}

impl Sink for File {
    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

impl FileTree for HostTree {
    fn stat(&self, path: &TreePath) -> io::Result<Stat> {
        fs::symlink_metadata(self.at(path)).map(|metadata| stat_of(&metadata))
    }

    fn entries(&self, directory: &TreePath) -> io::Result<Vec<(Vec<u8>, Stat)>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.at(directory))? {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) => entries.push((entry.file_name().into_vec(), stat_of(&metadata))),
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn read_link(&self, path: &TreePath) -> io::Result<Vec<u8>> {
        fs::read_link(self.at(path)).map(|target| target.into_os_string().into_vec())
    }

    fn open(&self, path: &TreePath) -> io::Result<Box<dyn Source + '_>> {
        // Without O_NONBLOCK a fifo that took the file's place would stop us for ever.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        Ok(Box::new(OpenOptions::new().read(true).custom_flags(flags).open(self.at(path))?))
    }

    fn open_to_write(&self, path: &TreePath) -> io::Result<Box<dyn Sink + '_>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        Ok(Box::new(OpenOptions::new().write(true).custom_flags(flags).open(self.at(path))?))
    }

    fn create(&self, path: &TreePath) -> io::Result<Box<dyn Sink + '_>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.at(path))?))
    }

    fn make_directory(&self, path: &TreePath, mode: u32) -> io::Result<()> {
        fs::DirBuilder::new().mode(mode).create(self.at(path))
    }

    fn make_symlink(&self, path: &TreePath, target: &[u8]) -> io::Result<()> {
        symlink(std::ffi::OsStr::from_bytes(target), self.at(path))
    }

    fn make_special(&self, path: &TreePath, kind: FileType, device: (u32, u32)) -> io::Result<()> {
        let path = self.c_path(path)?;
        let device = libc::makedev(device.0, device.1);
        // SAFETY: the path is a NUL-terminated string that outlives the call.
        checked(unsafe { libc::mknod(path.as_ptr(), kind.mode_bits() | 0o600, device) }).map(drop)
    }

    fn link(&self, existing: &TreePath, new: &TreePath) -> io::Result<()> {
        fs::hard_link(self.at(existing), self.at(new))
    }

    fn unlink(&self, path: &TreePath) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn remove_directory(&self, path: &TreePath) -> io::Result<()> {
        fs::remove_dir(self.at(path))
    }

    fn rename(&self, from: &TreePath, to: &TreePath) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn set_owner(&self, path: &TreePath, uid: u32, gid: u32) -> io::Result<()> {
        std::os::unix::fs::lchown(self.at(path), Some(uid), Some(gid))
    }

    fn set_mode(&self, path: &TreePath, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode))
    }

    fn set_times(&self, path: &TreePath, atime: Timestamp, mtime: Timestamp) -> io::Result<()> {
        let path = self.c_path(path)?;
        let times = [atime, mtime]
            .map(|time| libc::timespec { tv_sec: time.seconds(), tv_nsec: i64::from(time.nanoseconds()) });
        let flags = libc::AT_SYMLINK_NOFOLLOW;
        // SAFETY: the path is a NUL-terminated string and `times` two timespecs; both outlive the call.
        checked(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), flags) }).map(drop)
    }

    fn xattrs(&self, path: &TreePath) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let path = self.c_path(path)?;
        let list = grown(|buffer, size| {
            // SAFETY: the path is NUL-terminated, and the buffer has `size` bytes; both outlive the call.
            unsafe { libc::llistxattr(path.as_ptr(), buffer.cast(), size) }
        });
        let names = match list {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            names => names?,
        };
        let mut attributes = Vec::new();
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let c_name = c_string(name)?;
            let value = grown(|buffer, size| {
                // SAFETY: as above; the name is NUL-terminated too.
                unsafe { libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), buffer.cast(), size) }
            });
            match value {
                // Removed since the names were listed.
                Err(error) if error.raw_os_error() == Some(libc::ENODATA) => {}
                value => attributes.push((name.to_vec(), value?)),
            }
        }
        Ok(attributes)
    }

    fn set_xattr(&self, path: &TreePath, name: &[u8], value: &[u8]) -> io::Result<()> {
        let (path, name) = (self.c_path(path)?, c_string(name)?);
        // SAFETY: both strings are NUL-terminated, the value has the length given; all outlive the call.
        checked(unsafe {
            libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
        })
        .map(drop)
    }

    fn remove_xattr(&self, path: &TreePath, name: &[u8]) -> io::Result<()> {
        let (path, name) = (self.c_path(path)?, c_string(name)?);
        // SAFETY: both strings are NUL-terminated and outlive the call.
        checked(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
    }
}

/// Calls a function that fills a buffer, or says with a size of 0 how large it must be, until it fits.
fn grown(fill: impl Fn(*mut u8, usize) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let size = checked(fill(std::ptr::null_mut(), 0))?;
        let mut buffer = vec![0; size as usize];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match checked(fill(buffer.as_mut_ptr(), buffer.len())) {
            Ok(length) => {
                buffer.truncate(length as usize);
                return Ok(buffer);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
            Err(error) => return Err(error),
        }
    }
}
