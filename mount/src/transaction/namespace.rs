//! A mount and process namespace of its own for one program, in which a scratch is mounted.
//!
//! Here is the side of the process that wants it.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::MountError;
use crate::mounting::mount_point::is_root;
use crate::transaction::first_process::{FirstProcess, NO_FUSE, STEPS, Said};
use crate::transaction::forwarding::forward_to;
use crate::transaction::place::{Place, Program};

/// A namespace, which ends with this value.
pub(crate) struct Namespace {
    /// Its first process; 0 once it was waited for.
    process: i32,
    status: UnixStream,
}

impl Namespace {
    /// Has the first process mount the scratch, and send the descriptor over `host`.
    pub(crate) fn begin(place: &Place, program: &Program, host: &UnixStream) -> Result<Self, MountError> {
        let failed = |error| MountError::io("prepare a transaction at", &place.mountpoint, error);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let first = FirstProcess::new(place, program, [&ours, &theirs, host]).map_err(failed)?;
        let user = if is_root() { 0 } else { libc::CLONE_NEWUSER };
        let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | user | libc::SIGCHLD;
        // SAFETY: a fork by the name of clone; the child goes on below with system calls only, and never returns.
        let process = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match process {
            -1 => Err(MountError::NoNamespace(io::Error::last_os_error())),
            0 => first.run(),
            process => {
                let process = process as i32;
                forward_to(process);
                Ok(Namespace { process, status: ours })
            }
        }
    }

    /// Lets the program begin.
    pub(crate) fn go(&mut self) -> Result<(), MountError> {
        // Where it has ended meanwhile, what it says next tells.
        self.status.write_all(&[0]).or(Ok(()))
    }

    /// Waits for what it says next, or for the end of whoever has the pond open.
    pub(crate) fn next(&mut self, host: &UnixStream) -> Result<Said, MountError> {
        loop {
            let mut both = [
                libc::pollfd { fd: self.status.as_raw_fd(), events: libc::POLLIN, revents: 0 },
                libc::pollfd { fd: host.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 },
            ];
            // SAFETY: two initialized pollfds.
            if unsafe { libc::poll(both.as_mut_ptr(), 2, -1) } == -1 {
                match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(MountError::NoNamespace(error)),
                }
            }
            // What it has said counts, also when both have ended.
            if both[0].revents != 0 {
                let mut said = [0; 8];
                return Ok(match self.status.read_exact(&mut said) {
                    Ok(()) => Said::of(said),
                    Err(_) => Said::Gone,
                });
            }
            if both[1].revents != 0 {
                return Ok(Said::Closed);
            }
        }
    }

    /// What to tell the user of what it said and should not have.
    pub(crate) fn failed(&self, pond: &Path, place: &Place, said: Said) -> MountError {
        match said {
            Said::NotMade(NO_FUSE, source) => MountError::NoFuse { source },
            Said::NotMade(step, error) => {
                let action = STEPS.get(step).copied().unwrap_or("prepare a transaction at");
                MountError::io(action, &place.mountpoint, error)
            }
            Said::Closed => MountError::ClosedMeanwhile(pond.to_owned()),
            _ => MountError::NamespaceKilled,
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(&mut self) -> Result<(), MountError> {
        forward_to(0);
        let process = std::mem::take(&mut self.process);
        wait_for(process).map_err(MountError::NoNamespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        forward_to(0);
        if self.process > 0 {
            // SAFETY: takes numbers only; a child that was not waited for keeps its number.
            unsafe { libc::kill(self.process, libc::SIGKILL) };
            if let Err(error) = wait_for(self.process) {
                tracing::error!(%error, "cannot wait for a transaction's processes");
            }
        }
    }
}

fn wait_for(process: i32) -> io::Result<()> {
    let mut status = 0;
    loop {
        // SAFETY: the status is a live number.
        if unsafe { libc::waitpid(process, &raw mut status, 0) } == process {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error => return Err(error),
        }
    }
}
