//! What is mounted, asked for a pond, a place, or the current directory. `pond_steward::mount_table` reads the kernel's table.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pond_steward::mount_table;

pub use mount_table::Mount;
pub(crate) use mount_table::{FSTYPE, SCRATCH_FSTYPE};

use crate::error::MountError;

/// Everything that is mounted, in the order in which the kernel lists it: what covers comes later.
pub fn mounts() -> Result<Vec<Mount>, MountError> {
    mount_table::mounts().map_err(|error| MountError::io("read", Path::new(mount_table::MOUNTINFO), error))
}

/// The same as another process sees it; nothing where it cannot be asked.
pub(crate) fn mounts_seen_by(pid: u32) -> Vec<Mount> {
    mount_table::mounts_seen_by(pid).unwrap_or_default()
}

/// Where a pond is mounted, but for scratches; `pond` is its directory's canonical path.
pub fn mounts_of(pond: &Path) -> Result<Vec<Mount>, MountError> {
    let mut all = mounts()?;
    all.retain(|mount| mount.is_pond() && !mount.is_scratch() && mount.source == pond);
    Ok(all)
}

/// The pond's mount, or scratch, in which the current directory lies, if it lies in one. Neither the directory nor its filesystem is
/// asked, which may no longer answer: the kernel knows.
pub fn mount_of_current_directory() -> Result<Option<Mount>, MountError> {
    // Where it was removed, or belongs to a mount that others may not use, it is no pond of ours.
    let Some(id) = mount_id_at(Path::new(".")) else { return Ok(None) };
    Ok(mounts()?.into_iter().find(|mount| mount.id == id && mount.is_pond()))
}

/// The kernel's number for the mount in which this lies. Neither it nor its filesystem is asked.
pub(crate) fn mount_id_at(path: &Path) -> Option<u64> {
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).ok()?;
    mount_id_of(&PathBuf::from(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())))
}

/// The same of an open descriptor, by its file in `/proc/PID/fdinfo`.
pub(crate) fn mount_id_of(info: &Path) -> Option<u64> {
    let text = fs::read_to_string(info).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// What is mounted at a path, if anything; of several, the topmost.
pub(crate) fn mount_at(mountpoint: &Path) -> Result<Option<Mount>, MountError> {
    Ok(mounts()?.into_iter().rfind(|mount| mount.mountpoint == mountpoint))
}

/// Escapes a mount option's value for `fusermount3`, which splits at commas.
pub(crate) fn escape_option(value: &Path) -> OsString {
    let mut out = Vec::with_capacity(value.as_os_str().len());
    for &byte in value.as_os_str().as_bytes() {
        if byte == b',' || byte == b'\\' {
            out.push(b'\\');
        }
        out.push(byte);
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_among_the_mounts_of_this_system() {
        assert!(mount_at(Path::new("/")).unwrap().is_some());
        assert_eq!(mount_at(Path::new("/no/such/place")).unwrap(), None);
    }

    #[test]
    fn commas_do_not_split_a_source() {
        assert_eq!(escape_option(Path::new(r"/a,b\c")), OsString::from(r"/a\,b\\c"));
    }
}
