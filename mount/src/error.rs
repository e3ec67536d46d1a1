//! Why a pond could not be mounted, unmounted or talked to: a sentence that names the thing and says what to do.

use std::io;
use std::path::{Path, PathBuf};

use pond_steward::StewardError;
use pond_tinyfs::Advise;

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
    #[error("the pond {0} is another user's")]
    AnotherUsers(PathBuf),
    /// There is no FUSE here.
    #[error("/dev/fuse cannot be used: {source}")]
    NoFuse {
        /// What opening it said.
        source: io::Error,
    },
    /// The mountpoint is something else.
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    /// Its parent is missing.
    #[error("the directory {0} does not exist")]
    NoParent(PathBuf),
    /// A pond is mounted there already.
    #[error("the pond {source_path} is mounted on {mountpoint} already")]
    AlreadyMounted {
        /// Where.
        mountpoint: PathBuf,
        /// The pond's directory.
        source_path: PathBuf,
    },
    /// What is mounted there has lost its server and is none of ours.
    #[error("a dead {fstype} mount of {source_path} is on {mountpoint}")]
    DeadForeignMount {
        /// Where.
        mountpoint: PathBuf,
        /// Kind of filesystem.
        fstype: String,
        /// Its source.
        source_path: PathBuf,
    },
    /// The pond would be hidden beneath, or would contain, its own mount.
    #[error("the pond {pond} and its mountpoint {mountpoint} lie within each other")]
    Nested {
        /// The pond's directory.
        pond: PathBuf,
        /// The mountpoint.
        mountpoint: PathBuf,
    },
    /// Only sources can be mounted so.
    #[error("there is nothing to follow: {0} is not a replica")]
    NothingToFollow(PathBuf),
    /// Something else lies where the pond should.
    #[error("{0} is not a pond, and not an empty directory in which to make one")]
    NotAPond(PathBuf),
    /// There is no pond of which an old version could be shown.
    #[error("there is no pond at {0}")]
    NoPond(PathBuf),
    /// There is no pond, and none is to be made.
    #[error("there is no pond at {0}")]
    NotCreated(PathBuf),
    /// The pond's path leads nowhere.
    #[error("the pond's path {0} is a symbolic link that leads nowhere")]
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
        /// What to do next.
        advice: Option<&'static str>,
    },
    /// `fusermount3` could not be run.
    #[error("cannot run fusermount3, which mounts for ordinary users: {0}")]
    NoFusermount(#[source] io::Error),
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
    #[error("{mountpoint} is busy{}", list(.users))]
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
    /// A descriptor leads past a transaction.
    #[error("descriptor {descriptor} is open on {path}, in the mount itself, past the transaction")]
    OpenOnMount {
        /// Its number.
        descriptor: i32,
        /// What it is open on.
        path: PathBuf,
    },
    /// A descriptor of a directory leads past a transaction.
    #[error(
        "descriptor {descriptor} is open on the directory {path}, from which the mount itself can be reached, past the transaction"
    )]
    OpenDirectory {
        /// Its number.
        descriptor: i32,
        /// What it is open on.
        path: PathBuf,
    },
    /// The current directory leads past a transaction.
    #[error(
        "the current directory, {directory}, lies in the pond's mount, but not below {mountpoint}, where the transaction will be"
    )]
    ElsewhereOnMount {
        /// The current directory.
        directory: PathBuf,
        /// The mountpoint.
        mountpoint: PathBuf,
    },
    /// There can be no namespace.
    #[error("the system grants no mount and process namespace: {0}")]
    NoNamespace(io::Error),
    /// The first process of a transaction's namespace has ended.
    #[error("the transaction's processes were killed; nothing has happened to the pond")]
    NamespaceKilled,
    /// Whoever has the pond open has gone.
    #[error("the pond {0} was closed while the command ran, and nothing has happened to it")]
    ClosedMeanwhile(PathBuf),
    /// Whoever has the pond open has gone while it took over what a transaction did.
    #[error("it is not known whether what the command did was taken over: {source}")]
    Undecided {
        /// What was heard last.
        source: Box<MountError>,
    },
    /// The daemon reported an error instead of being ready.
    #[error("{message}")]
    Daemon {
        /// What it said.
        message: String,
        /// What it said to do next.
        advice: Option<String>,
    },
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
        /// What to do next.
        advice: Option<&'static str>,
    },
    /// The daemon is there and says nothing.
    #[error("the daemon of {pond}, process {pid}, {}", silence(*.stopped))]
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

impl Advise for MountError {
    fn advice(&self) -> Option<String> {
        let advice = match self {
            MountError::AnotherUsers(_) => {
                "run the command as that user or as root (its mount may be open to others all the same)"
            }
            MountError::NoFuse { source } => for_fuse(source),
            MountError::OpenOnMount { .. } => {
                "redirect to a place outside of the pond, or within the command: `pond txn -- sh -c '… >file'`"
            }
            MountError::OpenDirectory { .. } => {
                "close it for this command: `pond txn … N<&-`, with its number for N"
            }
            MountError::ElsewhereOnMount { .. } => "change to the same directory there",
            MountError::NoNamespace(_) => {
                "run it as root, or allow user namespaces (sysctl user.max_user_namespaces and \
                 kernel.apparmor_restrict_unprivileged_userns; in a container, its security profile)"
            }
            MountError::ClosedMeanwhile(_) => "run the command again",
            MountError::Undecided { .. } => "`pond log -n 3` tells",
            MountError::NotADirectory(_) => "mount on a directory, or on a name that does not exist yet",
            MountError::NoParent(_) => "make it first (only the mountpoint's last component is made)",
            MountError::AlreadyMounted { mountpoint, .. } => {
                return Some(format!("`pond umount {}` ends that", mountpoint.display()));
            }
            MountError::DeadForeignMount { mountpoint, .. } => {
                return Some(format!("detach it with `umount -l {}`", mountpoint.display()));
            }
            MountError::Nested { .. } => "keep them apart",
            MountError::NothingToFollow(_) => "mount it without --follow",
            MountError::NotAPond(_) => "name another with --pond or $POND",
            MountError::NoPond(_) => "`pond init` makes one",
            MountError::NotCreated(_) => {
                "is the disk that holds it mounted? If there shall be a new one, `pond init` makes it, and so does mounting with \
                 `-o create`"
            }
            MountError::DanglingLink(_) => "name the directory itself",
            MountError::NoFusermount(_) => "install fuse3, or mount as root",
            MountError::Busy { .. } => "end these, or change out of it, and try again",
            MountError::Daemon { advice, .. } => return advice.clone(),
            MountError::NoAnswer { pid, stopped: true, .. } => {
                return Some(format!("`kill -CONT {pid}` lets it go on"));
            }
            MountError::NoAnswer { .. } => {
                "its disk may not answer either, or it is very busy: see its log, and try again"
            }
            MountError::Protocol { advice, .. } => return advice.map(str::to_owned),
            MountError::Fusermount { advice, .. } => return advice.map(str::to_owned),
            MountError::Request(error) => return error.advice(),
            MountError::Steward(error) => return error.advice(),
            _ => return None,
        };
        Some(advice.to_owned())
    }
}

fn silence(stopped: bool) -> &'static str {
    match stopped {
        true => "is stopped (SIGSTOP, SIGTSTP or a debugger)",
        false => "does not answer",
    }
}

fn for_fuse(error: &io::Error) -> &'static str {
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
