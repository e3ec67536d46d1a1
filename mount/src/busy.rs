//! Who keeps a mount busy: processes with an open file, a working directory, a program or a mapping in it.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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

/// All processes of the system that use what lies under `mountpoint`, as far as this user may see.
///
/// Names are compared, not files: to look at a file could wait for a filesystem that no longer answers.
pub(crate) fn users_of(mountpoint: &Path) -> Vec<BusyProcess> {
    let mut users: Vec<BusyProcess> = crate::mount_info::mounts()
        .unwrap_or_default()
        .into_iter()
        .filter(|mount| mount.mountpoint != mountpoint && mount.mountpoint.starts_with(mountpoint))
        .map(|mount| BusyProcess {
            pid: 0,
            command: format!("a mount of {}", mount.source.display()),
            path: mount.mountpoint,
        })
        .collect();
    let Ok(processes) = fs::read_dir("/proc") else { return users };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    users.extend(pids.filter(|&pid: &u32| pid != std::process::id()).filter_map(|pid| {
        // A process may end, or be another user's: then it cannot be named.
        let path = uses(&PathBuf::from(format!("/proc/{pid}")), mountpoint)?;
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(BusyProcess { pid, command: command.trim_end().to_owned(), path })
    }));
    users
}

/// The first path under `mountpoint` that the process at `/proc/PID` holds.
fn uses(process: &Path, mountpoint: &Path) -> Option<PathBuf> {
    let inside = |link: PathBuf| fs::read_link(link).ok().filter(|path| path.starts_with(mountpoint));
    let linked = ["cwd", "root", "exe"].into_iter().find_map(|name| inside(process.join(name)));
    let open = || fs::read_dir(process.join("fd")).ok()?.flatten().find_map(|entry| inside(entry.path()));
    let mapped = || {
        let maps = fs::read(process.join("maps")).ok()?;
        maps.split(|&byte| byte == b'\n').find_map(|line| {
            let path = &line[line.iter().position(|&byte| byte == b'/')?..];
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            path.starts_with(mountpoint).then(|| path.to_owned())
        })
    };
    linked.or_else(open).or_else(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_named_by_its_working_directory() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let users = users_of(directory.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(users.len(), 1, "{users:?}");
        assert_eq!(users[0].pid, child.id());
        assert_eq!(users[0].command, "sleep");
        assert_eq!(users[0].path, directory.path());
    }
}
