//! The one place through which everything durable reaches the disk.
//!
//! Nothing is durable until it is fsync'd, its directory included: `rename` and `link` here give
//! a file its name only after its bytes were synced, and sync the directory after (or say that they leave it to
//! the caller, where one sync does for many names). Every write,
//! sync, rename, link and removal of this crate passes through these functions, and each is a [`step`] that tests can
//! record, or fail to survive.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::disk::exclusive_names::{self, is_without_links};
use crate::disk::recorder::{Step, step};

/// What to do where the name is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Fail with [`io::ErrorKind::AlreadyExists`] and change nothing (put-if-absent).
    Refuse,
    /// Replace it atomically.
    Replace,
}

/// Ending of files that have no name of their own yet; readers of directories skip them.
const TEMPORARY: &str = ".tmp";

/// Whether a file of this name is one that was being written.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

/// A file open for writing whose syncs are explicit.
pub(crate) struct DurableFile {
    file: File,
    path: PathBuf,
    /// Where the next byte goes.
    position: u64,
    #[cfg(test)]
    fail: std::cell::Cell<bool>,
}

#[cfg(test)]
impl DurableFile {
    /// The next sync fails, as a disk's may.
    pub(crate) fn fail_next_sync(&mut self) {
        self.fail.set(true);
    }
}

impl DurableFile {
    /// Creates a file that must not exist yet; mode 0600.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = step(
            path,
            || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path),
            |_| Step::Create { path: path.into() },
        )?;
        Ok(DurableFile {
            file,
            path: path.to_path_buf(),
            position: 0,
            #[cfg(test)]
            fail: Default::default(),
        })
    }

    /// Opens a file that is there, to be overwritten from its beginning; its blocks are used again.
    pub(crate) fn reuse(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(DurableFile {
            file,
            path: path.to_path_buf(),
            position: 0,
            #[cfg(test)]
            fail: Default::default(),
        })
    }

    /// Goes on writing from here.
    pub(crate) fn seek_to(&mut self, offset: u64) -> io::Result<()> {
        self.position = self.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }

    /// Gives the file another name, which is durable once the directory is synced.
    pub(crate) fn rename(&mut self, to: &Path) -> io::Result<()> {
        rename(&self.path, to)?;
        self.path = to.to_path_buf();
        Ok(())
    }

    /// Drops what lies after `length`, which is durable with the next sync.
    pub(crate) fn truncate(&mut self, length: u64) -> io::Result<()> {
        let told = |_: &()| Step::Truncate { path: self.path.clone(), length };
        step(&self.path, || self.file.set_len(length), told)
    }

    /// Has writes from now on go past the page cache (`O_DIRECT`), from whole blocks of memory to whole blocks of the file, or no
    /// longer.
    ///
    /// # Errors
    ///
    /// `EINVAL` where the filesystem cannot.
    pub(crate) fn set_direct(&self, direct: bool) -> io::Result<()> {
        let flags = self.flags()?;
        let flags = if direct { flags | libc::O_DIRECT } else { flags & !libc::O_DIRECT };
        // SAFETY: takes numbers only, and the descriptor is this file's.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETFL, flags) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Whether writes go past the page cache.
    pub(crate) fn is_direct(&self) -> io::Result<bool> {
        Ok(self.flags()? & libc::O_DIRECT != 0)
    }

    fn flags(&self) -> io::Result<libc::c_int> {
        // SAFETY: takes numbers only, and the descriptor is this file's.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_GETFL) } {
            -1 => Err(io::Error::last_os_error()),
            flags => Ok(flags),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all buffers in their order at the current position.
    pub(crate) fn write_all_vectored(&mut self, mut buffers: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut buffers, 0);
        while !buffers.is_empty() {
            match self.write_vectored(buffers) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut buffers, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes bytes and size durable (`fdatasync`).
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.fail.take() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        step(&self.path, || self.file.sync_data(), |_| Step::SyncFile { path: self.path.clone() })
    }

    /// Drops what lies after `length` and goes on from there; durable.
    pub(crate) fn cut_back(&mut self, length: u64) -> io::Result<()> {
        step(
            &self.path,
            || self.file.set_len(length),
            |_| Step::Truncate { path: self.path.clone(), length },
        )?;
        self.position = self.file.seek(SeekFrom::Start(length))?;
        step(&self.path, || self.file.sync_all(), |_| Step::SyncFile { path: self.path.clone() })
    }

    /// The file itself, for reading back what was written.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Write for DurableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let DurableFile { file, path, position, .. } = self;
        let written = step(
            path,
            || file.write_vectored(buffers),
            |&written| Step::Write {
                path: path.clone(),
                offset: *position,
                bytes: buffers.iter().flat_map(|buffer| buffer.iter().copied()).take(written).collect(),
            },
        )?;
        *position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file under a temporary name, which goes away unless it is given a lasting one.
pub(crate) struct Unnamed {
    file: DurableFile,
    named: bool,
    synced: bool,
}

impl Unnamed {
    /// Creates a temporary file in `directory`, which must be on the file system of the lasting name.
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!(".{}{TEMPORARY}", Uuid::new_v4().simple()));
        Ok(Unnamed { file: DurableFile::create(&path)?, named: false, synced: false })
    }

    /// The file.
    pub(crate) fn file(&mut self) -> &mut DurableFile {
        self.synced = false;
        &mut self.file
    }

    /// Makes the bytes durable, if they are not yet.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if !self.synced {
            self.file.sync()?;
            self.synced = true;
        }
        Ok(())
    }

    /// Syncs the bytes, gives the file its name and syncs the directory of that name.
    ///
    /// After an error that is not [`io::ErrorKind::AlreadyExists`] the name may or may not be there.
    pub(crate) fn name(self, target: &Path, existing: Existing) -> io::Result<()> {
        // Opened before: where descriptors have run out, nothing must be named that cannot be synced.
        let directory = File::open(parent(target))?;
        self.name_unsynced(target, existing)?;
        sync_opened(&directory, parent(target))
    }

    /// Syncs the bytes and gives the file its name, which is durable once the caller has synced the directory: one
    /// sync does for many names. What has the name is whole, also after power loss.
    pub(crate) fn name_unsynced(mut self, target: &Path, existing: Existing) -> io::Result<()> {
        self.sync()?;
        match existing {
            Existing::Refuse => match link(self.file.path(), target) {
                Err(error) if is_without_links(&error) => {
                    rename_unless_taken(self.file.path(), target)?;
                    self.named = true;
                }
                linked => linked?,
            },
            Existing::Replace => {
                rename(self.file.path(), target)?;
                self.named = true;
            }
        }
        if !self.named {
            self.discard();
        }
        Ok(())
    }

    fn discard(&mut self) {
        self.named = true;
        discard(std::iter::once(self.file.path()));
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if !self.named {
            self.discard();
        }
    }
}

/// Writes a whole file: temporary name → fsync → lasting name → fsync of the directory.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] with [`Existing::Refuse`] where the name is taken. A full disk leaves
/// no half-written file under the name. After any other error the name may or may not be there: read it back.
pub fn write_durably(path: &Path, bytes: &[u8], existing: Existing) -> io::Result<()> {
    write_parts_durably(path, &mut [IoSlice::new(bytes)], existing)
}

/// [`write_durably`] of several pieces that follow each other.
pub(crate) fn write_parts_durably(
    path: &Path,
    parts: &mut [IoSlice<'_>],
    existing: Existing,
) -> io::Result<()> {
    let mut unnamed = Unnamed::create(parent(path))?;
    unnamed.file().write_all_vectored(parts)?;
    unnamed.name(path, existing)
}

/// Gives a file new content under a `temporary` name and then its own, without waiting for the disk: after power loss
/// it may be the old one, the new one, or empty. For what can be found out again.
pub fn replace_unsynced(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = step(temporary, || options.open(temporary), |_| Step::Create { path: temporary.into() })?;
    let told = |_: &()| Step::Write { path: temporary.into(), offset: 0, bytes: bytes.into() };
    step(temporary, || file.write_all(bytes), told)?;
    rename(temporary, path)
}

/// Gives a synced file another name, which is durable once the directory is synced.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    step(from, || fs::rename(from, to), |()| Step::Rename { from: from.into(), to: to.into() })
}

/// Gives a synced file one name more, which is durable once the directory is synced.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    step(from, || fs::hard_link(from, to), |()| Step::Link { from: from.into(), to: to.into() })
}

/// Gives a synced file another name that nothing has yet, on filesystems where no second name can be made; it is durable once
/// the directory is synced.
fn rename_unless_taken(from: &Path, to: &Path) -> io::Result<()> {
    let rename = || exclusive_names::rename(from, to);
    step(from, rename, |()| Step::Rename { from: from.into(), to: to.into() })
}

/// Gives a file one name more and syncs the directory of the new one. Where a file has but one name, the other one is
/// given to a copy.
pub(crate) fn link_durably(from: &Path, to: &Path) -> io::Result<()> {
    match link(from, to) {
        Err(error) if is_without_links(&error) => {
            return write_durably(to, &fs::read(from)?, Existing::Refuse);
        }
        linked => linked?,
    }
    sync_directory(parent(to))
}

/// What stands beside a file now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Second {
    /// Another name of the same file.
    Link,
    /// A copy, since no such name can be made: on another filesystem, or on one without hard links.
    Copy,
}

/// Gives a synced file that never changes another name, or a synced copy one, which is durable once the directory is synced.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> io::Result<Second> {
    match link(from, to) {
        Err(error)
            if is_without_links(&error)
                || matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EMLINK)) => {}
        linked => return linked.map(|()| Second::Link),
    }
    let mut source = File::open(from)?;
    let mut copy = Unnamed::create(parent(to))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            read => copy.file().write_all_vectored(&mut [IoSlice::new(&buffer[..read])])?,
        }
    }
    copy.name_unsynced(to, Existing::Refuse)?;
    Ok(Second::Copy)
}

/// Gives a synced file another name and syncs the directory of the new one.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    rename(from, to)?;
    sync_directory(parent(to))
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    sync_opened(&File::open(directory)?, directory)
}

fn sync_opened(opened: &File, directory: &Path) -> io::Result<()> {
    step(directory, || opened.sync_all(), |()| Step::SyncDirectory { path: directory.into() })
}

/// Makes a directory (mode 0700) and its name durable; its parent must exist.
pub fn create_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    step(
        path,
        || fs::DirBuilder::new().mode(0o700).create(path),
        |()| Step::MakeDirectory { path: path.into() },
    )?;
    sync_directory(parent(path))
}

/// Makes a directory where there is none yet.
pub(crate) fn ensure_directory(path: &Path) -> io::Result<()> {
    match create_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Cuts a file off and makes that durable.
pub(crate) fn truncate_durably(path: &Path, length: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    step(path, || file.set_len(length), |()| Step::Truncate { path: path.into(), length })?;
    step(path, || file.sync_all(), |()| Step::SyncFile { path: path.into() })
}

/// Removes a file; whether that survives power loss does not matter to any caller.
pub fn remove(path: &Path) -> io::Result<()> {
    step(path, || fs::remove_file(path), |()| Step::Remove { path: path.into() })
}

/// Removes a directory with everything in it.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    step(path, || fs::remove_dir_all(path), |()| Step::RemoveTree { path: path.into() })
}

/// Makes an empty file (mode 0600), or makes one empty, and syncs it; its name is the caller's to sync.
pub fn make_empty_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = step(path, || options.open(path), |_| Step::Create { path: path.into() })?;
    step(path, || file.sync_all(), |()| Step::SyncFile { path: path.into() })?;
    Ok(file)
}

/// Removes files that nothing names, after a failure of which the caller has more to say. The sweep at the next open
/// removes what this cannot.
pub(crate) fn discard<'a>(paths: impl Iterator<Item = &'a Path>) {
    for path in paths {
        if let Err(error) = remove(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove a file that is not needed");
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_if_absent_has_one_winner_and_leaves_its_bytes_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("entry");
        let winners: Vec<u8> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u8)
                .map(|i| {
                    let path = &path;
                    scope.spawn(move || match write_durably(path, &[i; 1000], Existing::Refuse) {
                        Ok(()) => Some(i),
                        Err(error) => {
                            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
                            None
                        }
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.len(), 1);
        assert_eq!(fs::read(&path).unwrap(), vec![winners[0]; 1000]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "temporary files are gone");
    }

    #[test]
    fn replacing_swaps_the_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_durably(&path, b"long first content", Existing::Replace).unwrap();
        write_durably(&path, b"short", Existing::Replace).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no-such-directory").join("file");
        assert!(write_durably(&path, b"x", Existing::Replace).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
