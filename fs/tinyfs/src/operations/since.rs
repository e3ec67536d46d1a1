//! What somebody could do to a node in an earlier version, and whether they still can.
//!
//! An earlier version shows the permissions that were. What was locked since must stay locked there: who looks at a node of it
//! must have the permission now as well, for the node itself and for a way to it, and a node that is gone has none to ask.

use crate::operations::access::{EXECUTE, READ, granted};
use crate::tree::node::{Body, Node};
use crate::{Attributes, Caller, FileType, NodeId, TinyFs, Tree};

/// Entries of a directory that are looked through for another name of a node.
const FEW_ENTRIES: usize = 1024;

/// Whether somebody may still do what they could.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// They may.
    Allowed,
    /// They may not, or cannot reach it any more.
    Refused,
    /// The node is gone.
    Gone,
    /// The node is not where it was: [`TinyFs::allows_elsewhere`] looks for it.
    Elsewhere,
}

impl TinyFs {
    /// Whether a caller may still do to a node what its attributes in an earlier version allowed, and reach it. It had this name in
    /// this directory then.
    pub fn allows_since(&self, caller: &Caller, then: &Attributes, parent: NodeId, name: &[u8]) -> Since {
        let tree = self.tree();
        let node = match tree.kept(caller, then) {
            Ok(node) => node,
            Err(since) => return since,
        };
        if let Body::Directory(directory) = &node.body {
            let is_reached = node.id == NodeId::ROOT || tree.reaches(caller, directory.parent);
            return if is_reached { Since::Allowed } else { Since::Refused };
        }
        let Some(Body::Directory(directory)) = tree.nodes.get(&parent).map(|parent| &parent.body) else {
            return Since::Elsewhere;
        };
        let is_there = directory.get(name).is_some_and(|entry| entry.child == node.id)
            || directory.iter().take(FEW_ENTRIES).any(|entry| entry.child == node.id);
        match is_there && tree.reaches(caller, parent) {
            true => Since::Allowed,
            false if is_there && node.nlink == 1 => Since::Refused,
            false => Since::Elsewhere,
        }
    }

    /// The same, looking for the node in all directories: it takes time in proportion to how many names there are.
    pub fn allows_elsewhere(&self, caller: &Caller, then: &Attributes) -> Since {
        let tree = self.tree();
        let node = match tree.kept(caller, then) {
            Ok(node) => node,
            Err(since) => return since,
        };
        let has_it = |holder: &Node| match &holder.body {
            Body::Directory(directory) => directory.iter().any(|entry| entry.child == node.id),
            _ => false,
        };
        let is_reached = tree.nodes.values().any(|holder| has_it(holder) && tree.reaches(caller, holder.id));
        if is_reached { Since::Allowed } else { Since::Refused }
    }
}

impl Tree {
    /// The node as it is now, if the caller may still do to it what they could then.
    fn kept(&self, caller: &Caller, then: &Attributes) -> Result<&Node, Since> {
        let node = self.nodes.get(&then.id).filter(|node| node.nlink > 0).ok_or(Since::Gone)?;
        let could = granted(caller, then.uid, then.gid, then.mode);
        let can = granted(caller, node.uid, node.gid, node.mode);
        let lost = could & !can;
        let is_kept = match node.kind {
            FileType::Symlink => true,
            FileType::Directory => lost & (READ | EXECUTE) == 0,
            // Whoever may read a program can run a copy of it. Nobody writes to a version.
            FileType::File | FileType::Dynamic => {
                lost & READ == 0 && (lost & EXECUTE == 0 || can & READ != 0)
            }
            // A device is the same device in every version.
            _ => lost == 0,
        };
        if is_kept { Ok(node) } else { Err(Since::Refused) }
    }

    /// Whether the caller may search this directory and all above it.
    fn reaches(&self, caller: &Caller, mut at: NodeId) -> bool {
        loop {
            let Some(node) = self.nodes.get(&at).filter(|node| node.nlink > 0) else { return false };
            let Body::Directory(directory) = &node.body else { return false };
            if !caller.is_root() && granted(caller, node.uid, node.gid, node.mode) & EXECUTE == 0 {
                return false;
            }
            if at == NodeId::ROOT {
                return true;
            }
            at = directory.parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Make, MemoryPersistence, SetAttributes, Timestamp, root_row};

    /// A tree, and what its nodes were when they were made.
    struct Bed {
        fs: TinyFs,
    }

    /// Neither owns anything nor is in a group of anything.
    fn stranger() -> Caller {
        Caller::unchecked(1000, 1000, vec![50])
    }

    impl Bed {
        fn new() -> Self {
            let store = MemoryPersistence::new();
            store.store(&[root_row(Timestamp::now(), 0, 0)]);
            Bed { fs: TinyFs::new(store.load().unwrap(), store) }
        }

        fn make(&self, parent: NodeId, name: &str, what: Make<'_>) -> Attributes {
            self.fs.make(&Caller::root(), parent, name.as_bytes(), what).unwrap()
        }

        fn set(&self, node: &Attributes, change: SetAttributes) {
            self.fs.setattr(&Caller::root(), node.id, &change).unwrap();
        }

        fn mode(&self, node: &Attributes, mode: u16) {
            self.set(node, SetAttributes { mode: Some(mode), ..SetAttributes::default() });
        }

        fn since(&self, then: &Attributes, parent: NodeId, name: &str) -> Since {
            match self.fs.allows_since(&stranger(), then, parent, name.as_bytes()) {
                Since::Elsewhere => self.fs.allows_elsewhere(&stranger(), then),
                since => since,
            }
        }
    }

    #[test]
    fn what_could_be_read_is_asked_of_the_node_and_of_all_above_it() {
        let bed = Bed::new();
        let a = bed.make(NodeId::ROOT, "a", Make::Directory { mode: 0o755 });
        let b = bed.make(a.id, "b", Make::Directory { mode: 0o755 });
        let file = bed.make(b.id, "file", Make::File { mode: 0o644 });
        let since = || [(&file, b.id, "file"), (&b, a.id, "b"), (&a, NodeId::ROOT, "a")];
        let all = |bed: &Bed| since().map(|(then, parent, name)| bed.since(then, parent, name));
        use Since::{Allowed, Refused};
        assert_eq!(all(&bed), [Allowed; 3]);
        bed.mode(&file, 0o640);
        assert_eq!(all(&bed), [Refused, Allowed, Allowed]);
        bed.mode(&file, 0o604);
        assert_eq!(all(&bed), [Allowed; 3]);
        // What could be listed, too.
        bed.mode(&b, 0o711);
        assert_eq!(all(&bed), [Allowed, Refused, Allowed]);
        bed.mode(&b, 0o755);
        bed.mode(&a, 0o700);
        assert_eq!(all(&bed), [Refused; 3]);
        bed.mode(&a, 0o755);
        bed.mode(&NodeId::ROOT.attributes(&bed), 0o750);
        assert_eq!(all(&bed), [Refused; 3]);
    }

    impl NodeId {
        fn attributes(self, bed: &Bed) -> Attributes {
            bed.fs.getattr(self).unwrap()
        }
    }

    #[test]
    fn who_owned_it_or_was_in_its_group_and_is_no_more_has_lost_what_came_of_that() {
        let bed = Bed::new();
        let file = bed.make(NodeId::ROOT, "file", Make::File { mode: 0o640 });
        let owner = |uid, gid| SetAttributes { uid: Some(uid), gid: Some(gid), ..SetAttributes::default() };
        bed.set(&file, owner(1000, 0));
        let his = file.id.attributes(&bed);
        bed.set(&file, owner(0, 50));
        let of_his_group = file.id.attributes(&bed);
        assert_eq!(bed.since(&his, NodeId::ROOT, "file"), Since::Allowed, "he may still read it");
        assert_eq!(bed.since(&of_his_group, NodeId::ROOT, "file"), Since::Allowed);
        bed.set(&file, owner(0, 0));
        assert_eq!(bed.since(&of_his_group, NodeId::ROOT, "file"), Since::Refused);
        // What was refused then is refused by the kernel: here nothing is lost.
        assert_eq!(bed.since(&file, NodeId::ROOT, "file"), Since::Allowed);
    }

    #[test]
    fn a_program_that_may_still_be_read_may_be_run() {
        let bed = Bed::new();
        let program = bed.make(NodeId::ROOT, "program", Make::File { mode: 0o755 });
        bed.mode(&program, 0o644);
        assert_eq!(bed.since(&program, NodeId::ROOT, "program"), Since::Allowed);
        let blind = bed.make(NodeId::ROOT, "blind", Make::File { mode: 0o711 });
        bed.mode(&blind, 0o700);
        assert_eq!(bed.since(&blind, NodeId::ROOT, "blind"), Since::Refused);
    }

    #[test]
    fn a_node_is_followed_to_where_it_is_now() {
        let bed = Bed::new();
        let root = Caller::root();
        let open = bed.make(NodeId::ROOT, "open", Make::Directory { mode: 0o755 });
        let closed = bed.make(NodeId::ROOT, "closed", Make::Directory { mode: 0o700 });
        let file = bed.make(open.id, "file", Make::File { mode: 0o644 });
        let rename = |from: NodeId, name: &str, to: NodeId, new: &str| {
            let flags = crate::RenameFlags::default();
            bed.fs.rename(&root, from, name.as_bytes(), to, new.as_bytes(), flags).unwrap();
        };
        rename(open.id, "file", open.id, "renamed");
        assert_eq!(bed.since(&file, open.id, "file"), Since::Allowed);
        rename(open.id, "renamed", closed.id, "file");
        assert_eq!(bed.since(&file, open.id, "file"), Since::Refused);
        // A second name in the open makes it reachable.
        bed.fs.link(&root, file.id, NodeId::ROOT, b"second").unwrap();
        assert_eq!(bed.since(&file, open.id, "file"), Since::Allowed);
        bed.fs.unlink(&root, NodeId::ROOT, b"second").unwrap();
        assert_eq!(bed.since(&file, open.id, "file"), Since::Refused);
        bed.fs.unlink(&root, closed.id, b"file").unwrap();
        // Somebody may have it open still.
        assert_eq!(bed.since(&file, open.id, "file"), Since::Gone);
        rename(NodeId::ROOT, "open", closed.id, "open");
        assert_eq!(bed.since(&open, NodeId::ROOT, "open"), Since::Refused);
    }
}
