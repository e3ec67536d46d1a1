//! Between the kernel's words, as fuser gives them, and TinyFS's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, INodeNo};
use pond_tinyfs::{Error, Fallocate, FileType, RenameFlags, SetXattr, TimeOrNow, Timestamp};

use crate::inodes::attributes::Attributes;
use crate::inodes::table::Ino;
use crate::service::attributes::BLOCK_SIZE;
use crate::service::reading::Whence;
use crate::service::request::Request;

/// What `stat` shows.
#[inline]
pub(crate) fn attributes(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino.0),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: to_kernel(attributes.atime),
        mtime: to_kernel(attributes.mtime),
        ctime: to_kernel(attributes.ctime),
        // Not sent on Linux.
        crtime: UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: attributes.mode,
        nlink: attributes.nlink,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

#[inline]
pub(crate) fn ino(inode: INodeNo) -> Ino {
    Ino(inode.0)
}

/// Who asks.
#[inline]
pub(crate) fn asker(request: &fuser::Request) -> Request {
    Request { uid: request.uid(), gid: request.gid(), thread: request.pid() }
}

pub(crate) fn file_type(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::File | FileType::Dynamic => fuser::FileType::RegularFile,
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
    }
}

/// The kind that `mknod` asks for in the type bits of its mode.
pub(crate) fn kind_of_mode(mode: u32) -> Option<FileType> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(FileType::File),
        libc::S_IFIFO => Some(FileType::Fifo),
        libc::S_IFSOCK => Some(FileType::Socket),
        libc::S_IFCHR => Some(FileType::CharDevice),
        libc::S_IFBLK => Some(FileType::BlockDevice),
        _ => None,
    }
}

/// Permission bits out of a mode.
pub(crate) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// A time for fuser to send; it does so rightly also before 1970.
fn to_kernel(time: Timestamp) -> SystemTime {
    let distance = Duration::from_nanos(time.0.unsigned_abs());
    if time.0 >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
}

/// A time that fuser 0.18.0 received.
///
/// Before 1970 it subtracts the nanoseconds that it should add (`system_time_from_time` in its `time.rs`): from
/// `(-2 s, 800 ms)` it makes 2.8 s before 1970, where 1.2 s is meant. Here this is undone.
fn from_kernel(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp::from_parts(seconds(after), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            Timestamp::from_parts(-seconds(before), before.subsec_nanos())
        }
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

pub(crate) fn time_or_now(time: fuser::TimeOrNow) -> TimeOrNow {
    match time {
        fuser::TimeOrNow::Now => TimeOrNow::Now,
        fuser::TimeOrNow::SpecificTime(time) => TimeOrNow::At(from_kernel(time)),
    }
}

pub(crate) fn errno(error: &Error) -> fuser::Errno {
    fuser::Errno::from_i32(error.errno())
}

/// `None` for what is not offered (`RENAME_WHITEOUT`).
pub(crate) fn rename_flags(flags: fuser::RenameFlags) -> Option<RenameFlags> {
    let known = fuser::RenameFlags::RENAME_NOREPLACE | fuser::RenameFlags::RENAME_EXCHANGE;
    known.contains(flags).then(|| RenameFlags {
        no_replace: flags.contains(fuser::RenameFlags::RENAME_NOREPLACE),
        exchange: flags.contains(fuser::RenameFlags::RENAME_EXCHANGE),
    })
}

/// `None` for what is not offered (collapse, insert, unshare).
pub(crate) fn fallocate_mode(mode: i32) -> Option<Fallocate> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Some(Fallocate::Allocate),
        KEEP => Some(Fallocate::AllocateKeepSize),
        PUNCH => Some(Fallocate::PunchHole),
        ZERO => Some(Fallocate::ZeroRange),
        ZERO_KEEP => Some(Fallocate::ZeroRangeKeepSize),
        _ => None,
    }
}

/// `None` for what does not come from the kernel.
pub(crate) fn whence(whence: i32) -> Option<Whence> {
    match whence {
        libc::SEEK_DATA => Some(Whence::Data),
        libc::SEEK_HOLE => Some(Whence::Hole),
        _ => None,
    }
}

/// `None` for flags that setxattr(2) does not know.
pub(crate) fn set_xattr(flags: i32) -> Option<SetXattr> {
    match flags {
        0 => Some(SetXattr::Any),
        libc::XATTR_CREATE => Some(SetXattr::Create),
        libc::XATTR_REPLACE => Some(SetXattr::Replace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuser 0.18.0 makes of the kernel's `(tv_sec, tv_nsec)`. The test against a real mount
    /// (`times_before_1970_survive`) fails should a later fuser do otherwise.
    fn as_fuser_receives(seconds: i64, nanoseconds: u32) -> SystemTime {
        if seconds >= 0 {
            UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds)
        } else {
            UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanoseconds)
        }
    }

    #[test]
    fn times_are_received_as_they_were_sent() {
        for (seconds, nanoseconds) in
            [(0, 0), (1, 5), (1_700_000_000, 999_999_999), (-1, 0), (-2, 800_000_000), (-1, 1)]
        {
            let received = from_kernel(as_fuser_receives(seconds, nanoseconds));
            assert_eq!(received, Timestamp::from_parts(seconds, nanoseconds), "{seconds}.{nanoseconds}");
        }
    }

    #[test]
    fn times_out_of_range_become_the_nearest() {
        let far = as_fuser_receives(i64::MIN + 1, 0);
        assert_eq!(from_kernel(far), Timestamp(i64::MIN));
        assert_eq!(from_kernel(as_fuser_receives(i64::MAX, 0)), Timestamp(i64::MAX));
    }

    #[test]
    fn times_are_sent_as_they_are() {
        assert_eq!(
            to_kernel(Timestamp::from_parts(-2, 800_000_000)),
            UNIX_EPOCH - Duration::from_millis(1200)
        );
        assert_eq!(to_kernel(Timestamp::from_parts(2, 5)), UNIX_EPOCH + Duration::new(2, 5));
        assert_eq!(to_kernel(Timestamp(i64::MIN)), UNIX_EPOCH - Duration::from_nanos(1 << 63));
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        assert_eq!(fallocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(fallocate_mode(libc::FALLOC_FL_PUNCH_HOLE), None);
        assert_eq!(rename_flags(fuser::RenameFlags::RENAME_WHITEOUT), None);
        assert_eq!(set_xattr(3), None);
        assert_eq!(kind_of_mode(libc::S_IFDIR), None);
    }
}
