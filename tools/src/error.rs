//! How a command fails: what was tried, why it did not work, what to do next, and the exit code.
//!
//! Every command returns [`Failure`]; only `main` prints it, in one shape:
//!
//! ```text
//! pond: cannot read /notes/today: No such file or directory
//!       see what is there with `pond list /notes`
//! ```

use std::error::Error;
use std::fmt;
use std::io;

use pond_mount::{MountError, RequestError};
use pond_oplog::OpLogError;
use pond_replicate::ReplicateError;
use pond_steward::{FactoryError, StewardError};
use pond_tinyfs::{Advise, Errno, StorageError};

/// What a command comes back with when it did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Something failed: exit code 1.
    Failed(Report),
    /// The same with an exit code that says what failed.
    Told {
        /// The exit code.
        code: u8,
        /// What failed.
        report: Report,
    },
    /// A program that was run has failed, which is its own affair: its exit code.
    Exit(u8),
    /// The command was called the wrong way: exit code 2.
    Usage(Report),
    /// Whoever read our output has gone (`pond log | head`): ends quietly, exit code 0.
    OutputClosed,
    /// A signal asked us to stop; what had begun was undone. Ends by that signal.
    Interrupted(i32),
    /// What went wrong has been reported item by item already: exit code 1.
    Reported,
}

/// What was tried, why it failed, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What failed, as "cannot read /a".
    pub what: String,
    /// Why: the chain of causes, outermost first.
    pub why: String,
    /// What to do next, if there is something to say beyond `why`.
    pub next: Option<String>,
}

/// A command's result.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// `what` failed because of `why`.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Failure::Failed(Report { what: what.into(), why: why.into(), next: None })
    }

    /// `what` failed because of this error and its causes; the first of them that knows what to do next says it.
    pub fn because(what: impl Into<String>, cause: &(dyn Error + 'static)) -> Self {
        let failure = Failure::new(what, chain(cause));
        match advice(cause) {
            Some(advice) => failure.next(advice),
            None => failure,
        }
    }

    /// The command line is wrong.
    pub fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Failure::Usage(Report { what: what.into(), why: why.into(), next: None })
    }

    /// Adds what to do next.
    pub fn next(mut self, advice: impl Into<String>) -> Self {
        if let Failure::Failed(report) | Failure::Told { report, .. } | Failure::Usage(report) = &mut self {
            report.next = Some(advice.into());
        }
        self
    }

    /// The process's exit code; for [`Failure::Interrupted`] the one that a shell would show.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Reported => 1,
            Failure::Told { code, .. } | Failure::Exit(code) => *code,
            Failure::Usage(_) => 2,
            Failure::OutputClosed => 0,
            Failure::Interrupted(signal) => 128_u8.saturating_add(*signal as u8),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pond: {}: {}", self.what, self.why)?;
        match &self.next {
            Some(next) => write!(f, "\n      {next}"),
            None => Ok(()),
        }
    }
}

/// The text of an error and of what caused it. Errors that carry their cause's words already
/// do not get them a second time.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = without_numbers(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = without_numbers(&error.to_string());
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// What the first of an error and its causes that knows says should be done next. Where pond gets a kind of error that knows,
/// it is named here.
fn advice(error: &(dyn Error + 'static)) -> Option<String> {
    fn of<E: Advise + 'static>(error: &(dyn Error + 'static)) -> Option<String> {
        error.downcast_ref::<E>().and_then(Advise::advice)
    }
    std::iter::successors(Some(error), |error| cause_of(*error)).find_map(|error| {
        of::<MountError>(error)
            .or_else(|| of::<RequestError>(error))
            .or_else(|| of::<ReplicateError>(error))
            .or_else(|| of::<StewardError>(error))
            .or_else(|| of::<FactoryError>(error))
            .or_else(|| of::<OpLogError>(error))
            .or_else(|| of::<pond_tinyfs::Error>(error))
            .or_else(|| of::<StorageError>(error))
            .or_else(|| of::<Advised>(error))
    })
}

/// What caused an error. An I/O error that was made of another one gives that one's cause as its own, and that one is needed.
fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// Why something is refused, and what to do next; may be what an I/O error is made of.
#[derive(Debug)]
pub struct Advised {
    /// Why.
    pub why: String,
    /// What to do next.
    pub advice: String,
}

impl Advised {
    /// An I/O error that knows what to do next.
    pub fn io(kind: io::ErrorKind, why: impl Into<String>, advice: impl Into<String>) -> io::Error {
        io::Error::new(kind, Advised { why: why.into(), advice: advice.into() })
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Error for Advised {}

impl Advise for Advised {
    fn advice(&self) -> Option<String> {
        Some(self.advice.clone())
    }
}

/// Whether an error says that nothing can be written there any more: the disk is full, or read-only.
pub fn ends_writing(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| Errno(number).is_full() || Errno(number) == Errno::ROFS)
}

/// The system's words without the " (os error N)" that Rust adds to them.
pub fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.parse::<i32>().is_ok() => out.push_str(rest),
            _ => {
                out.push_str(" (os error ");
                out.push_str(part);
            }
        }
    }
    out
}

/// Adds what was tried to an I/O error.
pub trait During<T> {
    /// `what` is what failed: "cannot read /a".
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Error + 'static> During<T> for std::result::Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Failure::because(what(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error, &'static str);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_report_says_what_failed_why_and_what_to_do_next() {
        let failure = Failure::new("cannot read /a", "No such file or directory").next("try `pond list`");
        let Failure::Failed(report) = &failure else { unreachable!() };
        assert_eq!(
            report.to_string(),
            "pond: cannot read /a: No such file or directory\n      try `pond list`"
        );
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn causes_are_told_once_and_without_the_number() {
        let cause = || io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(
            chain(&Outer(cause(), "cannot open the log")),
            "cannot open the log: No such file or directory"
        );
        assert_eq!(
            chain(&Outer(cause(), "no log: No such file or directory")),
            "no log: No such file or directory"
        );
    }

    #[test]
    fn the_advice_of_an_error_or_of_one_of_its_causes_gets_its_own_line() {
        let told = |error: &(dyn Error + 'static)| {
            let Failure::Failed(report) = Failure::because("cannot open the pond", error) else {
                unreachable!()
            };
            (report.why, report.next)
        };
        let missing = || StewardError::NoPond("/p".into());
        let next = Some("`pond init` makes one".to_owned());
        assert_eq!(told(&missing()), ("there is no pond at /p".to_owned(), next.clone()));
        assert_eq!(
            told(&MountError::Steward(missing())),
            ("there is no pond at /p".to_owned(), next.clone())
        );
        let run = FactoryError::because(missing());
        assert_eq!(told(&Outer(io::Error::other(run), "cannot run")).1, next);
        assert_eq!(told(&io::Error::other("no; not at all")), ("no; not at all".to_owned(), None));
    }

    #[test]
    fn wrong_usage_exits_with_2_and_a_closed_pipe_with_0() {
        assert_eq!(Failure::usage("a", "b").exit_code(), 2);
        assert_eq!(Failure::OutputClosed.exit_code(), 0);
    }
}
