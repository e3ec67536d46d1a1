//! The control table, `$POND/control`: settings, and how transactions and post-commit work went.
//!
//! It is local and never replicated. A setting is committed before [`Control::set`] returns, because nothing else
//! knows it. Outcomes are written in batches, every 10 seconds and on failure, and kept for 7 days: after a crash the
//! last ones may be missing, and post-commit work is then done once more. Within a batch only the last row of a
//! transaction, and of a node's post-commit work, is written, and every failure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use pond_oplog::{DeltaTable, Layout, Version};
use pond_tinyfs::NodeId;

use crate::control_row::{ControlRow, Event, encode, now, read, schema};
use crate::{Role, StewardError};

/// The setting that says what the pond is: `push` for a source, `pull` for a replica.
pub(crate) const ROLE_KEY: &str = "factory_mode:remote";

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
    /// Outcomes not yet written.
    pending: Mutex<Vec<ControlRow>>,
    /// `None` once closed, and where it is only read.
    table: Mutex<Option<DeltaTable>>,
}

impl Control {
    /// Makes the table of a new pond, or of one that lost it.
    pub(crate) fn create(pond: &Path, role: Role) -> Result<(), StewardError> {
        let dir = Layout::new(pond).control();
        // One without a role is there where an earlier attempt was cut off.
        let table = match DeltaTable::exists(&dir) {
            true => DeltaTable::open(&dir)?,
            false => DeltaTable::create(&dir, "control", schema())?,
        };
        table.append(&encode(&dir, &[ControlRow::setting(ROLE_KEY, role.setting())])?)?;
        Ok(())
    }

    /// Opens the table; with `writable` false nothing will be written.
    pub(crate) fn open(pond: &Path, writable: bool) -> Result<Self, StewardError> {
        let path = Layout::new(pond).control();
        if !DeltaTable::exists(&path) {
            return Err(StewardError::ControlMissing { path: pond.to_owned() });
        }
        let table = DeltaTable::open(&path)?;
        let mut settings = BTreeMap::new();
        let mut watermarks = BTreeMap::new();
        for row in read(&path, &table)? {
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
            pending: Mutex::default(),
            table: Mutex::new(writable.then_some(table)),
        })
    }

    /// No settings, for a pond that is only read and whose settings cannot be.
    pub(crate) fn unknown(pond: &Path) -> Self {
        Control {
            path: Layout::new(pond).control(),
            settings: Mutex::default(),
            watermarks: BTreeMap::new(),
            pending: Mutex::default(),
            table: Mutex::new(None),
        }
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

    /// The mode in which a factory runs here; `None` if it does not.
    pub(crate) fn factory_mode(&self, factory: &str) -> Option<String> {
        self.get(&format!("factory_mode:{factory}"))
            .or_else(|| (self.role() == Role::Source).then(|| "push".to_owned()))
    }

    /// A setting.
    pub(crate) fn get(&self, key: &str) -> Option<String> {
        self.settings.lock().get(key).cloned()
    }

    /// All settings, by name.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.settings.lock().iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Sets a setting; it is durable when this returns.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), StewardError> {
        let bad = |why| StewardError::BadSetting { key: key.to_owned(), value: value.to_owned(), why };
        if key.is_empty() || key.chars().any(|c| c.is_control() || c.is_whitespace() || c == '=') {
            return Err(bad("a name is not empty and has no spaces and no `=`"));
        }
        if key == ROLE_KEY {
            match (value, self.role()) {
                ("pull", _) | ("push", Role::Source) => {}
                ("push", Role::Replica) => {
                    return Err(bad(
                        "writing to a replica would fork its history; `pond promote` makes one writable",
                    ));
                }
                _ => return Err(bad("it is `push` on a source and `pull` on a replica")),
            }
        }
        let table = self.table.lock();
        let table = table.as_ref().ok_or(StewardError::Closed)?;
        table.append(&encode(&self.path, &[ControlRow::setting(key, value)])?)?;
        self.settings.lock().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// How far a node's post-commit work had got when the table was opened.
    pub(crate) fn watermark(&self, node: NodeId) -> Option<Version> {
        self.watermarks.get(&node).copied()
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
        let table = self.table.lock();
        let rows = std::mem::take(&mut *self.pending.lock());
        if rows.is_empty() {
            return Ok(());
        }
        let written = match table.as_ref() {
            Some(table) => encode(&self.path, &rows).and_then(|batch| Ok(table.append(&batch)?)),
            None => Err(StewardError::Closed),
        };
        if let Err(error) = written {
            let mut pending = self.pending.lock();
            let newer = std::mem::replace(&mut *pending, rows);
            pending.extend(newer);
            return Err(error);
        }
        match table.as_ref() {
            Some(table) if table.files() > COMPACT_ABOVE => self.compact(table),
            _ => Ok(()),
        }
    }

    /// Writes the table anew without what has expired.
    fn compact(&self, table: &DeltaTable) -> Result<(), StewardError> {
        let kept = retain(read(&self.path, table)?, now() - RETENTION);
        table.replace_all(&encode(&self.path, &kept)?)?;
        Ok(())
    }

    /// Writes what is noted; nothing can be written afterwards.
    pub(crate) fn close(&self) -> Result<(), StewardError> {
        let result = self.flush();
        *self.table.lock() = None;
        result
    }
}

/// What compaction keeps: current settings, outcomes since `since`, and each node's watermark.
fn retain(rows: Vec<ControlRow>, since: i64) -> Vec<ControlRow> {
    let mut last_setting = BTreeMap::new();
    let mut watermark: BTreeMap<NodeId, (Version, usize)> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
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
    for index in last_setting.into_values().chain(watermark.into_values().map(|(_, index)| index)) {
        keep[index] = true;
    }
    rows.into_iter().zip(keep).filter_map(|(row, keep)| keep.then_some(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pond_oplog::TxnSeq;

    fn pond() -> tempfile::TempDir {
        let pond = tempfile::tempdir().unwrap();
        Control::create(pond.path(), Role::Source).unwrap();
        pond
    }

    fn node(number: u64) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn completed(of: u64, version: u64) -> ControlRow {
        ControlRow::post_commit(
            Event::PostCommitCompleted,
            (node(of), "/etc/system.d/x"),
            (TxnSeq(version + 1), Some(Version(version))),
            None,
        )
    }

    #[test]
    fn a_setting_is_there_after_opening_anew() {
        let pond = pond();
        let control = Control::open(pond.path(), true).unwrap();
        assert_eq!(control.role(), Role::Source);
        control.set("factory_mode:exec-log", "quiet").unwrap();
        control.set("factory_mode:exec-log", "loud").unwrap();
        drop(control);
        let control = Control::open(pond.path(), false).unwrap();
        assert_eq!(control.factory_mode("exec-log").as_deref(), Some("loud"));
        assert_eq!(control.factory_mode("other").as_deref(), Some("push"));
    }

    #[test]
    fn a_replica_runs_only_the_factories_it_was_told_to_and_does_not_become_a_source() {
        let pond = tempfile::tempdir().unwrap();
        Control::create(pond.path(), Role::Replica).unwrap();
        let control = Control::open(pond.path(), true).unwrap();
        assert_eq!(control.factory_mode("exec-log"), None);
        assert_eq!(control.factory_mode("remote").as_deref(), Some("pull"));
        control.set("factory_mode:exec-log", "pull").unwrap();
        assert_eq!(control.factory_mode("exec-log").as_deref(), Some("pull"));
        assert!(matches!(control.set(ROLE_KEY, "push"), Err(StewardError::BadSetting { .. })));
        assert!(matches!(control.set(ROLE_KEY, "both"), Err(StewardError::BadSetting { .. })));
        assert_eq!(control.role(), Role::Replica);
    }

    #[test]
    fn a_missing_table_is_told_apart() {
        let pond = tempfile::tempdir().unwrap();
        assert!(matches!(Control::open(pond.path(), true), Err(StewardError::ControlMissing { .. })));
    }

    #[test]
    fn a_batch_holds_the_last_row_of_each_subject_and_every_failure() {
        let pond = pond();
        let control = Control::open(pond.path(), true).unwrap();
        let row = |event, txn| ControlRow::transaction(event, TxnSeq(txn), None, None);
        for event in [Event::Begin, Event::Failed, Event::Begin, Event::DataCommitted, Event::Completed] {
            control.record(row(event, 7));
        }
        control.record(row(Event::Begin, 8));
        control.record(completed(5, 3));
        control.record(completed(5, 4));
        control.flush().unwrap();
        drop(control);
        let control = Control::open(pond.path(), true).unwrap();
        assert_eq!(control.watermark(node(5)), Some(Version(4)));
        let table = control.table.lock();
        let rows = read(&control.path, table.as_ref().unwrap()).unwrap();
        let events: Vec<_> = rows.iter().map(|row| (row.event, row.txn_seq.0)).collect();
        assert_eq!(
            events,
            [
                (Event::Setting, 0),
                (Event::Failed, 7),
                (Event::Completed, 7),
                (Event::Begin, 8),
                (Event::PostCommitCompleted, 5)
            ]
        );
    }

    #[test]
    fn compaction_keeps_settings_watermarks_and_a_week() {
        let old = |row: ControlRow| ControlRow { timestamp: 10, ..row };
        let recent = |row: ControlRow| ControlRow { timestamp: 1000, ..row };
        let transaction = ControlRow::transaction(Event::Completed, TxnSeq(1), Some(Version(1)), None);
        let rows = vec![
            old(ControlRow::setting("a", "1")),
            old(ControlRow::setting("a", "2")),
            old(transaction.clone()),
            old(completed(5, 3)),
            old(completed(5, 4)),
            recent(transaction.clone()),
        ];
        let kept = retain(rows.clone(), 500);
        assert_eq!(kept, [rows[1].clone(), rows[4].clone(), rows[5].clone()]);
    }

    #[test]
    fn the_table_stays_small_and_keeps_what_counts() {
        let pond = pond();
        let control = Control::open(pond.path(), true).unwrap();
        for version in 0..2 * COMPACT_ABOVE as u64 {
            control.record(completed(5, version));
            control.flush().unwrap();
        }
        assert!(control.table.lock().as_ref().unwrap().files() <= COMPACT_ABOVE + 1);
        drop(control);
        let control = Control::open(pond.path(), false).unwrap();
        assert_eq!(control.watermark(node(5)), Some(Version(2 * COMPACT_ABOVE as u64 - 1)));
        assert_eq!(control.role(), Role::Source);
    }

    #[test]
    fn nothing_is_written_after_close() {
        let pond = pond();
        let control = Control::open(pond.path(), true).unwrap();
        control.close().unwrap();
        assert!(matches!(control.set("a", "b"), Err(StewardError::Closed)));
        control.record(completed(5, 1));
        assert!(matches!(control.flush(), Err(StewardError::Closed)));
    }
}
