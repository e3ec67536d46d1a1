//! Arguments and help of the commands that mount and unmount.

use std::path::PathBuf;

use clap::{ArgAction, Args, ValueHint};
use pond_oplog::At;

use crate::cli::values::{time_of_version, version};

/// Mount a pond
///
/// Makes the pond if there is none, says so, and makes the last component of MOUNTPOINT. Returns when the
/// pond can be used; a daemon serves it until `pond umount`. Ctrl-C before that leaves nothing mounted. When root mounts, other users may use
/// it unless --private says otherwise; ordinary users need fusermount3.
///
/// A replica is read-only, and follows its source by itself: each new version is shown as a whole, and a file
/// that is open keeps the bytes that it had when it was opened. .pond/lag says how many milliseconds it is behind.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond mount /mnt/pond
  pond mount /mnt/old --version 42        the tree as version 42 had it, read-only
  pond mount /mnt/old --timestamp '2026-11-20 18:30'
  pond mount /mnt/try --scratch           a copy to try things in, thrown away by `pond umount`
  pond mount /mnt/try --scratch --version 42
  pond mount /mnt/pond -o nosuid,nodev,commit=5

In /etc/fstab, with mount.fuse.pond and umount.fuse.pond installed as links to pond (the pond must be there, \
unless the options have `create` among them):
  /srv/pond  /mnt/pond  fuse.pond  defaults,nofail,commit=1  0 0")]
pub struct MountArgs {
    /// Where; its last component is made if it is missing
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,

    /// Stay in the foreground, messages on standard error, until unmounted or Ctrl-C
    #[arg(short, long)]
    pub foreground: bool,

    /// Take no writes
    #[arg(long)]
    pub read_only: bool,

    /// Follow the source: what a replica does anyway
    ///
    /// Asks for it: mounting fails where there is nothing to follow.
    #[arg(long, conflicts_with_all = ["read_only", "at_version", "at_timestamp"])]
    pub follow: bool,

    /// A scratch: writable, seen by nobody else, and gone when it is unmounted
    ///
    /// It begins as the version that is asked for, or the newest, of a source or a replica, mounted or not. What is written there takes
    /// space in the pond's directory until then. fsync promises nothing.
    #[arg(long, conflicts_with_all = ["read_only", "follow"])]
    pub scratch: bool,

    #[command(flatten)]
    pub at: AtArgs,

    /// Only for the user who mounts
    #[arg(long)]
    pub private: bool,

    /// Fail if there is no pond, rather than make one
    #[arg(long)]
    pub no_create: bool,

    /// Options as in fstab: ro, nosuid, nodev, noexec, commit=SECONDS, …
    ///
    /// ro, rw, nosuid, nodev, noexec, sync, allow_other, private, create, nonempty, inode32, commit=SECONDS, versions=WHICH,
    /// remount, and what mount(8) has for every filesystem. inode32 is for 32-bit programs that cannot list or stat otherwise.
    /// versions=allowed shows other users in .pond/versions what they may still see, all what they could then, off nothing to anybody.
    #[arg(short = 'o', value_name = "OPTS", action = ArgAction::Append)]
    pub options: Vec<String>,
}

/// Which state of the pond.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct AtArgs {
    /// The tree as this version had it, read-only but for a scratch
    ///
    /// A number, tag:NAME, start for the oldest that is kept, or a time, as --timestamp takes it.
    #[arg(
        id = "at_version", long = "version", value_name = "V", conflicts_with = "at_timestamp",
        allow_hyphen_values = true, value_parser = version
    )]
    pub version: Option<At>,

    /// The tree as it was at this time, read-only but for a scratch
    ///
    /// RFC 3339 (2026-11-20T18:30:00+01:00), local time (2026-11-20T18:30, "2026-11-20 18:30:15", 2026-11-20), how
    /// long ago (-10m; also s, h, d, w), or @SECONDS since 1970 UTC.
    #[arg(
        id = "at_timestamp", long = "timestamp", value_name = "TIME", allow_hyphen_values = true,
        value_parser = time_of_version
    )]
    pub timestamp: Option<At>,
}

impl AtArgs {
    /// The version that is meant, if one was given.
    pub fn at(&self) -> Option<At> {
        self.version.or(self.timestamp)
    }
}

/// Commit everything, unmount, and wait for the daemon's end
///
/// When it returns, all that was written is committed and another mount may follow at once. Fails,
/// naming the processes, while files in the mount are open.
#[derive(Args, Debug)]
#[command(alias = "unmount", after_long_help = "Example:\n  pond umount /mnt/pond")]
pub struct UmountArgs {
    /// Where the pond is mounted
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,
}
