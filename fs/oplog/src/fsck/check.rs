//! The check as a whole: its parts one after the other.

use std::path::Path;

use crate::fsck::report::{Report, Watch};
use crate::fsck::{files, journal, log, paths, rows};
use crate::log::delta::Log;
use crate::{Layout, OpLogError};

/// Checks the pond at `pond`: all but what its control table's rows mean. `exclusive` says that the caller holds the
/// writer's lock, so that nothing changes meanwhile. A check that was cancelled reports what it found so far.
///
/// # Errors
///
/// [`OpLogError::NotAPond`], and directories that cannot be listed. What is wrong with files is in the report.
pub fn check(pond: &Path, exclusive: bool, watch: &dyn Watch) -> Result<Report, OpLogError> {
    let layout = Layout::new(pond);
    let mut report = Report::default();
    let log = Log::new(&layout.data());
    let table = log::check(&log, "data", log::Kind::Oplog, exclusive, &mut report)?;
    report.tip = table.tip.clone();
    report.begins = table.begins;
    let mut names = paths::Names::default();
    let mut read = files::check(&log, &table, &mut names, watch, &mut report);
    files::leftovers(&layout, &table, exclusive, &mut report)?;
    let mut journal = journal::check(&layout, &table, exclusive, &mut report)?;
    if !exclusive {
        // Versions may have come since the log was read, and taken the segments before these rows with them.
        journal.clear();
    }
    if !watch.cancelled() {
        journal.iter().for_each(|row| names.push(row));
        report.configurations = names.configurations();
        rows::check(&table, &mut read, journal, &mut report);
    }
    let control = Log::new(&layout.control());
    // That it is not there at all, whoever reads the settings says.
    if control.directory().exists() {
        let table = log::check(&control, "control", log::Kind::Small, exclusive, &mut report)?;
        files::check_small(&control, &table, watch, &mut report);
    }
    names.resolve(&mut report.findings);
    Ok(report)
}
