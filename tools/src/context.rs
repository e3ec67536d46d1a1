//! What all commands share.

use std::path::{Path, PathBuf};

use crate::output::{Notices, Output};
use crate::target::Pond;

/// What all commands share.
pub struct Context {
    /// The pond.
    pub pond: Pond,
    /// Where facts go.
    pub out: Output,
    /// Where all else goes.
    pub notices: Notices,
}

impl Context {
    /// How this user calls the program for this pond, for advice.
    pub fn command(&self) -> String {
        command_for(self.pond.directory())
    }
}

/// `$XDG_DATA_HOME`, else `~/.local/share`.
pub fn data_directory() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    // home_dir asks the user database where $HOME is not set, as in a service of root's.
    let home =
        || std::env::home_dir().filter(|path| path.is_absolute()).map(|home| home.join(".local/share"));
    data.or_else(home)
}

/// How this user calls the program for a pond: without `--pond` where it is found anyway.
pub fn command_for(pond: &Path) -> String {
    let found = match std::env::var_os("POND") {
        Some(directory) => Some(PathBuf::from(directory)),
        None => data_directory().map(|data| data.join("pond")),
    };
    let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    match found {
        Some(directory) if canonical(&directory) == canonical(pond) => "pond".to_owned(),
        _ => format!("pond --pond {}", pond.display()),
    }
}
