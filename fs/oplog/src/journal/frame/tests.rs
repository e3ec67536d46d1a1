use super::*;
use crate::rows::samples::file;

/// A segment of this format with two frames, and where they end.
fn segment(format: u32) -> (Vec<u8>, Vec<usize>) {
    let base = Base { version: 7, digest: [9; DIGEST] };
    let header = Header { after_failure: false, number: 1, pond_id: PondId::random(), base };
    let (mut bytes, seed) = header.encode_as(format);
    let mut ends = vec![bytes.len()];
    for lsn in 2..4 {
        let payload = Payload::encode(&[&file("f", 100 + lsn, lsn)]).unwrap().unwrap();
        let at = bytes.len();
        let frame = payload.frame_header(&seed, at as u64);
        bytes.extend_from_slice(&frame);
        bytes[at..at + 8].copy_from_slice(&magic_of(format, &seed));
        payload.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// So many bytes of `magic`, a length that reaches nearly to the end, and nothing that fits it.
fn made_up(magic: Magic, bytes: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(bytes);
    while content.len() < bytes {
        let left = (bytes - content.len()).saturating_sub(FRAME_HEADER) as u64;
        content.extend_from_slice(&magic);
        content.extend_from_slice(&left.to_le_bytes());
    }
    content
}

/// Bytes hashed by `work`.
fn hashed<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HASHED.get();
    let result = work();
    (result, HASHED.get() - before)
}

#[test]
fn frames_of_both_formats_are_read_and_found_behind_damage() {
    for format in [FIXED_MAGIC, FORMAT] {
        let (mut bytes, ends) = segment(format);
        let header = Header::decode(&bytes).unwrap();
        assert_eq!(header.length, ends[0]);
        for pair in ends.windows(2) {
            assert_eq!(header.frame(&bytes, pair[0]).unwrap().end, pair[1], "format {format}");
        }
        assert!(!header.frame_after(&bytes, ends[1]));
        bytes[ends[0] + FRAME_HEADER] ^= 1;
        assert!(header.frame(&bytes, ends[0]).is_none());
        assert!(header.frame_after(&bytes, ends[0]), "format {format}");
        // Without a header that can be read, by the first frame.
        bytes[ends[0] + FRAME_HEADER] ^= 1;
        for at in [0, 8, 13, HEADER - 1] {
            bytes[at] ^= 1;
            assert!(whole_frame_without_header(&bytes), "format {format}, byte {at}");
            bytes[at] ^= 1;
        }
        assert!(!whole_frame_without_header(&bytes[..HEADER]));
    }
}

#[test]
fn no_two_segments_begin_their_frames_alike() {
    let magic = |()| Header::decode(&segment(FORMAT).0).unwrap().magic;
    let (one, other) = (magic(()), magic(()));
    assert!(one != other && one != *FRAME_MAGIC);
}

#[test]
fn content_that_looks_like_frames_costs_recovery_nothing() {
    let (mut bytes, ends) = segment(FORMAT);
    bytes.extend(made_up(*FRAME_MAGIC, 1 << 20));
    let header = Header::decode(&bytes).unwrap();
    let (found, work) = hashed(|| header.frame_after(&bytes, ends[2]) || header.was_whole(&bytes, ends[2]));
    assert!(!found);
    assert_eq!(work, 0);
}

#[test]
fn where_the_magic_is_known_the_search_ends_and_real_frames_are_found_first() {
    for format in [FIXED_MAGIC, FORMAT] {
        let (bytes, ends) = segment(format);
        let header = Header::decode(&bytes).unwrap();
        let torn = [&bytes[..], &made_up(header.magic, 1 << 20)].concat();
        let (found, work) = hashed(|| header.frame_after(&torn, ends[2]));
        assert!(!found && work <= SEARCH * torn.len(), "format {format}: {work} bytes hashed");
        let mut damaged = torn;
        damaged[ends[0] + FRAME_HEADER] ^= 1;
        assert!(header.frame_after(&damaged, ends[0]), "format {format}");
    }
}
