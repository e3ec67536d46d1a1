//! What the kernel says is mounted: `/proc/self/mountinfo`, see proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::MountError;

/// The type under which ponds are mounted.
pub(crate) const FSTYPE: &str = "fuse.pond";

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kernel's number for it.
    pub id: u64,
    /// Device number, as in `MAJOR:MINOR`.
    pub device: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// Whether this mount is read-only.
    pub read_only: bool,
    /// Kind of filesystem.
    pub fstype: String,
    /// Its source; of a pond, its directory.
    pub source: PathBuf,
}

impl Mount {
    /// Whether it is a pond's.
    pub fn is_pond(&self) -> bool {
        self.fstype == FSTYPE
    }

    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let device = String::from_utf8(fields.nth(1)?.to_vec()).ok()?;
        let mountpoint = unescape(fields.nth(1)?);
        let read_only = fields.next()?.split(|&byte| byte == b',').any(|option| option == b"ro");
        // Optional fields follow, up to a lone dash.
        fields.by_ref().find(|field| field == b"-")?;
        let fstype = String::from_utf8(fields.next()?.to_vec()).ok()?;
        let source = unescape(fields.next()?);
        Some(Mount { id, device, mountpoint, read_only, fstype, source })
    }
}

/// Everything that is mounted, in the order in which the kernel lists it: what covers comes later.
pub fn mounts() -> Result<Vec<Mount>, MountError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read(path).map_err(|error| MountError::io("read", path, error))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(Mount::parse).collect())
}

/// Where a pond is mounted; `pond` is its directory's canonical path.
pub fn mounts_of(pond: &Path) -> Result<Vec<Mount>, MountError> {
    let mut all = mounts()?;
    all.retain(|mount| mount.is_pond() && mount.source == pond);
    Ok(all)
}

/// The pond in whose mount the current directory lies, if it lies in one. Neither the directory nor its filesystem is asked,
/// which may no longer answer: the kernel knows.
pub fn pond_of_current_directory() -> Result<Option<PathBuf>, MountError> {
    // Where it was removed, or belongs to a mount that others may not use, it is no pond of ours.
    let Some(id) = mount_id_at(Path::new(".")) else { return Ok(None) };
    Ok(mounts()?.into_iter().find(|mount| mount.id == id && mount.is_pond()).map(|mount| mount.source))
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

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            std::str::from_utf8(digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok())
        };
        match (byte, tail.get(..3).and_then(octal)) {
            (b'\\', Some(value)) => {
                out.push(value);
                rest = &tail[3..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
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
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = br"36 35 0:98 / /mnt/a\040b\134c ro,noatime master:1 shared:2 - fuse.pond /srv/my\040pond rw,user_id=0";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.id, &*mount.device), (36, "0:98"));
        assert_eq!(mount.mountpoint, Path::new(r"/mnt/a b\c"));
        assert!(mount.read_only && mount.is_pond());
        assert_eq!(mount.source, Path::new("/srv/my pond"));
    }

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
