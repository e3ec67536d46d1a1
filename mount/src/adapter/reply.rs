//! Replies: the service's answers in the form that the kernel takes, and for how long it may keep them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyWrite,
    ReplyXattr,
};

use crate::adapter::convert::{self, errno};
use crate::inodes::attributes::{Attributes, Entry, Keep};
use crate::inodes::table::Ino;
use crate::service::answer::Outcome;
use crate::service::listing::Sink;
use crate::service::names::Found;

/// How long the kernel may rely on what it was told: as good as for ever.
const TTL: Duration = Duration::from_secs(365 * 86_400);

/// A name that does not exist: inode 0 and a time to live.
const NEGATIVE: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

/// How long a name may be kept.
fn ttl(keep: Keep) -> Duration {
    match keep {
        Keep::UntilTold => TTL,
        Keep::Attributes | Keep::Never => Duration::ZERO,
    }
}

/// How long attributes may be kept.
fn ttl_of_attributes(keep: Keep) -> Duration {
    match keep {
        Keep::UntilTold | Keep::Attributes => TTL,
        Keep::Never => Duration::ZERO,
    }
}

#[inline]
pub(crate) fn entry(reply: ReplyEntry, outcome: Outcome<Entry>) {
    match outcome {
        Ok(entry) => {
            let attributes = convert::attributes(&entry.attributes);
            let (name, generation) = (ttl(entry.keep), Generation(entry.generation));
            reply.entry_with_ttls(&ttl_of_attributes(entry.keep), &name, &attributes, generation);
        }
        Err(error) => reply.error(errno(&error)),
    }
}

/// What a lookup found, or that there is nothing: the kernel remembers both.
#[inline]
pub(crate) fn found(reply: ReplyEntry, outcome: Outcome<Found>) {
    match outcome {
        Ok(Found::Entry(found)) => entry(reply, Ok(found)),
        Ok(Found::Nothing) => reply.entry(&TTL, &NEGATIVE, Generation(0)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(crate) fn created(reply: ReplyCreate, outcome: Outcome<Entry>) {
    match outcome {
        Ok(entry) => {
            let attributes = convert::attributes(&entry.attributes);
            let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
            reply.created(&ttl(entry.keep), &attributes, Generation(entry.generation), FileHandle(0), flags);
        }
        Err(error) => reply.error(errno(&error)),
    }
}

#[inline]
pub(crate) fn attributes(reply: ReplyAttr, outcome: Outcome<(Attributes, Keep)>) {
    match outcome {
        Ok((attributes, keep)) => reply.attr(&ttl_of_attributes(keep), &convert::attributes(&attributes)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(crate) fn data(reply: ReplyData, outcome: Outcome<impl AsRef<[u8]>>) {
    match outcome {
        Ok(data) => reply.data(data.as_ref()),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Where `lseek` found what it looked for.
pub(crate) fn offset(reply: ReplyLseek, outcome: Outcome<u64>) {
    match outcome.map(i64::try_from) {
        Ok(Ok(offset)) => reply.offset(offset),
        Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(crate) fn empty(reply: ReplyEmpty, outcome: Outcome<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(crate) fn written<N: TryInto<u32>>(reply: ReplyWrite, outcome: Outcome<N>) {
    match outcome.map(TryInto::try_into) {
        Ok(Ok(written)) => reply.written(written),
        Ok(Err(_)) => reply.error(Errno::EIO),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Extended attributes: a size of 0 asks for the size.
pub(crate) fn xattr(reply: ReplyXattr, size: u32, outcome: Outcome<Vec<u8>>) {
    match outcome {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Sink for ReplyDirectoryPlus {
    fn add(&mut self, name: &[u8], position: u64, entry: &Entry) -> bool {
        let attributes = convert::attributes(&entry.attributes);
        let (name, generation) = (OsStr::from_bytes(name), Generation(entry.generation));
        // fuser's says whether it is full.
        !self.add(attributes.ino, position, name, &ttl(entry.keep), &attributes, generation)
    }
}

/// Directories: number, position, name.
pub(crate) fn versions(mut reply: ReplyDirectory, outcome: Outcome<Vec<(Ino, u64, String)>>) {
    match outcome {
        Ok(entries) => {
            for (ino, position, name) in entries {
                // fuser's says whether it is full.
                if reply.add(INodeNo(ino.0), position, FileType::Directory, name) {
                    break;
                }
            }
            reply.ok();
        }
        Err(error) => reply.error(errno(&error)),
    }
}

pub(crate) fn listed(outcome: Outcome<(ReplyDirectoryPlus, Outcome<()>)>) {
    // What fails says so beside the reply, which is always there.
    if let Ok((reply, outcome)) = outcome {
        match outcome {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }
}
