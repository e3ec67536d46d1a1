//! How much memory there is for us: the machine's, or less where a control group of the kernel's (a container's, a
//! service's) bounds it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use parking_lot::Mutex;

/// Bytes of memory that this process and its like may use: the least of the machine's and of what its control group and
/// those above it allow, of version 1 or 2. What the system does not tell bounds nothing.
pub fn limit() -> u64 {
    let groups = Groups { proc: Path::new("/proc/self") };
    groups.limit().unwrap_or(u64::MAX).min(of_machine())
}

/// Bytes of memory that this process has taken from the system, without files that are mapped (`RssAnon` of proc(5)).
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Lets this process have huge pages for as long as one of these is held; else, once [`without`](Self::without) was called, it has
/// none. The allocator asks the kernel for them. They make large writes faster by a fifth, and of what comes and goes in small
/// pieces each keeps 2 MiB for the little that is still used in it.
pub(crate) struct HugePages;

/// How many [`HugePages`] are held.
static HELD: Mutex<u32> = Mutex::new(0);

/// Whether somebody else has seen to it that this process has none.
static OTHERWISE: OnceLock<bool> = OnceLock::new();

impl HugePages {
    /// None from now on, unless somebody holds some.
    pub(crate) fn without() {
        let held = HELD.lock();
        Self::allow(*held > 0);
    }

    /// Some, until it is dropped.
    pub(crate) fn hold() -> Self {
        let mut held = HELD.lock();
        *held += 1;
        if *held == 1 {
            Self::allow(true);
        }
        HugePages
    }

    fn allow(allowed: bool) {
        let (disabled, none): (libc::c_ulong, libc::c_ulong) = (u8::from(!allowed).into(), 0);
        // SAFETY: both calls take numbers only. Where the kernel refuses, all is as it was.
        let is_disabled = || unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, none, none, none, none) } == 1;
        if !*OTHERWISE.get_or_init(is_disabled) {
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disabled, none, none, none) };
        }
    }
}

/// Lets a program that is about to be run have huge pages as if this process had never gone [`without`](HugePages::without): children
/// inherit that.
pub fn leave_huge_pages(command: &mut Command) {
    if OTHERWISE.get() != Some(&false) {
        return;
    }
    const NONE: libc::c_ulong = 0;
    let leave = || {
        // SAFETY: the call takes numbers only. Where the kernel refuses, all is as it was.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, NONE, NONE, NONE, NONE) };
        Ok(())
    };
    // SAFETY: the closure makes one system call, and neither allocates nor takes locks.
    unsafe { command.pre_exec(leave) };
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let mut held = HELD.lock();
        *held -= 1;
        if *held == 0 {
            Self::allow(false);
        }
    }
}

fn of_machine() -> u64 {
    // SAFETY: sysconf only reads figures of the system.
    let (pages, page) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    match (u64::try_from(pages), u64::try_from(page)) {
        (Ok(pages), Ok(page)) => pages.saturating_mul(page),
        _ => u64::MAX,
    }
}

/// The control groups of a process, by its directory in `/proc`.
struct Groups<'a> {
    proc: &'a Path,
}

impl Groups<'_> {
    fn limit(&self) -> Option<u64> {
        let member = fs::read_to_string(self.proc.join("cgroup")).ok()?;
        let mounts = fs::read_to_string(self.proc.join("mountinfo")).ok()?;
        let of_line = |line: &str| {
            // hierarchy:controllers:path; version 2 is hierarchy 0 and names no controllers.
            let mut fields = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let (fstype, file) = match hierarchy {
                "0" => ("cgroup2", "memory.max"),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    ("cgroup", "memory.limit_in_bytes")
                }
                _ => return None,
            };
            let (mountpoint, below) = place(&mounts, fstype, path)?;
            least_above(&mountpoint, &below, file)
        };
        member.lines().filter_map(of_line).min()
    }
}

/// Where the groups of a kind are mounted, and the path of one of them below that.
fn place(mounts: &str, fstype: &str, path: &str) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        // id parent device root mountpoint options … - type source options
        let (left, right) = line.split_once(" - ")?;
        let (left, right): (Vec<&str>, Vec<&str>) = (left.split(' ').collect(), right.split(' ').collect());
        let (root, mountpoint) = (left.get(3)?, left.get(4)?);
        let is_memory = fstype == "cgroup2" || right.get(2)?.split(',').any(|option| option == "memory");
        if *right.first()? != fstype || !is_memory {
            return None;
        }
        // In a container the groups may be mounted from its own on.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        Some((PathBuf::from(mountpoint), below.to_owned()))
    })
}

/// The least limit of a group and those above it.
fn least_above(mountpoint: &Path, below: &Path, file: &str) -> Option<u64> {
    let of = |group: &Path| fs::read_to_string(mountpoint.join(group).join(file)).ok()?.trim().parse().ok();
    below.ancestors().filter_map(of).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc/PID` whose groups are mounted below a directory, and the limits of these groups.
    fn limit(member: &str, kind: &str, root: &str, limits: &[(&str, &str)]) -> Option<u64> {
        let directory = tempfile::tempdir().unwrap();
        let groups = directory.path().join("groups");
        for (file, limit) in limits {
            let file = groups.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, limit).unwrap();
        }
        let mount = format!("30 20 0:26 {root} {} rw,nosuid - {kind}\n", groups.display());
        fs::write(directory.path().join("mountinfo"), format!("20 1 8:1 / / rw - ext4 /dev/sda rw\n{mount}"))
            .unwrap();
        fs::write(directory.path().join("cgroup"), member).unwrap();
        Groups { proc: directory.path() }.limit()
    }

    #[test]
    fn the_least_limit_of_the_groups_above_counts() {
        let two = [("memory.max", "max"), ("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n")];
        assert_eq!(limit("0::/a/b\n", "cgroup2 cgroup2 rw", "/", &two), Some(1000));
        assert_eq!(limit("0::/\n", "cgroup2 cgroup2 rw", "/", &two), None);
        let one = [("memory.limit_in_bytes", "9223372036854771712"), ("a/memory.limit_in_bytes", "2000")];
        let member = "5:cpu,cpuacct:/\n4:memory:/a\n0::/\n";
        assert_eq!(limit(member, "cgroup cgroup rw,memory", "/", &one), Some(2000));
        assert_eq!(limit(member, "cgroup cgroup rw,cpu,cpuacct", "/", &one), None);
        // A container sees its own group as the root of what is mounted.
        assert_eq!(
            limit("0::/pod/x\n", "cgroup2 cgroup2 rw", "/pod/x", &[("memory.max", "3000")]),
            Some(3000)
        );
    }

    #[test]
    fn there_is_some_memory() {
        assert!(super::limit() > 1 << 20 && super::limit() <= of_machine());
    }
}
