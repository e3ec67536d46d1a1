//! The bytes of a journal segment: its header and its frames. `writer.rs` draws them.
//!
//! A frame's digest covers the segment's own header digest and the frame's offset, so that bytes of a
//! journal that somebody stores as a file in the pond are never taken for a frame of this one. What a frame begins with
//! comes from that digest too, and so from bits that were random when the segment began: nobody can write content
//! that looks like frames and has to be hashed, megabytes at every eighth byte, when a torn tail is looked at.

use bytes::Bytes;
use pond_tinyfs::{Lsn, Row};

use crate::PondId;
use crate::rows::plain;

/// The format that this program writes. Format 1 had Arrow's record batches in its frames.
pub(crate) const FORMAT: u32 = 3;

/// The one before, which is still read: its frames begin with the same magic in every segment.
const FIXED_MAGIC: u32 = 2;

const MAGIC: &[u8; 8] = b"pondjrnl";
/// What frames begin with: as it stands in format 2, and hashed with the header's digest since.
const FRAME_MAGIC: &[u8; 8] = b"pondfrme";
const AFTER_FAILURE: u32 = 1;
const DIGEST: usize = 32;
/// A segment's header, with its digest.
const HEADER: usize = 8 + 4 + 4 + 8 + 16 + 8 + 32 + DIGEST;
/// Magic, length, first lsn, last lsn, digest.
const FRAME_HEADER: usize = 8 + 8 + 8 + 8 + DIGEST;

/// Looking for whole frames behind a torn one hashes at most so many times the segment's bytes, and the smallest frames first.
/// A segment whose magic nobody could know holds few that look like one; in one of format 2 there may be as many as somebody wrote.
const SEARCH: usize = 8;

/// The last durable version when a segment began: its rows come after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) version: u64,
    /// Digest of that version's log entry.
    pub(crate) digest: [u8; DIGEST],
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The segment before this one failed: what is torn in it was never promised, and this one's first
    /// frame holds again all that was.
    pub(crate) after_failure: bool,
    pub(crate) number: u64,
    pub(crate) pond_id: PondId,
    pub(crate) base: Base,
}

type Magic = [u8; FRAME_MAGIC.len()];

/// What frames of a segment begin with that has this format and this digest of its header.
fn magic_of(format: u32, seed: &[u8; DIGEST]) -> Magic {
    if format == FIXED_MAGIC {
        return *FRAME_MAGIC;
    }
    let mut magic = *FRAME_MAGIC;
    let hash = blake3::keyed_hash(seed, FRAME_MAGIC);
    magic.copy_from_slice(&hash.as_bytes()[..FRAME_MAGIC.len()]);
    magic
}

/// Why a header could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// It is cut off or damaged.
    Torn,
    /// It is whole, and of this other format.
    Format(u32),
}

/// A header that was read.
#[derive(Debug)]
pub(crate) struct ReadHeader {
    pub(crate) header: Header,
    /// What frames' digests begin with.
    seed: [u8; DIGEST],
    /// What frames begin with.
    magic: Magic,
    /// Where the first frame begins.
    pub(crate) length: usize,
}

impl Header {
    /// The header's bytes and the seed of its frames' digests.
    pub(crate) fn encode(&self) -> (Vec<u8>, [u8; DIGEST]) {
        self.encode_as(FORMAT)
    }

    fn encode_as(&self, format: u32) -> (Vec<u8>, [u8; DIGEST]) {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&format.to_le_bytes());
        // The other bits say nothing: they make no two headers alike, so that frames which a reused file held before
        // are never taken for this segment's, and nobody can tell what its frames begin with.
        let random = uuid::Uuid::new_v4().as_u128() as u32 & !AFTER_FAILURE;
        bytes.extend_from_slice(&(random | if self.after_failure { AFTER_FAILURE } else { 0 }).to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(self.pond_id.as_bytes());
        bytes.extend_from_slice(&self.base.version.to_le_bytes());
        bytes.extend_from_slice(&self.base.digest);
        let seed = *blake3::hash(&bytes).as_bytes();
        bytes.extend_from_slice(&seed);
        (bytes, seed)
    }

    /// Reads a segment's header.
    pub(crate) fn decode(bytes: &[u8]) -> Result<ReadHeader, BadHeader> {
        let mut rest = Reader(bytes);
        if rest.array::<8>().ok_or(BadHeader::Torn)? != *MAGIC {
            return Err(BadHeader::Torn);
        }
        let format = u32::from_le_bytes(rest.array().ok_or(BadHeader::Torn)?);
        if !matches!(format, FIXED_MAGIC | FORMAT) {
            return Err(BadHeader::Format(format));
        }
        let parsed = (|| {
            let flags = u32::from_le_bytes(rest.array()?);
            let number = u64::from_le_bytes(rest.array()?);
            let pond_id = PondId::from_bytes(rest.array()?);
            let base = Base { version: u64::from_le_bytes(rest.array()?), digest: rest.array()? };
            let seed: [u8; DIGEST] = rest.array()?;
            if *blake3::hash(&bytes[..HEADER - DIGEST]).as_bytes() != seed {
                return None;
            }
            let header = Header { after_failure: flags & AFTER_FAILURE != 0, number, pond_id, base };
            Some(ReadHeader { header, seed, magic: magic_of(format, &seed), length: HEADER })
        })();
        parsed.ok_or(BadHeader::Torn)
    }
}

/// Whether the segment, whose header cannot be read, has a whole first frame: then the header was whole once, too.
pub(crate) fn whole_frame_without_header(segment: &[u8]) -> bool {
    let Some(stored) = segment.get(HEADER - DIGEST..HEADER).and_then(|stored| stored.try_into().ok()) else {
        return false;
    };
    // The damage is either in the digest or in what it covers, the format included.
    let seeds: [[u8; DIGEST]; 2] = [stored, *blake3::hash(&segment[..HEADER - DIGEST]).as_bytes()];
    seeds.iter().any(|seed| {
        let mut magics = [FIXED_MAGIC, FORMAT].map(|format| magic_of(format, seed)).into_iter();
        magics.any(|magic| frame_at(seed, magic, segment, HEADER).is_some())
    })
}

/// Takes values off the front of some bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

/// Rows as bytes, ready to be written as a frame.
pub(crate) struct Payload {
    pieces: Vec<Bytes>,
    length: u64,
    first_lsn: Lsn,
    /// Highest lsn of the rows.
    pub(crate) last_lsn: Lsn,
}

impl Payload {
    /// Encodes rows; none for no rows.
    pub(crate) fn encode(rows: &[&[Row]]) -> Result<Option<Self>, String> {
        let rows = || rows.iter().flat_map(|rows| rows.iter());
        let lsns = || rows().map(|row| row.lsn);
        let (Some(first_lsn), Some(last_lsn)) = (lsns().min(), lsns().max()) else { return Ok(None) };
        let pieces = plain::encode(rows())?;
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Ok(Some(Payload { pieces, length, first_lsn, last_lsn }))
    }

    /// The bytes that come before the payload in a frame at `offset`.
    pub(crate) fn frame_header(&self, seed: &[u8; DIGEST], offset: u64) -> [u8; FRAME_HEADER] {
        let digest = frame_digest(seed, offset, self.length, self.first_lsn, self.last_lsn, self.pieces());
        let mut bytes = [0; FRAME_HEADER];
        bytes[..8].copy_from_slice(&magic_of(FORMAT, seed));
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.last_lsn.0.to_le_bytes());
        bytes[32..].copy_from_slice(&digest);
        bytes
    }

    /// The payload's pieces, in their order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &piece[..])
    }

    /// Length of the whole frame.
    pub(crate) fn frame_length(&self) -> u64 {
        FRAME_HEADER as u64 + self.length
    }
}

fn frame_digest<'a>(
    seed: &[u8; DIGEST],
    offset: u64,
    length: u64,
    first: Lsn,
    last: Lsn,
    payload: impl Iterator<Item = &'a [u8]>,
) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(seed);
    for number in [offset, length, first.0, last.0] {
        hasher.update(&number.to_le_bytes());
    }
    payload.for_each(|piece| {
        #[cfg(test)]
        HASHED.set(HASHED.get() + piece.len());
        hasher.update(piece);
    });
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
thread_local! {
    /// Bytes of payloads that this thread has hashed.
    pub(crate) static HASHED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A frame that was found whole.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) last_lsn: Lsn,
    payload: &'a [u8],
    /// Where the next frame begins.
    pub(crate) end: usize,
}

fn frame_at<'a>(seed: &[u8; DIGEST], magic: Magic, segment: &'a [u8], offset: usize) -> Option<Frame<'a>> {
    let mut rest = Reader(segment.get(offset..)?);
    if rest.array::<8>()? != magic {
        return None;
    }
    let length = u64::from_le_bytes(rest.array()?);
    let first_lsn = Lsn(u64::from_le_bytes(rest.array()?));
    let last_lsn = Lsn(u64::from_le_bytes(rest.array()?));
    let digest: [u8; DIGEST] = rest.array()?;
    let payload = rest.take(usize::try_from(length).ok()?)?;
    let expected = frame_digest(seed, offset as u64, length, first_lsn, last_lsn, std::iter::once(payload));
    (digest == expected).then_some(Frame { last_lsn, payload, end: offset + FRAME_HEADER + payload.len() })
}

/// Whether the segment ends before the frame at `offset` does, or with nothing but zeros in it, as a write that power loss
/// cut off leaves it.
pub(crate) fn is_cut_off(segment: &[u8], offset: usize) -> bool {
    let Some(rest) = segment.get(offset..) else { return true };
    let Some(header) = rest.get(..FRAME_HEADER) else { return true };
    let mut length = Reader(&header[8..]);
    let length = length.array().map(u64::from_le_bytes).and_then(|length| usize::try_from(length).ok());
    length.and_then(|length| length.checked_add(FRAME_HEADER)).is_none_or(|length| length > rest.len())
        || rest.iter().all(|&byte| byte == 0)
}

impl ReadHeader {
    /// Whether the frame at `offset`, which seems to be cut off, was whole once: with one bit of its length the other way
    /// its digest is right.
    pub(crate) fn was_whole(&self, segment: &[u8], offset: usize) -> bool {
        let Some(header) = segment.get(offset..).and_then(|rest| rest.get(..FRAME_HEADER)) else {
            return false;
        };
        if header[..self.magic.len()] != self.magic {
            return false;
        }
        let numbers: Option<[u64; 3]> = (|| {
            let mut rest = Reader(&header[8..]);
            let mut number = || rest.array().map(u64::from_le_bytes);
            Some([number()?, number()?, number()?])
        })();
        let Some([length, first, last]) = numbers else { return false };
        let payload = &segment[offset + FRAME_HEADER..];
        (0..u64::BITS).map(|bit| length ^ (1 << bit)).any(|length| {
            let payload = usize::try_from(length).ok().and_then(|length| payload.get(..length));
            payload.is_some_and(|payload| {
                let payload = std::iter::once(payload);
                frame_digest(&self.seed, offset as u64, length, Lsn(first), Lsn(last), payload)
                    == header[32..]
            })
        })
    }

    /// The frame that begins at `offset` of the segment; none if it is cut off or damaged.
    pub(crate) fn frame<'a>(&self, segment: &'a [u8], offset: usize) -> Option<Frame<'a>> {
        frame_at(&self.seed, self.magic, segment, offset)
    }

    /// Whether a whole frame begins anywhere after `offset`: then what is at `offset` is damage, not a torn tail.
    ///
    /// Those that look like frames are tried until 8 times the segment's bytes were hashed; whoever made that many up has to have read
    /// the journal, or to have written them under a program of format 2, and a tail that is taken for torn is kept aside.
    pub(crate) fn frame_after(&self, segment: &[u8], offset: usize) -> bool {
        let Some(rest) = segment.get(offset + 1..) else { return false };
        let begins = rest.windows(self.magic.len()).enumerate().filter(|(_, window)| *window == self.magic);
        // How long the frame there says that it is; not those that are longer than what is left.
        let length = |at: usize| {
            let length = rest.get(at + 8..at + 16)?.try_into().ok().map(u64::from_le_bytes)?;
            let left = rest.len().checked_sub(at + FRAME_HEADER)?;
            usize::try_from(length).ok().filter(|&length| length <= left)
        };
        let mut tried: Vec<_> = begins.filter_map(|(at, _)| Some((length(at)?, at))).collect();
        tried.sort_unstable();
        let mut hashed = 0;
        for (length, at) in tried {
            hashed += FRAME_HEADER + length;
            if hashed > SEARCH * segment.len() {
                tracing::warn!(
                    "too much behind a torn frame of the journal looks like frames; it is kept aside"
                );
                return false;
            }
            if self.frame(segment, offset + 1 + at).is_some() {
                return true;
            }
        }
        false
    }

    /// The rows of a frame.
    pub(crate) fn rows(&self, frame: &Frame<'_>, each: &mut dyn FnMut(Row)) -> Result<(), String> {
        plain::decode(frame.payload, each)
    }
}

#[cfg(test)]
mod tests;
