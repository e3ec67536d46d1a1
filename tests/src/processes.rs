//! The processes that a test started, found again by a mark in their environment: a daemon is nobody's child.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use crate::wait::wait_until;

/// The environment variable that marks every process of a test with the test's own directory.
pub const MARK: &str = "POND_TEST";

/// Process ids of everything that carries this mark.
pub fn marked(mark: &Path) -> Vec<i32> {
    let wanted = [MARK.as_bytes(), b"=", mark.as_os_str().as_bytes()].concat();
    let carries = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == wanted)
    };
    let processes = fs::read_dir("/proc").expect("/proc can be listed").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != std::process::id() as i32).filter(carries).collect()
}

/// Whether a process has ended, with all its threads, which hold its files to the last; one that nobody has waited
/// for yet has.
pub fn has_ended(pid: i32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the command's name, which stands in parentheses and may hold anything.
        Ok(stat) => {
            threads.count() <= 1 && stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']))
        }
        Err(_) => true,
    }
}

/// Sends a signal.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: kill takes no pointers.
    unsafe { libc::kill(pid, signal) };
}

/// SIGKILL, and waits until it has taken effect.
pub fn kill_and_wait(pid: i32) {
    signal(pid, libc::SIGKILL);
    wait_for_end(pid, Duration::from_secs(60));
}

/// Waits for a process that is not our child.
#[track_caller]
pub fn wait_for_end(pid: i32, limit: Duration) {
    wait_until(&format!("process {pid} ends"), limit, || has_ended(pid).then_some(()));
}
