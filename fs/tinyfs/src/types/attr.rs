//! What `stat` shows of a node, and what `chmod`, `chown`, `truncate` and `utimensat` ask for.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::NodeId;

/// Kind of a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix domain socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// A factory's node: a read-only regular file to `stat`, whose bytes are its configuration.
    Dynamic,
}

impl FileType {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [FileType; 8] = [
        FileType::File,
        FileType::Directory,
        FileType::Symlink,
        FileType::Fifo,
        FileType::Socket,
        FileType::CharDevice,
        FileType::BlockDevice,
        FileType::Dynamic,
    ];

    /// The word the table stores.
    pub fn name(self) -> &'static str {
        match self {
            FileType::File => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            FileType::Fifo => "fifo",
            FileType::Socket => "socket",
            FileType::CharDevice => "char_device",
            FileType::BlockDevice => "block_device",
            FileType::Dynamic => "dynamic",
        }
    }

    /// Reads the word the table stores.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The `S_IFMT` bits of `st_mode`.
    pub fn mode_bits(self) -> u32 {
        match self {
            FileType::File | FileType::Dynamic => libc::S_IFREG,
            FileType::Directory => libc::S_IFDIR,
            FileType::Symlink => libc::S_IFLNK,
            FileType::Fifo => libc::S_IFIFO,
            FileType::Socket => libc::S_IFSOCK,
            FileType::CharDevice => libc::S_IFCHR,
            FileType::BlockDevice => libc::S_IFBLK,
        }
    }
}

/// A point in time: nanoseconds since 1970-01-01 UTC, negative before it (1677 to 2262).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The system clock's time.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Whole seconds, rounded towards the past, as `tv_sec`.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Nanoseconds within the second, 0 to 999,999,999, as `tv_nsec`.
    pub fn nanoseconds(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }

    /// From `tv_sec` and `tv_nsec`; times out of range become the nearest that is in it.
    pub fn from_parts(seconds: i64, nanoseconds: u32) -> Self {
        Timestamp(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanoseconds)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => Timestamp(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |ns| -ns)),
        }
    }
}

/// What `stat` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Identity and inode number.
    pub id: NodeId,
    /// Kind.
    pub kind: FileType,
    /// Permission bits, with setuid, setgid and sticky (`0o7777`), without type bits.
    pub mode: u16,
    /// Number of hard links; 0 for an unlinked node that is still open.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, in the kernel's `new_encode_dev` form; else 0.
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// Last access; changes by `utimensat` only.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of content or attributes.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
}

/// A time to set: the clock's, or a given one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeOrNow {
    /// `UTIME_NOW`.
    Now,
    /// This one.
    At(Timestamp),
}

/// A change of attributes; `None` leaves one as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttributes {
    /// New permission bits (`0o7777`).
    pub mode: Option<u16>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size, for `truncate`.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<TimeOrNow>,
    /// New modification time.
    pub mtime: Option<TimeOrNow>,
}

/// On whose behalf an operation runs.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Effective (filesystem) user.
    pub uid: u32,
    /// Effective (filesystem) group.
    pub gid: u32,
    /// Supplementary groups; unknown and unused where the kernel has checked.
    pub groups: Vec<u32>,
    /// Whether the kernel has checked permissions already (`default_permissions`). If not,
    /// TinyFS checks them.
    pub checked: bool,
}

impl Caller {
    /// A caller whose permissions the kernel has checked.
    pub fn checked(uid: u32, gid: u32) -> Self {
        Caller { uid, gid, groups: Vec::new(), checked: true }
    }

    /// A caller whose permissions TinyFS checks.
    pub fn unchecked(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        Caller { uid, gid, groups, checked: false }
    }

    /// The superuser.
    pub fn root() -> Self {
        Caller::checked(0, 0)
    }

    /// Whether the caller is the superuser.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Whether the caller is in a group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// Extended attributes of a node: names and values are bytes.
pub type Xattrs = std::collections::BTreeMap<Box<[u8]>, Box<[u8]>>;
