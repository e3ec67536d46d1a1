//! Permissions, for callers whose kernel has not checked them.

use crate::tree::node::Node;
use crate::{Caller, Errno};

/// Permission to search a directory or execute.
pub(crate) const EXECUTE: u16 = 1;
/// Permission to read a file or list a directory.
pub(crate) const READ: u16 = 4;
/// Permission to change.
pub(crate) const WRITE: u16 = 2;

pub(crate) const SET_UID: u16 = 0o4000;
pub(crate) const SET_GID: u16 = 0o2000;
pub(crate) const STICKY: u16 = 0o1000;
const GROUP_EXECUTE: u16 = 0o010;

/// Whether the caller has all the permissions in `mask` on a node.
pub(crate) fn permit(caller: &Caller, node: &Node, mask: u16) -> Result<(), Errno> {
    if caller.checked || caller.is_root() {
        return Ok(());
    }
    let granted = granted(caller, node.uid, node.gid, node.mode);
    if granted & mask == mask { Ok(()) } else { Err(Errno::ACCES) }
}

/// The permissions that a caller has by the mode of a node of this user and group: [`READ`], [`WRITE`], [`EXECUTE`].
pub(crate) fn granted(caller: &Caller, uid: u32, gid: u32, mode: u16) -> u16 {
    let of_class = if caller.uid == uid {
        mode >> 6
    } else if caller.in_group(gid) {
        mode >> 3
    } else {
        mode
    };
    of_class & (READ | WRITE | EXECUTE)
}

/// Whether the caller owns the node or is the superuser.
pub(crate) fn own(caller: &Caller, node: &Node) -> Result<(), Errno> {
    if caller.checked || caller.is_root() || caller.uid == node.uid { Ok(()) } else { Err(Errno::PERM) }
}

/// Whether the caller may take an entry that stands for `child` out of `directory`.
pub(crate) fn permit_removal(caller: &Caller, directory: &Node, child: &Node) -> Result<(), Errno> {
    permit(caller, directory, WRITE | EXECUTE)?;
    let sticky = directory.mode & STICKY != 0;
    if caller.checked || !sticky || caller.is_root() || caller.uid == child.uid || caller.uid == directory.uid
    {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// The mode after content or owner changed: setuid goes, and setgid where it means execution
/// (without group execution it once meant mandatory locking, and Linux leaves it).
pub(crate) fn without_privileges(mode: u16) -> u16 {
    let mode = mode & !SET_UID;
    if mode & GROUP_EXECUTE != 0 { mode & !SET_GID } else { mode }
}

/// Takes setuid, setgid and file capabilities from a regular file because the kernel asks for it, before a caller that is not
/// the superuser changes content: it sends a change of no attributes at all. Where there is setgid alone it has looked at all
/// of the caller's groups before asking; where there is setuid as well, it asks whatever they are.
pub(crate) fn revoke_privileges(caller: &Caller, node: &mut Node) {
    let both = node.mode & (SET_UID | SET_GID) == SET_UID | SET_GID;
    let keeps_set_gid = both && node.mode & GROUP_EXECUTE == 0 && caller.in_group(node.gid);
    drop_privileges(node);
    if !node.is_directory() && !keeps_set_gid {
        node.mode &= !SET_GID;
    }
}

/// The extended attribute that file capabilities are kept in; it goes with setuid.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// Takes setuid, setgid and file capabilities from a regular file.
pub(crate) fn drop_privileges(node: &mut Node) {
    if node.is_directory() {
        return;
    }
    node.mode = without_privileges(node.mode);
    if let Some(xattrs) = &mut node.xattrs {
        xattrs.remove(CAPABILITY);
        if xattrs.is_empty() {
            node.xattrs = None;
        }
    }
}
