//! Names and what they lead to, under a real kernel.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel_tests::harness::{TestMount, c, errno, names, ok};

#[test]
pub(crate) fn files_and_directories_do_what_programs_expect() {
    let mount = TestMount::new();
    let file = mount.write("file", "one\n");
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b"two\n").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    fs::create_dir_all(mount.path("a/b/c")).unwrap();
    fs::rename(&file, mount.path("a/b/moved")).unwrap();
    assert_eq!(file.metadata().unwrap_err().kind(), ErrorKind::NotFound);
    fs::hard_link(mount.path("a/b/moved"), mount.path("link")).unwrap();
    let linked = mount.path("link").metadata().unwrap();
    assert_eq!((linked.nlink(), linked.len()), (2, 8));
    symlink("a/b/moved", mount.path("symlink")).unwrap();
    assert_eq!(fs::read_link(mount.path("symlink")).unwrap(), Path::new("a/b/moved"));
    assert_eq!(fs::read(mount.path("symlink")).unwrap().len(), 8);
    assert_eq!(names(&mount.root), ["a", "link", "symlink"]);
    assert_eq!(fs::remove_dir(mount.path("a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    fs::remove_dir_all(mount.path("a")).unwrap();
    assert_eq!(mount.path("link").metadata().unwrap().nlink(), 1);
    OpenOptions::new().write(true).truncate(true).open(mount.path("link")).unwrap();
    assert_eq!(mount.path("link").metadata().unwrap().len(), 0);
}

#[test]
pub(crate) fn an_unlinked_open_file_stays_whole_until_it_is_closed() {
    let mount = TestMount::new();
    let path = mount.write("file", vec![7; 300_000]);
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all_at(b"end", 300_000).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.len(), &bytes[300_000..]), (300_003, b"end".as_slice()));
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    let nodes = mount.backing.fs.node_count();
    drop(file);
    let deadline = Instant::now() + Duration::from_secs(60);
    while mount.backing.fs.node_count() == nodes {
        assert!(Instant::now() < deadline, "the node was never forgotten");
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
pub(crate) fn every_kind_of_node_can_be_made() {
    let mount = TestMount::new();
    let device = libc::makedev(259, 300_000);
    for (name, kind) in [
        ("fifo", libc::S_IFIFO),
        ("socket", libc::S_IFSOCK),
        ("char", libc::S_IFCHR),
        ("block", libc::S_IFBLK),
        ("file", libc::S_IFREG),
    ] {
        // SAFETY: the path is valid.
        ok(unsafe { libc::mknod(c(&mount.path(name)).as_ptr(), kind | 0o600, device) });
        let metadata = mount.path(name).symlink_metadata().unwrap();
        assert_eq!(metadata.mode(), kind | 0o600, "{name}");
        let expected = if kind == libc::S_IFCHR || kind == libc::S_IFBLK { device } else { 0 };
        assert_eq!(metadata.rdev(), expected, "{name}");
    }
    assert!(mount.path("fifo").metadata().unwrap().file_type().is_fifo());
    std::os::unix::net::UnixListener::bind(mount.path("bound")).unwrap();
}

#[test]
pub(crate) fn rename_flags_are_honoured() {
    let mount = TestMount::new();
    let (a, b) = (mount.write("a", "A"), mount.write("b", "BB"));
    let rename = |flags| {
        // SAFETY: both paths are valid.
        unsafe { libc::renameat2(libc::AT_FDCWD, c(&a).as_ptr(), libc::AT_FDCWD, c(&b).as_ptr(), flags) }
    };
    assert_eq!(errno(rename(libc::RENAME_NOREPLACE)), libc::EEXIST);
    ok(rename(libc::RENAME_EXCHANGE));
    assert_eq!(fs::read(&a).unwrap(), b"BB");
    assert_eq!(errno(rename(libc::RENAME_WHITEOUT)), libc::EINVAL);
    ok(rename(0));
    assert_eq!(names(&mount.root), ["b"]);
    assert_eq!(fs::read(&b).unwrap(), b"BB");
}

#[test]
pub(crate) fn a_name_that_was_missing_is_seen_once_it_is_made() {
    let mount = TestMount::new();
    let path = mount.path("late");
    for _ in 0..2 {
        assert!(!path.exists());
        fs::write(&path, "x").unwrap();
        assert!(path.exists());
        fs::rename(&path, mount.path("other")).unwrap();
        assert!(!path.exists());
        fs::rename(mount.path("other"), &path).unwrap();
        assert!(path.exists() && !mount.path("other").exists());
        fs::remove_file(&path).unwrap();
    }
    assert!(!path.exists());
    DirBuilder::new().mode(0o700).create(&path).unwrap();
    assert!(path.is_dir());
}

#[test]
pub(crate) fn what_a_mount_says_about_itself_is_there_but_not_listed() {
    let mount = TestMount::new();
    assert!(names(&mount.root).is_empty());
    let own = mount.path(".pond");
    assert_eq!(names(&own), ["lag", "log", "position", "status.json", "versions"]);
    assert_eq!(own.metadata().unwrap().mode(), libc::S_IFDIR | 0o555);
    let mut open = File::open(own.join("position")).unwrap();
    let read = |file: &mut File| {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    let first = read(&mut open);
    let second = fs::read_to_string(own.join("position")).unwrap();
    assert!(first.starts_with("position ") && second.starts_with("position ") && first != second);
    assert_eq!(read(&mut open), first);
    assert_eq!(open.metadata().unwrap().len(), first.len() as u64);

    assert_eq!(fs::create_dir(&own).unwrap_err().kind(), ErrorKind::AlreadyExists);
    for refused in [
        fs::remove_dir(&own),
        fs::rename(&own, mount.path("x")),
        fs::write(own.join("lag"), "1"),
        fs::write(own.join("new"), "1"),
        fs::remove_file(own.join("lag")),
        fs::set_permissions(own.join("lag"), fs::Permissions::from_mode(0o666)),
        fs::hard_link(own.join("lag"), mount.path("lag")),
    ] {
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
    let other = mount.write("other", "");
    assert!(fs::rename(&other, &own).is_err());
    fs::create_dir(mount.path("sub")).unwrap();
    fs::create_dir(mount.path("sub/.pond")).unwrap();
}

#[test]
pub(crate) fn a_file_handle_holds_while_the_kernel_has_forgotten_the_inode() {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        handle: [u8; 128],
    }
    let mount = TestMount::new();
    fs::create_dir(mount.path("directory")).unwrap();
    let path = c(&mount.write("directory/file", "content"));
    let mut handle = Handle { bytes: 128, kind: 0, handle: [0; 128] };
    let mut mount_id = 0;
    let root = File::open(&mount.root).unwrap();
    let open = |handle: &mut Handle| {
        // SAFETY: the handle is laid out as struct file_handle, with 128 bytes of room.
        let descriptor = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                root.as_raw_fd(),
                std::ptr::from_mut(handle),
                libc::O_RDONLY,
            )
        };
        // SAFETY: the call gave us a descriptor of our own.
        (descriptor >= 0).then(|| unsafe { File::from_raw_fd(descriptor as i32) })
    };
    let mut name = |handle: &mut Handle| {
        // SAFETY: as above.
        unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                std::ptr::from_mut(handle),
                &raw mut mount_id,
                0,
            )
        }
    };
    assert_eq!(name(&mut handle), 0);
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    let mut text = String::new();
    open(&mut handle).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    fs::remove_file(mount.path("directory/file")).unwrap();
    // The kernel keeps the inode until the RELEASE that follows a close is answered.
    let deadline = Instant::now() + Duration::from_secs(60);
    while open(&mut handle).is_some() {
        assert!(Instant::now() < deadline, "the handle still opens");
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    }
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ESTALE));
}

#[test]
fn what_is_not_offered_says_so() {
    let mount = TestMount::new();
    let anonymous = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(&mount.root);
    assert_eq!(anonymous.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    let file = File::create_new(mount.path("file")).unwrap();
    let mut flags = 0i32;
    // SAFETY: FS_IOC_GETFLAGS writes one int.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    assert_eq!(errno(result), libc::ENOTTY);
    let long = OsStr::from_bytes(&[b'x'; 256]).to_owned();
    assert_eq!(File::create_new(mount.root.join(long)).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    File::create_new(mount.root.join(OsStr::from_bytes(&[0xff; 255]))).unwrap();
}
