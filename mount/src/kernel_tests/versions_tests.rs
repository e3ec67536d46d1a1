//! `.pond/versions` under a real kernel: old versions as trees, for programs and for other users.
//!
//! Needs root and `/dev/fuse`.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pond_tinyfs::{MemoryPersistence, Timestamp, TinyFs, root_row};

use crate::kernel_tests::harness::{TestMount, as_nobody, c, errno, names, ok, with_inode32};

/// A mount of a tree, versions of which are kept.
struct Kept {
    store: Arc<MemoryPersistence>,
    mount: TestMount,
}

impl Kept {
    fn new() -> Self {
        let store = MemoryPersistence::new();
        store.store(&[root_row(Timestamp::now(), 0, 0)]);
        let fs = TinyFs::new(store.load().unwrap(), store.clone());
        Kept { store, mount: TestMount::over(fs, false) }
    }

    /// Makes a version of what there is.
    fn keep(&self, number: u64) {
        let fs = &self.mount.backing.fs;
        let placed = self.store.store(&fs.cut().rows);
        fs.stored(&placed);
        let version = TinyFs::read_only(self.store.load().unwrap(), self.store.clone());
        self.mount.backing.versions.lock().insert(number, Arc::new(version));
    }

    fn at(&self, path: &str) -> PathBuf {
        self.mount.path(".pond/versions").join(path)
    }

    /// How many hold a version's tree beside the pond.
    fn holders(&self, number: u64) -> usize {
        Arc::strong_count(&self.mount.backing.versions.lock()[&number]) - 1
    }

    fn wait_until_let_go(&self, number: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.holders(number) > 0 {
            assert!(Instant::now() < deadline, "somebody still holds version {number}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn shell(&self, script: &str) -> String {
        let script = format!("set -e; cd '{}'; {script}", self.at("").display());
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn inode(path: &Path) -> u64 {
    path.symlink_metadata().unwrap().ino()
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// A tree with something of everything, kept as version 5, then changed and kept as version 7.
fn bed() -> Kept {
    let kept = Kept::new();
    let mount = &kept.mount;
    fs::create_dir_all(mount.path("a/b")).unwrap();
    let file = mount.write("a/file", "first");
    fs::hard_link(&file, mount.path("a/b/linked")).unwrap();
    symlink("file", mount.path("a/link")).unwrap();
    mount.write("a/gone", "was here");
    let sparse = File::create(mount.path("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 20).unwrap();
    ok(unsafe {
        // SAFETY: all pointers are valid.
        libc::setxattr(c(&file).as_ptr(), c"user.note".as_ptr(), b"then".as_ptr().cast(), 4, 0)
    });
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(&file).unwrap().set_modified(then).unwrap();
    kept.keep(5);
    fs::write(&file, "second, and longer").unwrap();
    fs::remove_file(mount.path("a/gone")).unwrap();
    mount.write("new", "new");
    kept.keep(7);
    kept
}

#[test]
fn every_version_is_a_tree_as_it_was() {
    let kept = bed();
    assert_eq!(read(&kept.at("5/a/file")), "first");
    assert_eq!(read(&kept.at("7/a/file")), "second, and longer");
    assert_eq!(read(&kept.at("5/a/link")), "first");
    assert_eq!(read(&kept.at("5/a/gone")), "was here");
    assert_eq!(names(&kept.at("5/a")), ["b", "file", "gone", "link"]);
    assert_eq!(names(&kept.at("7")), ["a", "new", "sparse"]);
    assert_eq!(names(&kept.at("")), ["5", "7"]);
    assert_eq!(names(&kept.mount.path(".pond")), ["lag", "log", "position", "status.json", "versions"]);
    assert_eq!(read(&kept.at("@start/a/file")), "first");
    assert_eq!(read(&kept.at("@-0s/a/file")), "second, and longer");
    for name in ["6", "8", "05", "@2999-01-01", "@5", "tip", "5/.pond", "5/new"] {
        assert_eq!(fs::metadata(kept.at(name)).unwrap_err().raw_os_error(), Some(libc::ENOENT), "{name}");
    }
    let then = kept.at("5/a/file").metadata().unwrap();
    assert_eq!((then.mtime(), then.len(), then.nlink()), (1_000_000_000, 5, 2));
    assert_eq!(kept.shell("getfattr -n user.note --only-values 5/a/file 2>/dev/null || echo then"), "then");
    assert_eq!(
        kept.at("5/sparse").metadata().unwrap().blocks(),
        kept.mount.path("sparse").metadata().unwrap().blocks()
    );
    // SAFETY: the descriptor is open.
    let hole = unsafe {
        use std::os::fd::AsRawFd;
        libc::lseek(File::open(kept.at("5/sparse")).unwrap().as_raw_fd(), 0, libc::SEEK_DATA)
    };
    assert!(hole > 0);
}

#[test]
fn numbers_of_old_nodes_are_their_own_and_stay() {
    for inode32 in [false, true] {
        let kept = if inode32 { with_inode32(bed) } else { bed() };
        let paths = ["a", "a/b", "a/b/linked", "a/file", "a/gone", "a/link", "sparse"];
        let numbers: Vec<u64> = paths.iter().map(|path| inode(&kept.at("5").join(path))).collect();
        assert_eq!(numbers[2], numbers[3], "hard links share theirs");
        let in_seven =
            paths.iter().filter(|path| **path != "a/gone").map(|path| inode(&kept.at("7").join(path)));
        let live = paths.iter().filter(|path| **path != "a/gone").map(|path| inode(&kept.mount.path(path)));
        let all: BTreeSet<u64> = numbers.iter().copied().chain(in_seven).chain(live).collect();
        assert_eq!(all.len(), 6 + 5 + 5);
        assert!(numbers.iter().all(|number| if inode32 {
            *number <= u64::from(u32::MAX)
        } else {
            number >> 63 == 1
        }));
        for entry in fs::read_dir(kept.at("5/a")).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), inode(&entry.path()));
        }
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        let again: Vec<u64> = paths.iter().map(|path| inode(&kept.at("5").join(path))).collect();
        assert_eq!(numbers, again);
        if !inode32 {
            kept.wait_until_let_go(5);
            let again: Vec<u64> = paths.iter().map(|path| inode(&kept.at("5").join(path))).collect();
            assert_eq!(numbers, again);
        }
    }
}

#[test]
fn programs_that_walk_trees_walk_old_ones() {
    for inode32 in [false, true] {
        let kept = if inode32 { with_inode32(bed) } else { bed() };
        let out = tempfile::tempdir().unwrap();
        let out = out.path().display();
        kept.shell(&format!(
            "cp -a 5 {out}/five; cp -a @start/. {out}/start; diff -r {out}/five {out}/start"
        ));
        kept.shell(&format!("diff -r --no-dereference 5 {out}/five"));
        kept.shell(&format!(
            "tar cf {out}/t.tar -C 5 .; mkdir {out}/t; tar xf {out}/t.tar -C {out}/t; diff -r 5 {out}/t"
        ));
        let links = kept.shell(&format!("stat -c %h {out}/t/a/file {out}/five/a/b/linked"));
        assert_eq!(links, "2\n2\n");
        assert_eq!(
            kept.shell("find 5 | sort | tr '\\n' ' '"),
            "5 5/a 5/a/b 5/a/b/linked 5/a/file 5/a/gone 5/a/link 5/sparse "
        );
        assert_eq!(kept.shell("grep -rl first 5 | sort | tr '\\n' ' '"), "5/a/b/linked 5/a/file ");
        assert!(kept.shell("diff -rq 5 7 || true").contains("Only in 5/a: gone"));
        kept.shell("if command -v rsync >/dev/null; then rsync -aHAX 5/ /dev/shm/pond-versions-$$/ && diff -r 5 /dev/shm/pond-versions-$$; rm -r /dev/shm/pond-versions-$$; fi");
        assert!(kept.shell("df 5 | tail -n 1").contains('%'));
        assert_eq!(
            kept.shell("cd 5/a/b; /bin/pwd -P | sed 's/.*pond.versions.//'; ls ../../.. | tr '\\n' ' '"),
            "5/a/b\n5 7 "
        );
    }
}

#[test]
fn nothing_in_old_versions_can_be_changed_also_by_root() {
    let kept = bed();
    let refused = |result: std::io::Result<()>, what: &str| {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EROFS), "{what}");
    };
    refused(fs::write(kept.at("5/a/file"), "x"), "truncate and write");
    refused(fs::write(kept.at("5/a/made"), "x"), "create");
    refused(fs::remove_file(kept.at("5/a/file")), "unlink");
    refused(fs::create_dir(kept.at("5/made")), "mkdir");
    refused(fs::create_dir(kept.at("9")), "mkdir among the versions");
    refused(fs::remove_dir(kept.at("5")), "rmdir of a version");
    refused(fs::remove_dir(kept.at("5/a/b")), "rmdir");
    refused(fs::rename(kept.at("5/a/file"), kept.mount.path("stolen")), "rename from");
    refused(fs::rename(kept.mount.path("new"), kept.at("5/new")), "rename to");
    refused(fs::hard_link(kept.at("5/a/file"), kept.mount.path("stolen")), "link");
    refused(fs::hard_link(kept.mount.path("new"), kept.at("5/new")), "link to");
    refused(symlink("x", kept.at("5/made")), "symlink");
    refused(fs::set_permissions(kept.at("5/a/file"), fs::Permissions::from_mode(0o600)), "chmod");
    refused(OpenOptions::new().append(true).open(kept.at("5/a/file")).unwrap().write_all(b"x"), "append");
    let path = c(&kept.at("5/a/file"));
    // SAFETY: all pointers are valid.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"user.x".as_ptr(), b"x".as_ptr().cast(), 1, 0) };
    assert_eq!(errno(set), libc::EROFS);
    assert_eq!(read(&kept.at("5/a/file")), "first");
    // Content goes out by a copy within the kernel.
    fs::copy(kept.at("5/a/file"), kept.mount.path("copied")).unwrap();
    assert_eq!(read(&kept.mount.path("copied")), "first");
}

#[test]
fn a_version_is_held_while_it_is_used_and_let_go_after() {
    let kept = bed();
    assert_eq!(kept.holders(5), 0);
    assert_eq!(read(&kept.at("5/a/file")), "first");
    assert!(kept.holders(5) > 0);
    kept.wait_until_let_go(5);
    let mut open = File::open(kept.at("5/a/gone")).unwrap();
    let mut inside = Command::new("sleep").arg("60").current_dir(kept.at("7")).spawn().unwrap();
    thread::sleep(Duration::from_secs(2));
    assert!(kept.holders(5) > 0 && kept.holders(7) > 0);
    let working = fs::read_link(format!("/proc/{}/cwd", inside.id())).unwrap();
    assert_eq!(working, kept.at("7"));
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "was here");
    drop(open);
    inside.kill().unwrap();
    inside.wait().unwrap();
    kept.wait_until_let_go(5);
    kept.wait_until_let_go(7);
}

#[test]
fn listing_versions_opens_none() {
    let kept = bed();
    assert_eq!(kept.shell("/bin/ls -f | sort | tr '\\n' ' '"), ". .. 5 7 ");
    assert_eq!((kept.holders(5), kept.holders(7)), (0, 0));
    fs::write(kept.mount.path("more"), "").unwrap();
    kept.keep(8);
    assert_eq!(names(&kept.at("")), ["5", "7", "8"]);
    assert_eq!(read(&kept.at("8/more")), "");
}

/// What nobody may read.
fn refused(script: &str) -> String {
    let output = as_nobody(script);
    assert!(!output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn allowed(script: &str) -> String {
    let output = as_nobody(script);
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_was_locked_since_stays_locked_in_old_versions() {
    let kept = Kept::new();
    let mount = &kept.mount;
    chmod(&mount.root, 0o755);
    for directory in ["open", "closed", "moved"] {
        fs::create_dir(mount.path(directory)).unwrap();
    }
    for name in ["open/kept", "open/tightened", "open/deleted", "closed/file", "moved/file", "open/program"] {
        let path = mount.write(name, name);
        chmod(&path, 0o644);
    }
    let private = mount.write("open/private", "private");
    chmod(&private, 0o600);
    let program = mount.path("open/program");
    fs::copy("/bin/id", &program).unwrap();
    chmod(&program, 0o6755);
    let capability = [1u8, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    // SAFETY: all pointers are valid.
    ok(unsafe {
        libc::setxattr(
            c(&program).as_ptr(),
            c"security.capability".as_ptr(),
            capability.as_ptr().cast(),
            capability.len(),
            0,
        )
    });
    kept.keep(1);
    let at = |name: &str| format!("'{}'", kept.at("1").join(name).display());
    // As it was, all of it is open.
    for name in ["open/kept", "open/tightened", "open/deleted", "closed/file", "moved/file"] {
        assert_eq!(allowed(&format!("cat {}", at(name))), name);
    }
    assert!(refused(&format!("cat {}", at("open/private"))).contains("Permission denied"));
    chmod(&mount.path("open/tightened"), 0o600);
    fs::remove_file(mount.path("open/deleted")).unwrap();
    chmod(&mount.path("closed"), 0o700);
    fs::rename(mount.path("moved"), mount.path("closed/moved")).unwrap();
    chmod(&private, 0o644);
    assert_eq!(allowed(&format!("cat {}", at("open/kept"))), "open/kept");
    for _ in 0..2 {
        assert!(refused(&format!("cat {}", at("open/tightened"))).contains("Permission denied"));
        assert!(refused(&format!("stat {}", at("open/tightened"))).contains("Permission denied"));
        assert!(refused(&format!("cat {}", at("open/deleted"))).contains("No such file"));
        assert!(refused(&format!("cat {}", at("closed/file"))).contains("Permission denied"));
        assert!(refused(&format!("ls {}", at("closed"))).contains("Permission denied"));
        assert!(refused(&format!("ls {}", at("moved"))).contains("Permission denied"));
        // What was closed then stays so.
        assert!(refused(&format!("cat {}", at("open/private"))).contains("Permission denied"));
        // It is there for root, and its looking opens it to nobody.
        for name in ["open/tightened", "open/deleted", "closed/file", "open/private", "moved/file"] {
            assert!(fs::read(kept.at("1").join(name)).is_ok(), "{name}");
        }
    }
    // A directory that somebody is in already.
    let inside = format!("cd {} && cat kept && ! cat tightened && ! cat deleted", at("open"));
    assert_eq!(allowed(&inside), "open/kept");
    // A program runs as who runs it.
    assert_eq!(kept.at("1/open/program").metadata().unwrap().mode() & 0o7777, 0o755);
    assert!(allowed(&format!("{} -u", at("open/program"))).contains("65534"));
    let mut buffer = [0u8; 64];
    // SAFETY: the buffer has that size.
    let got = unsafe {
        libc::getxattr(
            c(&kept.at("1/open/program")).as_ptr(),
            c"security.capability".as_ptr(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
        )
    };
    assert_eq!(errno(got as i32), libc::ENODATA);
    // SAFETY: as above.
    let listed = unsafe {
        libc::listxattr(c(&kept.at("1/open/program")).as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    assert_eq!(listed, 0);
}

#[test]
fn all_users_enter_pond_and_its_status_and_log_are_the_owners() {
    let kept = bed();
    chmod(&kept.mount.root, 0o755);
    let own = kept.mount.path(".pond");
    let own = own.display();
    assert!(allowed(&format!("ls {own}")).contains("versions"));
    assert!(allowed(&format!("cat {own}/position {own}/lag")).contains("position"));
    assert_eq!(
        allowed(&format!("cat {own}/versions/5/a/link {own}/versions/@start/a/file")),
        "firstsecond, and longer".replace("second, and longer", "first")
    );
    for file in ["status.json", "log"] {
        assert!(refused(&format!("cat {own}/{file}")).contains("Permission denied"), "{file}");
    }
    assert!(refused(&format!("touch {own}/versions/5/x")).contains("Permission denied"));
}

#[test]
fn a_file_is_found_where_it_is_now() {
    let kept = Kept::new();
    let mount = &kept.mount;
    chmod(&mount.root, 0o755);
    for (directory, mode) in [("a", 0o755), ("b", 0o755), ("closed", 0o700)] {
        fs::create_dir(mount.path(directory)).unwrap();
        chmod(&mount.path(directory), mode);
    }
    chmod(&mount.write("a/file", "file"), 0o644);
    chmod(&mount.write("a/other", "other"), 0o644);
    kept.keep(1);
    let at = |name: &str| format!("cat '{}'", kept.at("1").join(name).display());
    fs::rename(mount.path("a/file"), mount.path("b/renamed")).unwrap();
    fs::rename(mount.path("a/other"), mount.path("closed/other")).unwrap();
    assert_eq!(allowed(&at("a/file")), "file");
    assert!(refused(&at("a/other")).contains("Permission denied"));
    fs::hard_link(mount.path("closed/other"), mount.path("b/other")).unwrap();
    assert_eq!(allowed(&at("a/other")), "other");
}
