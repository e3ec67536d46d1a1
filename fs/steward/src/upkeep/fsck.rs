//! `pond fsck`: the check of the history, and what the control table means; repair.

use std::ops::RangeInclusive;
use std::path::Path;

use pond_oplog::fsck::{Begins, Finding, Part, Repaired, Report, Restore, Watch};
use pond_oplog::{DeltaTable, Layout, Pin, Version, durable, fsck};
use pond_tinyfs::Advise;
use serde::Serialize;

use crate::control::keys::ROLE_KEY;
use crate::control::row::{ControlRow, Event, decode};
use crate::control::table::Control;
use crate::host::lock::WriterLock;
use crate::{Registry, Role, StewardError, init};

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct FsckReport {
    /// The history's, the journal's and the control table's.
    #[serde(flatten)]
    pub report: Report,
    /// Whether nobody else had the pond open for writing, so that journal and leftovers were checked in full.
    pub exclusive: bool,
}

/// What a repair did, and what is left.
#[derive(Clone, Debug, Serialize)]
pub struct RepairReport {
    /// What was found before.
    pub before: Report,
    /// What was done.
    #[serde(flatten)]
    pub repaired: Repaired,
    /// What a check finds afterwards.
    pub after: Report,
}

/// Checks the pond at `pond`. Takes the writer's lock meanwhile if it can be had at once; else it reads beside whoever holds
/// it. Changes nothing.
///
/// # Errors
///
/// If there is no pond, or its directories cannot be listed. What is wrong with it is in the report.
pub fn check(pond: &Path, watch: &dyn Watch) -> Result<FsckReport, StewardError> {
    init::refuse_unless_pond(pond)?;
    // On a disk that has become read-only there is no lock to be had, and nobody who writes.
    let lock = WriterLock::acquire(pond, None).ok();
    // Else files that are replaced meanwhile could be cleaned away before they are looked at.
    let pin = match &lock {
        Some(_) => None,
        None => Some(Pin::hold(pond, Version(0))?),
    };
    let report = check_locked(pond, lock.is_some(), watch)?;
    drop(pin);
    Ok(FsckReport { report, exclusive: lock.is_some() })
}

fn check_locked(pond: &Path, exclusive: bool, watch: &dyn Watch) -> Result<Report, StewardError> {
    let mut report = fsck::check(pond, exclusive, watch)?;
    match Control::open(pond, false) {
        Err(error) => report.findings.push(Finding::damage(Part::Control, "control", error.in_full())),
        // Whoever has it open makes versions while we look.
        Ok(control) if exclusive => {
            if control.role() == Role::Source {
                report.findings.extend(unreadable(&report));
            }
            let lost = lost_versions(&control, report.tip.as_ref().map(|tip| tip.version));
            report.findings.extend(lost.into_iter().flatten().map(missing_entry));
        }
        Ok(_) => {}
    }
    Ok(report)
}

/// Versions that were durable and that the log, which ends at `tip`, does not have.
pub(crate) fn lost_versions(control: &Control, tip: Option<Version>) -> Option<RangeInclusive<u64>> {
    let (newest, tip) = (control.newest_version()?, tip?);
    (newest > tip).then(|| tip.0 + 1..=newest.0)
}

/// A source keeps all from its floor on: what there is no way to read of that is lost.
fn unreadable(report: &Report) -> Option<Finding> {
    let Begins { first, readable, floor } = report.begins?;
    // One that was a replica may begin at the base that it was made from.
    if readable <= floor || readable == first {
        return None;
    }
    let problem = format!(
        "versions from {floor} to {} cannot be read any more: what they begin with, entries or a checkpoint, is missing",
        readable.0 - 1
    );
    let mut finding = Finding::damage(Part::Entry, format!("data/_delta_log/{:020}.json", floor.0), problem);
    (finding.first_version, finding.last_version) = (Some(floor), Some(Version(readable.0 - 1)));
    Some(finding)
}

fn missing_entry(version: u64) -> Finding {
    let problem = "it is missing: the control table says that this version was committed";
    let file = format!("data/_delta_log/{version:020}.json");
    let mut finding = Finding::damage(Part::Entry, file, problem);
    finding.first_version = Some(Version(version));
    finding
}

/// Opens a backup of a pond, of which these are configurations of remotes; none if there is none.
pub type OpenBackup<'a> =
    dyn FnMut(&Report, &[Vec<u8>]) -> Result<Option<Box<dyn Restore + 'a>>, String> + 'a;

/// Checks the pond, repairs what can be repaired without losing anything, and checks it again. `open_backup` is called
/// if something is damaged, with the configurations of factories that the registry knows as remotes. A check that
/// was cancelled is followed by no repair.
///
/// # Errors
///
/// [`StewardError::LockHeld`] while somebody has the pond open; and as [`check`].
pub fn repair(
    pond: &Path,
    registry: &Registry,
    open_backup: &mut OpenBackup<'_>,
    watch: &dyn Watch,
) -> Result<RepairReport, StewardError> {
    init::refuse_unless_pond(pond)?;
    let _lock = WriterLock::acquire(pond, None)?;
    let before = check_locked(pond, true, watch)?;
    let mut repaired = Repaired::default();
    if watch.cancelled() {
        return Ok(RepairReport { after: before.clone(), before, repaired });
    }
    let damaged_control = |finding: &Finding| {
        finding.part == Part::Control
            || (finding.file.starts_with("control/") && finding.severity == fsck::Severity::Damage)
    };
    if before.findings.iter().any(damaged_control) {
        let restored = restore_settings(pond);
        let done = restored.as_ref().map_or_else(|_| String::new(), Clone::clone);
        repaired.note(restored.map(drop), done, "control");
    }
    if before.findings.iter().any(|finding| !damaged_control(finding)) {
        let mut configurations: Vec<Vec<u8>> = Vec::new();
        if let Ok(control) = Control::open(pond, false)
            && let Some(configuration) = control.get(crate::REMOTE_CONFIG_KEY)
        {
            configurations.push(configuration.into_bytes());
        }
        let remotes = before.configurations.iter().filter(|(factory, _)| registry.is_remote(factory));
        configurations.extend(remotes.map(|(_, configuration)| configuration.to_vec()));
        let mut backup = match before.is_clean() {
            true => None,
            false => open_backup(&before, &configurations).unwrap_or_else(|why| {
                repaired.failed.push(format!("the backup: {why}"));
                None
            }),
        };
        let backup = backup.as_deref_mut().map(|backup| backup as &mut dyn Restore);
        let history = fsck::repair(pond, &before, backup, watch)?;
        repaired.done.extend(history.done);
        repaired.failed.extend(history.failed);
    }
    let after = check_locked(pond, true, watch)?;
    Ok(RepairReport { before, repaired, after })
}

/// Gives a control table that was made elsewhere its name.
fn put_in_place(new: &Path, path: &Path) -> Result<(), String> {
    let moved = durable::rename(new, path);
    let synced = moved.and_then(|()| path.parent().map_or(Ok(()), durable::sync_directory));
    synced.map_err(|error| format!("cannot move {} to {}: {error}", new.display(), path.display()))
}

fn clear(directory: &Path) -> Result<(), String> {
    match durable::remove_tree(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Makes the control table anew from those of its files that are whole, the old one kept aside. Says what it did.
fn restore_settings(pond: &Path) -> Result<String, String> {
    let path = Layout::new(pond).control();
    let new = pond.join("control.new");
    if !path.exists() && DeltaTable::exists(&new) {
        // A repair was cut off between its last two steps.
        put_in_place(&new, &path)?;
        return Ok("put the control table in its place that an earlier repair had made".into());
    }
    let salvaged = DeltaTable::salvage(&path).map_err(|error| error.to_string())?;
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut outcomes = Vec::new();
    for batch in &salvaged.batches {
        let mut rows = Vec::new();
        decode(batch, &mut rows)?;
        for row in rows {
            match (row.event, &row.key, &row.value) {
                (Event::Setting, Some(key), Some(value)) => {
                    settings.retain(|(known, _)| known != key);
                    settings.push((key.clone(), value.clone()));
                }
                (Event::PostCommitCompleted, ..) => outcomes.push(row),
                _ => {}
            }
        }
    }
    if !settings.iter().any(|(key, _)| key == ROLE_KEY) {
        return Err(
            "whether the pond is a source or a replica cannot be told from what is left, and taking one for \
                    the other would fork history: move the directory `control` away and say it with \
                    `pond control set factory_mode:remote push` (a source) or `… pull` (a replica)"
                .into(),
        );
    }
    let rows = settings.iter().map(|(key, value)| ControlRow::setting(key, value)).chain(outcomes);
    let rows: Vec<ControlRow> = rows.collect();
    // Whole before it takes the place of the old one: part of the settings would pass for all of them.
    clear(&new)?;
    Control::make(&new, &rows).map_err(|error| error.to_string())?;
    let now = pond_tinyfs::Timestamp::now().0 / 1_000_000_000;
    let kept = pond.join(format!("control.damaged-{now}"));
    durable::rename(&path, &kept)
        .and_then(|()| durable::sync_directory(pond))
        .map_err(|error| format!("cannot move it to {}: {error}", kept.display()))?;
    put_in_place(&new, &path)?;
    let lost = match salvaged.lost {
        0 => String::new(),
        lost => format!(
            "; {lost} of its files could not be read, so settings may be missing or older than they were: look at \
             `pond control`"
        ),
    };
    let count = settings.len();
    Ok(format!(
        "made the control table anew with its {}, the old one is {}{lost}",
        crate::count(count as u64, "setting"),
        kept.display()
    ))
}
