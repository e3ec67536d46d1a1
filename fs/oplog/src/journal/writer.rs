//! The journal: rows that an fsync made durable and that no Delta commit holds yet.
//!
//! ```text
//! journal/0000000000000007.segment
//!   header   magic "pondjrnl" · format u32 · flags u32 · segment number u64 · pond id 16
//!            · base version u64 · base digest 32 · BLAKE3 of all before, 32
//!   frame    magic: keyed BLAKE3 of "pondfrme" by the header's digest, its first 8 (format 2: "pondfrme" itself) · payload length u64 · first lsn u64 · last lsn u64
//!            · BLAKE3 of the header's digest, the frame's offset, these numbers and the payload, 32
//!            · payload: rows, see `rows/plain.rs`
//!   frame    …
//! ```
//!
//! Numbers are little-endian. A frame is written whole and synced with `fdatasync` before its append
//! returns; a new segment's name is synced first. Taking a cut ends the segment, and a segment goes once a
//! durable log entry covers all its lsns.
//!
//! A segment that is no longer needed is kept as `spare` and the next one is written over it: an fdatasync that changes
//! neither size nor blocks takes half as long. What is left of the old frames behind the new ones has another
//! digest to begin with and is never taken for a frame; 8 zero bytes after the last frame say that it ends there. The spare
//! loses its old name before it is overwritten, and gets the new one after its new header is synced. A segment
//! that ends is cut to its frames, so only the newest has anything behind them.
//! A segment that has to grow for a small frame grows by zeros ahead of those that come next.
//!
//! **A torn frame is legal only where nothing after it can have been promised**: at the tail of the newest
//! segment, or before a segment that was begun because this one failed (flag `AFTER_FAILURE`), whose first
//! frame holds again whatever was not yet in the table. Anything else is damage.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pond_tinyfs::{Errno, Lsn, Row};

use crate::disk::durable::{self, DurableFile, Existing};
use crate::journal::error::JournalError;
use crate::journal::frame::{Base, Header, Payload};
use crate::journal::segment::{SPARE, Segment, base_of, segment_name, terminator, zeros_behind, zeros_of};
use crate::{PondId, Position};

/// Larger segments are not kept as spares, bytes.
const LARGEST_SPARE: u64 = 16 << 20;

/// What the journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalSize {
    /// Segments that are there.
    pub segments: u64,
    /// Frames in them.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The journal of an open pond.
pub struct Journal {
    directory: PathBuf,
    pond_id: PondId,
    state: Mutex<State>,
}

struct State {
    /// Segments that take no more frames, oldest first.
    ended: Vec<Segment>,
    current: Current,
    /// Number of the next segment.
    next: u64,
    /// Where the table stood when a segment that begins now begins.
    base: Base,
    /// Whether there is a spare.
    spare: bool,
    /// Whether a restart has begun and no frame holds yet what it was to save.
    restarting: bool,
}

enum Current {
    /// The next append begins a segment.
    None,
    /// Takes frames.
    Open {
        file: DurableFile,
        segment: Segment,
        seed: [u8; 32],
        /// Length of the file: behind the frames there may be what it held before.
        length: u64,
    },
    /// Failed: what no commit holds must be appended again.
    Failed(Segment),
    /// Takes nothing any more.
    Closed { why: String },
}

impl Journal {
    /// A journal in `directory` that goes on after these segments.
    pub(crate) fn new(
        directory: &Path,
        pond_id: PondId,
        ended: Vec<Segment>,
        base: Base,
    ) -> Result<Self, JournalError> {
        let next = ended.iter().map(|segment| segment.number + 1).max().unwrap_or(1);
        let spare = directory.join(SPARE).exists();
        let state = State { ended, current: Current::None, next, base, spare, restarting: false };
        Ok(Journal { directory: directory.to_path_buf(), pond_id, state: Mutex::new(state) })
    }

    /// A journal that takes nothing.
    pub(crate) fn closed(
        directory: &Path,
        pond_id: PondId,
        base: Base,
        why: &str,
    ) -> Result<Self, JournalError> {
        let journal = Self::new(directory, pond_id, Vec::new(), base)?;
        journal.state.lock().current = Current::Closed { why: why.into() };
        Ok(journal)
    }

    /// Appends these rows as one frame and makes them durable. Rows must come in the order of their cuts,
    /// and each only once. No rows: nothing happens.
    ///
    /// # Errors
    ///
    /// After a write that failed, such as for a full disk, and was taken back, the same append may be tried
    /// again. After a failed fsync the segment is lost: this answers [`JournalError::MustRestart`] until
    /// [`Journal::restart`] succeeds.
    pub fn append(&self, rows: &[&[Row]]) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        if state.must_restart() {
            return Err(JournalError::MustRestart { path: self.directory.clone() });
        }
        self.write(&mut state, rows)
    }

    /// Begins a new segment after a failure. `rows` must be **all** rows that no durable commit holds, those of
    /// a commit that is under way included, whether they were journaled before or not.
    pub fn restart(&self, rows: &[&[Row]]) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        // One that was begun for this and has taken nothing will do.
        if !matches!(&state.current, Current::Open { segment, .. } if segment.frames == 0) {
            self.end(&mut state)?;
        }
        // Until a frame holds all of them: what failed may hold some of them no more.
        state.restarting = true;
        self.write(&mut state, rows)?;
        state.restarting = false;
        Ok(())
    }

    /// Whether [`Journal::restart`] is due.
    pub fn must_restart(&self) -> bool {
        self.state.lock().must_restart()
    }

    /// Ends the current segment: it is synced here, and the next append begins a new one. Call it when a cut is taken,
    /// before anything after the cut is appended.
    pub fn rotate(&self) -> Result<(), JournalError> {
        self.end(&mut self.state.lock())
    }

    fn end(&self, state: &mut State) -> Result<(), JournalError> {
        match std::mem::replace(&mut state.current, Current::None) {
            Current::Open { mut file, segment, length, .. } => match end_of(&mut file, &segment, length) {
                Ok(()) => {
                    state.ended.push(segment);
                    Ok(())
                }
                Err(error) => {
                    let path = segment.path.clone();
                    state.current = Current::Failed(Segment { failed: true, ..segment });
                    Err(JournalError::io("fsync", &path)(error))
                }
            },
            other => {
                state.current = other;
                Ok(())
            }
        }
    }

    /// Deletes the ended segments whose rows are all in the table, now that everything up to `position.cut_lsn` is
    /// durable there.
    pub fn release(&self, position: &Position) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        state.base = base_of(position);
        while let Some(oldest) = state.ended.first() {
            if oldest.last_lsn > position.cut_lsn {
                break;
            }
            let failed = oldest.failed;
            // What failed is not to be trusted with anything new.
            if state.spare || failed || oldest.bytes > LARGEST_SPARE {
                match durable::remove(&oldest.path) {
                    Ok(()) => {}
                    // Removed the last time, when what follows failed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(JournalError::io("remove", &oldest.path)(error)),
                }
            } else {
                let spare = self.directory.join(SPARE);
                durable::rename(&oldest.path, &spare).map_err(JournalError::io("move", &oldest.path))?;
                state.spare = true;
            }
            // A whole segment that comes back after power loss holds nothing that is replayed. A torn one must not
            // outlive the one after it, which says that it may be torn.
            if failed {
                durable::sync_directory(&self.directory)
                    .map_err(JournalError::io("fsync", &self.directory))?;
            }
            state.ended.remove(0);
        }
        Ok(())
    }

    /// The oldest version on which a segment builds, or may build that is begun from now on; those that were released are gone
    /// for good. The log must keep its entry: recovery asks for it.
    pub(crate) fn oldest_base(&self) -> Result<u64, JournalError> {
        let state = self.state.lock();
        // A released segment that power loss brings back builds on an older version.
        durable::sync_directory(&self.directory).map_err(JournalError::io("fsync", &self.directory))?;
        let current = match &state.current {
            Current::Open { segment, .. } | Current::Failed(segment) => Some(segment),
            Current::None | Current::Closed { .. } => None,
        };
        let bases = state.ended.iter().chain(current).map(|segment| segment.base);
        Ok(bases.fold(state.base.version, u64::min))
    }

    /// Segments, frames and bytes that are there.
    pub fn size(&self) -> JournalSize {
        let state = self.state.lock();
        let current = match &state.current {
            Current::Open { segment, .. } => Some(segment),
            _ => None,
        };
        state.ended.iter().chain(current).fold(JournalSize::default(), |sum, segment| JournalSize {
            segments: sum.segments + 1,
            frames: sum.frames + segment.frames,
            bytes: sum.bytes + segment.bytes,
        })
    }

    /// Moves all segments into a directory `orphan-…`, adds one with `rows`, and takes nothing more: another
    /// writer's history stands where these rows were to go. Says where they are kept.
    pub(crate) fn orphan(&self, rows: &[&[Row]], why: &str) -> Result<PathBuf, JournalError> {
        let mut state = self.state.lock();
        let number = state.next;
        let current = std::mem::replace(&mut state.current, Current::Closed { why: why.into() });
        if let Current::Closed { .. } = current {
            return Err(JournalError::Closed { path: self.directory.clone(), why: why.into() });
        }
        let name = format!("orphan-{}", chrono::Utc::now().format("%Y%m%dT%H%M%S%.6fZ"));
        let kept = self.directory.join(name);
        durable::create_directory(&kept).map_err(JournalError::io("create", &kept))?;
        let mut segments = std::mem::take(&mut state.ended);
        if let Current::Open { segment, .. } | Current::Failed(segment) = current {
            segments.push(segment);
        }
        for segment in &segments {
            let Some(name) = segment.path.file_name() else { continue };
            durable::rename_durably(&segment.path, &kept.join(name))
                .map_err(JournalError::io("move", &segment.path))?;
        }
        durable::sync_directory(&self.directory).map_err(JournalError::io("fsync", &self.directory))?;
        let path = kept.join(segment_name(number));
        let header = Header { after_failure: true, number, pond_id: self.pond_id, base: state.base };
        let (mut bytes, seed) = header.encode();
        if let Some(payload) = encode(rows)? {
            bytes.extend_from_slice(&payload.frame_header(&seed, bytes.len() as u64));
            payload.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        }
        durable::write_durably(&path, &bytes, Existing::Refuse).map_err(JournalError::io("write", &path))?;
        Ok(kept)
    }

    fn write(&self, state: &mut State, rows: &[&[Row]]) -> Result<(), JournalError> {
        if let Current::Closed { why } = &state.current {
            return Err(JournalError::Closed { path: self.directory.clone(), why: why.clone() });
        }
        let Some(payload) = encode(rows)? else { return Ok(()) };
        if !matches!(state.current, Current::Open { .. }) {
            self.begin(state)?;
        }
        let Current::Open { file, segment, seed, length } = &mut state.current else { return Ok(()) };
        let header = payload.frame_header(seed, segment.bytes);
        let end = segment.bytes + payload.frame_length();
        let start = segment.bytes;
        let write = |file: &mut DurableFile, zeros: u64| {
            let frame = std::iter::once(&header[..]).chain(payload.pieces());
            let mut pieces: Vec<IoSlice<'_>> = frame.chain(zeros_of(zeros)).map(IoSlice::new).collect();
            file.seek_to(start).and_then(|()| file.write_all_vectored(&mut pieces))
        };
        let mut zeros = zeros_behind(payload.frame_length(), end, *length);
        let mut written = write(file, zeros);
        if end > *length
            && written
                .as_ref()
                .is_err_and(|error| error.raw_os_error().is_some_and(|number| Errno(number).is_full()))
        {
            // There may be room for the frame alone.
            zeros = 0;
            written = file.cut_back(start).and_then(|()| write(file, zeros));
        }
        let failure = match written {
            Ok(()) => match file.sync() {
                Ok(()) => {
                    *length = (end + zeros).max(*length);
                    segment.bytes += payload.frame_length();
                    segment.frames += 1;
                    segment.last_lsn = segment.last_lsn.max(payload.last_lsn);
                    return Ok(());
                }
                Err(error) => JournalError::io("fsync", &segment.path)(error),
            },
            Err(error) => {
                let failure = JournalError::io("write", &segment.path)(error);
                match file.cut_back(segment.bytes) {
                    Ok(()) => {
                        *length = segment.bytes;
                        return Err(failure);
                    }
                    Err(error) => {
                        tracing::error!(path = %segment.path.display(), %error, "cannot take a write back")
                    }
                }
                failure
            }
        };
        let last_lsn = segment.last_lsn.max(payload.last_lsn);
        if let Current::Open { segment, .. } = std::mem::replace(&mut state.current, Current::None) {
            state.current = Current::Failed(Segment { failed: true, last_lsn, ..segment });
        }
        Err(failure)
    }

    /// Creates the next segment and makes its name and its header durable: were the header to go with a first frame
    /// whose sync failed, the segments after it could not be told from what follows damage.
    fn begin(&self, state: &mut State) -> Result<(), JournalError> {
        let number = state.next;
        // Also if this one fails: what is left of it must not stand in the way of the next.
        state.next += 1;
        let path = self.directory.join(segment_name(number));
        let (mut file, length) = self.new_file(state, &path).inspect_err(|error| {
            // A number that is passed over would look like a segment that was lost.
            let taken = io::ErrorKind::AlreadyExists;
            if !matches!(error, JournalError::Io { source, .. } if source.kind() == taken) {
                state.next = number;
            }
        })?;
        let after_failure = matches!(state.current, Current::Failed(_));
        let header = Header { after_failure, number, pond_id: self.pond_id, base: state.base };
        let (bytes, seed) = header.encode();
        let end = terminator(bytes.len() as u64, length);
        let written = file
            .write_all_vectored(&mut [IoSlice::new(&bytes), IoSlice::new(end)])
            .and_then(|()| file.sync())
            .and_then(|()| if file.path() == path { Ok(()) } else { file.rename(&path) })
            .and_then(|()| durable::sync_directory(&self.directory));
        if let Err(error) = written {
            // Left behind, it would be a torn segment that others follow.
            let left = file.path();
            durable::remove(left).map_err(JournalError::io("remove", left))?;
            // A number that is passed over would look like a segment that was lost.
            state.next = number;
            return Err(JournalError::io("write", &path)(error));
        }
        let length = length.max(bytes.len() as u64);
        let segment = Segment {
            number,
            path,
            base: state.base.version,
            last_lsn: Lsn(0),
            frames: 0,
            bytes: bytes.len() as u64,
            failed: false,
        };
        let before = std::mem::replace(&mut state.current, Current::Open { file, segment, seed, length });
        if let Current::Failed(segment) = before {
            state.ended.push(segment);
        }
        Ok(())
    }
}

impl Journal {
    /// A file for the segment at `path`, and its length: the spare, still under its name, or a new one.
    fn new_file(&self, state: &mut State, path: &Path) -> Result<(DurableFile, u64), JournalError> {
        let spare = self.directory.join(SPARE);
        if std::mem::take(&mut state.spare) {
            // Were its old name to come back after power loss, there would be a segment with another one's frames.
            durable::sync_directory(&self.directory).map_err(JournalError::io("fsync", &self.directory))?;
            match DurableFile::reuse(&spare).and_then(|file| Ok((file.file().metadata()?.len(), file))) {
                Ok((length, file)) => return Ok((file, length)),
                Err(error) => tracing::warn!(path = %spare.display(), %error, "cannot use the spare segment"),
            }
        }
        let file = DurableFile::create(path).map_err(JournalError::io("create", path))?;
        Ok((file, 0))
    }
}

/// Cuts a segment to its frames and syncs it.
fn end_of(file: &mut DurableFile, segment: &Segment, length: u64) -> io::Result<()> {
    if length > segment.bytes {
        file.truncate(segment.bytes)?;
    }
    file.sync()
}

#[cfg(test)]
impl Journal {
    /// The next fsync fails, as a disk's may.
    pub(crate) fn fail_next_sync(&self) {
        if let Current::Open { file, .. } = &mut self.state.lock().current {
            file.fail_next_sync();
        }
    }
}

impl State {
    fn must_restart(&self) -> bool {
        self.restarting || matches!(self.current, Current::Failed(_))
    }
}

fn encode(rows: &[&[Row]]) -> Result<Option<Payload>, JournalError> {
    Payload::encode(rows).map_err(|why| JournalError::Encode { why })
}
