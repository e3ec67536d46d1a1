//! Names that are given only if nothing has them yet: by a hard link or, on filesystems without those (exFAT, some network
//! shares), by a rename that never replaces. One of the two is needed, and can be tried out before anything is made.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use uuid::Uuid;

/// Whether this is how a filesystem without hard links answers link(2).
pub(crate) fn is_without_links(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::ENOSYS))
}

/// Renames what has the name `from`, unless something has the name `to`.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (old, new) = (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    // SAFETY: both are texts that end with a zero byte and live until the call returns.
    let result = unsafe {
        libc::renameat2(libc::AT_FDCWD, old.as_ptr(), libc::AT_FDCWD, new.as_ptr(), libc::RENAME_NOREPLACE)
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP) => io::Error::new(
            io::ErrorKind::Unsupported,
            "this filesystem has neither hard links nor renames that never replace a file (RENAME_NOREPLACE), and one of them is needed; use a directory on another filesystem",
        ),
        _ => error,
    })
}

/// Fails if a file that is made at `path`, where there may be nothing yet, can not be given such names: tries it out in
/// the nearest directory that exists, and leaves nothing there.
///
/// # Errors
///
/// [`io::ErrorKind::Unsupported`]. Where it cannot be tried out (no rights, no room) nothing is said: what is done next tells that
/// better.
pub fn probe(path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    let Some(directory) = absolute.ancestors().find(|ancestor| ancestor.is_dir()) else { return Ok(()) };
    let [first, second] =
        ["a", "b"].map(|name| directory.join(format!(".pond-probe-{}-{name}", Uuid::new_v4())));
    if OpenOptions::new().write(true).create_new(true).open(&first).is_err() {
        return Ok(());
    }
    let named = match fs::hard_link(&first, &second) {
        Err(error) if is_without_links(&error) => rename(&first, &second),
        _ => Ok(()),
    };
    for name in [first, second] {
        // It has one of the two names, or both.
        fs::remove_file(name).ok();
    }
    match named {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trying_it_out_leaves_nothing_and_needs_no_directory() {
        let place = tempfile::tempdir().unwrap();
        probe(place.path()).unwrap();
        probe(&place.path().join("not/yet/there")).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
