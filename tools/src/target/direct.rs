//! A pond's tree without a mount: TinyFS, opened by the Steward in this process.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use pond_steward::{Reader, Steward};
use pond_tinyfs::{
    Attributes, Caller, Error, FileType, Make, NodeId, RenameFlags, SetAttributes, SetXattr, TimeOrNow,
    Timestamp, TinyFs, WriteFlags,
};

use crate::path::TreePath;
use crate::target::file_tree::{FileTree, Identity, Sink, Source, Stat};
use crate::target::owners::Owners;

/// The tree of a pond that this process has opened, for writing or at some version.
pub struct DirectTree {
    fs: Arc<TinyFs>,
    /// Who says when there is room for a write.
    writer: Option<Arc<Steward>>,
    caller: Caller,
    umask: u32,
    /// Whose nodes are shown as whose.
    owners: Owners,
}

impl DirectTree {
    /// On behalf of the user who runs this process, with the same permission checks as through a mount.
    pub fn to_write(steward: Arc<Steward>) -> io::Result<Self> {
        DirectTree::new(steward.fs().clone(), Some(steward))
    }

    /// The same of a version that is only read.
    pub fn to_read(reader: &Reader) -> io::Result<Self> {
        DirectTree::new(reader.fs().clone(), None)
    }

    /// The same, in which nodes have other owners.
    pub fn with_owners(self, owners: Owners) -> Self {
        DirectTree { owners, ..self }
    }

    fn new(fs: Arc<TinyFs>, writer: Option<Arc<Steward>>) -> io::Result<Self> {
        // SAFETY: these two only read the process's credentials and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let caller = Caller::unchecked(uid, gid, supplementary_groups()?);
        Ok(DirectTree { fs, writer, caller, umask: umask(), owners: Owners::default() })
    }

    fn fs(&self) -> &TinyFs {
        &self.fs
    }

    /// Tells this open pond from every other in this process.
    fn realm(&self) -> usize {
        Arc::as_ptr(&self.fs).addr()
    }

    fn node(&self, path: &TreePath) -> io::Result<Attributes> {
        self.fs().resolve(&path.to_bytes()).map_err(os_error)
    }

    /// The directory that holds a path's last name, and that name.
    fn entry<'a>(&self, path: &'a TreePath) -> io::Result<(NodeId, &'a [u8])> {
        match path.name() {
            Some(name) => Ok((self.node(&path.parent())?.id, name)),
            None => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        }
    }

    fn make(&self, path: &TreePath, what: Make<'_>) -> io::Result<NodeId> {
        let (parent, name) = self.entry(path)?;
        let made = self.fs().make(&self.caller, parent, name, what).map_err(os_error)?;
        self.fs().forget(made.id, 1);
        Ok(made.id)
    }

    fn set(&self, path: &TreePath, change: SetAttributes) -> io::Result<()> {
        let node = self.node(path)?.id;
        self.fs().setattr(&self.caller, node, &change).map_err(os_error).map(drop)
    }
}

/// TinyFS's errors as the system's; where storage failed its own words are kept.
fn os_error(error: Error) -> io::Error {
    match error {
        Error::Errno(errno) => io::Error::from_raw_os_error(errno.0),
        Error::Storage(error) if error.errno == libc::EIO => io::Error::other(error),
        Error::Storage(error) => io::Error::from_raw_os_error(error.errno),
    }
}

fn supplementary_groups() -> io::Result<Vec<u32>> {
    // SAFETY: a size of 0 asks for the number alone; then the buffer has the size given.
    unsafe {
        let size = libc::getgroups(0, std::ptr::null_mut());
        let mut groups = vec![0; usize::try_from(size).map_err(|_| io::Error::last_os_error())?];
        let size = libc::getgroups(size, groups.as_mut_ptr());
        groups.truncate(usize::try_from(size).map_err(|_| io::Error::last_os_error())?);
        Ok(groups)
    }
}

fn umask() -> u32 {
    // There is no way to read it but to set it. What another thread makes in between gets fewer permissions, which
    // harms nothing within a pond's directory.
    // SAFETY: neither call can fail.
    unsafe {
        let mask = libc::umask(0o077);
        libc::umask(mask);
        mask
    }
}

fn stat_of(attributes: &Attributes, realm: usize) -> Stat {
    // The inverse of the kernel's new_encode_dev.
    let rdev = attributes.rdev;
    let device = ((rdev & 0xfff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
    Stat {
        identity: Identity { realm, device: 0, inode: attributes.id.get() },
        kind: attributes.kind,
        mode: u32::from(attributes.mode),
        nlink: u64::from(attributes.nlink),
        uid: attributes.uid,
        gid: attributes.gid,
        size: attributes.size,
        allocated: attributes.blocks.saturating_mul(512),
        device,
        atime: attributes.atime,
        mtime: attributes.mtime,
    }
}

/// The kernel's new_encode_dev.
fn encode_device((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// Permission bits, which fit by their mask.
fn bits(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

struct OpenNode<'a> {
    tree: &'a DirectTree,
    node: NodeId,
}

impl Source for OpenNode<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let fs = self.tree.fs();
        let plan = fs.read(self.node, offset, buffer.len()).map_err(os_error)?;
        let bytes = plan.fill(fs.persistence().as_ref()).map_err(|error| os_error(error.into()))?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn data_after(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let fs = self.tree.fs();
        let start = match fs.seek_data(self.node, offset) {
            Err(error) if error.errno() == libc::ENXIO => return Ok(None),
            start => start.map_err(os_error)?,
        };
        Ok(Some(start..fs.seek_hole(self.node, start).map_err(os_error)?))
    }
}

impl Sink for OpenNode<'_> {
    fn write_at(&mut self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            if let Some(writer) = &self.tree.writer {
                writer.wait_for_room().map_err(os_error)?;
            }
            let fs = self.tree.fs();
            let flags = WriteFlags::default();
            let written = fs.write(&self.tree.caller, self.node, offset, data, flags).map_err(os_error)?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            data = &data[written..];
        }
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> io::Result<()> {
        let change = SetAttributes { size: Some(size), ..SetAttributes::default() };
        self.tree.fs().setattr(&self.tree.caller, self.node, &change).map_err(os_error).map(drop)
    }
}

impl FileTree for DirectTree {
    fn stat(&self, path: &TreePath) -> io::Result<Stat> {
        self.node(path).map(|attributes| self.owners.shown(stat_of(&attributes, self.realm())))
    }

    fn entries(&self, directory: &TreePath) -> io::Result<Vec<(Vec<u8>, Stat)>> {
        let directory = self.node(directory)?.id;
        let mut found = Vec::new();
        let mut each = |entry: &pond_tinyfs::DirEntry<'_>| {
            if !matches!(entry.name, b"." | b"..") {
                found.push((entry.name.to_vec(), entry.id));
            }
            true
        };
        self.fs().readdir(directory, 0, &mut each).map_err(os_error)?;
        found.sort_unstable();
        found
            .into_iter()
            .map(|(name, id)| {
                let attributes = self.fs().getattr(id).map_err(os_error)?;
                Ok((name, self.owners.shown(stat_of(&attributes, self.realm()))))
            })
            .collect()
    }

    fn read_link(&self, path: &TreePath) -> io::Result<Vec<u8>> {
        let node = self.node(path)?.id;
        self.fs().readlink(node).map(|target| target.to_vec()).map_err(os_error)
    }

    fn open(&self, path: &TreePath) -> io::Result<Box<dyn Source + '_>> {
        let attributes = self.node(path)?;
        match attributes.kind {
            FileType::File | FileType::Dynamic => Ok(Box::new(OpenNode { tree: self, node: attributes.id })),
            FileType::Directory => Err(io::Error::from_raw_os_error(libc::EISDIR)),
            _ => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    fn open_to_write(&self, path: &TreePath) -> io::Result<Box<dyn Sink + '_>> {
        let node = self.node(path)?.id;
        Ok(Box::new(OpenNode { tree: self, node }))
    }

    fn create(&self, path: &TreePath) -> io::Result<Box<dyn Sink + '_>> {
        let node = self.make(path, Make::File { mode: 0o600 })?;
        Ok(Box::new(OpenNode { tree: self, node }))
    }

    fn make_directory(&self, path: &TreePath, mode: u32) -> io::Result<()> {
        self.make(path, Make::Directory { mode: bits(mode & !self.umask) }).map(drop)
    }

    fn make_symlink(&self, path: &TreePath, target: &[u8]) -> io::Result<()> {
        self.make(path, Make::Symlink { target }).map(drop)
    }

    fn make_special(&self, path: &TreePath, kind: FileType, device: (u32, u32)) -> io::Result<()> {
        self.make(path, Make::Special { kind, mode: 0o600, rdev: encode_device(device) }).map(drop)
    }

    fn link(&self, existing: &TreePath, new: &TreePath) -> io::Result<()> {
        let node = self.node(existing)?.id;
        let (parent, name) = self.entry(new)?;
        let linked = self.fs().link(&self.caller, node, parent, name).map_err(os_error)?;
        self.fs().forget(linked.id, 1);
        Ok(())
    }

    fn unlink(&self, path: &TreePath) -> io::Result<()> {
        let (parent, name) = self.entry(path)?;
        self.fs().unlink(&self.caller, parent, name).map(drop).map_err(os_error)
    }

    fn remove_directory(&self, path: &TreePath) -> io::Result<()> {
        let (parent, name) = self.entry(path)?;
        self.fs().rmdir(&self.caller, parent, name).map_err(os_error)
    }

    fn rename(&self, from: &TreePath, to: &TreePath) -> io::Result<()> {
        let (parent, name) = self.entry(from)?;
        let (new_parent, new_name) = self.entry(to)?;
        let flags = RenameFlags::default();
        self.fs().rename(&self.caller, parent, name, new_parent, new_name, flags).map(drop).map_err(os_error)
    }

    fn set_owner(&self, path: &TreePath, uid: u32, gid: u32) -> io::Result<()> {
        self.set(path, SetAttributes { uid: Some(uid), gid: Some(gid), ..SetAttributes::default() })
    }

    fn set_mode(&self, path: &TreePath, mode: u32) -> io::Result<()> {
        self.set(path, SetAttributes { mode: Some(bits(mode)), ..SetAttributes::default() })
    }

    fn set_times(&self, path: &TreePath, atime: Timestamp, mtime: Timestamp) -> io::Result<()> {
        let at = |time| Some(TimeOrNow::At(time));
        self.set(path, SetAttributes { atime: at(atime), mtime: at(mtime), ..SetAttributes::default() })
    }

    fn xattrs(&self, path: &TreePath) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let node = self.node(path)?.id;
        let names = self.fs().listxattr(&self.caller, node).map_err(os_error)?;
        names
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| Ok((name.to_vec(), self.fs().getxattr(node, name).map_err(os_error)?)))
            .collect()
    }

    fn set_xattr(&self, path: &TreePath, name: &[u8], value: &[u8]) -> io::Result<()> {
        let node = self.node(path)?.id;
        self.fs().setxattr(&self.caller, node, name, value, SetXattr::Any).map_err(os_error)
    }

    fn remove_xattr(&self, path: &TreePath, name: &[u8]) -> io::Result<()> {
        let node = self.node(path)?.id;
        self.fs().removexattr(&self.caller, node, name).map_err(os_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_their_encoding() {
        for device in [(0, 0), (8, 1), (259, 70_000), (4095, 0xfffff)] {
            let rdev = encode_device(device);
            let decoded = ((rdev & 0xfff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
            assert_eq!(decoded, device);
        }
    }
}
