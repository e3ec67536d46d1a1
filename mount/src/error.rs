//! Why a pond could not be mounted, unmounted or talked to: a sentence that names the thing and says what to do.

use std::io;
use std::path::{Path, PathBuf};

use pond_steward::StewardError;

use crate::control::protocol::RequestError;
use crate::mounting::busy_process::BusyProcess;

/// Why mounting, unmounting or talking to a daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// A system call failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The pond's directory is closed to this user.
    #[error(
        "the pond {0} is another user's; run the command as that user or as root (its mount may be open to others all the same)"
    )]
    AnotherUsers(PathBuf),
    /// There is no FUSE here.
    #[error("/dev/fuse cannot be used: {source}; {}", advice(.source))]
    NoFuse {
        /// What opening it said.
        source: io::Error,
    },
    /// The mountpoint is something else.
    #[error("{0} is not a directory; mount on a directory, or on a name that does not exist yet")]
    NotADirectory(PathBuf),
    /// Its parent is missing.
    #[error("the directory {0} does not exist; make it first (only the mountpoint's last component is made)")]
    NoParent(PathBuf),
    /// A pond is mounted there already.
    #[error(
        "the pond {source_path} is mounted on {mountpoint} already; `pond umount {mountpoint}` ends that"
    )]
    AlreadyMounted {
        /// Where.
        mountpoint: PathBuf,
        /// The pond's directory.
        source_path: PathBuf,
    },
    /// What is mounted there has lost its server and is none of ours.
    #[error(
        "a dead {fstype} mount of {source_path} is on {mountpoint}; detach it with `umount -l {mountpoint}`"
    )]
    DeadForeignMount {
        /// Where.
        mountpoint: PathBuf,
        /// Kind of filesystem.
        fstype: String,
        /// Its source.
        source_path: PathBuf,
    },
    /// The pond would be hidden beneath, or would contain, its own mount.
    #[error("the pond {pond} and its mountpoint {mountpoint} lie within each other; keep them apart")]
    Nested {
        /// The pond's directory.
        pond: PathBuf,
        /// The mountpoint.
        mountpoint: PathBuf,
    },
    /// Only sources can be mounted so.
    #[error("there is nothing to follow: {0} is not a replica; mount it without --follow")]
    NothingToFollow(PathBuf),
    /// Something else lies where the pond should.
    #[error(
        "{0} is not a pond, and not an empty directory in which to make one; \
         name another with --pond or $POND"
    )]
    NotAPond(PathBuf),
    /// There is no pond of which an old version could be shown.
    #[error("there is no pond at {0}; `pond init` makes one")]
    NoPond(PathBuf),
    /// There is no pond, and none is to be made.
    #[error(
        "there is no pond at {0}; is the disk that holds it mounted? \
         If there shall be a new one, `pond init` makes it, and so does mounting with `-o create`"
    )]
    NotCreated(PathBuf),
    /// The pond's path leads nowhere.
    #[error("the pond's path {0} is a symbolic link that leads nowhere; name the directory itself")]
    DanglingLink(PathBuf),
    /// Whoever wanted the mount has ended.
    #[error("the command that asked for this mount has ended, so nothing is mounted")]
    Cancelled,
    /// `fusermount3` refused.
    #[error("fusermount3 could not {action} {mountpoint}: {message}")]
    Fusermount {
        /// What it was asked for.
        action: &'static str,
        /// Where.
        mountpoint: PathBuf,
        /// What it said.
        message: String,
    },
    /// `fusermount3` could not be run.
    #[error("cannot run fusermount3, which mounts for ordinary users: {0}; install fuse3, or mount as root")]
    NoFusermount(io::Error),
    /// The kernel ended the session or never began it.
    #[error("the FUSE session on {mountpoint} failed: {source}")]
    Session {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No pond is mounted there.
    #[error("no pond is mounted on {0}")]
    NotMounted(PathBuf),
    /// Somebody still uses the mount.
    #[error("{mountpoint} is busy{}; end these, or change out of it, and try again", list(.users))]
    Busy {
        /// The mountpoint.
        mountpoint: PathBuf,
        /// Who uses it, as far as this user may see.
        users: Vec<BusyProcess>,
    },
    /// Files are open for writing in what is to become read-only.
    #[error("{mountpoint} cannot become read-only while files in it are open for writing{}", list(.users))]
    OpenForWriting {
        /// The mountpoint.
        mountpoint: PathBuf,
        /// Who uses it, as far as this user may see.
        users: Vec<BusyProcess>,
    },
    /// What is to become writable takes no writes.
    #[error("{mountpoint} stays read-only: {why}")]
    StaysReadOnly {
        /// The mountpoint.
        mountpoint: PathBuf,
        /// Why.
        why: String,
    },
    /// The daemon reported an error instead of being ready.
    #[error("{0}")]
    Daemon(String),
    /// The daemon ended without a word.
    #[error("the daemon ended before the mount was ready ({status}){output}")]
    DaemonDied {
        /// How it ended.
        status: String,
        /// What it had printed, after a colon.
        output: String,
    },
    /// The daemon did what it was asked for, and it failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An option that is none.
    #[error(
        "unknown mount option {0:?}; known are ro, rw, nosuid, nodev, noexec, sync, allow_other, private, create, nonempty, inode32, commit=SECONDS, versions=WHICH, remount, and what mount(8) has for every \
         filesystem"
    )]
    UnknownOption(String),
    /// An option's value that is none.
    #[error("the mount option {option} takes {expected}, not {value:?}")]
    BadOption {
        /// The option.
        option: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What it got.
        value: String,
    },
    /// The daemon did not answer as agreed.
    #[error("the daemon of {pond} {problem}")]
    Protocol {
        /// The pond's directory.
        pond: PathBuf,
        /// What went wrong.
        problem: String,
    },
    /// The daemon is there and says nothing.
    #[error("the daemon of {pond}, process {pid}, {}", silence(*.pid, *.stopped))]
    NoAnswer {
        /// The pond's directory.
        pond: PathBuf,
        /// Its process.
        pid: u32,
        /// Whether it was stopped by a signal.
        stopped: bool,
    },
    /// The pond could not be opened, committed or closed.
    #[error(transparent)]
    Steward(#[from] StewardError),
}

impl MountError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        MountError::Io { action, path: path.to_owned(), source }
    }
}

fn silence(pid: u32, stopped: bool) -> String {
    match stopped {
        true => format!("is stopped (SIGSTOP, SIGTSTP or a debugger); `kill -CONT {pid}` lets it go on"),
        false => "does not answer; its disk may not either, or it is very busy: see its log, and try again"
            .to_owned(),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "let this user open it (mode 0666 is usual), or mount as root",
        _ => {
            "load the module with `modprobe fuse`, or, in a container, pass the device in (`--device /dev/fuse`)"
        }
    }
}

fn list(users: &[BusyProcess]) -> String {
    if users.is_empty() {
        // SAFETY: it cannot fail.
        return match unsafe { libc::geteuid() } {
            0 => " (by a process that has ended meanwhile, or by the kernel itself, as a loop device or a network export does)".to_owned(),
            _ => " (by processes that only root may see)".to_owned(),
        };
    }
    users.iter().map(|user| format!("\n  {user}")).collect()
}
