//! What is run in a transaction, and where.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::MountError;
use crate::mounting::mount_point::is_root;

/// Where a command may find the tree, and whether it runs in a transaction: the name of a variable.
pub const VARIABLE: &str = "POND_TXN";

/// What is run in a transaction.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Whether what it prints goes to standard error.
    pub to_standard_error: bool,
}

/// Where a scratch is shown, and where in it a program begins.
pub(crate) struct Place {
    pub(crate) pond: PathBuf,
    pub(crate) mountpoint: PathBuf,
    /// Where the pond itself is mounted, there and elsewhere: past these nothing of the command's shall go.
    pub(crate) covers: Vec<PathBuf>,
    /// The directory in which the program begins; the current one, outside of the pond, if there is none.
    pub(crate) directory: Option<PathBuf>,
    /// mount(2)'s flags.
    pub(crate) flags: libc::c_ulong,
}

impl Place {
    pub(crate) fn new(
        pond: &Path,
        mountpoint: &Path,
        covers: Vec<PathBuf>,
        directory: Option<PathBuf>,
    ) -> Result<Self, MountError> {
        let of_users = if is_root() { 0 } else { libc::MS_NOSUID | libc::MS_NODEV };
        let flags = of_users | if covers.is_empty() { 0 } else { flags_of(mountpoint)? };
        let (pond, mountpoint) = (pond.to_owned(), mountpoint.to_owned());
        Ok(Place { pond, mountpoint, covers, directory, flags })
    }
}

/// What a mount forbids, as the scratch of it shall, too.
fn flags_of(mountpoint: &Path) -> Result<libc::c_ulong, MountError> {
    let failed = |error| MountError::io("ask for the options of", mountpoint, error);
    let path = CString::new(mountpoint.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    // SAFETY: zeros are a valid value, which the call fills in; the path is a NUL-terminated string.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut found) } == -1 {
        return Err(failed(io::Error::last_os_error()));
    }
    let pairs = [
        (libc::ST_NOSUID, libc::MS_NOSUID),
        (libc::ST_NODEV, libc::MS_NODEV),
        (libc::ST_NOEXEC, libc::MS_NOEXEC),
    ];
    let set = pairs.into_iter().filter(|(flag, _)| found.f_flag & flag != 0);
    Ok(set.fold(0, |flags, (_, flag)| flags | flag))
}
