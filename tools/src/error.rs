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

/// What a command comes back with when it did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Something failed: exit code 1.
    Failed(Report),
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

    /// `what` failed because of this error and its causes. What pond's own errors say after their last
    /// semicolon is what to do next.
    pub fn because(what: impl Into<String>, cause: &(dyn Error + 'static)) -> Self {
        let text = chain(cause);
        match text.rsplit_once("; ") {
            Some((why, next)) => Failure::new(what, why).next(next),
            None => Failure::new(what, text),
        }
    }

    /// The command line is wrong.
    pub fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Failure::Usage(Report { what: what.into(), why: why.into(), next: None })
    }

    /// Adds what to do next.
    pub fn next(mut self, advice: impl Into<String>) -> Self {
        if let Failure::Failed(report) | Failure::Usage(report) = &mut self {
            report.next = Some(advice.into());
        }
        self
    }

    /// The process's exit code; for [`Failure::Interrupted`] the one that a shell would show.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Reported => 1,
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
    use std::io;

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
    fn advice_at_the_end_of_an_error_gets_its_own_line() {
        let error = io::Error::other("/p is not a pond: no data; make one with `pond init`");
        let Failure::Failed(report) = Failure::because("cannot open the pond", &error) else {
            unreachable!()
        };
        assert_eq!(report.why, "/p is not a pond: no data");
        assert_eq!(report.next.as_deref(), Some("make one with `pond init`"));
    }

    #[test]
    fn wrong_usage_exits_with_2_and_a_closed_pipe_with_0() {
        assert_eq!(Failure::usage("a", "b").exit_code(), 2);
        assert_eq!(Failure::OutputClosed.exit_code(), 0);
    }
}
