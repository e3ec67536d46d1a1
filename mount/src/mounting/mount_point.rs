//! The mountpoint: what may be mounted on, and `mount(2)` and `umount2(2)` themselves.
//!
//! Root mounts by system call, anybody else through `fusermount3`. We do not let fuser do it: it takes a dead
//! session for a mounted one and can then unmount what lies beneath.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::MountError;
use crate::mounting::fusermount;
use crate::mounting::mount_info::{self, FSTYPE, SCRATCH_FSTYPE};
use crate::mounting::options::MountOptions;

/// Largest read and write request, bytes: what Linux allows by default (256 pages).
pub(crate) const MAX_REQUEST: u32 = 1 << 20;

/// What the kernel reads ahead of a sequential reader, KiB.
const READ_AHEAD_KIB: u32 = 2048;

/// Whether this process mounts by system call.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The absolute path of a mountpoint, without asking what is mounted there: it may no longer answer.
pub(crate) fn absolute(mountpoint: &Path) -> Result<PathBuf, MountError> {
    let path = std::path::absolute(mountpoint)
        .map_err(|error| MountError::io("find the place of", mountpoint, error))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.canonicalize().map_err(|error| MountError::io("resolve", &path, error));
    };
    match parent.canonicalize() {
        Ok(parent) => {
            let path = parent.join(name);
            // A symbolic link is followed, as mount(2) would. Anything else, also what does not answer, is itself.
            match path.symlink_metadata() {
                Ok(metadata) if metadata.is_symlink() => {
                    path.canonicalize().map_err(|error| MountError::io("resolve", &path, error))
                }
                _ => Ok(path),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MountError::NoParent(parent.to_owned())),
        Err(error) => Err(MountError::io("resolve", parent, error)),
    }
}

/// Looks whether a pond may be mounted there, and detaches a dead mount of ours. The mountpoint may be missing, and
/// so may the pond. Both paths are absolute.
pub(crate) fn check(pond: &Path, mountpoint: &Path) -> Result<(), MountError> {
    detach_dead(mountpoint)?;
    let metadata = fs::metadata(mountpoint);
    if let Some(mount) = mount_info::mount_at(mountpoint)?.filter(mount_info::Mount::is_pond) {
        let mountpoint = mountpoint.to_owned();
        return Err(MountError::AlreadyMounted { mountpoint, source_path: mount.source });
    }
    refuse_nesting(pond, mountpoint)?;
    match metadata {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(MountError::NotADirectory(mountpoint.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(MountError::io("look at the mountpoint", mountpoint, error)),
    }
}

/// Makes the mountpoint if it is missing, but not what leads to it.
pub(crate) fn make(mountpoint: &Path) -> Result<(), MountError> {
    match fs::create_dir(mountpoint) {
        Ok(()) => tracing::info!(mountpoint = %mountpoint.display(), "made the mountpoint"),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(MountError::io("make the mountpoint", mountpoint, error)),
    }
    Ok(())
}

/// What a mount there hides, as a warning; `None` where the directory is empty, or cannot be listed.
pub(crate) fn hidden(mountpoint: &Path) -> Option<String> {
    const NAMED: usize = 3;
    let mut entries = fs::read_dir(mountpoint).ok()?.flatten();
    let mut names: Vec<String> =
        entries.by_ref().take(NAMED).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let more = if entries.next().is_some() { ", …" } else { "" };
    (!names.is_empty()).then(|| {
        let (mountpoint, names) = (mountpoint.display(), names.join(", "));
        format!(
            "{mountpoint} is not empty: what is in it ({names}{more}) is hidden until the pond is unmounted (-o nonempty \
             for no warning)"
        )
    })
}

/// Whether an error means that a FUSE mount has lost its server.
pub(crate) fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Whether the server of what is mounted there is gone. Not by stat: the kernel answers that from the
/// attributes it has cached, for as long as it may, while `statfs` always asks.
fn has_died(mountpoint: &Path) -> io::Result<bool> {
    let path = CString::new(mountpoint.as_os_str().as_bytes())?;
    // SAFETY: an all-zero statfs is a valid one, and both pointers are to live values.
    let failed = unsafe {
        let mut figures: libc::statfs = std::mem::zeroed();
        libc::statfs(path.as_ptr(), &mut figures) != 0
    };
    Ok(failed && is_dead(&io::Error::last_os_error()))
}

/// Detaches the dead mounts of ponds that lie on `mountpoint`, one over the other.
fn detach_dead(mountpoint: &Path) -> Result<(), MountError> {
    while let Some(mount) = mount_info::mount_at(mountpoint)? {
        let died = has_died(mountpoint)
            .map_err(|error| MountError::io("look at the mountpoint", mountpoint, error))?;
        if !died {
            break;
        }
        if !mount.is_pond() {
            return Err(MountError::DeadForeignMount {
                mountpoint: mountpoint.to_owned(),
                fstype: mount.fstype,
                source_path: mount.source,
            });
        }
        tracing::warn!(
            mountpoint = %mountpoint.display(), pond = %mount.source.display(),
            "detaching the mount that a daemon left behind"
        );
        unmount(mountpoint, true)?;
    }
    Ok(())
}

/// Refuses a pond that would be hidden beneath its own mount, or a mountpoint within the pond.
/// Neither needs to exist yet; directories are compared by inode, since there are many ways to name one, and what does not
/// exist by its name below the nearest that does.
pub(crate) fn refuse_nesting(pond: &Path, mountpoint: &Path) -> Result<(), MountError> {
    let within = |inner: &Path, outer: &Path| {
        let outer = place(outer)?;
        for ancestor in inner.ancestors() {
            if place(ancestor)? == outer {
                return Ok::<_, MountError>(true);
            }
        }
        Ok(false)
    };
    if within(pond, mountpoint)? || within(mountpoint, pond)? {
        return Err(MountError::Nested { pond: pond.to_owned(), mountpoint: mountpoint.to_owned() });
    }
    Ok(())
}

/// Device and inode of the nearest directory on this absolute path that exists, and what the path names below it.
fn place(path: &Path) -> Result<(u64, u64, PathBuf), MountError> {
    for ancestor in path.ancestors() {
        match fs::metadata(ancestor) {
            Ok(metadata) => {
                let below = path.strip_prefix(ancestor).unwrap_or(Path::new("")).to_owned();
                return Ok((metadata.dev(), metadata.ino(), below));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(MountError::io("look at", ancestor, error)),
        }
    }
    Err(MountError::io("look at", path, io::ErrorKind::NotFound.into()))
}

/// Opens `/dev/fuse`, so that its absence is told before anything is made or opened.
pub(crate) fn open_fuse() -> Result<File, MountError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/fuse")
        .map_err(|source| MountError::NoFuse { source })
}

/// Mounts and returns the descriptor on which the kernel now waits for the session's first answer.
pub(crate) fn mount(
    pond: &Path,
    mountpoint: &Path,
    read_only: bool,
    options: &MountOptions,
) -> Result<OwnedFd, MountError> {
    if is_root() {
        mount_by_system_call(pond, mountpoint, read_only, options)
    } else {
        let mut text = OsString::from("fsname=");
        text.push(mount_info::escape_option(pond));
        let subtype = fstype(options).trim_start_matches("fuse.");
        text.push(format!(",subtype={subtype},default_permissions,max_read={MAX_REQUEST},nosuid,nodev"));
        text.push(if options.allow_other && !options.private { ",allow_other" } else { "" });
        text.push(if read_only { ",ro" } else { "" });
        text.push(if options.no_exec { ",noexec" } else { "" });
        for (flag, name) in FUSERMOUNT_FLAGS {
            text.push(if options.kernel_flags & flag != 0 { name } else { "" });
        }
        fusermount::mount(mountpoint, &text)
    }
}

fn mount_by_system_call(
    pond: &Path,
    mountpoint: &Path,
    read_only: bool,
    options: &MountOptions,
) -> Result<OwnedFd, MountError> {
    let device = open_fuse()?;
    // SAFETY: neither call can fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions,max_read={MAX_REQUEST}{}",
        device.as_raw_fd(),
        if options.private { "" } else { ",allow_other" }
    );
    let flags = flags(read_only, options);
    let source = c_string("mount", pond, pond.as_os_str().as_bytes())?;
    let target = c_string("mount on", mountpoint, mountpoint.as_os_str().as_bytes())?;
    let fstype = c_string("mount", pond, fstype(options).as_bytes())?;
    let data = c_string("mount", pond, data.as_bytes())?;
    // SAFETY: all arguments are NUL-terminated strings that outlive the call.
    let result = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, data.as_ptr().cast())
    };
    match result {
        0 => Ok(device.into()),
        _ => Err(MountError::io("mount on", mountpoint, io::Error::last_os_error())),
    }
}

fn fstype(options: &MountOptions) -> &'static str {
    if options.scratch { SCRATCH_FSTYPE } else { FSTYPE }
}

/// Those of the kernel's flags that `fusermount3` sets as well.
const FUSERMOUNT_FLAGS: [(libc::c_ulong, &str); 4] = [
    (libc::MS_SYNCHRONOUS, ",sync"),
    (libc::MS_DIRSYNC, ",dirsync"),
    (libc::MS_NOATIME, ",noatime"),
    (libc::MS_NODIRATIME, ",nodiratime"),
];

/// What mount(2) calls these options.
fn flags(read_only: bool, options: &MountOptions) -> libc::c_ulong {
    let chosen = [
        (read_only, libc::MS_RDONLY),
        (options.no_suid, libc::MS_NOSUID),
        (options.no_dev, libc::MS_NODEV),
        (options.no_exec, libc::MS_NOEXEC),
    ];
    let chosen = chosen.into_iter().filter(|(wanted, _)| *wanted);
    chosen.fold(options.kernel_flags, |flags, (_, flag)| flags | flag)
}

/// Gives what is mounted there these options. `Ok(false)`: files are open for writing where none may be any more.
pub(crate) fn remount(mountpoint: &Path, options: &MountOptions) -> Result<bool, MountError> {
    let target = c_string("remount", mountpoint, mountpoint.as_os_str().as_bytes())?;
    let flags = libc::MS_REMOUNT | flags(options.read_only, options);
    // SAFETY: the path is a NUL-terminated string that outlives the call, and of the others a remount needs none.
    let result =
        unsafe { libc::mount(std::ptr::null(), target.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    let error = io::Error::last_os_error();
    match (result, error.raw_os_error()) {
        (0, _) => Ok(true),
        (_, Some(libc::EBUSY)) => Ok(false),
        _ => Err(MountError::io("remount", mountpoint, error)),
    }
}

/// Unmounts what is topmost on `mountpoint`; `lazy` takes it out of sight while it is still in use.
/// `Ok(false)`: it is busy.
pub(crate) fn unmount(mountpoint: &Path, lazy: bool) -> Result<bool, MountError> {
    if !is_root() {
        return fusermount::unmount(mountpoint, lazy);
    }
    let target = c_string("unmount", mountpoint, mountpoint.as_os_str().as_bytes())?;
    let flags = libc::UMOUNT_NOFOLLOW | if lazy { libc::MNT_DETACH } else { 0 };
    // SAFETY: the path is a NUL-terminated string that outlives the call.
    if unsafe { libc::umount2(target.as_ptr(), flags) } == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EBUSY) => Ok(false),
        _ => Err(MountError::io("unmount", mountpoint, error)),
    }
}

/// Raises the mount's readahead, which the kernel starts at 128 KiB. Only root may; without, reads are slower.
pub(crate) fn raise_read_ahead(device: &str) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(path, %error, "readahead stays as it is");
    }
}

fn c_string(action: &'static str, path: &Path, bytes: &[u8]) -> Result<CString, MountError> {
    CString::new(bytes).map_err(|_| MountError::io(action, path, io::Error::from_raw_os_error(libc::EINVAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_component_of_a_mountpoint_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let mountpoint = absolute(&directory.path().join("new")).unwrap();
        check(Path::new("/absent"), &mountpoint).unwrap();
        assert!(!mountpoint.exists());
        make(&mountpoint).unwrap();
        make(&mountpoint).unwrap();
        assert!(mountpoint.is_dir());
        assert_eq!(absolute(&mountpoint.join("..")).unwrap(), mountpoint.parent().unwrap());
        assert_eq!(absolute(&mountpoint.join(".")).unwrap(), mountpoint);
        let far = directory.path().join("no/where");
        assert!(matches!(absolute(&far), Err(MountError::NoParent(_))));
        assert!(!directory.path().join("no").exists());
    }

    #[test]
    fn a_file_is_no_mountpoint() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(check(Path::new("/absent"), file.path()), Err(MountError::NotADirectory(_))));
    }

    #[test]
    fn a_pond_and_its_mountpoint_keep_apart_however_they_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let outer = directory.path().join("outer");
        let inner = outer.join("inner");
        let beside = directory.path().join("beside");
        let alias = directory.path().join("alias");
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir(&beside).unwrap();
        std::os::unix::fs::symlink(&outer, &alias).unwrap();
        for (pond, mountpoint) in [(&inner, &outer), (&outer, &inner), (&outer, &outer), (&inner, &alias)] {
            let refused = refuse_nesting(pond, mountpoint);
            assert!(matches!(refused, Err(MountError::Nested { .. })), "{pond:?} {mountpoint:?}");
        }
        refuse_nesting(&outer, &beside).unwrap();
        refuse_nesting(&directory.path().join("absent/pond"), &beside).unwrap();
        assert!(refuse_nesting(&beside.join("absent/pond"), &beside).is_err());
        // Where neither exists yet.
        let absent = |name: &str| outer.join(name);
        for (pond, mountpoint) in [("new", "new"), ("new/a/pond", "new"), ("new", "new/mnt")] {
            for outer in [&outer, &alias] {
                let refused = refuse_nesting(&outer.join(pond), &absent(mountpoint));
                assert!(matches!(refused, Err(MountError::Nested { .. })), "{outer:?} {pond} {mountpoint}");
            }
        }
        refuse_nesting(&absent("new"), &absent("newer")).unwrap();
        refuse_nesting(&absent("new"), &beside.join("new")).unwrap();
        assert!(check(&beside, &beside.join("mnt")).is_err());
    }
}
