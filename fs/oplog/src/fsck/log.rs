//! A Delta log: its entries one by one and as a chain, its checkpoints against what the entries say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use pond_tinyfs::Lsn;
use serde_json::Value;

use super::report::{Begins, Finding, Part, Report};
use crate::disk::{durable, listing};
use crate::log::action::Add;
use crate::log::checkpoint;
use crate::log::commits::{commit_info, position_of};
use crate::log::delta::{self, Entry, Listing, Log};
use crate::log::snapshot::{self, State};
use crate::{OpLogError, PondId, Position, Version};

/// Tag of files that hold rows of earlier versions anew.
const REWRITTEN: &str = "pond.rewritten";

/// Which table it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The pond's history.
    Oplog,
    /// A [`DeltaTable`](crate::DeltaTable), whose entries carry no numbers of transactions.
    Small,
}

/// A data file that an entry, or a checkpoint, names.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) add: Add,
    /// The version that added it; of a file that only a checkpoint names, the checkpoint's.
    pub(super) added: Version,
    pub(super) removed: Option<Version>,
    /// The lsns that its rows may have: above the first, up to the second. `None` where that is not known.
    pub(super) lsns: Option<(Lsn, Lsn)>,
}

impl Named {
    /// The last version for which the file is live; `None` for the newest.
    pub(super) fn last(&self) -> Option<Version> {
        self.removed.map(|version| Version(version.0.saturating_sub(1)))
    }
}

/// What the log says.
#[derive(Default)]
pub(super) struct Table {
    /// Name of the table's directory under the pond's.
    pub(super) prefix: &'static str,
    /// Files by name, in whatever version.
    pub(super) files: BTreeMap<String, Named>,
    /// The newest version's position.
    pub(super) tip: Option<Position>,
    pub(super) pond_id: Option<PondId>,
    /// Whether it is certain which files are live at the newest version.
    pub(super) certain: bool,
    /// Where it begins.
    pub(super) begins: Option<Begins>,
    /// Digests of entries, by version.
    pub(super) digests: BTreeMap<u64, String>,
}

impl Table {
    /// Name of a file of the table, relative to the pond's directory.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    fn in_log(&self, name: &str) -> String {
        format!("{}/_delta_log/{name}", self.prefix)
    }

    fn entry(&self, version: Version) -> String {
        self.in_log(&delta::entry_name(version))
    }
}

/// Checks a table's log.
pub(super) fn check(
    log: &Log,
    prefix: &'static str,
    kind: Kind,
    exclusive: bool,
    report: &mut Report,
) -> Result<Table, OpLogError> {
    let listing = log.list()?;
    let mut table = Table { prefix, ..Table::default() };
    let (Some(&first), Some(&last)) = (listing.entries.first(), listing.entries.last()) else {
        return Ok(table);
    };
    let (mut checkpoints, unfinished) = read_checkpoints(log, &listing, &table, exclusive, report);
    let begins = first == 0 || listing.checkpoints.iter().any(|&version| (first..=last).contains(&version));
    if !begins {
        let problem = "the history begins with it, and there is no checkpoint for what lies before";
        report.push(Finding::damage(Part::Entry, table.entry(Version(first)), problem));
    }
    // Below the floor history is being removed, or was, and power loss brings some of it back.
    let floor = match kind {
        Kind::Oplog => snapshot::retained(log).ok().flatten().map_or(0, |retained| retained.floor.version.0),
        // What a checkpoint covers is removed after it.
        Kind::Small => checkpoints.keys().max().copied().unwrap_or(0),
    };
    let readable = match first {
        0 => 0,
        _ => listing.checkpoints.iter().copied().find(|&version| version >= first).unwrap_or(last),
    };
    table.begins = Some(Begins { first: Version(first), readable: Version(readable), floor: Version(floor) });
    let mut state = (first == 0).then(State::default);
    let mut before: Option<Position> = None;
    let (versions, gaps) = versions(&listing);
    for (below, above) in gaps {
        let problem =
            format!("the entry before it is that of version {below}: is this a version of this table?");
        let versions = (Version(below + 1), Some(Version(above - 1)));
        report.push(
            Finding::damage(Part::Entry, table.entry(Version(above)), problem)
                .versions(versions.0, versions.1),
        );
    }
    let mut previous = None;
    for version in versions.into_iter().map(Version) {
        if previous.replace(version).is_some_and(|previous| version.0 > previous.0 + 1) {
            (state, before) = (None, None);
        }
        match log.read(version) {
            Ok(entry) => {
                match kind {
                    Kind::Oplog => report.entries += 1,
                    Kind::Small => report.control_entries += 1,
                }
                table.digests.insert(version.0, entry.digest.clone());
                let position = (kind == Kind::Oplog)
                    .then(|| chain(log, version, &entry, before.as_ref(), &mut table, report))
                    .flatten();
                table.note(version, &entry, before.as_ref(), position.as_ref());
                if let Some(state) = &mut state {
                    entry.actions.into_iter().for_each(|action| state.push(action));
                }
                before = position;
            }
            // Cleaned up meanwhile.
            Err(OpLogError::MissingEntry { .. }) if !exclusive && is_gone(log, version)? => {
                (state, before) = (None, None);
            }
            Err(OpLogError::MissingEntry { .. }) if version.0 < floor => (state, before) = (None, None),
            Err(error) => {
                let to = Some(Version(last));
                let damage = Finding::damage(Part::Entry, table.entry(version), what(&error));
                report.push(damage.versions(version, to));
                state = None;
                before = None;
            }
        }
        if unfinished.contains(&version) {
            let file = table.in_log(&delta::checkpoint_name(version));
            report.push(match state {
                Some(_) => {
                    let problem =
                        "it has no digest, as where a process ended while it wrote it; nobody uses it";
                    Finding::notice(Part::Checkpoint, file, problem)
                }
                None => {
                    Finding::damage(Part::Checkpoint, file, "its digest is missing").versions(version, None)
                }
            });
        }
        if let Some(found) = checkpoints.remove(&version.0) {
            compare(version, &found, state.as_ref(), &table, report);
            if state.is_none() {
                found.files.iter().for_each(|(name, add)| table.note_checkpoint(name, add, version));
                state = Some(found);
            }
        }
    }
    for (version, _) in checkpoints.into_iter().filter(|(version, _)| *version >= floor) {
        let file = table.in_log(&delta::checkpoint_name(Version(version)));
        report.push(Finding::damage(Part::Checkpoint, file, "there is no entry of its version"));
    }
    match state {
        Some(state) => {
            table.certain = true;
            // What a damaged entry removed is not known from the entries alone.
            for (name, named) in &mut table.files {
                match state.files.contains_key(name) {
                    true => named.removed = None,
                    false => {
                        named.removed.get_or_insert(Version(last));
                    }
                }
            }
        }
        None => table.certain = false,
    }
    hint(log, &listing, &table, exclusive, report);
    others(log, &listing, &table, exclusive, report)?;
    Ok(table)
}

/// Most missing entries between two that are there for each to be looked at.
const LARGEST_GAP: u64 = 4096;

/// The versions to look at: from the first entry on each that is there or should be; and the gaps that are too large for
/// that, as the versions around them: one name with a wrong digit must not make billions of findings.
fn versions(listing: &Listing) -> (Vec<u64>, Vec<(u64, u64)>) {
    let mut versions = Vec::with_capacity(listing.entries.len());
    let mut gaps = Vec::new();
    for &version in &listing.entries {
        match versions.last().copied() {
            Some(last) if version - last > LARGEST_GAP => gaps.push((last, version)),
            Some(last) => versions.extend(last + 1..version),
            None => {}
        }
        versions.push(version);
    }
    (versions, gaps)
}

/// What an error says is wrong, without the path, which a finding names already.
pub(super) fn what(error: &OpLogError) -> String {
    match error {
        OpLogError::CorruptEntry { why, .. }
        | OpLogError::CorruptCheckpoint { why, .. }
        | OpLogError::CorruptFile { why, .. } => why.clone(),
        OpLogError::MissingEntry { .. } | OpLogError::MissingFile { .. } => "it is missing".into(),
        other => other.to_string(),
    }
}

fn is_gone(log: &Log, version: Version) -> Result<bool, OpLogError> {
    Ok(log.list()?.entries.first().is_some_and(|&first| version.0 < first))
}

impl Table {
    /// Takes note of the files that an entry adds and removes.
    fn note(
        &mut self,
        version: Version,
        entry: &Entry,
        before: Option<&Position>,
        position: Option<&Position>,
    ) {
        for action in &entry.actions {
            if let Some(remove) = &action.remove
                && let Some(named) = self.files.get_mut(&remove.path)
            {
                named.removed = Some(version);
            }
            if let Some(add) = &action.add {
                let rewritten = add.tags.as_ref().is_some_and(|tags| tags.contains_key(REWRITTEN));
                let from = match (rewritten, before) {
                    (true, _) => Some(Lsn(0)),
                    (false, Some(before)) => Some(before.cut_lsn),
                    (false, None) => (version.0 == 0).then_some(Lsn(0)),
                };
                let lsns = from.zip(position.map(|position| position.cut_lsn));
                let named = Named { add: add.clone(), added: version, removed: None, lsns };
                self.files.insert(add.path.clone(), named);
            }
        }
    }

    fn note_checkpoint(&mut self, name: &str, add: &Add, version: Version) {
        self.files.entry(name.to_owned()).or_insert_with(|| Named {
            add: add.clone(),
            added: version,
            removed: None,
            lsns: None,
        });
    }
}

/// Checks what an entry says of itself, and against the one before it. Gives its position if it has one.
fn chain(
    log: &Log,
    version: Version,
    entry: &Entry,
    before: Option<&Position>,
    table: &mut Table,
    report: &mut Report,
) -> Option<Position> {
    let mut damage = |problem: String| {
        report.push(
            Finding::damage(Part::Entry, table.entry(version), problem).versions(version, Some(version)),
        )
    };
    let info = match commit_info(log, version, entry) {
        Ok(info) => info,
        Err(error) => {
            damage(what(&error));
            return None;
        }
    };
    let position = match position_of(log, version, &entry.digest, info) {
        Ok(position) => position,
        Err(error) => {
            damage(what(&error));
            return None;
        }
    };
    let txn = entry.actions.iter().find_map(|action| {
        action.txn.as_ref().filter(|txn| info.pond_id.is_some_and(|id| txn.app_id == id.to_string()))
    });
    if txn.is_none_or(|txn| txn.version as u64 != position.cut_lsn.0) {
        damage("its txn action does not say what its commitInfo says of the last operation".into());
    }
    if let Some(before) = before {
        // That none is missing between the two is told of the chain as a whole.
        let numbers = before.goes_on_in(&position).into_iter().filter(|(name, _)| *name != "version");
        for (name, _) in numbers.filter(|(_, goes_on)| !goes_on) {
            damage(format!("its {name} does not go on from that of version {}", before.version));
        }
    }
    let other = info.pond_id.filter(|id| table.pond_id.is_some_and(|ours| ours != *id));
    if let Some(other) = other {
        damage(format!("it is of pond {other}"));
    }
    table.pond_id = table.pond_id.or(info.pond_id);
    table.tip = Some(position.clone());
    Some(position)
}

/// The checkpoints that can be read, and those that have no digest.
fn read_checkpoints(
    log: &Log,
    listing: &Listing,
    table: &Table,
    exclusive: bool,
    report: &mut Report,
) -> (BTreeMap<u64, State>, BTreeSet<Version>) {
    let mut unfinished = BTreeSet::new();
    let newest = listing.checkpoints.last().copied();
    let mut found = BTreeMap::new();
    for version in listing.checkpoints.iter().map(|&version| Version(version)) {
        report.checkpoints += 1;
        let has_digest = log.checkpoint_digest_path(version).exists();
        let being_written = !exclusive && Some(version.0) == newest && !has_digest;
        match snapshot::read_checkpoint(log, version) {
            Ok(actions) => {
                let mut state = State::default();
                actions.into_iter().for_each(|action| state.push(action));
                found.insert(version.0, state);
            }
            Err(_) if being_written => {}
            // Cleaned up meanwhile.
            Err(_) if !exclusive && !log.checkpoint_path(version).exists() => {}
            Err(_) if !has_digest => drop(unfinished.insert(version)),
            Err(error) => {
                let file = table.in_log(&delta::checkpoint_name(version));
                report.push(Finding::damage(Part::Checkpoint, file, what(&error)).versions(version, None));
            }
        }
    }
    (found, unfinished)
}

fn compare(version: Version, found: &State, state: Option<&State>, table: &Table, report: &mut Report) {
    let Some(state) = state else { return };
    let (Some(protocol), Some(metadata)) = (&state.protocol, &state.metadata) else { return };
    if let Some(problem) = checkpoint::difference(found, protocol, metadata, &state.files) {
        let file = table.in_log(&delta::checkpoint_name(version));
        report.push(Finding::damage(Part::Checkpoint, file, problem).versions(version, None));
    }
}

/// Checks `_last_checkpoint`, by which other readers find the newest checkpoint.
fn hint(log: &Log, listing: &Listing, table: &Table, exclusive: bool, report: &mut Report) {
    const NAME: &str = "_last_checkpoint";
    let mut damage =
        |problem: String| report.push(Finding::damage(Part::Checkpoint, table.in_log(NAME), problem));
    let bytes = match fs::read(log.directory().join(NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return damage(format!("cannot read it: {error}")),
    };
    let Ok(Value::Object(members)) = serde_json::from_slice::<Value>(&bytes) else {
        return damage("it is no JSON object".into());
    };
    let number = |name: &str| members.get(name).and_then(Value::as_u64);
    let Some(version) = number("version").filter(|version| listing.checkpoints.contains(version)) else {
        // A newer one may have been written since the directory was listed.
        if exclusive || number("version").is_none() {
            damage("it names a checkpoint that is not there".into());
        }
        return;
    };
    let path = log.checkpoint_path(Version(version));
    let length = fs::metadata(&path).map(|metadata| metadata.len()).ok();
    let counted = count(log, Version(version));
    for (name, value) in &members {
        let right = match name.as_str() {
            "version" => true,
            "sizeInBytes" | "size_in_bytes" => value.as_u64() == length,
            "size" => counted.is_none_or(|(rows, _)| value.as_u64() == Some(rows)),
            "numOfAddFiles" | "num_of_add_files" => {
                counted.is_none_or(|(_, adds)| value.as_u64() == Some(adds))
            }
            "parts" | "checksum" | "tags" | "checkpointSchema" => true,
            _ => false,
        };
        if !right {
            damage(format!("its member {name} is not right for the checkpoint of version {version}"));
        }
    }
}

/// Rows and live files of a checkpoint.
fn count(log: &Log, version: Version) -> Option<(u64, u64)> {
    let bytes = snapshot::read_checkpoint_bytes(log, version).ok()?;
    let rows = snapshot::checkpoint_rows(&bytes)?;
    let actions = snapshot::parse_checkpoint(log, version, bytes).ok()?;
    Some((rows, actions.iter().filter(|action| action.add.is_some()).count() as u64))
}

/// Names in the log's directory that are neither entries nor checkpoints.
fn others(
    log: &Log,
    listing: &Listing,
    table: &Table,
    exclusive: bool,
    report: &mut Report,
) -> Result<(), OpLogError> {
    for name in listing::names(&log.directory())? {
        let number = |name: &str| name.get(..20).and_then(|digits| digits.parse::<u64>().ok());
        let known = match name.as_str() {
            "_last_checkpoint" => true,
            name if name.ends_with(".json") || name.ends_with(".checkpoint.parquet") => {
                number(name).is_some()
            }
            name => name
                .strip_prefix("_pond_checkpoint.")
                .and_then(number)
                .is_some_and(|version| listing.checkpoints.contains(&version) || !exclusive),
        };
        if known || (!exclusive && durable::is_temporary(&name)) {
            continue;
        }
        let problem = if durable::is_temporary(&name) {
            "it was being written when a process ended"
        } else if name.starts_with("gap-") {
            "an entry that lay above a missing one, kept aside"
        } else if name.starts_with("damaged-") || name.contains(".damaged-") {
            "a damaged file, kept aside"
        } else {
            "nothing here is called so"
        };
        report.push(Finding::notice(Part::Leftover, table.in_log(&name), problem));
    }
    Ok(())
}
