//! Attributes and permissions, under a real kernel.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::kernel_tests::harness::{TestMount, as_nobody, c, errno, ok};

#[test]
fn times_before_1970_survive() {
    let mount = TestMount::new();
    let path = mount.write("file", "");
    for (seconds, nanoseconds) in [(-2, 800_000_000), (-1, 0), (0, 1), (1_700_000_000, 999_999_999)] {
        let time = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        // SAFETY: the path and both times are valid.
        ok(unsafe { libc::utimensat(libc::AT_FDCWD, c(&path).as_ptr(), [time, time].as_ptr(), 0) });
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, nanoseconds));
        assert_eq!((metadata.atime(), metadata.atime_nsec()), (seconds, nanoseconds));
    }
    let now = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    let omit = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    // SAFETY: as above.
    ok(unsafe { libc::utimensat(libc::AT_FDCWD, c(&path).as_ptr(), [now, omit].as_ptr(), 0) });
    let metadata = path.metadata().unwrap();
    assert!(metadata.accessed().unwrap() > UNIX_EPOCH + Duration::from_secs(1_700_000_001));
    assert_eq!(metadata.mtime(), 1_700_000_000);
}

#[test]
fn a_mode_has_the_umask_applied_once() {
    let mount = TestMount::new();
    let script = format!(
        "umask 027 && cd {} && mkdir d && : > f && mkfifo p && umask 0 && mkdir -m 1777 open",
        mount.root.display()
    );
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    for (name, mode) in [("d", 0o750), ("f", 0o640), ("p", 0o640), ("open", 0o1777)] {
        assert_eq!(mount.path(name).metadata().unwrap().mode() & 0o7777, mode, "{name}");
    }
}

#[test]
fn extended_attributes_tell_their_size() {
    let mount = TestMount::new();
    let path = c(&mount.write("file", ""));
    let (name, value) = (c"user.name", b"value");
    let set = |name: &std::ffi::CStr, flags| {
        // SAFETY: all pointers are valid.
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) }
    };
    let mut buffer = [0u8; 64];
    let mut get = |size: usize| {
        // SAFETY: the buffer has at least this size.
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), size) }
    };
    assert_eq!(get(0), -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ENODATA));
    assert_eq!(errno(set(name, libc::XATTR_REPLACE)), libc::ENODATA);
    ok(set(name, libc::XATTR_CREATE));
    assert_eq!(errno(set(name, libc::XATTR_CREATE)), libc::EEXIST);
    assert_eq!((get(0), get(64)), (5, 5));
    assert_eq!(get(4), -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ERANGE));
    let mut list = [0u8; 64];
    // SAFETY: the buffer has this size.
    let length = unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    assert_eq!(&list[..length as usize], b"user.name\0");
    assert_eq!(errno(set(c"system.posix_acl_access", 0)), libc::EOPNOTSUPP);
    // SAFETY: both strings are valid.
    ok(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) });
}

#[test]
fn a_write_by_another_user_clears_setuid() {
    let mount = TestMount::new();
    let path = mount.write("program", "x");
    let mode = || path.metadata().unwrap().mode() & 0o7777;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6777)).unwrap();
    fs::write(&path, "by root").unwrap();
    assert_eq!(mode(), 0o6777);
    assert!(as_nobody(&format!("echo more >> {}", path.display())).status.success());
    assert_eq!(mode(), 0o777);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    chown(&path, Some(65534), Some(65534)).unwrap();
    assert_eq!(mode(), 0o755);
    assert!(!as_nobody(&format!("chown 0 {}", path.display())).status.success());
}

#[test]
pub(crate) fn permissions_are_enforced_for_everybody_else() {
    let mount = TestMount::new();
    let secret = mount.write("secret", "");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(!as_nobody(&format!("cat {}", secret.display())).status.success());
    assert!(!as_nobody(&format!("touch {}/mine", mount.root.display())).status.success());
    fs::set_permissions(&mount.root, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(as_nobody(&format!("touch {}/mine", mount.root.display())).status.success());
    assert_eq!(mount.path("mine").metadata().unwrap().uid(), 65534);
    assert!(!as_nobody(&format!("rm -f {}", secret.display())).status.success());
    assert!(!as_nobody(&format!("cat {}/.pond/status.json", mount.root.display())).status.success());
}

#[test]
fn a_program_that_a_stranger_wrote_into_is_not_setuid_any_more() {
    let mount = TestMount::new();
    let program = mount.path("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    let euid = |script: &str| {
        let script = format!("cd {} && {script}", mount.root.display());
        let output = as_nobody(&script);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4777)).unwrap();
    assert_eq!(euid("./id -u"), "0", "the mount takes setuid for what it is");
    assert_eq!(euid("printf x >> id && ./id -u"), "65534");
    assert_eq!(program.metadata().unwrap().mode() & 0o7777, 0o777);
    // Setgid without execution by the group, by somebody who is not of it.
    for script in ["printf x >> id", "fallocate -l 1 id", "fallocate -p -o 0 -l 4096 id"] {
        fs::set_permissions(&program, fs::Permissions::from_mode(0o6766)).unwrap();
        euid(script);
        assert_eq!(program.metadata().unwrap().mode() & 0o7777, 0o766, "{script}");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o2766)).unwrap();
        euid(script);
        assert_eq!(program.metadata().unwrap().mode() & 0o7777, 0o766, "{script}");
    }
}

#[test]
fn statfs_tells_of_the_space_below() {
    let mount = TestMount::new();
    let mut space = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path and the buffer are valid.
    let space = unsafe {
        ok(libc::statvfs(c(&mount.root).as_ptr(), space.as_mut_ptr()));
        space.assume_init()
    };
    let below = mount.backing.fs.statfs();
    assert_eq!(space.f_blocks * space.f_frsize, below.total / 4096 * 4096);
    assert_eq!(space.f_bavail * space.f_frsize, below.available / 4096 * 4096);
    assert_eq!(space.f_namemax, 255);
}
