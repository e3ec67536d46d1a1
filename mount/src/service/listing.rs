//! Listings of directories.

use pond_tinyfs::FileType;

use crate::inodes::attributes::Entry;
use crate::inodes::content::Content;
use crate::inodes::listings::Positions;
use crate::inodes::table::{Ino, Object};
use crate::service::Service;
use crate::service::answer::{Answer, Later, Outcome};
use crate::service::backing::Backing;
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
        let Object::Node(id) = self.inodes.find(ino)? else {
            for (ino, position, kind, name) in self.own.listing(position) {
                if !each(&Listed { ino, kind, name: name.as_bytes(), position }) {
                    break;
                }
            }
            return Ok(());
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
            Ok(Object::OwnDirectory | Object::Snapshot(_)) => return self.list_own(position, sink),
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

    fn list_own<S: Sink>(&self, position: u64, mut sink: S) -> Answer<(S, Outcome<()>)> {
        let (backing, own, inodes) = (self.backing.clone(), self.own.clone(), self.inodes.clone());
        let (waiting, generation) = (self.waiting.clone(), self.generation);
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                for (_, position, _, name) in own.listing(position) {
                    let attributes = match Content::from_name(name.as_bytes()) {
                        Some(file) => own.look_up(file, backing.content(file)),
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
