//! Real trees come through: a repository cloned into the mount, and a source tree copied with everything that `cp -a`
//! copies, both looked at again after a remount with other people's tools.
//!
//! `POND_TREE` is the tree that is copied (default: the sources of this workspace; try `~/.cargo/registry/src`).

use std::env;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pond_tests::command::run_within;
use pond_tests::{TestPond, succeed, tools::tool, tree};

/// The root of this workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let mut git = Command::new(tool("git"));
    // The clone may belong to another user than the one who runs this.
    git.args(["-c", "safe.directory=*", "-c", "user.name=Pond", "-c", "user.email=pond@example.org", "-C"]);
    succeed(git.arg(directory).args(arguments))
}

#[test]
fn a_repository_is_cloned_checked_changed_and_intact_after_a_remount() {
    let pond = TestPond::mounted();
    let source = pond.host_directory("source");
    repository(&source);
    git(pond.mountpoint(), &["clone", "--quiet", "--no-local", source.to_str().unwrap(), "clone"]);
    let clone = pond.path("clone");
    let healthy = || {
        git(&clone, &["fsck", "--full", "--strict"]);
        assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    };
    healthy();
    fs::write(clone.join("new"), "a change\n").unwrap();
    git(&clone, &["add", "new"]);
    git(&clone, &["commit", "--quiet", "--message", "A change"]);
    git(&clone, &["gc", "--quiet"]);
    healthy();
    let head = git(&clone, &["rev-parse", "HEAD"]);
    pond.remount();
    healthy();
    assert_eq!(git(&clone, &["rev-parse", "HEAD"]), head);
    assert_eq!(fs::read_to_string(clone.join("new")).unwrap(), "a change\n");
    pond.umount();
}

/// Brings this repository to `directory`; where the workspace is no repository (an unpacked archive), makes
/// one of its sources.
fn repository(directory: &Path) {
    let workspace = workspace();
    if workspace.join(".git").exists() {
        git(directory, &["clone", "--quiet", "--bare", "--no-local", workspace.to_str().unwrap(), "."]);
    } else {
        git(directory, &["init", "--quiet"]);
        copy(&[&workspace.join("fs"), &workspace.join("tests")], directory);
        git(directory, &["add", "--all"]);
        git(directory, &["commit", "--quiet", "--message", "Sources"]);
    }
}

#[test]
fn a_tree_copied_in_is_the_same_after_a_remount() {
    let pond = TestPond::with_patience(Duration::from_secs(3600));
    pond.mount();
    let original = match env::var_os("POND_TREE") {
        Some(tree) => PathBuf::from(tree),
        None => {
            let original = pond.host_directory("original");
            let sources = ["fs", "mount", "tests", "tools"].map(|name| workspace().join(name));
            copy(&sources.iter().map(PathBuf::as_path).collect::<Vec<_>>(), &original);
            add_what_sources_lack(&original);
            original
        }
    };
    let copied = pond.path("copy");
    copy(&[&original], &copied);
    compare(&original, &copied);
    pond.remount();
    compare(&original, &copied);
    pond.umount();
}

fn copy(sources: &[&Path], destination: &Path) {
    let mut cp = Command::new("cp");
    run_within(cp.arg("-a").args(sources).arg(destination), Duration::from_secs(1800)).success();
}

/// The directory of fifos and device nodes, which diff calls different from everything.
const SPECIAL: &str = "special";

/// What an ordinary source tree has none of.
fn add_what_sources_lack(root: &Path) {
    let odd = root.join("odd");
    fs::create_dir(&odd).unwrap();
    fs::create_dir(odd.join("empty")).unwrap();
    fs::create_dir(odd.join(SPECIAL)).unwrap();
    fs::write(odd.join("empty file"), "").unwrap();
    fs::write(odd.join(OsStr::from_bytes(b"not \xff UTF-8\n")), "name").unwrap();
    fs::write(odd.join("x".repeat(255)), "longest name").unwrap();
    fs::write(odd.join("one"), "linked").unwrap();
    fs::hard_link(odd.join("one"), odd.join("two")).unwrap();
    symlink("one", odd.join("link")).unwrap();
    symlink("nowhere/at/all", odd.join("dangling")).unwrap();
    symlink("t".repeat(4000), odd.join("long target")).unwrap();
    fs::write(odd.join("setuid"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(odd.join("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(odd.join("empty"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(odd.join("empty file"), Some(1234), Some(56_789)).unwrap();
    std::os::unix::fs::lchown(odd.join("link"), Some(4321), Some(98_765)).unwrap();
    let sparse = fs::File::create(odd.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 33 << 20).unwrap();
    for (name, mode, device) in
        [("fifo", libc::S_IFIFO, (0, 0)), ("char", libc::S_IFCHR, (1, 3)), ("block", libc::S_IFBLK, (7, 300))]
    {
        let path = tree::c_path(&odd.join(SPECIAL).join(name));
        // SAFETY: the path is NUL-terminated.
        let made = unsafe { libc::mknod(path.as_ptr(), mode | 0o640, libc::makedev(device.0, device.1)) };
        assert_eq!(made, 0, "{name}: {}", std::io::Error::last_os_error());
    }
    set_xattr(&odd.join("one"), "user.comment", b"an attribute \0 with a NUL");
    set_xattr(&odd.join("empty"), "user.empty", b"");
    set_xattr(&odd.join("one"), "trusted.pond", b"for root only");
    set_xattr(&odd.join("dangling"), "trusted.pond", b"of a symlink");
    // Before 1970 and far ahead, to the nanosecond; last, since everything before changes times.
    for (name, seconds, nanoseconds) in
        [("one", -1_000_000_000, 123_456_789), ("link", 4_000_000_000, 999_999_999)]
    {
        let time = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let path = tree::c_path(&odd.join(name));
        // SAFETY: the path is NUL-terminated, and there are two times.
        let set = unsafe {
            libc::utimensat(libc::AT_FDCWD, path.as_ptr(), [time, time].as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
        };
        assert_eq!(set, 0, "{name}: {}", std::io::Error::last_os_error());
    }
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let (path, name) = (tree::c_path(path), CString::new(name).unwrap());
    // SAFETY: both strings are NUL-terminated, and the value is as long as said.
    let set = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(set, 0, "{path:?}: {}", std::io::Error::last_os_error());
}

/// No difference for diff, for rsync with all it can compare, or for ourselves.
fn compare(original: &Path, copied: &Path) {
    let limit = Duration::from_secs(1800);
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference", "--exclude", SPECIAL]).arg(original).arg(copied);
    assert_eq!(run_within(&mut diff, limit).success(), "");
    // -A: the pond holds no ACLs and refuses them, which rsync takes for "none", as on any such filesystem.
    let mut rsync = Command::new(tool("rsync"));
    rsync.args(["-aHAXn", "--itemize-changes", "--delete"]);
    rsync.arg(original.join("")).arg(copied.join(""));
    assert_eq!(run_within(&mut rsync, limit).success(), "");
    let also = tree::Also { mtime: true, ..tree::Also::default() };
    tree::assert_same("original and copy", &tree::look_at(original), &tree::look_at(copied), also);
}
