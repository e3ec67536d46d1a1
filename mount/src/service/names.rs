//! Names: what they lead to, making and removing them.

use pond_tinyfs::{Attributes as Node, Errno, Make, NodeId, RESERVED_NAME, RenameFlags};

use crate::inodes::attributes::{Entry, Keep};
use crate::inodes::content::Content;
use crate::inodes::table::{Ino, Object};
use crate::inodes::virtual_files::VERSIONS;
use crate::service::Service;
use crate::service::answer::{Answer, Later, Outcome};
use crate::service::backing::Backing;
use crate::service::request::Request;

/// What a lookup found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// This.
    Entry(Entry),
    /// Nothing, which may be kept until something is made there.
    Nothing,
}

fn is_reserved(parent: Ino, name: &[u8]) -> bool {
    parent == Ino::ROOT && name == RESERVED_NAME
}

impl<B: Backing> Service<B> {
    /// What a name in a directory leads to.
    #[inline]
    pub(crate) fn lookup(&self, by: Request, parent: Ino, name: &[u8]) -> Answer<Found> {
        let id = match self.inodes.find(parent) {
            Ok(Object::Node(id)) => id,
            Ok(Object::Old(parent)) => return self.look_up_old(by, &parent, name),
            Ok(Object::OwnDirectory) => return self.look_up_own(name),
            Ok(Object::Versions) => return self.look_up_version(by, name),
            Ok(Object::Snapshot(_)) => return Answer::Now(Err(Errno::NOTDIR.into())),
            // It is looked up again, and is more than a name then.
            Ok(Object::Listed(_)) => return Answer::Now(Err(Errno::STALE.into())),
            Err(errno) => return Answer::Now(Err(errno.into())),
        };
        if is_reserved(parent, name) {
            let directory =
                Entry { keep: Keep::UntilTold, ..Entry::unkept(self.own.directory(), self.generation) };
            return Answer::Now(Ok(Found::Entry(directory)));
        }
        Answer::Now(match self.look_up(by, id, name) {
            Ok(entry) => Ok(Found::Entry(entry)),
            Err(error) if self.keep_missing && error.errno() == libc::ENOENT => Ok(Found::Nothing),
            Err(error) => Err(error),
        })
    }

    #[inline]
    fn look_up(&self, by: Request, parent: NodeId, name: &[u8]) -> Outcome<Entry> {
        let found = self.fs().lookup(parent, name)?;
        let ino = self.inodes.refer(found.id);
        // Looked at anew once it is noted who is shown them.
        self.coherence.show(found.id, by.thread);
        Ok(self.entry(ino, &self.fs().getattr(found.id)?))
    }

    fn look_up_own(&self, name: &[u8]) -> Answer<Found> {
        if name == VERSIONS.as_bytes() && self.own.has_versions() {
            let versions = Entry::unkept(self.own.versions(self.backing.versions_changed()), self.generation);
            return Answer::Now(Ok(Found::Entry(versions)));
        }
        let Some(file) = Content::from_name(name) else { return Answer::Now(Err(Errno::NOENT.into())) };
        let (backing, own, waiting) = (self.backing.clone(), self.own.clone(), self.waiting.clone());
        let generation = self.generation;
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                let attributes = own.look_up(file, backing.content(file));
                deliver(Ok(Found::Entry(Entry::unkept(attributes, generation))));
            });
        }))
    }

    /// Gives back references that came with entries.
    #[inline]
    pub(crate) fn forget(&self, ino: Ino, references: u64) {
        if let Ok(Object::Node(id)) = self.inodes.find(ino) {
            self.fs().forget(id, references);
        }
        if let Some(id) = self.inodes.forget(ino, references)
            && self.fs().getattr(id).is_err()
        {
            self.inodes.gone(id);
        }
    }

    /// Where a symlink points.
    pub(crate) fn readlink(&self, ino: Ino) -> Outcome<impl AsRef<[u8]> + use<B>> {
        let node = self.readable(ino)?;
        node.fs().readlink(node.id())
    }

    /// Makes a node under a name that is free.
    pub(crate) fn make(&self, by: Request, parent: Ino, name: &[u8], what: Make<'_>) -> Outcome<Entry> {
        let parent = self.changeable_entry(parent, name)?;
        let made = self.fs().make(&by.caller(), parent, name, what);
        self.changed(by, &made, [parent]);
        made.map(|made| self.referred(&made))
    }

    /// Makes a file, of which the kernel believes that there is none.
    pub(crate) fn create(
        &self,
        by: Request,
        parent: Ino,
        name: &[u8],
        mode: u16,
        exclusive: bool,
    ) -> Outcome<Entry> {
        match self.make(by, parent, name, Make::File { mode }) {
            // A command made it since the kernel looked: ESTALE has the kernel look again and check permissions on what is there
            // now.
            Err(error) if error.errno() == libc::EEXIST && !exclusive => Err(Errno::STALE.into()),
            made => made,
        }
    }

    /// Gives a node one more name.
    pub(crate) fn link(&self, by: Request, ino: Ino, parent: Ino, name: &[u8]) -> Outcome<Entry> {
        let id = self.changeable(ino)?;
        let parent = self.changeable_entry(parent, name)?;
        let linked = self.fs().link(&by.caller(), id, parent, name);
        self.changed(by, &linked, [id, parent]);
        linked.map(|linked| self.referred(&linked))
    }

    /// Takes a name from what is no directory.
    pub(crate) fn unlink(&self, by: Request, parent: Ino, name: &[u8]) -> Outcome<()> {
        let parent = self.changeable_entry(parent, name)?;
        let gone = self.fs().unlink(&by.caller(), parent, name);
        self.changed(by, &gone, gone.iter().copied().chain([parent]));
        gone.map(drop)
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&self, by: Request, parent: Ino, name: &[u8]) -> Outcome<()> {
        let parent = self.changeable_entry(parent, name)?;
        let gone = self.fs().rmdir(&by.caller(), parent, name);
        self.changed(by, &gone, [parent]);
        gone
    }

    /// Moves a node to another name. Later if a directory moved: the kernel keeps listings, and does not know that `..` in it is
    /// another directory now.
    pub(crate) fn rename(
        &self,
        by: Request,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        flags: RenameFlags,
    ) -> Answer<()> {
        let places = self
            .changeable_entry(parent, name)
            .and_then(|from| Ok((from, self.changeable_entry(new_parent, new_name)?)));
        let (from, to) = match places {
            Ok(places) => places,
            Err(errno) => return Answer::Now(Err(errno.into())),
        };
        let renamed = self.fs().rename(&by.caller(), from, name, to, new_name, flags);
        let nodes = renamed.iter().flat_map(|renamed| [Some(renamed.moved), renamed.other]).flatten();
        self.changed(by, &renamed, nodes.chain([from, to]));
        match renamed {
            Ok(renamed) if renamed.reparented != [None, None] => {
                let (coherence, waiting) = (self.coherence.clone(), self.waiting.clone());
                Answer::Later(Later::new(move |deliver| {
                    waiting.run(move || {
                        for id in renamed.reparented.into_iter().flatten() {
                            if let Err(error) = coherence.drop_pages(id) {
                                tracing::warn!(node = %id, %error, "the kernel may list an old `..` of a directory that moved");
                            }
                        }
                        deliver(Ok(()));
                    });
                }))
            }
            renamed => Answer::Now(renamed.map(drop)),
        }
    }

    /// A directory in which this name may come or go.
    fn changeable_entry(&self, parent: Ino, name: &[u8]) -> Result<NodeId, Errno> {
        if is_reserved(parent, name) { Err(Errno::PERM) } else { self.changeable(parent) }
    }

    /// A node on which its asker has been given a reference.
    fn referred(&self, node: &Node) -> Entry {
        self.entry(self.inodes.refer(node.id), node)
    }
}
