//! The daemon's log: a file that its standard output and error go to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pond_oplog::Layout;
use pond_tinyfs::Errno;

use crate::error::MountError;

/// A log beyond this many bytes is set aside as `….old` when a daemon starts.
const KEEP: u64 = 8 << 20;

/// Bytes of the log that `.pond/log` shows at most.
const TAIL: u64 = 64 << 10;

/// Opens the log of a mount and moves standard output and error there, with what they held so far.
///
/// The log of a writing mount is `$POND/log`. One that only reads, or may not write there, has its log in the
/// user's state directory, under the mountpoint's name.
pub(crate) fn redirect(pond: &Path, mountpoint: &Path, read_only: bool) -> Result<PathBuf, MountError> {
    let within = Layout::new(pond).log_file();
    let (path, mut log) = match read_only {
        false => match open(&within) {
            Ok(log) => (within, log),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES | libc::EPERM)) => {
                open_in_state(mountpoint)?
            }
            Err(error) => return Err(MountError::io("open the log", &within, error)),
        },
        true => open_in_state(mountpoint)?,
    };
    let failed = |error| MountError::io("write the log", &path, error);
    match log.write_all(&early_output().map_err(failed)?) {
        // What does not fit is not logged; a full disk must not keep anybody from mounting and removing files.
        Err(error) if error.raw_os_error().is_some_and(|number| Errno(number).is_full()) => {}
        written => written.map_err(failed)?,
    }
    for standard in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both descriptors are open.
        if unsafe { libc::dup2(log.as_raw_fd(), standard) } == -1 {
            return Err(failed(io::Error::last_os_error()));
        }
    }
    Ok(path)
}

fn open_in_state(mountpoint: &Path) -> Result<(PathBuf, File), MountError> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = state.or_else(home).unwrap_or_else(std::env::temp_dir).join("pond");
    fs::create_dir_all(&directory).map_err(|error| MountError::io("make", &directory, error))?;
    let name = mountpoint.to_string_lossy().trim_matches('/').replace('/', "-");
    let path = directory.join(format!("{name}.log"));
    let log = open(&path).map_err(|error| MountError::io("open the log", &path, error))?;
    Ok((path, log))
}

fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > KEEP) {
        fs::rename(path, path.with_extension("old"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// What was printed before there was a log: the starter gave us a file in memory for it.
fn early_output() -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    let mut early = File::open("/proc/self/fd/2")?;
    if early.metadata()?.is_file() {
        early.read_to_end(&mut output)?;
    }
    Ok(output)
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let skip = length.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(skip))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        if skip > 0
            && let Some(newline) = text.iter().position(|&byte| byte == b'\n')
        {
            text.drain(..=newline);
        }
        Ok(text)
    };
    read().unwrap_or_else(|error| format!("cannot read {}: {error}\n", path.display()).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_long_log_begins_with_a_whole_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, &lines).unwrap();
        let tail = String::from_utf8(tail(&path)).unwrap();
        assert!(tail.len() as u64 <= TAIL && tail.starts_with("line ") && lines.ends_with(&tail));
    }

    #[test]
    fn a_log_that_has_grown_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, vec![b'x'; KEEP as usize + 1]).unwrap();
        open(&path).unwrap().write_all(b"new\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new\n");
        assert!(directory.path().join("log.old").exists());
    }
}
