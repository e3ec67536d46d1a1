//! Making a pond.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pond_tinyfs::Row;

use crate::clock::now_ms;
use crate::disk::pin;
use crate::files::data_file::Effort;
use crate::log::action::property::{MIN_READER, MIN_WRITER, POND_ID};
use crate::log::action::{Action, Metadata, Protocol};
use crate::log::delta::{Log, Put};
use crate::log::format::FORMAT;
use crate::log::next_version::NextVersion;
use crate::oplog::added::{Added, write_files};
use crate::parallel::threads;
use crate::rows::schema;
use crate::{Layout, OpLog, OpLogError, Origin, PondId, Timeline, TxnSeq, Version};

/// Makes the directories of a pond whose table has no version yet.
pub(crate) fn lay_out(pond: &Path) -> Result<(Layout, Log), OpLogError> {
    let layout = Layout::new(pond);
    let log = Log::new(&layout.data());
    if log.list().is_ok() {
        return Err(OpLogError::Exists { path: layout.data() });
    }
    layout.ensure_root()?;
    fs::set_permissions(pond, fs::Permissions::from_mode(0o700))
        .map_err(OpLogError::io("set the mode of", pond))?;
    log.create_directories()?;
    layout.ensure_work_directories()?;
    pin::ensure(pond)?;
    Ok((layout, log))
}

impl OpLog {
    /// Makes a pond: the table with version 0, which holds the root directory's row, and an empty journal.
    /// Directories that are there already are used, and `pond` becomes private (mode 0700); a table that is
    /// there is an error.
    pub fn create(pond: &Path, root: Row, origin: &Origin) -> Result<(), OpLogError> {
        let (layout, log) = lay_out(pond)?;
        let pond_id = PondId::random();
        let (txn_seq, cut_lsn, now) = (TxnSeq(1), root.lsn, now_ms());
        let schema = schema::delta_schema(&schema::ROWS)
            .map_err(|why| OpLogError::Encode { path: layout.data(), why })?;
        let configuration = [
            (POND_ID, pond_id.to_string()),
            (MIN_READER, FORMAT.to_string()),
            (MIN_WRITER, FORMAT.to_string()),
            ("delta.enableExpiredLogCleanup", "false".to_string()),
            // Nobody else may clean, so nobody needs to be told for long what was replaced; checkpoints stay small.
            ("delta.deletedFileRetentionDuration", "interval 1 second".to_string()),
            ("delta.dataSkippingStatsColumns", schema::STATISTICS.join(",")),
        ];
        let start = vec![
            Action::from(Protocol::pond()),
            Action::from(Metadata {
                id: uuid::Uuid::new_v4().to_string(),
                name: Some("oplog".into()),
                description: Some("The history of a pond; only pond writes it".into()),
                format: Default::default(),
                schema_string: schema,
                partition_columns: Vec::new(),
                configuration: configuration.map(|(name, value)| (name.to_string(), value)).into(),
                created_time: Some(now),
            }),
        ];
        let rows = [root];
        let effort = Effort { threads: threads(), pause: &|| {} };
        let written = write_files(&layout, &[&rows], txn_seq, now, effort)?;
        let next =
            NextVersion { version: Version(0), timestamp: now, txn_seq, cut_lsn, timeline: Timeline::FIRST };
        let added = Added { written: &written, drained: &[], drained_rows: 0 };
        let bytes = added
            .entry(&next, pond_id, origin, start)
            .map_err(|error| OpLogError::Encode { path: layout.delta_log(), why: error.to_string() })?;
        match log.put(Version(0), &bytes)? {
            Put::Done => Ok(()),
            Put::SomeoneElse => Err(OpLogError::Exists { path: layout.data() }),
        }
    }
}
