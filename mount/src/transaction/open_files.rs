//! Descriptors that lead past a transaction: open on the mount itself, whoever opened them for us, or on a directory, from which the
//! mount can be reached as it is outside of the namespace.

use std::fs;
use std::path::PathBuf;

use crate::error::MountError;
use crate::mounting::mount_info::Mount;

/// Refuses descriptors of this process that are open on a mount, and directories that a program would inherit.
pub(crate) fn refuse_open(mount: &Mount) -> Result<(), MountError> {
    let Some(device) = mount.device_number() else { return Ok(()) };
    let directory = PathBuf::from("/proc/self/fd");
    let failed = |error| MountError::io("list", &directory, error);
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(descriptor) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // SAFETY: zeros are a valid value, which the call fills in.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: as above. The listing's own descriptor is gone by the time; then it fails.
        if unsafe { libc::fstat(descriptor, &raw mut status) } == -1 {
            continue;
        }
        // SAFETY: takes numbers only.
        let is_inherited = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } & libc::FD_CLOEXEC == 0;
        let is_directory = status.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let path = || fs::read_link(directory.join(&name)).unwrap_or_else(|_| mount.mountpoint.clone());
        if status.st_dev == device {
            return Err(MountError::OpenOnMount { descriptor, path: path() });
        }
        if is_inherited && is_directory {
            return Err(MountError::OpenDirectory { descriptor, path: path() });
        }
    }
    Ok(())
}
