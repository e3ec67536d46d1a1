//! What the system tells of who asks: groups, the process that a thread is of, and where processes are.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// A thread's supplementary groups. Of one that cannot be seen from here, as in a container of its own, none are known.
pub(crate) fn groups_of(thread: u32) -> Vec<u32> {
    let groups = |line: &str| line.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect();
    field(thread, "Groups:").map(|line| groups(&line)).unwrap_or_default()
}

/// The process that a thread is of.
pub(crate) fn process_of(thread: u32) -> u32 {
    field(thread, "Tgid:").and_then(|line| line.trim().parse().ok()).unwrap_or(thread)
}

fn field(thread: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
}

/// Whether a process works in one of these directories of `.pond/versions` or below it, wherever the pond is mounted for it.
/// Of other users' processes only root is told.
pub(crate) fn is_anybody_in(names: &BTreeSet<Box<[u8]>>) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().filter_map(|process| fs::read_link(process.path().join("cwd")).ok()).any(|place| {
        let mut parts = place.as_os_str().as_bytes().split(|&byte| byte == b'/');
        while let Some(part) = parts.next() {
            if part == pond_tinyfs::RESERVED_NAME && parts.next() == Some(b"versions") {
                return parts.next().is_some_and(|name| names.contains(name));
            }
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_of_its_process_and_has_its_groups() {
        // SAFETY: it has no arguments.
        let thread = unsafe { libc::gettid() } as u32;
        assert_eq!(process_of(thread), std::process::id());
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let groups: Vec<String> = groups_of(thread).iter().map(u32::to_string).collect();
        assert!(status.contains(&format!("Groups:\t{}", groups.join(" "))));
        assert!(groups_of(u32::MAX).is_empty());
    }

    #[test]
    fn a_process_that_works_in_a_version_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("{}", std::process::id());
        let place = directory.path().join(".pond/versions").join(&name);
        fs::create_dir_all(place.join("below")).unwrap();
        let sleep = |place: &std::path::Path| {
            std::process::Command::new("sleep").arg("60").current_dir(place).spawn().unwrap()
        };
        let names = BTreeSet::from([name.as_bytes().into()]);
        let mut seen = Vec::new();
        for place in [directory.path(), &place, &place.join("below")] {
            let mut child = sleep(place);
            seen.push(is_anybody_in(&names));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(seen, [false, true, true]);
    }
}
