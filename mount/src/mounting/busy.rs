//! Who keeps a mount busy: processes with an open file, a working directory, a program or a mapping in it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::mounting::busy_process::BusyProcess;
use crate::mounting::mount_info::{self, Mount};

/// All processes of the system that use what lies under `mountpoint`, as far as this user may see; not this one, nor `daemon`,
/// which serves it: a path that it holds by that name lies beneath the mount.
///
/// Names and mounts are compared, not files: to look at a file could wait for a filesystem that no longer answers.
pub(crate) fn users_of(mountpoint: &Path, daemon: Option<u32>) -> Vec<BusyProcess> {
    let mounts = mount_info::mounts().unwrap_or_default();
    let on_it = mounts.iter().rfind(|mount| mount.mountpoint == mountpoint);
    let within = |mount: &&Mount| mount.mountpoint != mountpoint && mount.mountpoint.starts_with(mountpoint);
    let mut users: Vec<BusyProcess> = mounts
        .iter()
        .filter(within)
        .map(|mount| BusyProcess {
            pid: 0,
            command: format!("a mount of {}", mount.source.display()),
            path: mount.mountpoint.clone(),
        })
        .collect();
    let Ok(processes) = fs::read_dir("/proc") else { return users };
    let ours = [Some(std::process::id()), daemon];
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    users.extend(pids.filter(|pid: &u32| !ours.contains(&Some(*pid))).filter_map(|pid| {
        // A process may end, or be another user's: then it cannot be named.
        let path = uses(&PathBuf::from(format!("/proc/{pid}")), mountpoint, on_it)?;
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(BusyProcess { pid, command: command.trim_end().to_owned(), path })
    }));
    users
}

/// Who else has what lies on this device mounted: a process of each other mount namespace that has a copy of the mount, with where
/// it has it; of that in which `daemon` is, the daemon. Containers and services keep copies of what was mounted when they began,
/// until they end.
pub(crate) fn keepers_of(device: &str, daemon: Option<u32>) -> Vec<BusyProcess> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen: Vec<PathBuf> = namespace("self").into_iter().collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut keepers = Vec::new();
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // The kernel's own threads have no command line, and nobody can end them.
    let is_program = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    for pid in daemon.into_iter().chain(pids) {
        // A process may end, or be another user's: then it cannot be asked.
        let Some(namespace) = namespace(&pid.to_string()).filter(|namespace| !seen.contains(namespace))
        else {
            continue;
        };
        if !is_program(pid) {
            continue;
        }
        seen.push(namespace);
        let copy = mount_info::mounts_seen_by(pid).into_iter().find(|mount| mount.device == device);
        if let Some(copy) = copy {
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            keepers.push(BusyProcess { pid, command: command.trim_end().to_owned(), path: copy.mountpoint });
        }
    }
    keepers
}

/// The first path under `mountpoint` that the process at `/proc/PID` holds, and that does not lie beneath the mount.
fn uses(process: &Path, mountpoint: &Path, mount: Option<&Mount>) -> Option<PathBuf> {
    // Mounts have other numbers in other namespaces.
    let namespace = |of: &Path| fs::read_link(of.join("ns/mnt")).ok();
    let mount = mount.filter(|_| namespace(process) == namespace(Path::new("/proc/self")));
    let inside = |link: &Path, id: &dyn Fn() -> Option<u64>| {
        let path = fs::read_link(link).ok().filter(|path| path.starts_with(mountpoint))?;
        let beneath = mount.is_some_and(|mount| id().is_some_and(|id| id != mount.id));
        (!beneath).then_some(path)
    };
    let linked = ["cwd", "root", "exe"].into_iter().find_map(|name| {
        let link = process.join(name);
        inside(&link, &|| mount_info::mount_id_at(&link))
    });
    let open = || {
        fs::read_dir(process.join("fd")).ok()?.flatten().find_map(|entry| {
            let info = process.join("fdinfo").join(entry.file_name());
            inside(&entry.path(), &|| mount_info::mount_id_of(&info))
        })
    };
    let mapped = || {
        let maps = fs::read(process.join("maps")).ok()?;
        maps.split(|&byte| byte == b'\n').find_map(|line| {
            let (figures, path) = line.split_at(line.iter().position(|&byte| byte == b'/')?);
            let path = Path::new(std::ffi::OsStr::from_bytes(path));
            let beneath = mount.is_some_and(|mount| !is_of_device(figures, &mount.device));
            (path.starts_with(mountpoint) && !beneath).then(|| path.to_owned())
        })
    };
    linked.or_else(open).or_else(mapped)
}

/// Whether a line of `/proc/PID/maps` is of this device, `MAJOR:MINOR`; there they are hexadecimal.
fn is_of_device(figures: &[u8], device: &str) -> bool {
    let numbers = |text: &str, radix| {
        let (major, minor) = text.split_once(':')?;
        Some((u32::from_str_radix(major, radix).ok()?, u32::from_str_radix(minor, radix).ok()?))
    };
    let text = String::from_utf8_lossy(figures);
    text.split_ascii_whitespace().nth(3).and_then(|field| numbers(field, 16)) == numbers(device, 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn devices_of_mappings_are_compared_by_number() {
        let figures = b"7f3c0-7f3c1 r-xp 00000000 00:62 4711                       ";
        assert!(is_of_device(figures, "0:98"));
        assert!(!is_of_device(figures, "0:62"));
    }

    #[test]
    fn a_process_is_named_by_its_working_directory() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let users = users_of(directory.path(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(users.len(), 1, "{users:?}");
        assert_eq!(users[0].pid, child.id());
        assert_eq!(users[0].command, "sleep");
        assert_eq!(users[0].path, directory.path());
    }
}
