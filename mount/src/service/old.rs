//! Nodes of old versions: what is shown of them, and to whom.
//!
//! They are shown as they were, but for what would give somebody more than they have: setuid and setgid bits and file
//! capabilities are not there. To whom is the guard's to say, whenever a name is looked up: the kernel is told to do that each time.

use pond_tinyfs::{Attributes as Node, Errno, NodeId, Since, TinyFs};

use crate::inodes::attributes::{Attributes, Entry, Keep};
use crate::inodes::old::OldNode;
use crate::inodes::table::{Ino, Inodes, Object};
use crate::service::Service;
use crate::service::answer::{Answer, Later, Outcome};
use crate::service::backing::Backing;
use crate::service::guard::{Verdict, verdict};
use crate::service::names::Found;
use crate::service::request::Request;
use crate::service::versions::Named;

/// Setuid and setgid.
const PRIVILEGES: u16 = 0o6000;

/// What gives a program capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// What `stat` shows of a node of an old version.
pub(crate) fn attributes(ino: Ino, node: &Node) -> Attributes {
    let shown = Attributes::of(ino, node);
    Attributes { mode: shown.mode & !PRIVILEGES, ..shown }
}

/// An extended attribute of a node of an old version.
pub(crate) fn getxattr(node: &OldNode, name: &[u8]) -> Outcome<Vec<u8>> {
    if name == CAPABILITY { Err(Errno::NODATA.into()) } else { node.version.fs.getxattr(node.id, name) }
}

/// Names of extended attributes, each with a zero after it, without those that old versions do not show.
pub(crate) fn without_capability(names: Vec<u8>) -> Vec<u8> {
    let shown =
        names.split_inclusive(|&byte| byte == 0).filter(|name| name.strip_suffix(b"\0") != Some(CAPABILITY));
    shown.flatten().copied().collect()
}

/// A reference on a node, for its asker.
pub(crate) fn entry(inodes: &Inodes, node: OldNode, then: &Node, generation: u64) -> Entry {
    let ino = inodes.refer_old(node);
    Entry { attributes: attributes(ino, then), keep: Keep::Attributes, generation }
}

impl<B: Backing> Service<B> {
    /// What a name in `.pond/versions` leads to.
    pub(crate) fn look_up_version(&self, by: Request, name: &[u8]) -> Answer<Found> {
        let Some(named) = Named::read(name) else { return Answer::Now(Err(Errno::NOENT.into())) };
        if let Named::Number(number) = named
            && let Some(root) = self.inodes.held_root(number)
        {
            return self.enter(by, root, name);
        }
        let (versions, guard, backing) = (self.versions.clone(), self.guard.clone(), self.backing.clone());
        let (inodes, waiting, generation) = (self.inodes.clone(), self.waiting.clone(), self.generation);
        let name = name.to_vec();
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                deliver(versions.find(by.thread, &named).and_then(|root| {
                    let then = root.version.fs.getattr(root.id)?;
                    match guard.judge(by, backing.now(), &then, (NodeId::ROOT, b"")) {
                        Verdict::Pass => {}
                        Verdict::Refused(errno) => return Err(errno.into()),
                        Verdict::Ask(_) => return Err(Errno::ACCES.into()),
                    }
                    root.version.touch();
                    root.version.known_as(&name);
                    Ok(Found::Entry(entry(&inodes, root, &then, generation)))
                }));
            });
        }))
    }

    /// The root of a version that is open.
    fn enter(&self, by: Request, root: OldNode, name: &[u8]) -> Answer<Found> {
        root.version.known_as(name);
        let then = match root.version.fs.getattr(root.id) {
            Ok(then) => then,
            Err(error) => return Answer::Now(Err(error)),
        };
        self.show_old(by, root, then, (NodeId::ROOT, b""))
    }

    /// What a name in a directory of an old version leads to.
    pub(crate) fn look_up_old(&self, by: Request, parent: &OldNode, name: &[u8]) -> Answer<Found> {
        if parent.id == NodeId::ROOT && name == b".." {
            let versions = Entry::unkept(self.own.versions(self.backing.versions_changed()), self.generation);
            return Answer::Now(Ok(Found::Entry(versions)));
        }
        match parent.version.fs.lookup(parent.id, name) {
            Ok(then) => {
                let node = OldNode { version: parent.version.clone(), id: then.id };
                self.show_old(by, node, then, (parent.id, name))
            }
            Err(error) => Answer::Now(Err(error)),
        }
    }

    fn show_old(
        &self,
        by: Request,
        node: OldNode,
        then: Node,
        (parent, name): (NodeId, &[u8]),
    ) -> Answer<Found> {
        node.version.touch();
        let caller = match self.guard.judge(by, self.backing.now(), &then, (parent, name)) {
            Verdict::Pass => {
                return Answer::Now(Ok(Found::Entry(entry(&self.inodes, node, &then, self.generation))));
            }
            Verdict::Refused(errno) => return Answer::Now(Err(errno.into())),
            Verdict::Ask(caller) => caller,
        };
        let (backing, inodes, readers) = (self.backing.clone(), self.inodes.clone(), self.readers.clone());
        let generation = self.generation;
        Answer::Later(Later::new(move |deliver| {
            readers.read(move || {
                let since = backing.now().map_or(Since::Refused, |now| now.allows_elsewhere(&caller, &then));
                deliver(match verdict(since) {
                    Verdict::Pass => Ok(Found::Entry(entry(&inodes, node, &then, generation))),
                    Verdict::Refused(errno) => Err(errno.into()),
                    Verdict::Ask(_) => Err(Errno::ACCES.into()),
                });
            });
        }))
    }

    /// A node for reading it, of the pond or of an old version.
    #[inline]
    pub(crate) fn readable(&self, ino: Ino) -> Result<Readable<'_>, Errno> {
        match self.inodes.find(ino)? {
            Object::Node(id) => Ok(Readable::Live(self.fs(), id)),
            Object::Old(node) => {
                node.version.touch();
                Ok(Readable::Old(node))
            }
            Object::OwnDirectory | Object::Snapshot(_) | Object::Versions | Object::Listed(_) => {
                Err(Errno::OPNOTSUPP)
            }
        }
    }
}

/// A node for reading it.
pub(crate) enum Readable<'a> {
    Live(&'a TinyFs, NodeId),
    Old(OldNode),
}

impl Readable<'_> {
    /// The tree that it is in.
    pub(crate) fn fs(&self) -> &TinyFs {
        match self {
            Readable::Live(fs, _) => fs,
            Readable::Old(node) => &node.version.fs,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        match self {
            Readable::Live(_, id) => *id,
            Readable::Old(node) => node.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_not_listed() {
        let names = b"security.capability\0user.a\0security.capability.not\0".to_vec();
        assert_eq!(without_capability(names), b"user.a\0security.capability.not\0");
        assert_eq!(without_capability(Vec::new()), b"");
    }
}
