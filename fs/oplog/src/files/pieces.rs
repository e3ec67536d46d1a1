//! Digests of the parts of an extent, by which a small read verifies what it needs without reading the rest.
//!
//! BLAKE3 is a tree: the digest of an extent follows from those of its pieces of 4 KiB ("chaining values", section 2.1 of the
//! BLAKE3 paper). So these need no trust of their own. They are those of one extent if they give the checksum of its row.
//!
//! A data file whose content is stored as it is, in extents of 8 KiB and more on average, keeps them between its last row group
//! and its footer, where other readers of Parquet never look; [`TAG`] in the footer tells where. Each extent row has a slot of [`SLOT`] bytes:
//!
//! ```text
//! length of the extent, 4, little-endian · four chaining values, 32 each, zeros where it has fewer pieces
//! ```
//!
//! An extent of one piece has a slot of zeros, and is read whole. So is every extent of a file that has no slots, and every
//! one whose slot does not prove itself.

use std::ops::Range;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use pond_tinyfs::MAX_EXTENT;

/// Bytes of a piece: what kernels read at least.
pub(crate) const PIECE: usize = 4096;
/// Most pieces of an extent.
const PIECES: usize = MAX_EXTENT / PIECE;
/// Bytes of a slot.
pub(crate) const SLOT: usize = 4 + 32 * PIECES;
/// Key in a footer; its value is the position of the first slot and the row that it belongs to, decimal, with a space between.
pub(crate) const TAG: &str = "pond.pieces";

/// Where the slots of a data file lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) offset: u64,
    pub(crate) first_row: u32,
}

impl Slots {
    pub(crate) fn to_text(self) -> String {
        format!("{} {}", self.offset, self.first_row)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (offset, first_row) = text.split_once(' ')?;
        Some(Slots { offset: offset.parse().ok()?, first_row: first_row.parse().ok()? })
    }

    /// Where the slot of a row lies.
    pub(crate) fn position(self, row: u32) -> Option<u64> {
        self.offset.checked_add(u64::from(row.checked_sub(self.first_row)?) * SLOT as u64)
    }
}

/// The pieces of one extent.
pub(crate) struct Pieces {
    length: usize,
    values: [ChainingValue; PIECES],
}

impl Pieces {
    /// Those of an extent; none where it has one only, or too many.
    fn of(extent: &[u8]) -> Option<Self> {
        if extent.len() <= PIECE || extent.len() > MAX_EXTENT {
            return None;
        }
        let mut values = [[0; 32]; PIECES];
        for (i, piece) in extent.chunks(PIECE).enumerate() {
            values[i] = chaining_value(i, piece);
        }
        Some(Pieces { length: extent.len(), values })
    }

    /// Those that a slot says.
    pub(crate) fn parse(slot: &[u8; SLOT]) -> Option<Self> {
        let (length, rest) = slot.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let mut values = [[0; 32]; PIECES];
        for (value, bytes) in values.iter_mut().zip(rest.chunks_exact(32)) {
            value.copy_from_slice(bytes);
        }
        (length > PIECE && length <= MAX_EXTENT).then_some(Pieces { length, values })
    }

    /// Bytes of the extent.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The digest of an extent of these pieces.
    pub(crate) fn digest(&self) -> blake3::Hash {
        let (left, right) = halves(&self.values[..self.length.div_ceil(PIECE)]);
        merge_subtrees_root(&merged(left), &merged(right), Mode::Hash)
    }

    /// The whole pieces that these bytes of the extent lie in.
    pub(crate) fn covering(&self, wanted: Range<usize>) -> Range<usize> {
        wanted.start / PIECE * PIECE..self.length.min(wanted.end.next_multiple_of(PIECE))
    }

    /// Whether these are the extent's bytes from `start`, where a piece begins, to the end of another one.
    pub(crate) fn match_bytes(&self, start: usize, bytes: &[u8]) -> bool {
        let first = start / PIECE;
        let mut pieces = bytes.chunks(PIECE).enumerate();
        pieces.all(|(i, piece)| self.values.get(first + i) == Some(&chaining_value(first + i, piece)))
    }
}

/// The digest of an extent, whose slot is appended.
pub(crate) fn digest_with_slot(extent: &[u8], slots: &mut Vec<u8>) -> blake3::Hash {
    let Some(pieces) = Pieces::of(extent) else {
        slots.extend_from_slice(&[0; SLOT]);
        return blake3::hash(extent);
    };
    slots.extend_from_slice(&(extent.len() as u32).to_le_bytes());
    slots.extend_from_slice(pieces.values.as_flattened());
    pieces.digest()
}

fn chaining_value(number: usize, piece: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset((number * PIECE) as u64);
    hasher.update(piece).finalize_non_root()
}

/// The left half is as large as it can be with a power of two of pieces, as in every BLAKE3 tree.
fn halves(values: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    values.split_at(values.len().next_power_of_two() / 2)
}

fn merged(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [one] => *one,
        more => {
            let (left, right) = halves(more);
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn slot_of(extent: &[u8]) -> [u8; SLOT] {
        let mut slots = Vec::new();
        assert_eq!(digest_with_slot(extent, &mut slots), blake3::hash(extent), "{}", extent.len());
        slots.try_into().unwrap()
    }

    #[test]
    fn pieces_of_any_length_give_the_extents_digest() {
        let lengths = (0..=MAX_EXTENT).step_by(509).chain([1, 4095, 4096, 4097, 8192, 8193, 12288, 12289]);
        for length in lengths.chain([MAX_EXTENT - 1, MAX_EXTENT, MAX_EXTENT + 1, 128 << 10]) {
            let extent = noise(length);
            let pieces = Pieces::parse(&slot_of(&extent));
            assert_eq!(pieces.is_some(), length > PIECE && length <= MAX_EXTENT, "{length}");
            let Some(pieces) = pieces else { continue };
            assert_eq!((pieces.length(), pieces.digest()), (length, blake3::hash(&extent)));
            for start in (0..length).step_by(PIECE) {
                for end in [start + 1, start + PIECE, length].map(|end| end.clamp(start + 1, length)) {
                    let whole = pieces.covering(start..end);
                    assert!(whole.start == start && whole.end >= end && whole.end - end < PIECE);
                    assert!(pieces.match_bytes(start, &extent[whole]));
                }
            }
        }
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let extent = noise(10_000);
        let slot = slot_of(&extent);
        for bit in 0..SLOT * 8 {
            let mut damaged = slot;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let Some(pieces) = Pieces::parse(&damaged) else { continue };
            // A length that has as many pieces gives the same tree, and other bytes than the last piece's.
            let same_tree = pieces.length.div_ceil(PIECE) == 3;
            let proven = pieces.digest() == blake3::hash(&extent);
            assert_eq!(proven, bit < 32 && same_tree || bit >= 32 * (1 + 3 * 8), "{bit}");
        }
        let pieces = Pieces::parse(&slot).unwrap();
        for at in [0, 4095, 4096, 9_999] {
            let mut damaged = extent.clone();
            damaged[at] ^= 1;
            let start = at / PIECE * PIECE;
            let whole = pieces.covering(start..start + 1);
            assert!(!pieces.match_bytes(start, &damaged[whole]));
        }
        assert!(!pieces.match_bytes(8192, &extent[8192..9_999]), "one byte short");
        assert!(!pieces.match_bytes(0, &extent[4096..8192]), "another piece");
    }

    #[test]
    fn where_slots_lie_is_read_as_it_was_written() {
        let slots = Slots { offset: 1 << 40, first_row: 7 };
        assert_eq!(Slots::parse(&slots.to_text()), Some(slots));
        assert_eq!(slots.position(9), Some((1 << 40) + 2 * SLOT as u64));
        assert_eq!(slots.position(6), None);
        for wrong in ["", "1", "1 ", "-1 2", "1 2 3", "x y"] {
            assert_eq!(Slots::parse(wrong), None, "{wrong}");
        }
    }
}
