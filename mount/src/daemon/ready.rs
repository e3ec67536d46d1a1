//! From the command that starts a mount to its daemon, and back: "ready", or the daemon's error.
//!
//! The starter runs its own program again with the write end of a pipe, whose number is in `POND_READY_FD`, and
//! with a file in memory for standard output and error. The daemon answers with JSON lines: what it has made or waits
//! for, and at last that the mount answers, or its error; if it ends without that, the starter shows what it had printed.
//!
//! A starter that ends before (Ctrl-C, SIGTERM, SIGKILL) closes its end of the pipe, and the daemon then mounts nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::MountError;
use pond_tinyfs::Advise;

/// Names the descriptor on which the starter waits.
const READY_FD: &str = "POND_READY_FD";

/// A mount that answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The pond's directory.
    pub pond: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The process that serves it.
    pub pid: u32,
    /// The version shown.
    pub version: u64,
    /// Whether nothing can be changed through this mount.
    pub read_only: bool,
    /// Whether changes end with the mount.
    pub scratch: bool,
    /// Whether the pond was made for it.
    pub made: bool,
    /// What recovery did, and what the mount hides.
    pub notes: Vec<String>,
    /// The daemon's log; `None` in the foreground.
    pub log: Option<PathBuf>,
}

/// What a mount that is not ready yet has done, or waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// There was no pond in this directory, and one was made.
    Made(PathBuf),
    /// This process has the pond open; the mount waits for its end. Said after half a second of that.
    Waiting(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Progress(Progress),
    Ready(Ready),
    Error { message: String, advice: Option<String> },
}

/// The daemon's end of the pipe.
pub(crate) struct ReadyPipe(File);

impl ReadyPipe {
    /// The pipe to the starter, if there is one: else this is a mount in the foreground.
    pub(crate) fn from_environment() -> Option<ReadyPipe> {
        let number: RawFd = std::env::var(READY_FD).ok()?.parse().ok()?;
        // A program that a daemon's factory runs inherits the variable, but not the pipe.
        let kind = std::fs::metadata(format!("/proc/self/fd/{number}")).ok()?.file_type();
        if number <= libc::STDERR_FILENO || !kind.is_fifo() {
            return None;
        }
        // SAFETY: the descriptor is open, and was handed over to us alone.
        let pipe = unsafe { OwnedFd::from_raw_fd(number) };
        // SAFETY: as above. It fails on no open descriptor.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        Some(ReadyPipe(pipe.into()))
    }

    /// Fails if the starter has ended: then nobody wants the mount.
    pub(crate) fn ready(&self, ready: &Ready) -> io::Result<()> {
        self.answer(&Answer::Ready(ready.clone()))
    }

    pub(crate) fn progress(&self, progress: &Progress) {
        // Whether the starter is there is asked where it counts.
        if let Err(error) = self.answer(&Answer::Progress(progress.clone())) {
            tracing::debug!(%error, ?progress, "the command that started this mount did not hear of it");
        }
    }

    pub(crate) fn error(self, error: &MountError) {
        if let Err(unheard) =
            self.answer(&Answer::Error { message: error.to_string(), advice: error.advice() })
        {
            tracing::warn!(%error, %unheard, "the command that started this mount did not hear of its failure");
        }
    }

    /// Whether the command that wanted this mount has ended.
    pub(crate) fn starter_has_ended(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one initialized pollfd. An error is told of whether asked for or not, and a pipe that nobody can read any
        // more has one.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 && poll.revents & libc::POLLERR != 0 }
    }

    fn answer(&self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        (&self.0).write_all(&line)
    }
}

/// Mounts in the background: runs this program again with `arguments`, which must make it call
/// [`mount_foreground`](crate::mount_foreground), and waits until the mount answers or has failed. What comes before that
/// is given to `tell`. If this process ends while it waits, nothing is mounted.
pub fn mount_daemon(arguments: &[OsString], mut tell: impl FnMut(&Progress)) -> Result<Ready, MountError> {
    let program = std::env::current_exe()
        .map_err(|error| MountError::io("find the program", Path::new("/proc/self/exe"), error))?;
    let failed = |action| {
        let program = program.clone();
        move |error| MountError::io(action, &program, error)
    };
    let (pipe, theirs) = io::pipe().map_err(failed("make a pipe for"))?;
    let mut output = memory_file().map_err(failed("make an output for"))?;
    let number = theirs.as_raw_fd();
    let mut command = Command::new(&program);
    command.args(arguments).env(READY_FD, number.to_string()).stdin(Stdio::null());
    command.stdout(output.try_clone().map_err(failed("make an output for"))?);
    command.stderr(output.try_clone().map_err(failed("make an output for"))?);
    // SAFETY: these calls are async-signal-safe, and the descriptor is open until after the spawn.
    unsafe {
        command.pre_exec(move || {
            // What a shell has left open (`exec 3<file`) would keep busy for ever what it lies in. Linux before 5.11 cannot do it
            // in one call, and there it stays open.
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
            // Away from the terminal: its Ctrl-C and its end are not the daemon's.
            if libc::setsid() == -1 || libc::fcntl(number, libc::F_SETFD, 0) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut daemon = command.spawn().map_err(failed("run"))?;
    drop(theirs);
    for line in BufReader::new(pipe).lines() {
        match serde_json::from_str(&line.map_err(failed("hear from"))?) {
            Ok(Answer::Progress(progress)) => tell(&progress),
            Ok(Answer::Ready(ready)) => return Ok(ready),
            Ok(Answer::Error { message, advice }) => {
                daemon.wait().map_err(failed("wait for"))?;
                return Err(MountError::Daemon { message, advice });
            }
            // Cut off in the middle of a word.
            Err(_) => break,
        }
    }
    let status = daemon.wait().map_err(failed("wait for"))?.to_string();
    let mut text = String::new();
    output
        .seek(SeekFrom::Start(0))
        .and_then(|_| output.read_to_string(&mut text))
        .map_err(failed("read the output of"))?;
    let text = text.trim();
    let output = if text.is_empty() { String::new() } else { format!(": {text}") };
    Err(MountError::DaemonDied { status, output })
}

fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a NUL-terminated string.
    match unsafe { libc::memfd_create(c"pond-output".as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the call gave us a descriptor of our own.
        descriptor => Ok(unsafe { File::from_raw_fd(descriptor) }),
    }
}
