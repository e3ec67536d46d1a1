//! How much others want the processor that a thread runs on.
//!
//! Priorities do not see to it that work in the background leaves it to them: the kernel groups threads by session, and
//! niceness counts within a group only, so a thread at work in the background gets as much of a processor as the program in the
//! foreground. So each such thread looks now and then how long it had to wait for its processor, and sleeps if it had to.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// So often a thread looks.
const LOOK: Duration = Duration::from_millis(1);

/// So far back it looks at most: the kernel counts time on a processor when it is over, or at the next tick.
const WINDOW: Duration = Duration::from_millis(20);

/// For so long as it ran, where others waited, it sleeps so many times as long.
const YIELD: u32 = 24;

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// What the kernel says of a thread's use of processors.
struct Meter {
    /// `/proc/thread-self/schedstat`.
    file: File,
    looked: Instant,
    /// When the window began, and what it said then.
    began: Instant,
    before: Times,
}

/// Since the thread began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    ran: Duration,
    /// While it could have run.
    waited: Duration,
}

impl Times {
    /// Two numbers of nanoseconds, and a third that counts turns.
    fn parse(text: &str) -> Option<Times> {
        let mut numbers = text.split_ascii_whitespace().map(|word| word.parse().map(Duration::from_nanos));
        Some(Times { ran: numbers.next()?.ok()?, waited: numbers.next()?.ok()? })
    }

    /// How long to sleep, with these times the last time.
    fn owed(self, before: Times) -> Duration {
        let (ran, waited) = (self.ran.saturating_sub(before.ran), self.waited.saturating_sub(before.waited));
        if waited * 4 > ran { ran * YIELD } else { Duration::ZERO }
    }
}

impl Meter {
    fn new() -> Option<Self> {
        let file = File::open("/proc/thread-self/schedstat").ok()?;
        let (before, now) = (Self::read(&file)?, Instant::now());
        Some(Meter { file, looked: now, began: now, before })
    }

    fn read(file: &File) -> Option<Times> {
        let mut text = [0; 96];
        let length = file.read_at(&mut text, 0).ok()?;
        Times::parse(std::str::from_utf8(&text[..length]).ok()?)
    }

    fn owed(&mut self) -> Duration {
        if self.looked.elapsed() < LOOK {
            return Duration::ZERO;
        }
        let Some(times) = Self::read(&self.file) else { return Duration::ZERO };
        let owed = times.owed(self.before);
        self.looked = Instant::now();
        if !owed.is_zero() || self.began.elapsed() >= WINDOW {
            (self.began, self.before) = (self.looked, times);
        }
        owed
    }
}

/// How long the calling thread should sleep, so that others get their share; zero where the kernel does not tell.
pub(crate) fn owed() -> Duration {
    METER.with_borrow_mut(|meter| {
        if meter.is_none() {
            *meter = Meter::new();
        }
        meter.as_mut().map_or(Duration::ZERO, Meter::owed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ran: u64, waited: u64) -> Times {
        Times { ran: Duration::from_millis(ran), waited: Duration::from_millis(waited) }
    }

    #[test]
    fn who_had_to_wait_sleeps_and_who_had_not_does_not() {
        assert_eq!(times(5, 9).owed(times(2, 6)), Duration::from_millis(3) * YIELD);
        assert_eq!(times(5, 6).owed(times(2, 6)), Duration::ZERO);
        assert_eq!(times(6, 7).owed(times(2, 6)), Duration::ZERO);
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        assert_eq!(Times::parse("3000000 1000000 17\n"), Some(times(3, 1)));
        assert_eq!(Times::parse("3000000"), None);
        assert_eq!(Times::parse(""), None);
        let file = File::open("/proc/thread-self/schedstat").expect("this kernel tells");
        let before = Meter::read(&file).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        assert!(Meter::read(&file).unwrap().ran > before.ran);
    }
}
