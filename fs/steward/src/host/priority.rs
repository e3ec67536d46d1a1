//! Which of the pond's threads the scheduler shall prefer, where more want to run than there are processors.

use std::io;

/// How soon a thread gets a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for each of its answers, which take microseconds.
    Prompt,
    /// As any other program's: what a [`Prompt`](Self::Prompt) thread starts would be as it is.
    Ordinary,
    /// Nobody waits for it: it takes what others leave.
    Aside,
}

impl Priority {
    fn niceness(self) -> libc::c_int {
        match self {
            Priority::Prompt => -10,
            Priority::Ordinary => 0,
            Priority::Aside => 10,
        }
    }

    /// Asks for it, for the calling thread and those that it will start. Only root is preferred; that anything is refused
    /// changes nothing but speed.
    pub fn take(self) {
        // SAFETY: takes numbers only; 0 is the calling thread.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, self.niceness()) } != 0 {
            let error = io::Error::last_os_error();
            tracing::debug!(priority = ?self, %error, "the scheduler does not take it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_and_those_it_starts_take_a_priority() {
        let nice = |priority: Priority| {
            let taken = move || {
                priority.take();
                let inner = || {
                    // SAFETY: takes numbers only; 0 is the calling thread.
                    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
                };
                std::thread::spawn(inner).join().unwrap()
            };
            std::thread::spawn(taken).join().unwrap()
        };
        assert_eq!(nice(Priority::Aside), 10);
        // 0 for those who may not.
        assert!(matches!(nice(Priority::Prompt), -10 | 0));
    }
}
