//! Signals that a process is sent on behalf of another. What comes from the terminal is not passed on: the other has it already.

use std::sync::atomic::{AtomicI32, Ordering};

/// The process that gets them; 0 for nobody.
static TARGET: AtomicI32 = AtomicI32::new(0);

/// The last one that came; 0 before that.
static LAST: AtomicI32 = AtomicI32::new(0);

/// Those that users and programs send to have something ended or looked at.
const SIGNALS: [libc::c_int; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

extern "C" fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    LAST.store(signal, Ordering::Relaxed);
    let target = TARGET.load(Ordering::Relaxed);
    // SAFETY: the kernel gives a valid pointer to a handler that asked for it; kill may be called from one.
    unsafe {
        if target > 0 && (*info).si_code <= 0 {
            libc::kill(target, signal);
        }
    }
}

/// From now on signals no longer end this process, but the program that it runs in a transaction gets them. Those that the starter
/// ignores (`nohup`, a script's `&`) stay ignored.
pub fn forward_signals() {
    for signal in SIGNALS {
        // SAFETY: an all-zero sigaction is a valid one; the handler only uses atomics and kill, as it may. sigaction fails only for
        // signals that do not exist.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = pass_on as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO;
            let mut before: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, &raw const action, &raw mut before);
            if before.sa_sigaction == libc::SIG_IGN {
                libc::sigaction(signal, &raw const before, std::ptr::null_mut());
            }
        }
    }
}

/// Has signals wait; what waited before. Between a fork and its program they would find a handler of ours, and be lost.
pub(crate) fn hold_back() -> libc::sigset_t {
    // SAFETY: zeros are a valid set, which the calls fill in; they fail only for signals that do not exist.
    unsafe {
        let (mut ours, mut before): (libc::sigset_t, libc::sigset_t) =
            (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut ours);
        for signal in SIGNALS {
            libc::sigaddset(&raw mut ours, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &raw const ours, &raw mut before);
        before
    }
}

/// Lets those come that waited, but for what waited `before`.
pub(crate) fn let_come(before: &libc::sigset_t) {
    // SAFETY: a set that hold_back gave.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

/// Signals that this process would forward do again what they do by themselves.
pub(crate) fn forward_none() {
    for signal in SIGNALS {
        // SAFETY: as in `forward_signals`.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            if action.sa_sigaction != libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// Who gets them from now on; 0 for nobody.
pub(crate) fn forward_to(process: i32) {
    TARGET.store(process, Ordering::Relaxed);
}

/// The last signal that came since this was asked.
pub fn take_signal() -> Option<i32> {
    Some(LAST.swap(0, Ordering::Relaxed)).filter(|&signal| signal != 0)
}
