//! Listings of directories.

use pond_tinyfs::{DirEntry, Errno, FileType, NodeId};

use crate::inodes::attributes::{Entry, Keep};
use crate::inodes::content::Content;
use crate::inodes::listings::Positions;
use crate::inodes::old::{OldKey, OldNode};
use crate::inodes::table::{Ino, Inodes, Object};
use crate::inodes::virtual_files::VERSIONS;
use crate::service::Service;
use crate::service::answer::{Answer, Later, Outcome};
use crate::service::backing::Backing;
use crate::service::old;
use crate::service::request::Request;

/// An entry of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Listed<'a> {
    pub(crate) ino: Ino,
    pub(crate) kind: FileType,
    pub(crate) name: &'a [u8],
    /// From where a listing goes on after it.
    pub(crate) position: u64,
}

/// Takes entries, with what a lookup of each would give.
pub(crate) trait Sink: Send + 'static {
    /// Whether it fits; then a reference on it has been taken, unless it is `.` or `..`.
    fn add(&mut self, name: &[u8], position: u64, entry: &Entry) -> bool;
}

impl<B: Backing> Service<B> {
    /// A handle for a directory that is opened; `None` where none is needed.
    pub(crate) fn open_directory(&self) -> Option<u64> {
        self.inodes.narrow().then(|| self.listings.open())
    }

    /// A directory is closed.
    pub(crate) fn close_directory(&self, handle: u64) {
        self.listings.close(handle);
    }

    /// The entries of a directory after a position (0: all) until `each` says `false`.
    pub(crate) fn list(
        &self,
        ino: Ino,
        handle: u64,
        position: u64,
        each: &mut dyn FnMut(&Listed<'_>) -> bool,
    ) -> Outcome<()> {
        let id = match self.inodes.find(ino)? {
            Object::Node(id) => id,
            Object::Old(node) => return self.list_old(&node, handle, position, each),
            Object::OwnDirectory | Object::Snapshot(_) => {
                for (ino, position, kind, name) in self.own.listing(position) {
                    if !each(&Listed { ino, kind, name: name.as_bytes(), position }) {
                        break;
                    }
                }
                return Ok(());
            }
            Object::Versions | Object::Listed(_) => return Err(Errno::STALE.into()),
        };
        let mut positions = self.positions(handle, position);
        self.fs().readdir(id, positions.from, &mut |entry| {
            let (ino, position) = (self.inodes.number(entry.id), positions.of(entry.offset));
            each(&Listed { ino, kind: entry.kind, name: entry.name, position })
        })
    }

    /// The same with attributes, and a reference on each. The sink comes back also when listing failed.
    pub(crate) fn list_with_lookups<S: Sink>(
        &self,
        by: Request,
        ino: Ino,
        handle: u64,
        position: u64,
        mut sink: S,
    ) -> Answer<(S, Outcome<()>)> {
        let id = match self.inodes.find(ino) {
            Ok(Object::Node(id)) => id,
            Ok(Object::Old(node)) => return self.list_old_with_lookups(&node, handle, position, sink),
            Ok(Object::OwnDirectory | Object::Snapshot(_)) => return self.list_own(position, sink),
            Ok(Object::Versions) => return self.list_versions_with_lookups(position, sink),
            Ok(Object::Listed(_)) => return Answer::Now(Ok((sink, Err(Errno::STALE.into())))),
            Err(errno) => return Answer::Now(Ok((sink, Err(errno.into())))),
        };
        let mut positions = self.positions(handle, position);
        let listed = self.fs().readdir_plus(id, positions.from, &mut |entry, node| {
            self.coherence.show(node.id, by.thread);
            let ino = self.inodes.number(node.id);
            let added = sink.add(entry.name, positions.of(entry.offset), &self.entry(ino, node));
            if added && entry.name != b"." && entry.name != b".." {
                self.inodes.refer_again(ino);
            }
            added
        });
        Answer::Now(Ok((sink, listed)))
    }

    fn list_old(
        &self,
        node: &OldNode,
        handle: u64,
        position: u64,
        each: &mut dyn FnMut(&Listed<'_>) -> bool,
    ) -> Outcome<()> {
        let OldNode { version, id } = node;
        version.touch();
        let mut positions = self.positions(handle, position);
        version.fs.readdir(*id, positions.from, &mut |entry| {
            let (ino, position) = (self.number_in(node, entry), positions.of(entry.offset));
            each(&Listed { ino, kind: entry.kind, name: entry.name, position })
        })
    }

    fn list_old_with_lookups<S: Sink>(
        &self,
        node: &OldNode,
        handle: u64,
        position: u64,
        mut sink: S,
    ) -> Answer<(S, Outcome<()>)> {
        let OldNode { version, id } = node;
        version.touch();
        let mut positions = self.positions(handle, position);
        let listed = version.fs.readdir_plus(*id, positions.from, &mut |entry, then| {
            let ino = self.number_in(node, entry);
            let shown = Entry {
                attributes: old::attributes(ino, then),
                keep: Keep::Attributes,
                generation: self.generation,
            };
            let added = sink.add(entry.name, positions.of(entry.offset), &shown);
            if added && entry.name != b"." && entry.name != b".." {
                self.inodes.refer_old(OldNode { version: version.clone(), id: entry.id });
            }
            added
        });
        Answer::Now(Ok((sink, listed)))
    }

    /// The number of an entry in a directory of an old version; above its root are the versions.
    fn number_in(&self, directory: &OldNode, entry: &DirEntry<'_>) -> Ino {
        match directory.id == NodeId::ROOT && entry.name == b".." {
            true => self.inodes.versions(),
            false => self.inodes.old_number(OldKey { version: directory.version.number, id: entry.id }),
        }
    }

    /// Whether this is the directory of versions, which [`list_versions`](Self::list_versions) lists.
    pub(crate) fn is_versions(&self, ino: Ino) -> bool {
        ino == self.inodes.versions()
    }

    /// The entries of `.pond/versions` after a position: number, position, name.
    pub(crate) fn list_versions(&self, after: u64) -> Answer<Vec<(Ino, u64, String)>> {
        let (versions, inodes, waiting) = (self.versions.clone(), self.inodes.clone(), self.waiting.clone());
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                deliver(versions.list().map(|numbers| version_entries(&inodes, &numbers, after)))
            });
        }))
    }

    /// The same with lookups. Versions are not opened for it: that is left until somebody looks at one.
    fn list_versions_with_lookups<S: Sink>(&self, after: u64, mut sink: S) -> Answer<(S, Outcome<()>)> {
        let (versions, inodes, waiting) = (self.versions.clone(), self.inodes.clone(), self.waiting.clone());
        let (own, generation) = (self.own.clone(), self.generation);
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                let numbers = match versions.list() {
                    Ok(numbers) => numbers,
                    Err(error) => return deliver(Ok((sink, Err(error)))),
                };
                for (ino, position, name) in version_entries(&inodes, &numbers, after) {
                    if !sink.add(name.as_bytes(), position, &Entry::unkept(own.listed(ino), generation)) {
                        break;
                    }
                    if position > DOTS {
                        inodes.refer_listed(position - DOTS - 1);
                    }
                }
                deliver(Ok((sink, Ok(()))));
            });
        }))
    }

    fn list_own<S: Sink>(&self, position: u64, mut sink: S) -> Answer<(S, Outcome<()>)> {
        let (backing, own, inodes) = (self.backing.clone(), self.own.clone(), self.inodes.clone());
        let (waiting, generation) = (self.waiting.clone(), self.generation);
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                for (_, position, _, name) in own.listing(position) {
                    let attributes = match Content::from_name(name.as_bytes()) {
                        Some(file) => own.look_up(file, backing.content(file)),
                        None if name == VERSIONS => own.versions(backing.versions_changed()),
                        None => own.directory(),
                    };
                    let entry = Entry::unkept(attributes, generation);
                    if !sink.add(name.as_bytes(), position, &entry) {
                        // Nobody was given it, and it is no node.
                        let _ = inodes.forget(attributes.ino, 1);
                        break;
                    }
                }
                deliver(Ok((sink, Ok(()))));
            });
        }))
    }

    fn positions(&self, handle: u64, position: u64) -> Positions<'_> {
        if self.inodes.narrow() {
            self.listings.positions(handle, position)
        } else {
            Positions::wide(position)
        }
    }
}

/// Positions of `.` and `..` in a listing of versions. That of version N is N more than the one after them.
const DOTS: u64 = 2;

/// The entries of `.pond/versions` after a position: number, position, name.
fn version_entries(inodes: &Inodes, versions: &[u64], after: u64) -> Vec<(Ino, u64, String)> {
    let dots = [(inodes.versions(), 1, ".".to_owned()), (inodes.own_directory(), DOTS, "..".to_owned())];
    let numbered = versions.iter().map(|&version| (version, version.saturating_add(DOTS + 1)));
    let numbered = numbered
        .filter(|(_, position)| *position > after)
        .map(|(version, position)| (inodes.old_number(OldKey::root(version)), position, version.to_string()));
    dots.into_iter().filter(|(_, position, _)| *position > after).chain(numbered).collect()
}
