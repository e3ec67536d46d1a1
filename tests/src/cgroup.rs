//! A memory cgroup of a test's own, of version 1 or 2, whatever the machine has.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A group whose processes may use so much memory; removed when dropped, after they went back to its parent.
pub struct MemoryGroup {
    path: PathBuf,
    version_2: bool,
}

impl MemoryGroup {
    /// Makes a group of this name with a limit in bytes.
    pub fn new(name: &str, limit: u64) -> Self {
        let root = Path::new("/sys/fs/cgroup");
        let version_2 = root.join("cgroup.controllers").exists();
        let parent = if version_2 { root.to_owned() } else { root.join("memory") };
        if version_2 {
            fs::write(parent.join("cgroup.subtree_control"), "+memory")
                .expect("the memory controller is there");
        }
        let path = parent.join(name);
        fs::create_dir(&path).expect("we are root and the name is new");
        let file = if version_2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(path.join(file), limit.to_string()).expect("a limit can be set");
        MemoryGroup { path, version_2 }
    }

    /// Puts a process into the group.
    pub fn add(&self, pid: i32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("the process runs");
    }

    /// Has a program begin in the group.
    pub fn start(&self, command: &mut Command) {
        let members = self.path.join("cgroup.procs");
        // SAFETY: between fork and exec only system calls are made; the path was made before.
        unsafe { command.pre_exec(move || fs::write(&members, "0")) };
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn killed(&self) -> u64 {
        let file = if self.version_2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.path.join(file)).expect("the kernel counts");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("it names kills").trim().parse().expect("a number")
    }

    /// The most memory that was in use, bytes, caches of files included.
    pub fn peak(&self) -> u64 {
        let file = if self.version_2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let parent = self.path.parent().expect("it lies below the root").join("cgroup.procs");
        let members = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            // One that has ended meanwhile is not there to be moved.
            if let Err(error) = fs::write(&parent, pid) {
                eprintln!("process {pid} stays in its cgroup: {error}");
            }
        }
        if let Err(error) = fs::remove_dir(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}
