//! Reading content: from memory at once, from the disk on a thread that may wait, and ahead of who reads on.

use std::ops::Range;

use pond_tinyfs::{Errno, Error, NodeId, TinyFs};

use crate::inodes::table::{Ino, Object};
use crate::service::Service;
use crate::service::answer::{Answer, Later};
use crate::service::backing::Backing;
use crate::service::old::Readable;

/// Extents that one thread decodes ahead of their reader at a time.
const PREFETCH: usize = 4;

/// A read of so many bytes costs one access to the disk, or a few.
const LITTLE: usize = 16 << 10;

/// What is to be decoded for a reader that reads on; see [`Service::read_ahead`].
#[must_use]
pub(crate) struct Ahead(Option<(Ino, Range<u64>)>);

/// What `lseek` looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whence {
    Data,
    Hole,
}

impl Whence {
    fn seek(self, fs: &TinyFs, id: NodeId, offset: u64) -> Result<u64, Error> {
        match self {
            Whence::Data => fs.seek_data(id, offset),
            Whence::Hole => fs.seek_hole(id, offset),
        }
    }
}

impl<B: Backing> Service<B> {
    /// Up to so many bytes of a file. Once the answer is delivered or begun, [`read_ahead`](Self::read_ahead).
    pub(crate) fn read(&self, ino: Ino, offset: u64, size: u32) -> (Answer<Vec<u8>>, Ahead) {
        let node = match self.inodes.find(ino) {
            Ok(Object::Node(id)) => Readable::Live(self.fs(), id),
            Ok(Object::Old(node)) => {
                node.version.touch();
                Readable::Old(node)
            }
            Ok(Object::Snapshot(snapshot)) => {
                let bytes = &snapshot.bytes;
                let start = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
                let end = bytes.len().min(start.saturating_add(size as usize));
                return (Answer::Now(Ok(bytes[start..end].to_vec())), Ahead(None));
            }
            Ok(Object::OwnDirectory | Object::Versions | Object::Listed(_)) => {
                return (Answer::Now(Err(Errno::ISDIR.into())), Ahead(None));
            }
            Err(errno) => return (Answer::Now(Err(errno.into())), Ahead(None)),
        };
        let (fs, id) = (node.fs(), node.id());
        let mut plan = match fs.read(id, offset, size as usize) {
            Ok(plan) => plan,
            Err(error) => return (Answer::Now(Err(error)), Ahead(None)),
        };
        let persistence = fs.persistence();
        let ahead = self.readahead.note(ino, offset, plan.len() as u64);
        let ahead = Ahead(ahead.map(|bytes| (ino, bytes)));
        if let Some(data) = plan.fill_cached(persistence.as_ref()) {
            return (Answer::Now(Ok(data)), ahead);
        }
        let (persistence, readers) = (persistence.clone(), self.readers.clone());
        let later = Later::new(move |deliver| {
            let is_little = plan.len() <= LITTLE;
            let work = move || {
                let data = plan.fill(persistence.as_ref());
                if let Err(error) = &data {
                    tracing::error!(node = %id, offset, %error, "cannot read");
                }
                deliver(data.map_err(Error::from));
            };
            if is_little { readers.read_little(work) } else { readers.read(work) }
        });
        (Answer::Later(later), ahead)
    }

    /// Has decoded what a reader will ask for next, in pieces that several threads take up.
    pub(crate) fn read_ahead(&self, ahead: Ahead) {
        let Some((ino, bytes)) = ahead.0 else { return };
        // A file that is gone is not read any more.
        let Ok(node) = self.readable(ino) else { return };
        let length = bytes.end - bytes.start;
        let Ok(locations) = node.fs().locations(node.id(), bytes.start, length) else { return };
        for piece in locations.chunks(PREFETCH) {
            let (persistence, piece) = (node.fs().persistence().clone(), piece.to_vec());
            self.readers.prefetch(move || {
                piece.into_iter().for_each(|location| persistence.prefetch(location));
            });
        }
    }

    /// Where the next data, or the next hole, begins. What programs changed through mappings counts once the kernel has written it
    /// back.
    pub(crate) fn seek(&self, ino: Ino, offset: u64, whence: Whence) -> Answer<u64> {
        let id = match self.readable(ino) {
            Ok(Readable::Live(_, id)) => id,
            Ok(Readable::Old(node)) => return Answer::Now(whence.seek(&node.version.fs, node.id, offset)),
            Err(errno) => return Answer::Now(Err(errno.into())),
        };
        let found = whence.seek(self.fs(), id, offset);
        let size = match self.fs().getattr(id) {
            Ok(attributes) => attributes.size,
            Err(error) => return Answer::Now(Err(error)),
        };
        // Data stays data whatever the kernel still holds; a hole may have been filled through a mapping.
        let certain = match (&found, whence) {
            (Ok(found), Whence::Data) => *found == offset,
            (Ok(found), Whence::Hole) => *found == size,
            (Err(_), _) => offset >= size,
        };
        if certain || self.fs().is_read_only() {
            return Answer::Now(found);
        }
        let (backing, coherence) = (self.backing.clone(), self.coherence.clone());
        let waiting = self.waiting.clone();
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                if let Err(error) = coherence.drop_pages(id) {
                    tracing::error!(node = %id, %error, "the kernel does not write back");
                    return deliver(Err(Errno::IO.into()));
                }
                deliver(whence.seek(backing.fs(), id, offset));
            });
        }))
    }
}
