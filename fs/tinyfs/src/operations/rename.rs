//! Renaming. All is checked before the first change, so that nothing fails half-way.

use crate::operations::access::{self, EXECUTE, WRITE};
use crate::operations::names::check_name;
use crate::tree::node::Node;
use crate::types::limits::MAX_LINKS;
use crate::{Caller, Errno, Error, NodeId, Timestamp, TinyFs};

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

impl TinyFs {
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
        let moves = |node: &Node| (node.is_directory() && parent != new_parent).then_some(node.ino);
        let renamed = Renamed {
            moved: node.ino,
            other: target.map(|target| target.ino),
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
                let spill = tree.drop_link(target, lsn, now);
                drop(tree);
                self.close_spill(spill);
            }
            None => {
                tree.entry_changed(parent, lsn, now, -moved);
                tree.entry_changed(new_parent, lsn, now, moved);
            }
        }
        Ok(renamed)
    }
}
