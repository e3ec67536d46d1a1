//! Who holds the writer lock of a pond.

use std::fmt;

/// Who holds a lock, as the lock file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockHolder {
    /// Process id; 0 if the holder has not written it yet.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

impl LockHolder {
    /// This process.
    pub(crate) fn this_process() -> Self {
        let command: Vec<String> =
            std::env::args_os().map(|argument| argument.to_string_lossy().replace('\n', " ")).collect();
        LockHolder { pid: std::process::id(), command: command.join(" ") }
    }

    /// From what the lock file says.
    pub(crate) fn parse(text: &str) -> Self {
        let (pid, command) = text.split_once('\n').unwrap_or((text, ""));
        LockHolder { pid: pid.trim().parse().unwrap_or(0), command: command.trim_end().to_owned() }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => f.write_str("another process"),
            pid => write!(f, "pid {pid} ({})", self.command),
        }
    }
}
