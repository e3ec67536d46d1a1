//! What to do about an error, apart from what the error says.

use std::error::Error;

/// An error that may know what to do next. Its own text says what failed, on what, and why.
pub trait Advise: Error {
    /// What to do next, as a clause without a full stop; none where there is nothing to say beyond the error's text.
    fn advice(&self) -> Option<String>;

    /// Both in one line, "why; advice", for a log, a status or an outcome.
    fn in_full(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{self}; {advice}"),
            None => self.to_string(),
        }
    }
}
