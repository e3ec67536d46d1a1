//! The journal: segments, frames, and what recovery or another writer made somebody keep aside.

use std::fs;
use std::path::Path;

use pond_tinyfs::{Lsn, Row};

use super::log::Table;
use super::report::{Finding, Part, Report};
use crate::disk::durable;
use crate::journal::frame::{self, BadHeader, Header};
use crate::journal::{recovery, segment};
use crate::{Layout, OpLogError};

/// Checks the segments; gives the rows beyond the newest version, in the order of the frames.
pub(super) fn check(
    layout: &Layout,
    table: &Table,
    exclusive: bool,
    report: &mut Report,
) -> Result<Vec<Row>, OpLogError> {
    let directory = layout.journal();
    let mut rows = Vec::new();
    if !directory.exists() {
        let problem = "the directory is missing: what an fsync promised and no version holds is lost with it";
        report.push(Finding::damage(Part::Journal, "journal", problem));
        return Ok(rows);
    }
    let cut_lsn = table.tip.as_ref().map_or(Lsn(0), |tip| tip.cut_lsn);
    let tip = table.tip.as_ref().map_or(0, |tip| tip.version.0);
    let listed = segment::list(&directory)?;
    let mut read = Vec::new();
    for (number, path) in &listed {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            // Released meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !exclusive => continue,
            Err(error) => {
                report.push(Finding::damage(Part::Journal, file(path), format!("cannot read it: {error}")));
                continue;
            }
        };
        // Released meanwhile, and perhaps overwritten by another one.
        if !exclusive && !path.exists() {
            continue;
        }
        read.push((*number, path, bytes));
    }
    let mut before: Option<(u64, Lsn)> = None;
    for (i, (number, path, bytes)) in read.iter().enumerate() {
        let mut found = |severity: fn(Part, String, String) -> Finding, problem: String| {
            report.findings.push(severity(Part::Journal, file(path), problem));
        };
        let newest = i + 1 == read.len();
        let header = match Header::decode(bytes) {
            Ok(header) => header,
            // A newest segment may have been cut off within its header: then it never took a frame.
            Err(BadHeader::Torn) if newest && !frame::whole_frame_without_header(bytes) => {
                if exclusive {
                    found(
                        Finding::notice,
                        format!(
                            "its header is cut off, or damaged; the {} bytes were never promised unless a bit of them flipped",
                            bytes.len()
                        ),
                    );
                }
                continue;
            }
            Err(BadHeader::Torn) => {
                found(Finding::damage, "its header is damaged".into());
                continue;
            }
            Err(BadHeader::Format(format)) => {
                found(Finding::damage, format!("it has format {format}, which this program does not know"));
                continue;
            }
        };
        if header.header.number != *number {
            found(Finding::damage, format!("it says that it is number {}", header.header.number));
        }
        if table.pond_id.is_some_and(|id| id != header.header.pond_id) {
            found(Finding::damage, format!("it belongs to pond {}", header.header.pond_id));
        }
        let base = header.header.base;
        let digest = blake3::Hash::from_bytes(base.digest).to_hex();
        match table.digests.get(&base.version) {
            Some(found) if *found == digest.as_str() => {}
            // Below what the log still holds.
            None if table.digests.keys().next().is_some_and(|&first| base.version < first) => {}
            // A version that came after the log was read.
            None if !exclusive => {}
            Some(_) => found(
                Finding::damage,
                format!("it builds on another version {} than the table's", base.version),
            ),
            None => found(
                Finding::damage,
                format!("it builds on version {}, whose entry is missing or damaged", base.version),
            ),
        }
        if let Some((last, last_lsn)) = before
            && exclusive
            && recovery::lacks_segment(last, last_lsn, cut_lsn, tip, &header.header)
        {
            found(Finding::damage, format!("a segment between number {last} and this one is missing"));
        }
        let mut offset = header.length;
        let mut last_lsn = Lsn(0);
        while offset < bytes.len() {
            // The newest one may be larger than its frames.
            if newest && bytes[offset..].iter().take(segment::TERMINATOR).all(|&byte| byte == 0) {
                break;
            }
            let Some(frame) = header.frame(bytes, offset) else {
                let follows = header.frame_after(bytes, offset);
                let restarted = read
                    .get(i + 1)
                    .and_then(|next| Header::decode(&next.2).ok())
                    .is_some_and(|next| next.header.after_failure);
                let rest = bytes.len() - offset;
                match () {
                    () if follows => found(
                        Finding::damage,
                        format!("the frame at byte {offset} is damaged, and whole frames follow"),
                    ),
                    () if !newest && !restarted => found(
                        Finding::damage,
                        format!("the frame at byte {offset} is damaged, and another segment follows"),
                    ),
                    () if newest && !exclusive => {}
                    () if frame::is_cut_off(bytes, offset) && !header.was_whole(bytes, offset) => found(
                        Finding::notice,
                        format!(
                            "its last {rest} bytes, from byte {offset}, are no whole frame: a write that was cut off and not yet promised; opening the pond keeps them aside"
                        ),
                    ),
                    () => found(
                        Finding::damage,
                        format!(
                            "its last frame, {rest} bytes from byte {offset}, does not match its digest; if no power was lost while it was written, it was damaged later, and what an fsync promised is lost"
                        ),
                    ),
                }
                break;
            };
            report.frames += 1;
            let decoded = header.rows(&frame, &mut |row| {
                if row.lsn > cut_lsn {
                    rows.push(row);
                }
            });
            if let Err(why) = decoded {
                found(Finding::damage, format!("the frame at byte {offset} cannot be understood: {why}"));
            }
            last_lsn = last_lsn.max(frame.last_lsn);
            offset = frame.end;
        }
        before = Some((*number, last_lsn));
    }
    others(&directory, exclusive, report)?;
    Ok(rows)
}

fn file(path: &Path) -> String {
    format!("journal/{}", path.file_name().unwrap_or_default().to_string_lossy())
}

fn others(directory: &Path, exclusive: bool, report: &mut Report) -> Result<(), OpLogError> {
    for entry in fs::read_dir(directory).map_err(OpLogError::io("list", directory))? {
        let name = entry.map_err(OpLogError::io("list", directory))?.file_name();
        let name = name.to_string_lossy();
        let problem = if name.starts_with("torn-") {
            "the end of a segment that a crash had cut off, kept aside"
        } else if name.starts_with("orphan-") {
            "changes that could not be committed, since another writer's version stood in their place; kept aside"
        } else if segment::segment_number(&name).is_some()
            || name == segment::SPARE
            || (durable::is_temporary(&name) && !exclusive)
        {
            continue;
        } else if durable::is_temporary(&name) {
            "it was being written when a process ended"
        } else {
            "nothing here is called so"
        };
        report.push(Finding::notice(Part::Journal, format!("journal/{name}"), problem));
    }
    Ok(())
}
