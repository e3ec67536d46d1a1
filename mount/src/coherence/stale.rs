//! What the tree calls stale, in the kernel's terms.
//!
//! Two things make the order matter. A reply that is on its way may still bring what was true before: whoever looks
//! up or lists holds the directory's lock until the reply is in place, so a message that takes that lock comes after
//! all such replies, and what is dropped after it stays dropped. And a directory can be called gone only once the
//! kernel has no names in it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use fuser::{INodeNo, Notifier};
use pond_tinyfs::{NodeId, Stale, TinyFs};

/// A name that is asked to be dropped for the sake of its directory's lock. Should it exist, it is looked up again.
const NO_NAME: &[u8] = b"\x01";

/// A message to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// Look the name up again.
    Name { parent: INodeNo, name: Box<[u8]> },
    /// The name is gone, and with it the node, which may be open still. Watchers (inotify) hear of it.
    Gone { parent: INodeNo, name: Box<[u8]>, child: INodeNo },
    /// Wait for lookups and listings that are under way in this directory.
    Settle(INodeNo),
    /// Ask for the attributes again.
    Attributes(INodeNo),
    /// Ask for attributes and bytes again: a file's content, a directory's listing.
    Pages(INodeNo),
}

/// What the kernel must be told, in this order. Where others' changes are published (`follows`), the bytes under an id
/// never change, so pages stay.
pub(crate) fn notes(fs: &TinyFs, stale: &[Stale], follows: bool) -> Vec<Note> {
    let inode = |id: &NodeId| INodeNo(id.get());
    let mut notes = Vec::with_capacity(stale.len() + 8);
    let mut settled = HashSet::new();
    let mut listings = HashSet::new();
    for stale in stale {
        match stale {
            Stale::Name { parent, name, child } => {
                settled.insert(*parent);
                let (parent, name, child_inode) = (inode(parent), name.clone(), inode(child));
                // Called gone, a directory would answer nothing any more, and a file say that it has no links.
                notes.push(match fs.has_name(*child) {
                    true => Note::Name { parent, name },
                    false => Note::Gone { parent, name, child: child_inode },
                });
            }
            Stale::Listing(id) => drop(listings.insert(*id)),
            Stale::Attributes(_) => {}
        }
    }
    for stale in stale {
        let directories = match stale {
            Stale::Attributes(id) => fs.found_in(*id),
            Stale::Listing(id) => vec![*id],
            Stale::Name { .. } => continue,
        };
        notes.extend(directories.iter().filter(|id| settled.insert(**id)).map(|id| Note::Settle(inode(id))));
    }
    for stale in stale {
        match stale {
            Stale::Attributes(id) if listings.contains(id) => {}
            Stale::Attributes(id) if follows => notes.push(Note::Attributes(inode(id))),
            Stale::Attributes(id) | Stale::Listing(id) => notes.push(Note::Pages(inode(id))),
            Stale::Name { .. } => {}
        }
    }
    notes
}

impl Note {
    /// Tells the kernel. It may wait for programs that look something up: not for session threads, and not under a
    /// lock.
    pub(crate) fn tell(&self, notifier: &Notifier) -> io::Result<()> {
        match self {
            Note::Name { parent, name } => notifier.inval_entry(*parent, OsStr::from_bytes(name)),
            Note::Gone { parent, name, child } => {
                let name = OsStr::from_bytes(name);
                // It is refused where something is mounted on the name, say.
                notifier.delete(*parent, *child, name).or_else(|_| notifier.inval_entry(*parent, name))
            }
            Note::Settle(directory) => notifier.inval_entry(*directory, OsStr::from_bytes(NO_NAME)),
            // A negative offset means attributes only.
            Note::Attributes(inode) => notifier.inval_inode(*inode, -1, 0),
            Note::Pages(inode) => notifier.inval_inode(*inode, 0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pond_tinyfs::{Caller, Make, MemoryPersistence, Timestamp, root_row};

    #[test]
    fn the_kernel_is_told_names_then_made_to_settle_then_told_the_rest() {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store);
        let make = |parent, name: &[u8]| {
            fs.make(&Caller::root(), parent, name, Make::Directory { mode: 0o755 }).unwrap().id
        };
        let (a, b) = (make(NodeId::ROOT, b"a"), make(NodeId::ROOT, b"b"));
        let (in_a, in_b) = (make(a, b"x"), make(b, b"y"));
        let gone = make(b, b"gone");
        fs.rmdir(&Caller::root(), b, b"gone").unwrap();
        let inode = |id: NodeId| INodeNo(id.get());
        let name = |parent, name: &[u8], child| Stale::Name { parent, name: name.into(), child };
        let stale = [
            // Moved: it is somewhere else now.
            name(b, b"was here", in_a),
            name(b, b"gone", gone),
            Stale::Attributes(in_a),
            Stale::Attributes(in_b),
            Stale::Attributes(b),
            Stale::Listing(b),
        ];
        let names = [
            Note::Name { parent: inode(b), name: b"was here".as_slice().into() },
            Note::Gone { parent: inode(b), name: b"gone".as_slice().into(), child: inode(gone) },
            // Not `b`: the names have seen to that.
            Note::Settle(inode(a)),
            Note::Settle(INodeNo::ROOT),
        ];
        let follower = [Note::Attributes(inode(in_a)), Note::Attributes(inode(in_b)), Note::Pages(inode(b))];
        let source = [Note::Pages(inode(in_a)), Note::Pages(inode(in_b)), Note::Pages(inode(b))];
        assert_eq!(notes(&fs, &stale, true), [names.as_slice(), &follower].concat());
        assert_eq!(notes(&fs, &stale, false), [names.as_slice(), &source].concat());
    }
}
