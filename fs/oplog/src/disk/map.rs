//! A file as memory: bytes that are read when they are looked at, and take none that the system cannot have back.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use bytes::Bytes;

/// A file's bytes from its beginning on, mapped to be read.
///
/// Bytes that the disk cannot give end the process, as a read that fails for lack of memory does: it is for files that this process has
/// just written itself.
pub(crate) struct Map {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is only read, and stays where it is until the value is dropped.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

/// Some bytes of a map, and what keeps them from being changed.
struct Part<K> {
    map: Arc<Map>,
    at: usize,
    length: usize,
    _keeper: K,
}

impl Map {
    /// Maps so many bytes, of which the file need not have all yet.
    pub(crate) fn new(file: &File, length: u64) -> io::Result<Map> {
        let length = usize::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: a new mapping, at a place that the system chooses.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Map { start, length })
    }

    /// How many bytes are mapped.
    pub(crate) fn len(&self) -> u64 {
        self.length as u64
    }

    /// Some of them, which the file has and nobody changes as long as anybody has `keeper`.
    pub(crate) fn bytes<K: Send + 'static>(
        self: Arc<Self>,
        at: u64,
        length: usize,
        keeper: K,
    ) -> io::Result<Bytes> {
        let at = usize::try_from(at).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if at.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Bytes::from_owner(Part { map: self, at, length, _keeper: keeper }))
    }
}

impl<K> AsRef<[u8]> for Part<K> {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping, which lives as long as this value, and the keeper sees to it that nobody
        // writes there.
        unsafe { std::slice::from_raw_parts(self.map.start.as_ptr().add(self.at), self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: it was mapped by us, and nobody has a slice of it any more.
        let unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert_eq!(unmapped, 0);
    }
}
