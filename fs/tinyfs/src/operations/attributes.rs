//! Attributes: chmod, chown, truncate, utimensat; extended attributes.

use crate::operations::access::{self, SET_GID, WRITE};
use crate::tree::node::Node;
use crate::types::limits::MAX_SIZE;
use crate::{Attributes, Caller, Errno, Error, NodeId, SetAttributes, TimeOrNow, Timestamp, TinyFs};

/// Longest value of an extended attribute in bytes (`XATTR_SIZE_MAX`).
const MAX_XATTR: usize = 65_536;

/// Longest list of a node's extended attribute names in bytes (`XATTR_LIST_MAX`).
const MAX_XATTR_LIST: usize = 65_536;

/// Most bytes of a node's extended attributes, names and values: they are kept in memory and written with each change of the
/// node's attributes.
const MAX_XATTRS: usize = 1 << 20;

/// How to set an extended attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetXattr {
    /// Whether it is there or not.
    Any,
    /// `XATTR_CREATE`: fail with `EEXIST` if it is there.
    Create,
    /// `XATTR_REPLACE`: fail with `ENODATA` if it is not.
    Replace,
}

impl TinyFs {
    /// Changes attributes; all or none.
    pub fn setattr(&self, caller: &Caller, id: NodeId, change: &SetAttributes) -> Result<Attributes, Error> {
        let mut tree = self.change()?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        check(caller, node, change)?;

        let lsn = tree.begin();
        let mut resized = false;
        if let Some(size) = change.size {
            let before = tree.get(id)?.size;
            if size < before {
                tree.punch(id, size, None, lsn)?;
            }
            let node = tree.get_mut(id)?;
            node.size = size;
            node.mtime = now;
            resized = true;
        }
        let node = tree.get_mut(id)?;
        if let Some(mode) = change.mode {
            node.mode = mode & 0o7777;
            if !caller.checked && !caller.is_root() && !caller.in_group(node.gid) && !node.is_directory() {
                node.mode &= !SET_GID;
            }
        }
        if change.uid.is_some() || change.gid.is_some() {
            node.uid = change.uid.unwrap_or(node.uid);
            node.gid = change.gid.unwrap_or(node.gid);
            if change.mode.is_none() {
                access::drop_privileges(node);
            }
        }
        if resized && !caller.is_root() && change.mode.is_none() {
            access::drop_privileges(node);
        }
        if *change == SetAttributes::default() && !caller.is_root() {
            access::revoke_privileges(caller, node);
        }
        let time = |time| match time {
            TimeOrNow::Now => now,
            TimeOrNow::At(time) => time,
        };
        node.atime = change.atime.map_or(node.atime, time);
        node.mtime = change.mtime.map_or(node.mtime, time);
        node.ctime = now;
        let attributes = node.attributes();
        tree.touch(id, lsn);
        Ok(attributes)
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &self,
        caller: &Caller,
        id: NodeId,
        name: &[u8],
        value: &[u8],
        mode: SetXattr,
    ) -> Result<(), Error> {
        check_xattr_name(name)?;
        if value.len() > MAX_XATTR {
            return Err(Errno::TOOBIG.into());
        }
        let mut tree = self.grow(value.len() as u64)?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        permit_xattr(caller, node, name)?;
        let there = node.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(name));
        match mode {
            SetXattr::Create if there => return Err(Errno::EXIST.into()),
            SetXattr::Replace if !there => return Err(Errno::NODATA.into()),
            _ => {}
        }
        let names =
            node.xattrs.iter().flat_map(|xattrs| xattrs.keys()).map(|name| name.len() + 1).sum::<usize>();
        if !there && names + name.len() + 1 > MAX_XATTR_LIST {
            return Err(Errno::NOSPC.into());
        }
        let others =
            node.xattrs.iter().flat_map(|xattrs| xattrs.iter()).filter(|(other, _)| &***other != name);
        let bytes = others.map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if bytes + name.len() + value.len() > MAX_XATTRS {
            return Err(Errno::NOSPC.into());
        }

        let lsn = tree.begin();
        let node = tree.get_mut(id)?;
        node.xattrs.get_or_insert_default().insert(name.into(), value.into());
        node.ctime = now;
        tree.touch(id, lsn);
        Ok(())
    }

    /// An extended attribute's value.
    pub fn getxattr(&self, id: NodeId, name: &[u8]) -> Result<Vec<u8>, Error> {
        check_xattr_name(name)?;
        let tree = self.tree();
        let xattrs = tree.find(id)?.xattrs.as_ref();
        let value = xattrs.and_then(|xattrs| xattrs.get(name)).ok_or(Errno::NODATA)?;
        Ok(value.to_vec())
    }

    /// The names of a node's extended attributes, each followed by a NUL; those in `trusted.` for the superuser only.
    pub fn listxattr(&self, caller: &Caller, id: NodeId) -> Result<Vec<u8>, Error> {
        let tree = self.tree();
        let mut list = Vec::new();
        for name in tree.find(id)?.xattrs.iter().flat_map(|xattrs| xattrs.keys()) {
            if name.starts_with(b"trusted.") && !caller.is_root() {
                continue;
            }
            list.extend_from_slice(name);
            list.push(0);
        }
        Ok(list)
    }

    /// Takes an extended attribute away.
    pub fn removexattr(&self, caller: &Caller, id: NodeId, name: &[u8]) -> Result<(), Error> {
        check_xattr_name(name)?;
        let mut tree = self.change()?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        permit_xattr(caller, node, name)?;
        if !node.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(name)) {
            return Err(Errno::NODATA.into());
        }

        let lsn = tree.begin();
        let node = tree.get_mut(id)?;
        if let Some(xattrs) = &mut node.xattrs {
            xattrs.remove(name);
            if xattrs.is_empty() {
                node.xattrs = None;
            }
        }
        node.ctime = now;
        tree.touch(id, lsn);
        Ok(())
    }
}

fn check(caller: &Caller, node: &Node, change: &SetAttributes) -> Result<(), Errno> {
    if let Some(size) = change.size {
        node.content()?;
        if size > MAX_SIZE {
            return Err(Errno::FBIG);
        }
        // A descriptor open for writing needs no permission; who has one has been checked.
        access::permit(caller, node, WRITE)?;
    }
    if change.mode.is_some() {
        access::own(caller, node)?;
    }
    if !caller.checked && !caller.is_root() {
        if change.uid.is_some_and(|uid| uid != node.uid || caller.uid != node.uid) {
            return Err(Errno::PERM);
        }
        if change.gid.is_some_and(|gid| caller.uid != node.uid || !(gid == node.gid || caller.in_group(gid)))
        {
            return Err(Errno::PERM);
        }
    }
    let sets = |time: Option<TimeOrNow>| matches!(time, Some(TimeOrNow::At(_)));
    if sets(change.atime) || sets(change.mtime) {
        access::own(caller, node)?;
    } else if change.atime.is_some() || change.mtime.is_some() {
        access::own(caller, node).or_else(|_| access::permit(caller, node, WRITE))?;
    }
    Ok(())
}

/// Only these namespaces; what would have to be enforced and is not, such as POSIX ACLs in
/// `system.`, is refused and never stored.
fn check_xattr_name(name: &[u8]) -> Result<(), Errno> {
    const NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    if name.len() > crate::MAX_NAME {
        return Err(Errno::RANGE);
    }
    let Some(namespace) = NAMESPACES.iter().find(|namespace| name.starts_with(namespace)) else {
        return Err(Errno::OPNOTSUPP);
    };
    if name.len() == namespace.len() || name.contains(&0) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

fn permit_xattr(caller: &Caller, node: &Node, name: &[u8]) -> Result<(), Errno> {
    if caller.checked || caller.is_root() {
        return Ok(());
    }
    if name.starts_with(b"user.") { access::permit(caller, node, WRITE) } else { Err(Errno::PERM) }
}
