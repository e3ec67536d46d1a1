//! Recovery of the journal at open: which rows it promises beyond the table, and what is torn or damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pond_tinyfs::{Lsn, Row};

use crate::disk::durable::{self, Existing};
use crate::journal::error::JournalError;
use crate::journal::frame::{self, BadHeader, Base, FORMAT, Header, ReadHeader};
use crate::journal::segment::{self, Segment, TERMINATOR};
use crate::{OpLogError, PondId};

/// What the journal held.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Rows beyond the table, each once, in `(lsn, seq)` order.
    pub(crate) rows: Vec<Row>,
    /// Segments that stay until a commit covers them.
    pub(crate) segments: Vec<Segment>,
    /// What was done, for the log and the user.
    pub(crate) notes: Vec<String>,
    /// Where the journal is damaged; `rows` are those before it. Nothing was changed on disk.
    pub(crate) damage: Option<String>,
    /// Segments that build on a version with another digest than the table's, or on one it does not have.
    pub(crate) foreign: Option<String>,
}

/// A segment in memory.
struct Found {
    number: u64,
    path: PathBuf,
    bytes: Vec<u8>,
    /// `None` for a header that is cut off or damaged.
    header: Option<ReadHeader>,
}

/// Tells the digest of the log entry of a version, if the table has it; or why that cannot be told.
pub(crate) type DigestOf<'a> = dyn Fn(u64) -> Result<Option<[u8; 32]>, OpLogError> + 'a;

/// Reads the journal in `directory` and returns what lies beyond `cut_lsn`, the cut of version `tip`. Torn tails are set
/// aside as `torn-…`.
pub(crate) fn recover(
    directory: &Path,
    pond_id: PondId,
    cut_lsn: Lsn,
    tip: u64,
    digest_of: &DigestOf<'_>,
) -> Result<Recovered, JournalError> {
    let mut found = Vec::new();
    for (number, path) in segment::list(directory)? {
        found.push(read(number, path, pond_id)?);
    }
    let mut recovered = Recovered::default();
    if let Some(why) = foreign(&found, digest_of) {
        recovered.foreign = Some(why);
        return Ok(recovered);
    }
    // A newest segment without a whole header never took a frame, whatever failed before it: unless there is one.
    let headless =
        found.pop_if(|newest| newest.header.is_none() && !frame::whole_frame_without_header(&newest.bytes));
    let mut rows = BTreeMap::new();
    let mut torn = Vec::new();
    let mut before: Option<(u64, Lsn)> = None;
    for (i, segment) in found.iter().enumerate() {
        if let (Some((last, last_lsn)), Some(header)) = (before, &segment.header)
            && lacks_segment(last, last_lsn, cut_lsn, tip, &header.header)
        {
            let path = segment.path.display();
            recovered.damage = Some(format!("a journal segment between number {last} and {path} is missing"));
            break;
        }
        let scanned = scan(segment, cut_lsn, &mut rows)?;
        let may_be_torn = match found.get(i + 1) {
            None => true,
            Some(next) => next.header.as_ref().is_some_and(|next| next.header.after_failure),
        };
        if let Scanned::Whole(segment) | Scanned::Torn { segment, .. } = &scanned {
            before = Some((segment.number, segment.last_lsn));
        }
        match scanned {
            Scanned::Whole(segment) => recovered.segments.push(segment),
            Scanned::Torn { segment, at } if may_be_torn => {
                torn.push((segment.path.clone(), at));
                recovered.segments.push(segment);
            }
            Scanned::Torn { at, segment } => {
                recovered.damage = Some(format!(
                    "the journal segment {} is damaged at byte {at}, and another follows it",
                    segment.path.display()
                ));
                break;
            }
            Scanned::Damaged(why) => {
                recovered.damage = Some(why);
                break;
            }
        }
    }
    recovered.rows = rows.into_values().collect();
    if recovered.damage.is_some() {
        recovered.segments.clear();
        return Ok(recovered);
    }
    if let Some(headless) = headless {
        recovered.notes.extend(set_aside(directory, &headless.path, 0)?);
        durable::remove(&headless.path).map_err(JournalError::io("remove", &headless.path))?;
        durable::sync_directory(directory).map_err(JournalError::io("fsync", directory))?;
    }
    for (path, at) in torn {
        recovered.notes.extend(set_aside(directory, &path, at)?);
        durable::truncate_durably(&path, at as u64).map_err(JournalError::io("truncate", &path))?;
    }
    Ok(recovered)
}

fn read(number: u64, path: PathBuf, pond_id: PondId) -> Result<Found, JournalError> {
    let bytes = fs::read(&path).map_err(JournalError::io("read", &path))?;
    let header = match Header::decode(&bytes) {
        Ok(read) if read.header.pond_id != pond_id => {
            return Err(JournalError::OtherPond { path, found: read.header.pond_id, expected: pond_id });
        }
        Ok(read) => Some(read),
        Err(BadHeader::Torn) => None,
        Err(BadHeader::Format(found)) => {
            return Err(JournalError::OtherFormat { path, found, known: FORMAT });
        }
    };
    Ok(Found { number, path, bytes, header })
}

/// Whether a segment builds on a history that is not the table's.
fn foreign(found: &[Found], digest_of: &DigestOf<'_>) -> Option<String> {
    found.iter().find_map(|segment| {
        let Base { version, digest } = segment.header.as_ref()?.header.base;
        let path = segment.path.display();
        match digest_of(version) {
            Ok(Some(found)) if found == digest => None,
            Ok(Some(_)) => Some(format!("the journal segment {path} builds on another version {version} than the table's; move it out of the journal to go on without its rows")),
            Err(why) => Some(format!("whether the journal segment {path} belongs to this table cannot be told: {why}; nothing is lost, `pond fsck` says more")),
            Ok(None) => Some(format!("the journal segment {path} builds on version {version}, which the table does not have; restore data/, or move the segment out of the journal to go on without its rows")),
        }
    })
}

/// Whether a segment between this one and the segment `number` before it, whose last operation is `last_lsn`, is missing
/// although its rows are in no version. Numbers of segments follow each other. A released segment may come back after
/// power loss without the one after it, which was released too; then a version has come since the later one began.
pub(crate) fn lacks_segment(number: u64, last_lsn: Lsn, cut_lsn: Lsn, tip: u64, header: &Header) -> bool {
    let released = last_lsn <= cut_lsn && tip > header.base.version;
    // One that was begun after a failure holds all that was not in the table.
    header.number > number + 1 && !header.after_failure && !released
}

enum Scanned {
    Whole(Segment),
    /// Whole up to this byte.
    Torn {
        segment: Segment,
        at: usize,
    },
    Damaged(String),
}

fn scan(found: &Found, cut_lsn: Lsn, rows: &mut BTreeMap<(Lsn, u32), Row>) -> Result<Scanned, JournalError> {
    let path = &found.path;
    let Some(header) = &found.header else {
        return Ok(Scanned::Damaged(format!(
            "the header of the journal segment {} is damaged",
            path.display()
        )));
    };
    if header.header.number != found.number {
        return Ok(Scanned::Damaged(format!(
            "the journal segment {} says that it is number {}",
            path.display(),
            header.header.number
        )));
    }
    let mut segment = Segment {
        number: found.number,
        path: path.clone(),
        base: header.header.base.version,
        last_lsn: Lsn(0),
        frames: 0,
        bytes: header.length as u64,
        failed: false,
    };
    let mut offset = header.length;
    while offset < found.bytes.len() {
        let Some(frame) = header.frame(&found.bytes, offset) else {
            // Frames are synced one by one: a whole one behind it proves that this one was whole once.
            if header.frame_after(&found.bytes, offset) {
                return Ok(Scanned::Damaged(format!(
                    "the journal segment {} is damaged at byte {offset}, and whole frames follow",
                    path.display()
                )));
            }
            if header.was_whole(&found.bytes, offset) {
                return Ok(Scanned::Damaged(format!(
                    "the journal segment {} is damaged at byte {offset}, in the length of its last frame",
                    path.display()
                )));
            }
            return Ok(Scanned::Torn { segment, at: offset });
        };
        if frame.last_lsn > cut_lsn {
            let decoded = header.rows(&frame, &mut |row| {
                if row.lsn > cut_lsn {
                    rows.insert((row.lsn, row.seq), row);
                }
            });
            if let Err(why) = decoded {
                // Its digest is right, so it was written like this: by a program that has more to say than we know.
                return Ok(Scanned::Damaged(format!(
                    "the journal segment {} has a frame at byte {offset} that cannot be understood: {why}",
                    path.display()
                )));
            }
        }
        segment.last_lsn = segment.last_lsn.max(frame.last_lsn);
        segment.frames += 1;
        offset = frame.end;
        segment.bytes = offset as u64;
    }
    Ok(Scanned::Whole(segment))
}

/// Keeps what lies at and after `at` of a segment as `torn-…`.
fn set_aside(directory: &Path, segment: &Path, at: usize) -> Result<Option<String>, JournalError> {
    let bytes = fs::read(segment).map_err(JournalError::io("read", segment))?;
    let tail = bytes.get(at..).unwrap_or_default();
    let Some(stem) = segment.file_stem().and_then(|stem| stem.to_str()) else { return Ok(None) };
    // Zeros say that no frame was begun here; what follows them is what the file held before.
    if tail.iter().take(TERMINATOR).all(|byte| *byte == 0) {
        return Ok(None);
    }
    let kept = directory.join(format!("torn-{stem}-{at}"));
    durable::write_durably(&kept, tail, Existing::Replace).map_err(JournalError::io("write", &kept))?;
    Ok(Some(format!(
        "the journal's last {} bytes were cut off in the middle of a write that was not yet promised; they are kept in {}",
        tail.len(),
        kept.display()
    )))
}

#[cfg(test)]
mod tests;
