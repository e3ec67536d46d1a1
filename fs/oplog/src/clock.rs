//! What time it is, and whether that can be believed.
//!
//! What is old is deleted, so that a clock that is wrong for a moment may not make anything old. Within a boot the kernel
//! counts time, suspended or not, in a clock that nobody sets (`CLOCK_BOOTTIME`): where the wall clock gets ahead of it or falls
//! behind, it was set. Then time goes on as it went before, until the new one has proved itself. Across boots there is nothing to
//! compare with, so that a pond that was just opened waits for the same proof: the kernel says that the clock is
//! synchronized, or an hour passes in which nobody sets it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// A difference that is no jump. The kernel slews both clocks alike, so that only steps make any.
const TOLERANCE: i64 = 10_000_000;

/// A clock that nobody sets for so long is believed.
const PROVEN: i64 = 3_600_000_000;

/// After a jump the kernel's word is waited for this long: whoever synchronizes the clock may not have seen the jump yet.
const SETTLED: i64 = 60_000_000;

/// What the machine's clocks say. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Since 1970 UTC.
    pub wall: i64,
    /// Since the machine was started, suspended times included.
    pub boot: i64,
    /// Whether the kernel says that the wall clock is synchronized.
    pub synchronized: bool,
}

impl Reading {
    fn of_the_machine() -> Reading {
        Reading {
            wall: microseconds(libc::CLOCK_REALTIME),
            boot: microseconds(libc::CLOCK_BOOTTIME),
            synchronized: is_synchronized(),
        }
    }
}

fn microseconds(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec that outlives the call. It cannot fail: both clocks are there on any Linux that has FUSE.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1000)
}

/// Where the kernel does not tell, as in some containers, it is not known to be.
fn is_synchronized() -> bool {
    // SAFETY: all fields of a timex are integers, `modes` 0 changes nothing, and it outlives the call.
    unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&mut timex) >= 0 && timex.status & libc::STA_UNSYNC == 0
    }
}

/// Why the time cannot be believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nobody has said yet that the clock is right.
    Opened,
    /// It was set, by so many microseconds.
    Jumped(i64),
}

/// The time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Microseconds since 1970 UTC.
    pub time: i64,
    /// Why nothing may be deleted by its age.
    pub doubt: Option<Doubt>,
}

impl Now {
    /// The time, if it can be believed.
    pub fn certain(self) -> Option<i64> {
        self.doubt.is_none().then_some(self.time)
    }
}

/// What was seen of the clocks. All differences are of the wall clock from the other one.
#[derive(Clone, Copy, Debug)]
struct Trust {
    /// The one that time follows.
    followed: i64,
    /// The one of the last jump, or of the beginning.
    seen: i64,
    /// When that was, by the clock that nobody sets.
    since: i64,
    jumped: bool,
}

impl Trust {
    fn new(reading: Reading) -> Self {
        let difference = reading.wall - reading.boot;
        Trust { followed: difference, seen: difference, since: reading.boot, jumped: false }
    }

    fn observe(&mut self, reading: Reading) -> Now {
        let difference = reading.wall - reading.boot;
        if (difference - self.seen).abs() > TOLERANCE {
            (self.seen, self.since, self.jumped) = (difference, reading.boot, true);
        }
        let quiet = reading.boot - self.since;
        let is_proven = quiet >= PROVEN || (reading.synchronized && (!self.jumped || quiet >= SETTLED));
        let apart = difference - self.followed;
        if is_proven || apart.abs() <= TOLERANCE {
            self.followed = difference;
        }
        let doubt = match (is_proven, self.jumped) {
            (true, _) => None,
            (false, true) => Some(Doubt::Jumped(apart)),
            (false, false) => Some(Doubt::Opened),
        };
        Now { time: reading.boot + self.followed, doubt }
    }
}

/// The clock of an open pond.
pub struct Clock {
    read: Box<dyn Fn() -> Reading + Send + Sync>,
    trust: Mutex<Trust>,
}

impl Clock {
    /// The machine's, which is believed less the later it is made.
    pub fn of_the_machine() -> Arc<Self> {
        Self::new(Reading::of_the_machine)
    }

    /// One that says what `read` says.
    pub fn new(read: impl Fn() -> Reading + Send + Sync + 'static) -> Arc<Self> {
        let trust = Mutex::new(Trust::new(read()));
        Arc::new(Clock { read: Box::new(read), trust })
    }

    /// What time it is. To be asked now and then: a jump counts from when it was seen.
    pub fn now(&self) -> Now {
        let mut trust = self.trust.lock();
        // With the lock: readings are judged in their order.
        trust.observe((self.read)())
    }

    /// How long ago something was by the clock that nobody sets, that had this reading then.
    pub(crate) fn since(&self, boot: i64) -> Duration {
        Duration::from_micros(u64::try_from((self.read)().boot - boot).unwrap_or(0))
    }

    pub(crate) fn boot(&self) -> i64 {
        (self.read)().boot
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Clock").field("trust", &*self.trust.lock()).finish()
    }
}

/// Milliseconds since 1970 UTC, as the wall clock has it: for what nothing is judged by.
pub(crate) fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;
    const YEAR: i64 = 365 * 24 * HOUR;
    const START: i64 = 50 * YEAR;

    struct Machine {
        boot: i64,
        error: i64,
        synchronized: bool,
    }

    impl Machine {
        fn read(&self) -> Reading {
            Reading { wall: START + self.boot + self.error, boot: self.boot, synchronized: self.synchronized }
        }

        fn truth(&self) -> i64 {
            START + self.boot
        }
    }

    #[test]
    fn a_clock_that_is_ten_years_ahead_for_seconds_changes_no_time_and_is_doubted_for_an_hour() {
        let mut machine = Machine { boot: 0, error: 0, synchronized: true };
        let mut trust = Trust::new(machine.read());
        machine.boot = HOUR;
        assert_eq!(trust.observe(machine.read()).certain(), Some(machine.truth()));
        // Setting the clock takes the kernel's word back, as `settimeofday` does; or not.
        for synchronized in [false, true] {
            (machine.error, machine.synchronized) = (10 * YEAR, synchronized);
            for _ in 0..15 {
                machine.boot += SECOND;
                let now = trust.observe(machine.read());
                assert_eq!(now, Now { time: machine.truth(), doubt: Some(Doubt::Jumped(10 * YEAR)) });
            }
            (machine.error, machine.synchronized) = (0, false);
            let now = trust.observe(machine.read());
            assert_eq!(now, Now { time: machine.truth(), doubt: Some(Doubt::Jumped(0)) });
            machine.boot += HOUR;
            assert_eq!(trust.observe(machine.read()).certain(), Some(machine.truth()));
        }
    }

    #[test]
    fn a_pond_that_was_just_opened_believes_the_kernel_at_once_and_the_clock_after_an_hour() {
        let mut machine = Machine { boot: 5 * SECOND, error: 0, synchronized: false };
        let mut trust = Trust::new(machine.read());
        machine.boot += HOUR - 1;
        assert_eq!(trust.observe(machine.read()).doubt, Some(Doubt::Opened));
        machine.boot += 1;
        assert_eq!(trust.observe(machine.read()).doubt, None);
        machine.synchronized = true;
        assert_eq!(Trust::new(machine.read()).observe(machine.read()).doubt, None);
    }

    #[test]
    fn a_laptop_that_suspends_every_night_has_no_jump() {
        let mut machine = Machine { boot: 0, error: 0, synchronized: false };
        let mut trust = Trust::new(machine.read());
        machine.boot = 2 * HOUR;
        for _ in 0..400 {
            assert_eq!(trust.observe(machine.read()).certain(), Some(machine.truth()));
            machine.boot += 12 * HOUR;
        }
    }

    #[test]
    fn a_clock_that_is_put_right_is_followed() {
        let mut machine = Machine { boot: 0, error: -30 * YEAR, synchronized: false };
        let mut trust = Trust::new(machine.read());
        machine.boot = 20 * SECOND;
        (machine.error, machine.synchronized) = (0, true);
        assert!(trust.observe(machine.read()).doubt.is_some());
        machine.boot += SETTLED;
        assert_eq!(trust.observe(machine.read()).certain(), Some(machine.truth()));
    }

    #[test]
    fn whatever_is_done_to_a_clock_for_less_than_an_hour_a_certain_time_is_never_wrong() {
        for seed in 0..2000 {
            let mut seed: u64 = seed;
            let mut random = |below: u64| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (seed >> 33) % below
            };
            let mut machine =
                Machine { boot: random(1 << 40) as i64, error: 0, synchronized: random(2) == 0 };
            let mut trust = Trust::new(machine.read());
            let mut last = machine.truth();
            let (mut certain, mut wrong_since) = (0, None);
            for _ in 0..200 {
                // Nights among them.
                machine.boot += if random(20) == 0 { 9 * HOUR } else { random(30) as i64 * SECOND };
                // Wrong again and again, never for an hour, and put right by whoever synchronizes it, or by hand.
                match wrong_since {
                    Some(since) if machine.boot - since > HOUR / 4 || random(3) == 0 => {
                        machine.error = 0;
                        wrong_since = None;
                    }
                    None if random(8) == 0 => {
                        machine.error = random(20 * YEAR as u64) as i64 - 10 * YEAR;
                        machine.synchronized = false;
                        wrong_since = Some(machine.boot);
                    }
                    None => machine.synchronized = random(2) == 0,
                    Some(_) => {}
                }
                let now = trust.observe(machine.read());
                if let Some(time) = now.certain() {
                    certain += 1;
                    assert!((time - machine.truth()).abs() <= TOLERANCE, "{now:?}");
                }
                // What is doubted still goes forward.
                assert!(now.time >= last - TOLERANCE, "{now:?}");
                last = now.time;
            }
            assert!(certain > 0);
        }
    }

    #[test]
    fn the_machine_tells() {
        let clock = Clock::of_the_machine();
        let apart = clock.now().time - chrono::Utc::now().timestamp_micros();
        assert!(apart.abs() < HOUR);
        let before = clock.boot();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.since(before) >= Duration::from_millis(2));
    }
}
