//! Running a user's program, and ending it when we are to end.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::error::{During, Failure, Result};
use crate::interrupt;

/// How often it is looked whether a signal came.
const LOOK: Duration = Duration::from_millis(50);

/// How long a program may take to end once it was asked to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a program to its end. Once a signal has come for us ([`interrupt::catch`]), the program gets it too, and ten seconds later
/// SIGKILL; then this fails as [`Failure::Interrupted`], however the program ended.
pub fn run(command: &mut Command) -> Result<ExitStatus> {
    let what = || format!("cannot run {}", command.get_program().to_string_lossy());
    let what = what();
    pond_steward::leave_huge_pages(command);
    let mut child = command.spawn().during(|| what.clone())?;
    let mut asked: Option<Instant> = None;
    let status = loop {
        if let Some(status) = child.try_wait().during(|| what.clone())? {
            break status;
        }
        if let Err(Failure::Interrupted(signal)) = interrupt::check() {
            match asked {
                // From a terminal it has it already.
                None => {
                    asked = Some(Instant::now());
                    wait(&child);
                    send(&mut child, signal);
                }
                Some(since) if since.elapsed() > PATIENCE => send(&mut child, libc::SIGKILL),
                Some(_) => {}
            }
        }
        wait(&child);
    };
    interrupt::check()?;
    Ok(status)
}

/// Sends a signal, unless it has ended.
fn send(child: &mut Child, signal: i32) {
    if let Ok(None) = child.try_wait() {
        // SAFETY: takes numbers only; a child that was not waited for keeps its number.
        unsafe { libc::kill(child.id() as i32, signal) };
    }
}

/// Waits for its end, a moment at most.
fn wait(child: &Child) {
    // SAFETY: a system call without pointers.
    let number = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    if number < 0 {
        return std::thread::sleep(LOOK);
    }
    // SAFETY: the call gave us a descriptor of our own.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number as i32) };
    let mut poll = libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one initialized pollfd. Whatever comes of it, the caller looks.
    unsafe { libc::poll(&raw mut poll, 1, LOOK.as_millis() as i32) };
}
