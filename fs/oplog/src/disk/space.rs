//! The space left on the backing filesystem, asked for seldom, since every write wants to know.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pond_tinyfs::Space;

/// How long an answer holds.
const FRESH: Duration = Duration::from_millis(100);

/// Cached figures of one filesystem.
pub(crate) struct SpaceGauge {
    path: PathBuf,
    reserve: AtomicU64,
    last: Mutex<Option<(Instant, Space)>>,
}

impl SpaceGauge {
    pub(crate) fn new(path: &Path) -> Self {
        SpaceGauge { path: path.to_path_buf(), reserve: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// Bytes that are kept back from writers.
    pub(crate) fn set_reserve(&self, bytes: u64) {
        self.reserve.store(bytes, Ordering::Relaxed);
        self.refresh();
    }

    /// Forgets the last answer.
    pub(crate) fn refresh(&self) {
        *self.last.lock() = None;
    }

    /// The figures, at most a tenth of a second old. A filesystem that does not answer is full.
    pub(crate) fn get(&self) -> Space {
        let mut last = self.last.lock();
        if let Some((when, space)) = *last
            && when.elapsed() < FRESH
        {
            return space;
        }
        let space = match statvfs(&self.path) {
            Ok(found) => Space {
                available: found.available.saturating_sub(self.reserve.load(Ordering::Relaxed)),
                ..found
            },
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "cannot tell the space left");
                Space { total: 0, free: 0, available: 0 }
            }
        };
        *last = Some((Instant::now(), space));
        space
    }
}

fn statvfs(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `found` has room for the answer.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statvfs succeeded, so it filled the structure.
    let found = unsafe { found.assume_init() };
    let unit = found.f_frsize;
    Ok(Space {
        total: found.f_blocks.saturating_mul(unit),
        free: found.f_bfree.saturating_mul(unit),
        available: found.f_bavail.saturating_mul(unit),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_kept_back() {
        let dir = tempfile::tempdir().unwrap();
        let gauge = SpaceGauge::new(dir.path());
        let before = gauge.get();
        assert!(before.total >= before.free && before.free >= before.available && before.available > 0);
        gauge.set_reserve(u64::MAX);
        assert_eq!(gauge.get().available, 0);
    }
}
