//! Which readers read on and on, and how far ahead of them to decode.
//!
//! The kernel reads ahead on its own, some requests deep. This keeps what those will ask for decoded, on all cores, and does
//! so where the kernel's window is small (128 KiB, unless root mounted) or not used (`O_DIRECT`). Only the cache of
//! decoded pages is filled, by places whose bytes never change: what a read returns is decided when it comes.

use std::collections::VecDeque;
use std::ops::Range;

use parking_lot::Mutex;

use crate::inodes::table::Ino;

/// Readers that are kept in mind.
const STREAMS: usize = 16;
/// How far ahead of a reader at most, bytes.
const WINDOW: u64 = 4 << 20;
/// Requests in a row that make a reader a sequential one.
const IN_A_ROW: u32 = 3;
/// Requests of so many bytes may overtake each other: several are under way at once.
const LARGE: u64 = 128 << 10;
/// By so many bytes.
const OVERTAKING: u64 = 4 << 20;

/// The readers of a mount.
pub(crate) struct Readahead {
    window: u64,
    /// The last one that read first.
    streams: Mutex<VecDeque<Stream>>,
}

struct Stream {
    file: Ino,
    /// Where it will read on.
    next: u64,
    /// Up to where it was read ahead.
    ahead: u64,
    in_a_row: u32,
}

impl Readahead {
    /// For at most `budget` bytes ahead of all readers together.
    pub(crate) fn new(budget: u64) -> Self {
        Readahead { window: WINDOW.min(budget / STREAMS as u64), streams: Mutex::default() }
    }

    /// Takes notice of a read; says what should be decoded for those that will follow.
    pub(crate) fn note(&self, file: Ino, offset: u64, length: u64) -> Option<Range<u64>> {
        if self.window == 0 || length == 0 {
            return None;
        }
        let end = offset + length;
        let reads_on = |stream: &Stream| {
            let slack = if length >= LARGE { OVERTAKING } else { 0 };
            stream.file == file && stream.next.abs_diff(offset) <= slack
        };
        let mut streams = self.streams.lock();
        let Some(known) = streams.iter().position(reads_on) else {
            streams.truncate(STREAMS - 1);
            streams.push_front(Stream { file, next: end, ahead: 0, in_a_row: 1 });
            return None;
        };
        if known > 0
            && let Some(stream) = streams.remove(known)
        {
            streams.push_front(stream);
        }
        let stream = streams.front_mut()?;
        stream.next = stream.next.max(end);
        stream.in_a_row = stream.in_a_row.saturating_add(1);
        let start = stream.ahead.max(stream.next);
        let target = stream.next + self.window;
        // In steps of a quarter: each has its price.
        if stream.in_a_row < IN_A_ROW || target.saturating_sub(start) < self.window / 4 {
            return None;
        }
        stream.ahead = target;
        Some(start..target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn node(n: u64) -> Ino {
        Ino(n)
    }

    /// What is read ahead for these reads, as a whole.
    fn noted(readahead: &Readahead, reads: impl IntoIterator<Item = (u64, u64)>) -> Vec<Range<u64>> {
        reads.into_iter().filter_map(|(offset, length)| readahead.note(node(7), offset, length)).collect()
    }

    #[test]
    fn a_sequential_reader_has_every_byte_read_ahead_once_and_never_too_far() {
        for length in [4096, 128 << 10, MIB] {
            let readahead = Readahead::new(64 * MIB);
            let mut covered = 0;
            for n in 0..64 * MIB / length {
                if let Some(ahead) = readahead.note(node(7), n * length, length) {
                    assert!(covered == 0 || ahead.start == covered, "{ahead:?} after {covered}");
                    assert!(ahead.end <= (n + 1) * length + WINDOW);
                    covered = ahead.end;
                }
            }
            assert!(covered >= 64 * MIB);
        }
    }

    #[test]
    fn requests_that_overtake_each_other_are_still_one_reader() {
        let readahead = Readahead::new(64 * MIB);
        let order = [0, 1, 3, 2, 5, 4, 6, 8, 7, 9];
        let ahead = noted(&readahead, order.map(|n| (n * MIB, MIB)));
        assert!(ahead.windows(2).all(|pair| pair[0].end == pair[1].start), "{ahead:?}");
        assert!(ahead.last().unwrap().end >= 12 * MIB);
    }

    #[test]
    fn nothing_is_read_ahead_of_random_readers_or_without_a_budget() {
        let mut position = 1u64;
        let mut random = || {
            position = position.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (position >> 33) % (1 << 30) / 4096 * 4096
        };
        let reads: Vec<_> = (0..10_000).map(|_| (random(), 4096)).collect();
        let ahead = noted(&Readahead::new(64 * MIB), reads);
        assert!(ahead.is_empty(), "{ahead:?}");
        assert_eq!(noted(&Readahead::new(0), (0..100).map(|n| (n * MIB, MIB))), []);
    }

    #[test]
    fn several_readers_of_one_file_are_told_apart() {
        let readahead = Readahead::new(64 * MIB);
        let starts = [0, 256 * MIB, 512 * MIB, 768 * MIB];
        let ahead = noted(
            &readahead,
            (0..32).flat_map(|n| starts.iter().map(move |start| (start + n * 128 * 1024, 128 * 1024))),
        );
        for start in starts {
            assert!(ahead.iter().any(|range| range.start >= start && range.start < start + 8 * MIB));
        }
    }
}
