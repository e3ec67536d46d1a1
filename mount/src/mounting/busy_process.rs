//! One of those who keep a mount busy.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A process that uses a mount, and one path by which it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyProcess {
    /// Process id; 0 where another mount lies within.
    pub pid: u32,
    /// Its command's name.
    pub command: String,
    /// What it holds.
    pub path: PathBuf,
}

impl fmt::Display for BusyProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            0 => write!(f, "{} on {}", self.command, self.path.display()),
            pid => write!(f, "{pid} {} ({})", self.command, self.path.display()),
        }
    }
}
