//! Names: lookup, making and removing, links, rename, reading directories.
//!
//! Each operation checks everything first and changes the tree afterwards, so that none can fail
//! half-way.

use bytes::Bytes;

use crate::access::{self, EXECUTE, SET_GID, WRITE};
use crate::node::{Body, Node};
use crate::{
    Attributes, Caller, Errno, Error, FileType, MAX_NAME, NodeId, NodeRecord, RESERVED_NAME, Timestamp,
    TinyFs, Tree,
};

/// Most links that a node may have; the limit of XFS.
const MAX_LINKS: u32 = 0x7fff_ffff;

/// Longest symlink target in bytes: `PATH_MAX` less the terminating NUL.
const MAX_TARGET: usize = 4095;

/// Most symlinks that resolving one path may follow, as in Linux.
const MAX_SYMLINKS: u32 = 40;

/// What to make. Modes are permission bits with the umask applied.
#[derive(Clone, Copy, Debug)]
pub enum Make<'a> {
    /// An empty regular file.
    File {
        /// Permission bits.
        mode: u16,
    },
    /// An empty directory.
    Directory {
        /// Permission bits.
        mode: u16,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points: any bytes but NUL, 1 to 4095 of them.
        target: &'a [u8],
    },
    /// A fifo, socket or device node.
    Special {
        /// Which of them.
        kind: FileType,
        /// Permission bits.
        mode: u16,
        /// Device number; 0 where there is none.
        rdev: u32,
    },
    /// A factory's node.
    Dynamic {
        /// The factory's name.
        factory: &'a str,
        /// Its configuration.
        configuration: &'a [u8],
        /// Permission bits.
        mode: u16,
    },
}

/// How to rename.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RenameFlags {
    /// `RENAME_NOREPLACE`: fail with `EEXIST` if the new name is taken.
    pub no_replace: bool,
    /// `RENAME_EXCHANGE`: swap the two names.
    pub exchange: bool,
}

/// The nodes that a rename concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The one that has the new name now.
    pub moved: NodeId,
    /// The one that had it before, if any.
    pub other: Option<NodeId>,
    /// Of these, the directories whose `..` is another directory now.
    pub reparented: [Option<NodeId>; 2],
}

fn check_name(parent: NodeId, name: &[u8]) -> Result<(), Errno> {
    if name.len() > MAX_NAME {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    if parent == NodeId::ROOT && name == RESERVED_NAME {
        return Err(Errno::PERM);
    }
    Ok(())
}

/// A new name must not be one of the two that every directory has.
fn check_new_name(parent: NodeId, name: &[u8]) -> Result<(), Errno> {
    if name == b"." || name == b".." {
        return Err(Errno::EXIST);
    }
    check_name(parent, name)
}

impl Tree {
    /// The directory, if it still has a place in the tree.
    fn live_directory(&self, id: NodeId) -> Result<&Node, Errno> {
        let node = self.get(id)?;
        node.directory()?;
        if node.nlink == 0 { Err(Errno::NOENT) } else { Ok(node) }
    }

    fn child(&self, parent: &Node, name: &[u8]) -> Result<Option<&Node>, Errno> {
        match parent.directory()?.get(name) {
            Some(entry) => Ok(Some(self.get(entry.child)?)),
            None => Ok(None),
        }
    }

    fn existing(&self, parent: &Node, name: &[u8]) -> Result<&Node, Errno> {
        self.child(parent, name)?.ok_or(Errno::NOENT)
    }

    /// Whether `below` is `above` or lies somewhere in it.
    fn is_within(&self, below: NodeId, above: NodeId) -> Result<bool, Errno> {
        let mut at = below;
        loop {
            if at == above {
                return Ok(true);
            }
            if at == NodeId::ROOT {
                return Ok(false);
            }
            at = self.get(at)?.directory()?.parent;
        }
    }

    /// A directory's times after one of its entries changed, and its count of subdirectories.
    fn entry_changed(&mut self, id: NodeId, lsn: crate::Lsn, now: Timestamp, subdirectories: i32) {
        if let Ok(node) = self.get_mut(id) {
            node.mtime = now;
            node.ctime = now;
            node.nlink = node.nlink.saturating_add_signed(subdirectories);
            self.touch(id, lsn);
        }
    }

    fn set_parent(&mut self, id: NodeId, parent: NodeId) {
        if let Ok(directory) = self.get_mut(id).and_then(Node::directory_mut) {
            directory.parent = parent;
        }
    }
}

impl TinyFs {
    /// Finds a name in a directory. `.` and `..` are names too.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Attributes, Error> {
        if name.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG.into());
        }
        let tree = self.tree();
        let directory = tree.find(parent)?;
        let node = match name {
            b"." => directory,
            b".." => tree.get(directory.directory()?.parent)?,
            _ => {
                let entry = directory.directory()?.get(name).ok_or(Errno::NOENT)?;
                let node = tree.get(entry.child)?;
                self.refer(node, parent, entry.cookie);
                return Ok(node.attributes());
            }
        };
        node.refer();
        Ok(node.attributes())
    }

    /// Walks an absolute path from the root; a symlink at its end is not followed. Takes no reference.
    pub fn resolve(&self, path: &[u8]) -> Result<Attributes, Error> {
        let tree = self.tree();
        let mut at = NodeId::ROOT;
        let mut links = 0;
        let mut rest: Vec<Vec<u8>> = split(path);
        while let Some(name) = rest.pop() {
            let directory = tree.get(at)?;
            let parent = directory.directory()?.parent;
            let child = match &*name {
                b"." => directory,
                b".." => tree.get(parent)?,
                name => tree.existing(directory, name)?,
            };
            if let Body::Symlink(target) = &child.body
                && !rest.is_empty()
            {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Errno::LOOP.into());
                }
                if target.starts_with(b"/") {
                    at = NodeId::ROOT;
                }
                rest.extend(split(target));
                continue;
            }
            at = child.id;
        }
        Ok(tree.get(at)?.attributes())
    }

    /// The directory that holds a directory; the root is its own.
    pub fn parent(&self, directory: NodeId) -> Result<NodeId, Error> {
        Ok(self.tree().get(directory)?.directory()?.parent)
    }

    /// Where a symlink points.
    pub fn readlink(&self, id: NodeId) -> Result<Bytes, Error> {
        match &self.tree().find(id)?.body {
            Body::Symlink(target) => Ok(Bytes::copy_from_slice(target)),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// A dynamic node's factory and configuration.
    pub fn dynamic(&self, id: NodeId) -> Result<(String, Bytes), Error> {
        match &self.tree().find(id)?.body {
            Body::Dynamic(dynamic) => Ok((dynamic.factory.to_string(), dynamic.configuration.clone())),
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// Makes a node under a name that is free.
    pub fn make(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        what: Make<'_>,
    ) -> Result<Attributes, Error> {
        let (kind, mut mode, rdev, content) = match what {
            Make::File { mode } => (FileType::File, mode, 0, None),
            Make::Directory { mode } => (FileType::Directory, mode, 0, None),
            Make::Symlink { target } => {
                if target.is_empty() {
                    return Err(Errno::NOENT.into());
                }
                if target.len() > MAX_TARGET {
                    return Err(Errno::NAMETOOLONG.into());
                }
                (FileType::Symlink, 0o777, 0, Some(target))
            }
            Make::Special { kind, mode, rdev } => (kind, mode, rdev, None),
            Make::Dynamic { mode, configuration, .. } => (FileType::Dynamic, mode, 0, Some(configuration)),
        };
        let factory = match what {
            Make::Dynamic { factory, .. } => Some(factory.into()),
            _ => None,
        };
        let mut tree = self.grow(content.map_or(0, |content| content.len() as u64))?;
        let now = Timestamp::now();
        let directory = tree.live_directory(parent)?;
        if name != b"." && name != b".." && tree.child(directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        check_new_name(parent, name)?;
        access::permit(caller, directory, WRITE | EXECUTE)?;
        let is_directory = kind == FileType::Directory;
        if is_directory && directory.nlink >= MAX_LINKS {
            return Err(Errno::MLINK.into());
        }
        let mut gid = caller.gid;
        if directory.mode & SET_GID != 0 {
            gid = directory.gid;
            if is_directory {
                mode |= SET_GID;
            }
        }
        let id = tree.new_id()?;

        let lsn = tree.begin();
        let record = NodeRecord {
            kind,
            mode: mode & 0o7777,
            uid: caller.uid,
            gid,
            nlink: if is_directory { 2 } else { 1 },
            size: content.map_or(0, |content| content.len() as u64),
            rdev,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            xattrs: None,
            next_cookie: 0,
            factory,
            content: content.map(Bytes::copy_from_slice),
        };
        let part = if is_directory { id } else { parent };
        let node = Node::from_record(id, part, lsn, 0, record);
        node.refer();
        let attributes = node.attributes();
        tree.add(node);
        tree.set_parent(id, parent);
        if let Ok(directory) = tree.get_mut(parent)?.directory_mut() {
            directory.insert(name, id, kind);
        }
        tree.entry_changed(parent, lsn, now, i32::from(is_directory));
        Ok(attributes)
    }

    /// Gives a node one more name.
    pub fn link(
        &self,
        caller: &Caller,
        id: NodeId,
        parent: NodeId,
        name: &[u8],
    ) -> Result<Attributes, Error> {
        let mut tree = self.grow(0)?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        let directory = tree.live_directory(parent)?;
        if name != b"." && name != b".." && tree.child(directory, name)?.is_some() {
            return Err(Errno::EXIST.into());
        }
        check_new_name(parent, name)?;
        if node.is_directory() {
            return Err(Errno::PERM.into());
        }
        if node.nlink == 0 {
            return Err(Errno::NOENT.into());
        }
        if node.nlink >= MAX_LINKS {
            return Err(Errno::MLINK.into());
        }
        access::permit(caller, directory, WRITE | EXECUTE)?;
        let kind = node.kind;

        let lsn = tree.begin();
        let node = tree.get_mut(id)?;
        node.nlink += 1;
        node.ctime = now;
        node.refer();
        let attributes = node.attributes();
        tree.touch(id, lsn);
        tree.get_mut(parent)?.directory_mut()?.insert(name, id, kind);
        tree.entry_changed(parent, lsn, now, 0);
        Ok(attributes)
    }

    /// Takes a name from a node that is no directory; says which.
    pub fn unlink(&self, caller: &Caller, parent: NodeId, name: &[u8]) -> Result<NodeId, Error> {
        let mut tree = self.change()?;
        let now = Timestamp::now();
        check_name(parent, name)?;
        let directory = tree.get(parent)?;
        if name == b"." || name == b".." {
            return Err(Errno::ISDIR.into());
        }
        let node = tree.existing(directory, name)?;
        access::permit_removal(caller, directory, node)?;
        if node.is_directory() {
            return Err(Errno::ISDIR.into());
        }
        let (id, shown) = (node.id, node.shown);

        let lsn = tree.begin();
        tree.get_mut(parent)?.directory_mut()?.remove(name);
        tree.entry_changed(parent, lsn, now, 0);
        tree.drop_link(id, lsn, now);
        Ok(shown)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, caller: &Caller, parent: NodeId, name: &[u8]) -> Result<(), Error> {
        let mut tree = self.change()?;
        let now = Timestamp::now();
        if name == b"." {
            return Err(Errno::INVAL.into());
        }
        if name == b".." {
            return Err(Errno::NOTEMPTY.into());
        }
        check_name(parent, name)?;
        let directory = tree.get(parent)?;
        let node = tree.existing(directory, name)?;
        access::permit_removal(caller, directory, node)?;
        if !node.directory()?.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        let id = node.id;

        let lsn = tree.begin();
        tree.get_mut(parent)?.directory_mut()?.remove(name);
        tree.entry_changed(parent, lsn, now, -1);
        tree.drop_link(id, lsn, now);
        Ok(())
    }

    /// Moves a node to another name, in one step that no cut splits.
    pub fn rename(
        &self,
        caller: &Caller,
        parent: NodeId,
        name: &[u8],
        new_parent: NodeId,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<Renamed, Error> {
        // A name that is replaced needs no more space than there is; a full disk must not stop it.
        let mut tree = self.change()?;
        let now = Timestamp::now();
        if flags.no_replace && flags.exchange {
            return Err(Errno::INVAL.into());
        }
        let special = |name: &[u8]| name == b"." || name == b"..";
        if special(name) || special(new_name) {
            return Err(Errno::BUSY.into());
        }
        check_name(parent, name)?;
        check_name(new_parent, new_name)?;
        let from = tree.get(parent)?;
        let to = tree.live_directory(new_parent)?;
        let node = tree.existing(from, name)?;
        let target = tree.child(to, new_name)?;
        let (id, kind, is_directory) = (node.id, node.kind, node.is_directory());
        let moves = |node: &Node| (node.is_directory() && parent != new_parent).then_some(node.shown);
        let renamed = Renamed {
            moved: node.shown,
            other: target.map(|target| target.shown),
            reparented: [moves(node), target.filter(|_| flags.exchange).and_then(moves)],
        };

        // The order in which Linux checks (`do_renameat2` in fs/namei.c), so that errors agree.
        if flags.no_replace && target.is_some() {
            return Err(Errno::EXIST.into());
        }
        if flags.exchange && target.is_none() {
            return Err(Errno::NOENT.into());
        }
        if is_directory && tree.is_within(new_parent, id)? {
            return Err(Errno::INVAL.into());
        }
        if let Some(target) = target
            && target.is_directory()
            && tree.is_within(parent, target.id)?
        {
            return Err(if flags.exchange { Errno::INVAL } else { Errno::NOTEMPTY }.into());
        }
        // Two names of one node: nothing to do, says POSIX.
        if target.is_some_and(|target| target.id == id) {
            return Ok(Renamed { other: None, reparented: [None; 2], ..renamed });
        }
        access::permit_removal(caller, from, node)?;
        match target {
            None => access::permit(caller, to, WRITE | EXECUTE)?,
            Some(target) => {
                access::permit_removal(caller, to, target)?;
                match (is_directory, target.directory()) {
                    _ if flags.exchange => {}
                    (true, Err(_)) => return Err(Errno::NOTDIR.into()),
                    (false, Ok(_)) => return Err(Errno::ISDIR.into()),
                    (true, Ok(directory)) if !directory.is_empty() => return Err(Errno::NOTEMPTY.into()),
                    _ => {}
                }
            }
        }
        if parent != new_parent {
            // The `..` of a directory that moves changes.
            for moving in [Some(node), target.filter(|_| flags.exchange)].into_iter().flatten() {
                if moving.is_directory() {
                    access::permit(caller, moving, WRITE)?;
                }
            }
        }
        let target = target.map(|target| (target.id, target.kind, target.is_directory()));
        if is_directory && parent != new_parent && target.is_none() && to.nlink >= MAX_LINKS {
            return Err(Errno::MLINK.into());
        }

        let lsn = tree.begin();
        let moved = i32::from(is_directory && parent != new_parent);
        tree.get_mut(parent)?.directory_mut()?.remove(name);
        if target.is_some() {
            tree.get_mut(new_parent)?.directory_mut()?.remove(new_name);
        }
        tree.get_mut(new_parent)?.directory_mut()?.insert(new_name, id, kind);
        if is_directory {
            tree.set_parent(id, new_parent);
        }
        tree.get_mut(id)?.ctime = now;
        tree.touch(id, lsn);
        match target {
            Some((target, target_kind, target_is_directory)) if flags.exchange => {
                tree.get_mut(parent)?.directory_mut()?.insert(name, target, target_kind);
                if target_is_directory {
                    tree.set_parent(target, parent);
                }
                tree.get_mut(target)?.ctime = now;
                tree.touch(target, lsn);
                let back = i32::from(target_is_directory && parent != new_parent);
                tree.entry_changed(parent, lsn, now, back - moved);
                tree.entry_changed(new_parent, lsn, now, moved - back);
            }
            Some((target, _, target_is_directory)) => {
                tree.entry_changed(parent, lsn, now, -moved);
                tree.entry_changed(new_parent, lsn, now, moved - i32::from(target_is_directory));
                tree.drop_link(target, lsn, now);
            }
            None => {
                tree.entry_changed(parent, lsn, now, -moved);
                tree.entry_changed(new_parent, lsn, now, moved);
            }
        }
        Ok(renamed)
    }
}

/// The names of a path, last first.
fn split(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).rev().map(<[u8]>::to_vec).collect()
}
