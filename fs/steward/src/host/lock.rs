//! The writer lock: `flock` on `$POND/lock`, whose content names the pid and the command of its holder.
//!
//! The lock is the kernel's and ends with its process, so a lock file left behind by a crash locks nobody
//! out: its content is only there to say who holds the lock while somebody does. Readers of fixed
//! versions do not take it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::StewardError;
use crate::host::lock_holder::LockHolder;

/// Name of the lock file under `$POND`.
pub(crate) const LOCK_FILE: &str = "lock";

/// How often a waiting process looks whether the lock is free.
const POLL: Duration = Duration::from_millis(10);

/// The lock while it is held; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct WriterLock {
    file: File,
    path: PathBuf,
}

impl WriterLock {
    /// Takes the lock of a pond, waiting up to `wait` for the process that holds it to end.
    pub(crate) fn acquire(pond: &Path, wait: Option<Duration>) -> Result<Self, StewardError> {
        let path = pond.join(LOCK_FILE);
        let failed = |error| StewardError::io("open the lock file", &path, error);
        // Never truncated here: until the lock is ours, the content is its holder's.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let deadline = wait.map(|wait| Instant::now() + wait);
        loop {
            match try_flock(&file) {
                Ok(true) => break,
                Ok(false) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {
                    std::thread::sleep(POLL);
                }
                Ok(false) => {
                    let mut text = String::new();
                    file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(failed)?;
                    return Err(StewardError::LockHeld {
                        pond: pond.to_owned(),
                        holder: LockHolder::parse(&text),
                    });
                }
                Err(error) => return Err(StewardError::io("lock", &path, error)),
            }
        }
        let mut lock = WriterLock { file, path };
        // A full disk must not keep a pond from being opened, since deleting files needs it open.
        if let Err(error) = lock.name_holder() {
            tracing::warn!(path = %lock.path.display(), %error, "could not write who holds the lock");
        }
        Ok(lock)
    }

    fn name_holder(&mut self) -> std::io::Result<()> {
        let holder = LockHolder::this_process();
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(format!("{}\n{}\n", holder.pid, holder.command).as_bytes())
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        if let Err(error) = self.file.set_len(0) {
            tracing::warn!(path = %self.path.display(), %error, "could not clear the lock file");
        }
        // Explicitly, because a descriptor that a child inherited would keep the lock beyond our own close.
        // SAFETY: the descriptor is open for as long as `self.file` lives.
        if unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_UN) } != 0 {
            let error = std::io::Error::last_os_error();
            tracing::warn!(path = %self.path.display(), %error, "could not unlock");
        }
    }
}

/// Who holds the writer lock of a pond now; `None` if nobody does.
pub fn lock_holder(pond: &Path) -> Result<Option<LockHolder>, StewardError> {
    let path = pond.join(LOCK_FILE);
    let failed = |error| StewardError::io("read the lock file", &path, error);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // A shared lock, given up at once by closing: two that ask do not see each other as writers.
    // SAFETY: the descriptor is open for as long as `file` lives.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } == 0 {
        return Ok(None);
    }
    let error = std::io::Error::last_os_error();
    if error.kind() != std::io::ErrorKind::WouldBlock {
        return Err(failed(error));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(Some(LockHolder::parse(&text)))
}

/// Whether the lock is ours now.
fn try_flock(file: &File) -> std::io::Result<bool> {
    loop {
        // SAFETY: the descriptor is open for as long as `file` lives.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = std::io::Error::last_os_error();
        match error.kind() {
            std::io::ErrorKind::WouldBlock => return Ok(false),
            std::io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_writer_is_told_who_holds_the_lock() {
        let pond = tempfile::tempdir().unwrap();
        let lock = WriterLock::acquire(pond.path(), None).unwrap();
        let Err(StewardError::LockHeld { holder, .. }) = WriterLock::acquire(pond.path(), None) else {
            panic!("the lock was taken twice");
        };
        assert_eq!(holder, LockHolder::this_process());
        assert_eq!(lock_holder(pond.path()).unwrap(), Some(holder));
        drop(lock);
        assert_eq!(lock_holder(pond.path()).unwrap(), None);
        WriterLock::acquire(pond.path(), None).unwrap();
    }

    #[test]
    fn a_waiting_writer_gets_the_lock_once_its_holder_ends() {
        let pond = tempfile::tempdir().unwrap();
        let lock = WriterLock::acquire(pond.path(), None).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| WriterLock::acquire(pond.path(), Some(Duration::from_secs(10))));
            std::thread::sleep(Duration::from_millis(50));
            drop(lock);
            waiter.join().unwrap().unwrap();
        });
    }

    #[test]
    fn waiting_for_the_lock_has_a_bound() {
        let pond = tempfile::tempdir().unwrap();
        let _lock = WriterLock::acquire(pond.path(), None).unwrap();
        let refused = WriterLock::acquire(pond.path(), Some(Duration::from_millis(30)));
        assert!(matches!(refused, Err(StewardError::LockHeld { .. })));
    }

    #[test]
    fn a_lock_file_left_by_a_crash_locks_nobody_out() {
        let pond = tempfile::tempdir().unwrap();
        std::fs::write(pond.path().join(LOCK_FILE), "1\npond mount /mnt/pond\n").unwrap();
        assert_eq!(lock_holder(pond.path()).unwrap(), None);
        WriterLock::acquire(pond.path(), None).unwrap();
    }
}
