//! A small Delta table of its own kind, for the Steward's control rows: appended to, read whole, and now and then
//! replaced, so that it does not grow without bound. One process at a time writes it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

use crate::clock::now_ms;
use crate::disk::durable::{self, Existing};
use crate::files::{data_file, digests};
use crate::log::action::{Action, Add, CommitInfo, Metadata, Protocol, Remove};
use crate::log::delta::{self, Log, Put};
use crate::log::{checkpoint, snapshot};
use crate::rows::schema;
use crate::{At, OpLogError, Version};

/// Files that were replaced stay this long, for whoever is still reading them.
const RETENTION: Duration = Duration::from_secs(3600);

/// A Delta table with a schema of the caller's. Columns must have types that Delta can express.
pub struct DeltaTable {
    log: Log,
    state: Mutex<State>,
}

/// What can be read of a damaged table.
pub struct Salvaged {
    /// Rows of all files that match their digests, in the order of their commits; those of files that were replaced too,
    /// as long as they are there.
    pub batches: Vec<RecordBatch>,
    /// Files, and entries of the log, that cannot be read.
    pub lost: usize,
}

struct State {
    version: Version,
    /// Milliseconds since 1970 UTC, of the last commit.
    timestamp: i64,
    /// Live files; their names sort in the order of their commits.
    files: BTreeMap<String, Add>,
}

impl DeltaTable {
    /// Whether a Delta table lies in `directory`.
    pub fn exists(directory: &Path) -> bool {
        Log::new(directory).list().is_ok()
    }

    /// Makes an empty table; `directory` may exist, its parent must.
    pub fn create(directory: &Path, name: &str, schema: SchemaRef) -> Result<DeltaTable, OpLogError> {
        let log = Log::new(directory);
        if log.list().is_ok() {
            return Err(OpLogError::Exists { path: directory.to_path_buf() });
        }
        log.create_directories()?;
        let now = now_ms();
        let schema_string = schema::delta_schema(&schema)
            .map_err(|why| OpLogError::Encode { path: directory.to_path_buf(), why })?;
        let metadata = Metadata {
            id: uuid::Uuid::new_v4().to_string(),
            name: Some(name.into()),
            description: None,
            format: Default::default(),
            schema_string,
            partition_columns: Vec::new(),
            configuration: BTreeMap::from([("delta.enableExpiredLogCleanup".into(), "false".into())]),
            created_time: Some(now),
        };
        let table = DeltaTable {
            log,
            state: Mutex::new(State { version: Version(0), timestamp: now, files: BTreeMap::new() }),
        };
        table.put(Version(0), now, "CREATE TABLE", vec![Protocol::pond().into(), metadata.into()])?;
        Ok(table)
    }

    /// Opens a table to write to.
    pub fn open(directory: &Path) -> Result<DeltaTable, OpLogError> {
        let table = Self::open_read_only(directory)?;
        let entries = directory.join("_delta_log");
        durable::sync_directory(&entries).map_err(OpLogError::io("fsync", &entries))?;
        Ok(table)
    }

    /// Opens a table to read from, also where nothing can be written.
    pub fn open_read_only(directory: &Path) -> Result<DeltaTable, OpLogError> {
        let log = Log::new(directory);
        let snapshot = snapshot::load(&log, At::Tip)?;
        if snapshot.protocol != Protocol::pond() {
            return Err(OpLogError::NotAPond {
                path: directory.to_path_buf(),
                why: "its table was made by another program".into(),
            });
        }
        let state = State {
            version: snapshot.version,
            timestamp: snapshot.commit_info.timestamp,
            files: snapshot.files,
        };
        Ok(DeltaTable { log, state: Mutex::new(state) })
    }

    /// Adds rows in one commit; none, none.
    pub fn append(&self, batch: &RecordBatch) -> Result<Version, OpLogError> {
        self.commit(&mut self.state.lock(), batch, false)
    }

    /// All rows, in the order of their commits.
    pub fn read_all(&self) -> Result<Vec<RecordBatch>, OpLogError> {
        let state = self.state.lock();
        let mut batches = Vec::new();
        for add in state.files.values() {
            batches.extend(read_file(&self.log, add, state.version)?);
        }
        Ok(batches)
    }

    /// Reads what can be read of a table that does not open, or not whole.
    pub fn salvage(directory: &Path) -> Result<Salvaged, OpLogError> {
        let log = Log::new(directory);
        let listing = log.list()?;
        let mut lost = 0;
        let mut files = BTreeMap::new();
        let entries =
            listing.entries.iter().map(|&version| log.read(Version(version)).map(|entry| entry.actions));
        let checkpoints = listing.checkpoints.iter().map(|&at| snapshot::read_checkpoint(&log, Version(at)));
        for actions in entries.chain(checkpoints) {
            match actions {
                Ok(actions) => {
                    let adds = actions.into_iter().filter_map(|action| action.add);
                    files.extend(adds.map(|add| (add.path.clone(), add)));
                }
                Err(_) => lost += 1,
            }
        }
        let (first, last) = (listing.entries.first(), listing.entries.last());
        if let (Some(first), Some(last)) = (first, last) {
            lost += (last - first + 1) as usize - listing.entries.len();
        }
        let mut batches = Vec::new();
        for add in files.values() {
            let version = Version(listing.entries.last().copied().unwrap_or_default());
            match read_file(&log, add, version) {
                Ok(found) => batches.extend(found),
                Err(_) => lost += 1,
            }
        }
        Ok(Salvaged { batches, lost })
    }

    /// Replaces all rows by these in one commit, then removes entries and files that are replaced since an hour.
    pub fn replace_all(&self, batch: &RecordBatch) -> Result<Version, OpLogError> {
        let mut state = self.state.lock();
        let version = self.commit(&mut state, batch, true)?;
        checkpoint::write(&self.log, version)?;
        self.clean(&state, RETENTION)?;
        Ok(version)
    }

    /// Number of live data files: how much a [`DeltaTable::replace_all`] would join.
    pub fn files(&self) -> usize {
        self.state.lock().files.len()
    }

    fn commit(&self, state: &mut State, batch: &RecordBatch, replace: bool) -> Result<Version, OpLogError> {
        if batch.num_rows() == 0 && !replace {
            return Ok(state.version);
        }
        let version = state.version.next();
        let now = now_ms().max(state.timestamp + 1);
        let removed: Vec<Action> = match replace {
            false => Vec::new(),
            true => state.files.values().map(|add| removal(add, now).into()).collect(),
        };
        let add = match batch.num_rows() {
            0 => None,
            _ => Some(self.write(version, now, batch)?),
        };
        let actions = removed.into_iter().chain(add.clone().map(Action::from)).collect();
        if let Err(error) = self.put(version, now, "WRITE", actions) {
            if let (Some(add), false) = (&add, matches!(error, OpLogError::Unconfirmed { .. })) {
                let path = self.log.table().join(&add.path);
                durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
            }
            return Err(error);
        }
        if replace {
            state.files.clear();
        }
        state.files.extend(add.map(|add| (add.path.clone(), add)));
        state.version = version;
        state.timestamp = now;
        Ok(version)
    }

    fn write(&self, version: Version, now: i64, batch: &RecordBatch) -> Result<Add, OpLogError> {
        let name = format!("part-{:020}-{}.parquet", version.0, uuid::Uuid::new_v4());
        let path = self.log.table().join(&name);
        let properties = WriterProperties::builder().build();
        let bytes = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))
            .and_then(|mut writer| {
                writer.write(batch)?;
                writer.into_inner()
            })
            .map_err(|error| data_file::parquet_error(&path, error))?;
        durable::write_durably(&path, &bytes, Existing::Refuse).map_err(OpLogError::io("write", &path))?;
        let digest = blake3::hash(&bytes).to_hex().to_string();
        Ok(Add {
            path: name,
            partition_values: BTreeMap::new(),
            size: bytes.len() as u64,
            modification_time: now,
            data_change: true,
            stats: Some(format!("{{\"numRecords\":{}}}", batch.num_rows())),
            tags: Some(BTreeMap::from([(digests::DIGEST_TAG.to_string(), Some(digest))])),
        })
    }

    fn put(
        &self,
        version: Version,
        now: i64,
        operation: &str,
        actions: Vec<Action>,
    ) -> Result<(), OpLogError> {
        let info = CommitInfo { timestamp: now, operation: operation.into(), ..CommitInfo::default() };
        let actions: Vec<Action> = std::iter::once(info.into()).chain(actions).collect();
        let path = self.log.entry_path(version);
        let bytes = delta::encode(&actions)
            .map_err(|error| OpLogError::Encode { path: path.clone(), why: error.to_string() })?;
        match self.log.put(version, &bytes)? {
            Put::Done => Ok(()),
            Put::SomeoneElse => Err(OpLogError::SomeoneElse { version, path, kept: "memory only".into() }),
        }
    }

    /// Removes what the checkpoint of the current version replaces and what was replaced `retention` ago.
    fn clean(&self, state: &State, retention: Duration) -> Result<(), OpLogError> {
        // Read back first: entries may go only once what stands for them is known to be good.
        let checkpoint = snapshot::read_checkpoint(&self.log, state.version)?;
        let held = checkpoint.iter().filter_map(|action| action.add.as_ref());
        if !held.eq_by_path(state.files.values()) {
            return Err(OpLogError::CorruptCheckpoint {
                version: state.version,
                path: self.log.checkpoint_path(state.version),
                why: "it does not hold the files of the table".into(),
            });
        }
        let old = |path: &Path| -> Result<bool, OpLogError> {
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
            let modified = modified.map_err(OpLogError::io("stat", path))?;
            Ok(SystemTime::now().duration_since(modified).is_ok_and(|age| age >= retention))
        };
        let listing = self.log.list()?;
        let before = |version: &&u64| **version < state.version.0;
        let entries =
            listing.entries.iter().filter(before).map(|&version| self.log.entry_path(Version(version)));
        let checkpoints =
            listing.checkpoints.iter().filter(before).map(|&version| Version(version)).flat_map(|version| {
                [self.log.checkpoint_path(version), self.log.checkpoint_digest_path(version)]
            });
        let data = data_files(self.log.table())?;
        let data = data.into_iter().filter(|(name, _)| !state.files.contains_key(name)).map(|(_, path)| path);
        for path in entries.chain(checkpoints).chain(data) {
            if old(&path)? {
                durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// The rows of a live file.
fn read_file(log: &Log, add: &Add, version: Version) -> Result<Vec<RecordBatch>, OpLogError> {
    let path = log.table().join(&add.path);
    let corrupt = |why: String| OpLogError::CorruptFile { path: path.clone(), why };
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpLogError::MissingFile { version, path: path.clone() },
        _ => OpLogError::io("read", &path)(error),
    })?;
    if bytes.len() as u64 != add.size {
        return Err(corrupt(format!("it has {} bytes and the log says {}", bytes.len(), add.size)));
    }
    let digest = add.tags.as_ref().and_then(|tags| tags.get(digests::DIGEST_TAG)?.as_deref());
    if digest != Some(blake3::hash(&bytes).to_hex().as_str()) {
        return Err(corrupt("its bytes do not match the digest in the log".into()));
    }
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).and_then(|builder| builder.build());
    let batches = reader.map_err(|error| corrupt(error.to_string()))?;
    batches.map(|batch| batch.map_err(|error| corrupt(error.to_string()))).collect()
}

trait EqualPaths {
    fn eq_by_path<'a>(self, other: impl Iterator<Item = &'a Add>) -> bool;
}

impl<'b, I: Iterator<Item = &'b Add>> EqualPaths for I {
    fn eq_by_path<'a>(self, other: impl Iterator<Item = &'a Add>) -> bool {
        let mut ours: Vec<&str> = self.map(|add| add.path.as_str()).collect();
        ours.sort_unstable();
        ours.into_iter().eq(other.map(|add| add.path.as_str()))
    }
}

fn removal(add: &Add, now: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(now),
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(BTreeMap::new()),
        size: Some(add.size),
    }
}

/// Data files and leftovers of writes in a table's directory.
fn data_files(table: &Path) -> Result<Vec<(String, PathBuf)>, OpLogError> {
    let listing = |error| OpLogError::io("list", table)(error);
    let mut found = Vec::new();
    for entry in fs::read_dir(table).map_err(listing)? {
        let entry = entry.map_err(listing)?;
        if let Ok(name) = entry.file_name().into_string()
            && (name.ends_with(".parquet") || durable::is_temporary(&name))
        {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use std::sync::Arc;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Int64, true),
        ]))
    }

    fn batch(values: &[i64]) -> RecordBatch {
        let keys = StringArray::from_iter_values(values.iter().map(|value| format!("k{value}")));
        RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(Int64Array::from(values.to_vec()))])
            .unwrap()
    }

    fn values(table: &DeltaTable) -> Vec<i64> {
        let batches = table.read_all().unwrap();
        batches
            .iter()
            .flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    #[test]
    fn rows_come_back_in_their_order_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control table #1 ü");
        assert!(!DeltaTable::exists(&path));
        let table = DeltaTable::create(&path, "control", schema()).unwrap();
        for i in 0..12 {
            assert_eq!(table.append(&batch(&[2 * i, 2 * i + 1])).unwrap(), Version(i as u64 + 1));
        }
        assert_eq!(values(&table), (0..24).collect::<Vec<_>>());
        let table = DeltaTable::open(&path).unwrap();
        assert_eq!(values(&table), (0..24).collect::<Vec<_>>());
        assert_eq!(table.append(&batch(&[])).unwrap(), Version(12));
    }

    #[test]
    fn replacing_keeps_the_new_rows_only_and_the_directory_small() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control #2");
        let table = DeltaTable::create(&path, "control", schema()).unwrap();
        for i in 0..5 {
            table.append(&batch(&[i])).unwrap();
        }
        table.replace_all(&batch(&[7, 8])).unwrap();
        assert_eq!(values(&table), [7, 8]);
        assert_eq!(table.files(), 1);
        table.append(&batch(&[9])).unwrap();
        table.replace_all(&batch(&[10])).unwrap();
        table.clean(&table.state.lock(), Duration::ZERO).unwrap();
        let names: Vec<_> = data_files(&path).unwrap();
        assert_eq!(names.len(), 1);
        let listing = table.log.list().unwrap();
        assert_eq!((listing.entries, listing.checkpoints), (vec![8], vec![8]));
        let table = DeltaTable::open(&path).unwrap();
        table.append(&batch(&[11])).unwrap();
        assert_eq!(values(&DeltaTable::open(&path).unwrap()), [10, 11]);
    }
}
