//! The control table, `$POND/control`: settings, and how transactions and post-commit work went.
//!
//! It is local and never replicated. A setting is committed before [`Control::set`] returns, because nothing else
//! knows it. Outcomes are written in batches, every 10 seconds and on failure, and kept for 7 days: after a crash the
//! last ones may be missing, and post-commit work is then done once more. Within a batch only the last row of a
//! transaction, and of a node's post-commit work, is written, and every failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pond_oplog::{Clock, DeltaTable, Layout, OpLogError, Timeline, Version};
use pond_tinyfs::NodeId;

use crate::control::keys::{ROLE_KEY, SUPERSEDED_KEY, TIMELINE_ID_KEY, TIMELINE_KEY};
use crate::control::row::{ControlRow, Event, encode, read, schema};
use crate::control::settings;
use crate::{Role, StewardError};

/// Outcomes are kept so long, microseconds.
const RETENTION: i64 = 7 * 24 * 3600 * 1_000_000;

/// With more live files than this the table is written anew as one.
const COMPACT_ABOVE: usize = 64;

/// The open control table.
pub(crate) struct Control {
    path: PathBuf,
    settings: Mutex<BTreeMap<String, String>>,
    /// How far each node's post-commit work had got when the table was opened.
    watermarks: BTreeMap<NodeId, Version>,
    /// How each node's last run went when the table was opened: whether it failed, and what it said.
    outcomes: BTreeMap<NodeId, (bool, Option<String>)>,
    /// See [`newest_version`](Self::newest_version).
    newest: Option<Version>,
    /// Outcomes not yet written.
    pending: Mutex<Vec<ControlRow>>,
    /// `None` once closed, and where it is only read. Settings change only while this is held.
    table: Mutex<Option<Table>>,
    /// What tells whether outcomes are old enough to be forgotten; without it none is.
    pub(crate) clock: Option<Arc<Clock>>,
}

/// The table as it is written to.
struct Table {
    table: DeltaTable,
    /// Whether its newest version may not survive power loss: a sync of a directory has failed, and later ones would
    /// not tell.
    doubtful: bool,
}

impl Table {
    /// The table to write to. After a doubtful version that is the table read anew and written anew, as one new file
    /// and with a checkpoint, so that nothing depends on that version any more.
    fn sound(&mut self, path: &Path, since: i64) -> Result<&DeltaTable, StewardError> {
        if self.doubtful {
            tracing::warn!(path = %path.display(), "writing the control table anew");
            self.table = DeltaTable::open(path)?;
            self.rewrite(path, since)?;
            self.doubtful = false;
        }
        Ok(&self.table)
    }

    /// Writes the table anew without outcomes from before `since`.
    fn rewrite(&mut self, path: &Path, since: i64) -> Result<(), StewardError> {
        let kept = retain(read(path, &self.table)?, since);
        let replaced = self.table.replace_all(&encode(path, &kept)?);
        replaced.map(drop).map_err(|error| self.failed(error))
    }

    /// Takes note of a write that failed.
    fn failed(&mut self, error: OpLogError) -> StewardError {
        self.doubtful |= matches!(error, OpLogError::Unconfirmed { .. });
        error.into()
    }
}

impl Control {
    /// Makes the table of a new pond, or of one that lost it.
    pub(crate) fn create(pond: &Path, role: Role) -> Result<(), StewardError> {
        Self::make(&Layout::new(pond).control(), &[ControlRow::setting(ROLE_KEY, role.setting())])
    }

    /// Makes a table in `dir` that holds these rows, which come in one step.
    pub(crate) fn make(dir: &Path, rows: &[ControlRow]) -> Result<(), StewardError> {
        // One without a role is there where an earlier attempt was cut off.
        let table = match DeltaTable::exists(dir) {
            true => DeltaTable::open(dir)?,
            false => DeltaTable::create(dir, "control", schema())?,
        };
        table.append(&encode(dir, rows)?)?;
        Ok(())
    }

    /// Opens the table; with `writable` false nothing will be written.
    pub(crate) fn open(pond: &Path, writable: bool) -> Result<Self, StewardError> {
        let path = Layout::new(pond).control();
        if !DeltaTable::exists(&path) {
            return Err(StewardError::ControlMissing { path: pond.to_owned() });
        }
        let table = match writable {
            true => DeltaTable::open(&path)?,
            false => DeltaTable::open_read_only(&path)?,
        };
        let mut settings = BTreeMap::new();
        let mut watermarks = BTreeMap::new();
        let mut outcomes = BTreeMap::new();
        let mut newest = None;
        for row in read(&path, &table)? {
            if row.event.is_of_a_durable_version() {
                newest = newest.max(row.version);
            }
            if let (Some(node), true) = (row.node, row.is_outcome()) {
                outcomes.insert(node, (row.event.is_failure(), row.value.clone()));
            }
            match (row.event, row.key, row.value, row.node, row.version) {
                (Event::Setting, Some(key), Some(value), _, _) => {
                    settings.insert(key, value);
                }
                (Event::PostCommitCompleted, _, _, Some(node), Some(version)) => {
                    let mark = watermarks.entry(node).or_insert(version);
                    *mark = version.max(*mark);
                }
                _ => {}
            }
        }
        if !settings.contains_key(ROLE_KEY) {
            return Err(StewardError::ControlMissing { path: pond.to_owned() });
        }
        Ok(Control {
            path,
            settings: Mutex::new(settings),
            watermarks,
            outcomes,
            newest,
            pending: Mutex::default(),
            table: Mutex::new(writable.then_some(Table { table, doubtful: false })),
            clock: None,
        })
    }

    /// No settings, for a pond that is only read and whose settings cannot be.
    pub(crate) fn unknown(pond: &Path) -> Self {
        Control {
            path: Layout::new(pond).control(),
            settings: Mutex::default(),
            watermarks: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            newest: None,
            pending: Mutex::default(),
            table: Mutex::new(None),
            clock: None,
        }
    }

    /// Outcomes from before this are forgotten; none while the time is in doubt.
    fn remembered_since(&self) -> i64 {
        let now = self.clock.as_ref().and_then(|clock| clock.now().certain());
        now.map_or(i64::MIN, |now| now - RETENTION)
    }

    /// Whether the pond makes history or follows another's; `None` where the settings could not be read.
    pub(crate) fn known_role(&self) -> Option<Role> {
        self.get(ROLE_KEY).map(|mode| match mode.as_str() {
            "push" => Role::Source,
            // Anything else must not be written to.
            _ => Role::Replica,
        })
    }

    /// Whether the pond makes history; if that is not known, it does not.
    pub(crate) fn role(&self) -> Role {
        self.known_role().unwrap_or(Role::Replica)
    }

    /// The timeline that the pond was promoted to, on which it commits as a source; `None` if it never was.
    pub(crate) fn timeline(&self) -> Option<Timeline> {
        self.get(TIMELINE_KEY).and_then(|timeline| timeline.parse().ok()).map(Timeline)
    }

    /// The mode in which a factory runs here; `None` if it does not.
    pub(crate) fn factory_mode(&self, factory: &str) -> Option<String> {
        self.get(&format!("factory_mode:{factory}"))
            .or_else(|| (self.role() == Role::Source).then(|| "push".to_owned()))
    }

    /// Why a source takes no writes any more, as a push found out at some time.
    pub(crate) fn superseded(&self) -> Option<String> {
        let why = self.get(SUPERSEDED_KEY).filter(|why| !why.is_empty())?;
        (self.known_role() == Some(Role::Source)).then_some(why)
    }

    /// One setting, or all, by name.
    pub(crate) fn select(&self, key: Option<&str>) -> Vec<(String, String)> {
        match key {
            Some(key) => self.get(key).map(|value| (key.to_owned(), value)).into_iter().collect(),
            None => self.all(),
        }
    }

    /// A setting.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.settings.lock().get(key).cloned()
    }

    /// A size, bytes, as it is set, or its default.
    pub(crate) fn size(&self, key: &str) -> u64 {
        settings::size(self.get(key).as_deref(), key)
    }

    /// A duration as it is set, or its default.
    pub(crate) fn duration(&self, key: &str) -> Duration {
        settings::duration(self.get(key).as_deref(), key)
    }

    /// All settings, by name.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.settings.lock().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Sets a setting; it is durable when this returns.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), StewardError> {
        let bad_but = |why, advice| StewardError::BadSetting {
            key: key.to_owned(),
            value: value.to_owned(),
            why,
            advice,
        };
        let bad = |why| bad_but(why, None);
        if key.is_empty() || key.chars().any(|c| c.is_control() || c.is_whitespace() || c == '=') {
            return Err(bad("a name is not empty and has no spaces and no `=`"));
        }
        if !settings::is_known(key) {
            return Err(StewardError::UnknownSetting(key.to_owned()));
        }
        settings::check(key, value).map_err(bad)?;
        // Before looking at the role, which must still be the same when the setting is written.
        let mut table = self.table.lock();
        if key == ROLE_KEY {
            match (value, self.role()) {
                ("pull", _) | ("push", Role::Source) => {}
                ("push", Role::Replica) => {
                    return Err(bad_but(
                        "writing to a replica would fork its history",
                        Some("`pond promote` makes one writable"),
                    ));
                }
                _ => return Err(bad("it is `push` on a source and `pull` on a replica")),
            }
        }
        if key == TIMELINE_KEY || key == TIMELINE_ID_KEY {
            return Err(bad("`pond promote` sets it, once the timeline is claimed"));
        }
        if key == SUPERSEDED_KEY && !value.is_empty() {
            return Err(bad_but(
                "pond sets it where a promoted replica has taken over",
                Some("empty, it lets this source write again"),
            ));
        }
        self.write_settings(&mut table, &[(key, value)])
    }

    /// Sets several settings in one step, without asking whether they make sense; they are durable when this returns.
    pub(crate) fn set_all(&self, new: &[(&str, &str)]) -> Result<(), StewardError> {
        self.write_settings(&mut self.table.lock(), new)
    }

    fn write_settings(&self, table: &mut Option<Table>, new: &[(&str, &str)]) -> Result<(), StewardError> {
        let rows: Vec<ControlRow> = new.iter().map(|(key, value)| ControlRow::setting(key, value)).collect();
        let written = self.append(table, &rows);
        // What could not be confirmed is in the table all the same, and memory must say what the table says.
        let unconfirmed =
            |error: &StewardError| matches!(error, StewardError::OpLog(OpLogError::Unconfirmed { .. }));
        if written.as_ref().err().is_none_or(unconfirmed) {
            let mut settings = self.settings.lock();
            settings.extend(new.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        }
        written
    }

    /// Adds rows to the table. After [`OpLogError::Unconfirmed`] they are there, and are durable once anything else is
    /// written.
    fn append(&self, table: &mut Option<Table>, rows: &[ControlRow]) -> Result<(), StewardError> {
        let open = table.as_mut().ok_or(StewardError::Closed)?;
        let batch = encode(&self.path, rows)?;
        let mut result = open.sound(&self.path, self.remembered_since())?.append(&batch);
        // A version that memory does not know. Nobody else writes, so it is one of ours that seemed to have failed.
        if let Err(error @ OpLogError::SomeoneElse { .. }) = &result {
            tracing::warn!(%error, "the control table has a version that was not expected");
            open.doubtful = true;
            result = open.sound(&self.path, self.remembered_since())?.append(&batch);
        }
        result.map(drop).map_err(|error| open.failed(error))
    }

    /// How far a node's post-commit work had got when the table was opened.
    pub(crate) fn watermark(&self, node: NodeId) -> Option<Version> {
        self.watermarks.get(&node).copied()
    }

    /// How a node's last run had gone when the table was opened: whether it failed, and what it said.
    pub(crate) fn outcome(&self, node: NodeId) -> Option<(bool, Option<String>)> {
        self.outcomes.get(&node).cloned()
    }

    /// The newest version of which the table said, when it was opened, that it is durable: the log holds it, unless it lost it.
    pub(crate) fn newest_version(&self) -> Option<Version> {
        self.newest
    }

    /// Takes note of an outcome, to be written with the next batch.
    pub(crate) fn record(&self, row: ControlRow) {
        let mut pending = self.pending.lock();
        // The rows of a subject follow each other closely: looking far back would find nothing.
        let recent = pending.len().saturating_sub(64);
        let superseded = pending[recent..]
            .iter()
            .rposition(|earlier| earlier.same_subject(&row))
            .map(|index| recent + index)
            .filter(|&index| !pending[index].event.is_failure());
        if let Some(index) = superseded {
            pending.remove(index);
        }
        pending.push(row);
    }

    /// Writes the outcomes noted so far, and tidies the table when it has many files.
    pub(crate) fn flush(&self) -> Result<(), StewardError> {
        let mut table = self.table.lock();
        let rows = std::mem::take(&mut *self.pending.lock());
        if rows.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.append(&mut table, &rows) {
            let mut pending = self.pending.lock();
            let newer = std::mem::replace(&mut *pending, rows);
            pending.extend(newer);
            return Err(error);
        }
        match table.as_mut() {
            Some(open) if open.table.files() > COMPACT_ABOVE => {
                open.rewrite(&self.path, self.remembered_since())
            }
            _ => Ok(()),
        }
    }

    /// Writes what is noted; nothing can be written afterwards.
    pub(crate) fn close(&self) -> Result<(), StewardError> {
        let result = self.flush();
        *self.table.lock() = None;
        result
    }
}

/// Whether the pond makes history or follows another's, by its control table alone: it is not opened.
pub fn role(pond: &Path) -> Result<Role, StewardError> {
    Ok(Control::open(pond, false)?.role())
}

/// What compaction keeps: current settings, outcomes since `since`, each node's watermark, and which version was the newest.
fn retain(rows: Vec<ControlRow>, since: i64) -> Vec<ControlRow> {
    let mut last_setting = BTreeMap::new();
    let mut watermark: BTreeMap<NodeId, (Version, usize)> = BTreeMap::new();
    let mut newest: Option<(Version, usize)> = None;
    for (index, row) in rows.iter().enumerate() {
        if row.event.is_of_a_durable_version() {
            newest = newest.max(row.version.map(|version| (version, index)));
        }
        match (row.event, row.node, row.version) {
            (Event::Setting, _, _) => {
                last_setting.insert(row.key.clone(), index);
            }
            (Event::PostCommitCompleted, Some(node), Some(version))
                if watermark.get(&node).is_none_or(|(mark, _)| *mark <= version) =>
            {
                watermark.insert(node, (version, index));
            }
            _ => {}
        }
    }
    let mut keep: Vec<bool> =
        rows.iter().map(|row| row.event != Event::Setting && row.timestamp >= since).collect();
    let marks = watermark.into_values().chain(newest).map(|(_, index)| index);
    for index in last_setting.into_values().chain(marks) {
        keep[index] = true;
    }
    rows.into_iter().zip(keep).filter_map(|(row, keep)| keep.then_some(row)).collect()
}

#[cfg(test)]
mod tests;
