//! What the kernel says is mounted: `/proc/self/mountinfo`, see proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The type under which ponds are mounted.
pub const FSTYPE: &str = "fuse.pond";

/// The type of mounts whose changes end with them.
pub const SCRATCH_FSTYPE: &str = "fuse.pond-scratch";

/// Where the kernel says it.
pub const MOUNTINFO: &str = "/proc/self/mountinfo";

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
    /// Whether it is a pond's, or a scratch of one's.
    pub fn is_pond(&self) -> bool {
        self.fstype == FSTYPE || self.is_scratch()
    }

    /// Whether changes made there end with the mount.
    pub fn is_scratch(&self) -> bool {
        self.fstype == SCRATCH_FSTYPE
    }

    /// Its device number, as `stat` shows it.
    pub fn device_number(&self) -> Option<u64> {
        let (major, minor) = self.device.split_once(':')?;
        Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
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
///
/// # Errors
///
/// Where [`MOUNTINFO`] cannot be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    mounts_in(MOUNTINFO)
}

/// The same as another process sees it, which may be in a mount namespace of its own.
///
/// # Errors
///
/// Where it has ended, or is another user's.
pub fn mounts_seen_by(pid: u32) -> io::Result<Vec<Mount>> {
    mounts_in(&format!("/proc/{pid}/mountinfo"))
}

fn mounts_in(table: &str) -> io::Result<Vec<Mount>> {
    let text = fs::read(table)?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(Mount::parse).collect())
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = br"36 35 0:98 / /mnt/a\040b\134c ro,noatime master:1 shared:2 - fuse.pond /srv/my\040pond rw,user_id=0";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.id, &*mount.device), (36, "0:98"));
        assert_eq!(mount.device_number(), Some(libc::makedev(0, 98)));
        assert_eq!(mount.mountpoint, Path::new(r"/mnt/a b\c"));
        assert!(mount.read_only && mount.is_pond());
        assert_eq!(mount.source, Path::new("/srv/my pond"));
        let other = Mount::parse(br"36 25 8:1 / / rw - ext4 /srv/my\040pond rw").unwrap();
        assert!(!other.is_pond() && !other.read_only);
    }

    #[test]
    fn the_root_is_among_the_mounts_of_this_system() {
        assert!(mounts().unwrap().iter().any(|mount| mount.mountpoint == Path::new("/")));
    }
}
