//! Where the bytes of a data file go: digested as they pass, and past the host's page cache where they are many.
//!
//! Content that was just written is in the page cache of the pond's own mount. A second copy in the host's would cost its
//! pages and the time to clear and fill them, more than all else that is done to the bytes. So large files are written by `O_DIRECT`,
//! which asks for memory, offsets and lengths in whole blocks: bytes are gathered in one aligned buffer that is used again and again,
//! the last one is padded, and the padding is cut off before the fsync. A filesystem without `O_DIRECT` gets the same bytes through
//! its page cache.
//!
//! Digests are made of the bytes on their way. Read again, they would be of whatever became of them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::ops::Range;

use crate::disk::durable::DurableFile;
use crate::files::digests::{Digests, TAIL, footer_length};

/// Bytes that are gathered for one direct write.
const BUFFER: usize = 1 << 20;
/// What addresses, offsets and lengths of direct writes are multiples of. Few devices ask for more than 512; one that asks for
/// more than this answers `EINVAL`.
const BLOCK: usize = 4096;

/// A file that is being written from its beginning to its end.
pub(crate) struct Sink<'a> {
    file: DurableFile,
    /// Called between pieces of work; may sleep.
    pause: &'a (dyn Fn() + Sync),
    /// Of large files.
    buffer: Option<Buffer>,
    /// Bytes that were digested.
    digested: u64,
    whole: blake3::Hasher,
    footprint: blake3::Hasher,
    /// What the footprint has of the bytes that are still to come, ascending.
    covered: VecDeque<Range<u64>>,
    /// From here on bytes are kept, as the footer is among them.
    kept_from: u64,
    kept: Vec<u8>,
}

/// An aligned buffer, filled up to a length.
struct Buffer {
    memory: Vec<u8>,
    /// Where the first block begins.
    start: usize,
    length: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; BUFFER + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        Buffer { memory, start, length: 0 }
    }

    /// Takes as many of these bytes as fit; says how many.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(BUFFER - self.length);
        let at = self.start + self.length;
        self.memory[at..at + taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
        taken
    }

    fn is_full(&self) -> bool {
        self.length == BUFFER
    }

    fn filled(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }

    /// What is filled, with zeros up to a whole block.
    fn padded(&mut self) -> &[u8] {
        let end = self.start + self.length;
        let padded = self.start + self.length.next_multiple_of(BLOCK);
        self.memory[end..padded].fill(0);
        &self.memory[self.start..padded]
    }
}

impl<'a> Sink<'a> {
    /// Into a new, empty file. `is_large` tells that direct writes are worth it.
    pub(crate) fn new(file: DurableFile, is_large: bool, pause: &'a (dyn Fn() + Sync)) -> Self {
        // Without `O_DIRECT` a buffer still makes few system calls of many.
        let buffer = is_large.then(Buffer::new);
        if is_large && let Err(error) = file.set_direct(true) {
            tracing::debug!(%error, "content goes through the page cache");
        }
        Sink {
            file,
            pause,
            buffer,
            digested: 0,
            whole: blake3::Hasher::new(),
            footprint: blake3::Hasher::new(),
            covered: VecDeque::new(),
            kept_from: u64::MAX,
            kept: Vec::new(),
        }
    }

    /// The footprint has these bytes too, none of which has been written yet.
    pub(crate) fn cover(&mut self, range: Range<u64>) {
        self.covered.push_back(range);
    }

    /// The footer lies behind this position, which has not been reached yet.
    pub(crate) fn footer_follows(&mut self, position: u64) {
        self.kept_from = position;
    }

    /// Writes what is left and syncs the file; gives its size and digests.
    pub(crate) fn finish(mut self) -> io::Result<(u64, Digests)> {
        if let Some(mut buffer) = self.buffer.take() {
            self.digest(buffer.filled());
            let size = self.digested;
            write_direct(&mut self.file, buffer.padded())?;
            self.file.truncate(size)?;
        }
        self.file.sync()?;
        let footer = self
            .kept
            .last_chunk::<TAIL>()
            .and_then(footer_length)
            .and_then(|length| self.kept.len().checked_sub(length as usize))
            .ok_or_else(|| io::Error::other("the file that was just written has no footer"))?;
        let digests = Digests {
            footer: blake3::hash(&self.kept[footer..]).to_hex().to_string(),
            footprint: self.footprint.finalize().to_hex().to_string(),
            file: self.whole.finalize().to_hex().to_string(),
        };
        Ok((self.digested, digests))
    }

    /// Digests bytes that follow those that were.
    fn digest(&mut self, bytes: &[u8]) {
        let (start, end) = (self.digested, self.digested + bytes.len() as u64);
        self.whole.update(bytes);
        while let Some(range) = self.covered.front().filter(|range| range.start < end).cloned() {
            let part = range.start.max(start)..range.end.min(end);
            if part.start < part.end {
                self.footprint.update(&bytes[(part.start - start) as usize..(part.end - start) as usize]);
            }
            if range.end > end {
                break;
            }
            self.covered.pop_front();
        }
        if end > self.kept_from {
            self.kept.extend_from_slice(&bytes[self.kept_from.saturating_sub(start) as usize..]);
        }
        self.digested = end;
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut buffer) = self.buffer.take() else {
            let written = self.file.write(bytes)?;
            self.digest(&bytes[..written]);
            (self.pause)();
            return Ok(written);
        };
        let taken = buffer.fill(bytes);
        if buffer.is_full() {
            self.digest(buffer.filled());
            (self.pause)();
            write_direct(&mut self.file, buffer.filled())?;
            buffer.length = 0;
        }
        self.buffer = Some(buffer);
        Ok(taken)
    }

    /// What is gathered stays so: only [`Self::finish`] may write less than a block.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes whole blocks; through the page cache where the device wants larger ones, or took only a part of one.
fn write_direct(file: &mut DurableFile, mut blocks: &[u8]) -> io::Result<()> {
    while !blocks.is_empty() {
        match file.write(blocks) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => blocks = &blocks[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && file.is_direct()? => {
                file.set_direct(false)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What a file becomes, and its digests, where these pieces are written one after the other and these ranges are covered.
    fn written(
        pieces: &[&[u8]],
        covered: &[Range<u64>],
        footer_from: u64,
        is_large: bool,
    ) -> (Vec<u8>, u64, Digests) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut sink = Sink::new(DurableFile::create(&path).unwrap(), is_large, &|| {});
        covered.iter().for_each(|range| sink.cover(range.clone()));
        sink.footer_follows(footer_from);
        pieces.iter().for_each(|piece| sink.write_all(piece).unwrap());
        let (size, digests) = sink.finish().unwrap();
        (fs::read(path).unwrap(), size, digests)
    }

    #[test]
    fn bytes_and_digests_are_the_same_whichever_way_they_go() {
        let noise: Vec<u8> =
            (0..3 * BUFFER as u32 + 12_345).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let footer = [b"footer".as_slice(), &6u32.to_le_bytes(), b"PAR1"].concat();
        let whole = [noise.as_slice(), &footer].concat();
        let end = noise.len() as u64;
        // Within one buffer, over the border of two, over all of one, and side by side.
        let covered = [4..100, 100..200, BUFFER as u64 - 5..2 * BUFFER as u64 + 7, end - 1..end];
        let expected: Vec<u8> = covered
            .iter()
            .flat_map(|range| &whole[range.start as usize..range.end as usize])
            .copied()
            .collect();
        for (is_large, piece) in [(false, 8192), (true, 8192), (true, 777), (true, 5 << 20)] {
            let mut pieces: Vec<&[u8]> = noise.chunks(piece).collect();
            pieces.push(&footer);
            let (bytes, size, digests) = written(&pieces, &covered, end - 3, is_large);
            assert!(bytes == whole, "{is_large} {piece}");
            assert_eq!(size, whole.len() as u64);
            assert_eq!(digests.file, blake3::hash(&whole).to_hex().as_str());
            assert_eq!(digests.footprint, blake3::hash(&expected).to_hex().as_str());
            assert_eq!(digests.footer, blake3::hash(&footer).to_hex().as_str());
        }
    }

    #[test]
    fn a_file_of_whole_blocks_is_not_padded() {
        let footer = [0u32.to_le_bytes().as_slice(), b"PAR1"].concat();
        let head = vec![7; BUFFER - footer.len()];
        let (bytes, size, _) = written(&[&head, &footer], &[], head.len() as u64, true);
        assert_eq!((bytes.len() as u64, size), (BUFFER as u64, BUFFER as u64));
    }

    #[test]
    fn a_file_without_a_footer_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = Sink::new(DurableFile::create(&dir.path().join("file")).unwrap(), true, &|| {});
        sink.footer_follows(0);
        sink.write_all(b"anything").unwrap();
        assert!(sink.finish().is_err());
    }
}
