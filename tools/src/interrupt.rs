//! Ctrl-C and the signals that end a process, for commands that must tidy up before they stop.

use std::sync::atomic::{AtomicI32, Ordering};

use crate::error::{Failure, Result};

/// The signal that asked us to stop; 0 before that.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

extern "C" fn note(signal: libc::c_int) {
    SIGNAL.store(signal, Ordering::Relaxed);
}

/// From now on the first signal only makes [`check`] fail; a second one ends the process at once. A signal that the
/// starter ignores (`nohup`, a script's `&`) stays ignored.
pub fn catch() {
    for signal in SIGNALS {
        // SAFETY: an all-zero sigaction is a valid one; `note` only stores to an atomic, which
        // a signal handler may do. sigaction fails only for signals that do not exist.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_RESETHAND;
            let mut before: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, &action, &mut before);
            if before.sa_sigaction == libc::SIG_IGN {
                libc::sigaction(signal, &before, std::ptr::null_mut());
            }
        }
    }
}

/// Fails once a signal came.
pub fn check() -> Result {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Failure::Interrupted(signal)),
    }
}

/// Whether a signal came since [`catch`]; from now on one ends the process again. For prompts, where it ends a piece of work alone.
pub fn release() -> bool {
    for signal in SIGNALS {
        // SAFETY: as in `catch`; what others set, or ignore, stays.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &mut now);
            if now.sa_sigaction == note as *const () as libc::sighandler_t {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
    SIGNAL.swap(0, Ordering::Relaxed) != 0
}

/// Ends the process by this signal, so that a shell knows that it was interrupted.
pub fn die(signal: libc::c_int) {
    // SAFETY: both calls only concern this process and its own signal.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
