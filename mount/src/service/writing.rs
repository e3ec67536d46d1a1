//! Changing content, once there is room for it, and making it durable.

use pond_tinyfs::{Errno, Error, Fallocate, WriteFlags};

use crate::inodes::table::{Ino, Object};
use crate::service::Service;
use crate::service::answer::{Answer, Later};
use crate::service::backing::Backing;
use crate::service::request::Request;

/// Most bytes that one `copy_file_range` copies; the caller asks again for the rest.
const MAX_COPY: u64 = 8 << 20;

/// Longest `fallocate`, bytes, that is not handed to another thread.
const INLINE_FALLOCATE: u64 = 1 << 20;

/// How bytes come to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    /// Setuid and setgid are to go.
    pub(crate) kill_suid_gid: bool,
    /// The kernel writes back pages that a program changed through a mapping: whoever asks is not that program.
    pub(crate) from_mapping: bool,
}

impl<B: Backing> Service<B> {
    /// Writes; says how many bytes. Also for `O_APPEND` the kernel says where: it holds the inode's lock and knows the size.
    pub(crate) fn write(
        &self,
        by: Request,
        ino: Ino,
        offset: u64,
        data: &[u8],
        how: Written,
    ) -> Answer<usize> {
        let id = match self.changeable(ino) {
            Ok(id) => id,
            Err(errno) => return Answer::Now(Err(errno.into())),
        };
        let caller = by.caller();
        let flags = WriteFlags { append: false, kill_suid_gid: how.kill_suid_gid };
        if self.backing.has_room() {
            let written = self.fs().write(&caller, id, offset, data, flags);
            if how.from_mapping {
                self.changed(by, &written, [id]);
            }
            return Answer::Now(written);
        }
        let (backing, waiting, data) = (self.backing.clone(), self.waiting.clone(), data.to_vec());
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                let write = || backing.fs().write(&caller, id, offset, &data, flags);
                deliver(backing.when_room(data.len() as u64, write));
            });
        }))
    }

    /// Preallocates, makes holes or zeros.
    pub(crate) fn fallocate(
        &self,
        by: Request,
        ino: Ino,
        offset: u64,
        length: u64,
        mode: Fallocate,
    ) -> Answer<()> {
        let id = match self.changeable(ino) {
            Ok(id) => id,
            Err(errno) => return Answer::Now(Err(errno.into())),
        };
        let caller = by.caller();
        // A hole needs no room: it must work on a full disk.
        let needs_room = mode != Fallocate::PunchHole;
        if length <= INLINE_FALLOCATE && (!needs_room || self.backing.has_room()) {
            let done = self.fs().fallocate(&caller, id, offset, length, mode);
            self.changed(by, &done, [id]);
            return Answer::Now(done);
        }
        let (backing, coherence) = (self.backing.clone(), self.coherence.clone());
        let waiting = self.waiting.clone();
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                let work = || backing.fs().fallocate(&caller, id, offset, length, mode);
                let done = if needs_room { backing.when_room(0, work) } else { work() };
                if done.is_ok() {
                    coherence.changed(id, by.thread);
                }
                deliver(done);
            });
        }))
    }

    /// Copies bytes from file to file; says how many.
    pub(crate) fn copy(
        &self,
        by: Request,
        (source, source_offset): (Ino, u64),
        (target, target_offset): (Ino, u64),
        length: u64,
    ) -> Answer<u64> {
        // EXDEV has the kernel copy by reading and writing.
        let (Ok(source), Ok(target)) = (self.node(source), self.node(target)) else {
            return Answer::Now(Err(Errno::XDEV.into()));
        };
        let (backing, waiting, caller) = (self.backing.clone(), self.waiting.clone(), by.caller());
        let length = length.min(MAX_COPY);
        Answer::Later(Later::new(move |deliver| {
            waiting.run(move || {
                deliver(backing.when_room(length, || {
                    backing.fs().copy_range(&caller, source, source_offset, target, target_offset, length)
                }));
            });
        }))
    }

    /// Makes everything received so far durable.
    pub(crate) fn fsync(&self, ino: Ino) -> Answer<()> {
        match self.inodes.find(ino) {
            Ok(Object::Node(_)) => {}
            // There is nothing in them that is not durable.
            Ok(_) => return Answer::Now(Ok(())),
            Err(errno) => return Answer::Now(Err(Error::from(errno))),
        }
        let (backing, readers) = (self.backing.clone(), self.readers.clone());
        Answer::Later(Later::new(move |deliver| {
            let here = readers.here();
            backing.fsync(deliver, here.is_some());
        }))
    }
}
