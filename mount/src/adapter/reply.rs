//! Replies: results of TinyFS in the form that the kernel takes, and for how long it may keep them.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileType, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, ReplyLseek,
    ReplyWrite, ReplyXattr,
};
use pond_tinyfs::{Attributes, Error};

use crate::adapter::convert;
use crate::service::inodes::Ino;

/// How long the kernel may rely on what it was told: as good as for ever.
pub(crate) const TTL: Duration = Duration::from_secs(365 * 86_400);

/// Not at all.
pub(crate) const NO_TTL: Duration = Duration::ZERO;

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

/// What a lookup found, or that there is nothing: the kernel remembers both, the latter if `keep_missing`.
pub(crate) fn found(
    reply: ReplyEntry,
    result: Result<FileAttr, Error>,
    generation: Generation,
    keep_missing: bool,
) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, generation),
        Err(error) if keep_missing && error.errno() == libc::ENOENT => {
            reply.entry(&TTL, &NEGATIVE, generation)
        }
        Err(error) => reply.error(convert::errno(&error)),
    }
}

pub(crate) fn entry(reply: ReplyEntry, result: Result<FileAttr, Errno>, generation: Generation) {
    match result {
        Ok(attributes) => reply.entry(&TTL, &attributes, generation),
        Err(errno) => reply.error(errno),
    }
}

pub(crate) fn attributes(reply: ReplyAttr, ino: Ino, result: Result<Attributes, Error>) {
    match result {
        Ok(attributes) => reply.attr(&TTL, &convert::attributes(ino, &attributes)),
        Err(error) => reply.error(convert::errno(&error)),
    }
}

/// Where `lseek` found what it looked for.
pub(crate) fn offset(reply: ReplyLseek, result: Result<u64, Error>) {
    match result.map(i64::try_from) {
        Ok(Ok(offset)) => reply.offset(offset),
        Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
        Err(error) => reply.error(convert::errno(&error)),
    }
}

pub(crate) fn empty(reply: ReplyEmpty, result: Result<(), Error>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(convert::errno(&error)),
    }
}

pub(crate) fn written<N: TryInto<u32>>(reply: ReplyWrite, result: Result<N, Error>) {
    match result.map(TryInto::try_into) {
        Ok(Ok(written)) => reply.written(written),
        Ok(Err(_)) => reply.error(Errno::EIO),
        Err(error) => reply.error(convert::errno(&error)),
    }
}

/// Extended attributes: a size of 0 asks for the size.
pub(crate) fn xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, Error>) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(convert::errno(&error)),
    }
}
