//! Which of the pond's threads the scheduler shall prefer, where more want to run than there are processors.

use std::io;
use std::mem;

/// How soon a thread gets a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for each of its answers, which take microseconds: it gets a processor as soon as it wants one, and
    /// not for long.
    Prompt,
    /// As any other program's: what a [`Prompt`](Self::Prompt) thread starts would be as it is.
    Ordinary,
    /// Nobody waits for it: it takes what others leave.
    Aside,
}

impl Priority {
    /// Niceness, and the length of a turn in nanoseconds, which the kernel takes for `sched_runtime` of an ordinary
    /// thread since 6.12 (0: its own default; at least 100 µs, sched(7)).
    fn attributes(self) -> (i32, u64) {
        match self {
            Priority::Prompt => (-10, 100_000),
            Priority::Ordinary => (0, 0),
            Priority::Aside => (10, 0),
        }
    }

    /// Asks for it, for the calling thread and those that it will start. A user who may not be preferred gets the short
    /// turns alone; that anything is refused changes nothing but speed.
    pub fn take(self) {
        let (nice, turn) = self.attributes();
        let asked = set(nice, turn).or_else(|_| set(0, turn));
        if let Err(error) = asked {
            tracing::debug!(priority = ?self, %error, "the scheduler does not take it");
        }
    }
}

fn set(nice: i32, turn: u64) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: mem::size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: turn,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the attributes live through the call and say their own size; 0 is the calling thread.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
