//! What the tree calls stale, in the kernel's terms.
//!
//! Two things make the order matter. A reply that is on its way may still bring what was true before: whoever looks
//! up or lists holds the directory's lock until the reply is in place, so a message that takes that lock comes after
//! all such replies, and what is dropped after it stays dropped. And a directory can be called gone only once the
//! kernel has no names in it.

use std::collections::HashSet;
use std::io;

use pond_tinyfs::{NodeId, Stale, TinyFs};

use crate::coherence::kernel::Kernel;
use crate::inodes::table::Inodes;

/// A name that is asked to be dropped for the sake of its directory's lock. Should it exist, it is looked up again.
const NO_NAME: &[u8] = b"\x01";

/// A message to the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Note {
    /// Look the name up again.
    Name { parent: NodeId, name: Box<[u8]> },
    /// The name is gone, and with it the node, which may be open still. Watchers (inotify) hear of it.
    Gone { parent: NodeId, name: Box<[u8]>, child: NodeId },
    /// Wait for lookups and listings that are under way in this directory.
    Settle(NodeId),
    /// Ask for the attributes again.
    Attributes(NodeId),
    /// Ask for attributes and bytes again: a file's content, a directory's listing.
    Pages(NodeId),
}

/// What the kernel must be told, in this order. Where others' changes are published (`follows`), the bytes under an id
/// never change, so pages stay.
pub(crate) fn notes(fs: &TinyFs, stale: &[Stale], follows: bool) -> Vec<Note> {
    let mut notes = Vec::with_capacity(stale.len() + 8);
    let mut settled = HashSet::new();
    let mut listings = HashSet::new();
    for stale in stale {
        match stale {
            Stale::Name { parent, name, child } => {
                settled.insert(*parent);
                let (parent, name, child) = (*parent, name.clone(), *child);
                // Called gone, a directory would answer nothing any more, and a file say that it has no links.
                notes.push(match fs.has_name(child) {
                    true => Note::Name { parent, name },
                    false => Note::Gone { parent, name, child },
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
        notes.extend(directories.iter().filter(|id| settled.insert(**id)).copied().map(Note::Settle));
    }
    for stale in stale {
        match stale {
            Stale::Attributes(id) if listings.contains(id) => {}
            Stale::Attributes(id) if follows => notes.push(Note::Attributes(*id)),
            Stale::Attributes(id) | Stale::Listing(id) => notes.push(Note::Pages(*id)),
            Stale::Name { .. } => {}
        }
    }
    notes
}

impl Note {
    /// Tells the kernel. It may wait for programs that look something up: not for session threads, and not under a
    /// lock. Of a node whose number it was never given it knows nothing. That is looked at here, when what it was told of before
    /// has taken effect: a reply that was on its way has given the number by now.
    pub(crate) fn tell(&self, kernel: &dyn Kernel, inodes: &Inodes) -> io::Result<()> {
        let (Note::Name { parent: node, .. }
        | Note::Gone { parent: node, .. }
        | Note::Settle(node)
        | Note::Attributes(node)
        | Note::Pages(node)) = self;
        let known = inodes.known(*node);
        let gone = match self {
            Note::Gone { child, .. } => {
                let number = inodes.known(*child);
                inodes.gone(*child);
                number
            }
            _ => None,
        };
        let Some(ino) = known else { return Ok(()) };
        match (self, gone) {
            // It is refused where something is mounted on the name, say.
            (Note::Gone { name, .. }, Some(child)) => {
                kernel.name_is_gone(ino, name, child).or_else(|_| kernel.drop_name(ino, name))
            }
            (Note::Gone { name, .. } | Note::Name { name, .. }, _) => kernel.drop_name(ino, name),
            (Note::Settle(_), _) => kernel.drop_name(ino, NO_NAME),
            (Note::Attributes(_), _) => kernel.drop_attributes(ino),
            (Note::Pages(_), _) => kernel.drop_pages(ino),
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
            Note::Name { parent: b, name: b"was here".as_slice().into() },
            Note::Gone { parent: b, name: b"gone".as_slice().into(), child: gone },
            // Not `b`: the names have seen to that.
            Note::Settle(a),
            Note::Settle(NodeId::ROOT),
        ];
        let follower = [Note::Attributes(in_a), Note::Attributes(in_b), Note::Pages(b)];
        let source = [Note::Pages(in_a), Note::Pages(in_b), Note::Pages(b)];
        assert_eq!(notes(&fs, &stale, true), [names.as_slice(), &follower].concat());
        assert_eq!(notes(&fs, &stale, false), [names.as_slice(), &source].concat());
    }
}
