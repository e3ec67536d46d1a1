//! Checkpoints: the state of a table at a version in one Parquet file, so that opening does not replay the log.
//!
//! deltalake writes them, through our own store, hence durably, `_last_checkpoint` included.
//! It works from the log on disk alone, so commits go on meanwhile.
//!
//! deltalake verifies nothing of what it reads. So what it wrote is read back and compared with what our own reading of the
//! log gives, and only then does the checkpoint get its digest (`_pond_checkpoint.V.blake3` beside it), without which nobody
//! here believes it. An older one that is damaged, of which it would make a new one, is set aside before.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use deltalake::DeltaTableBuilder;
use deltalake::checkpoints::create_checkpoint;
use parking_lot::Mutex;
use url::Url;

use crate::disk::durable::{self, Existing};
use crate::files::decoder_panics::unpanicked;
use crate::log::action::{Add, Metadata, Protocol};
use crate::log::delta::{self, Log};
use crate::log::snapshot::{self, State};
use crate::{DurableStore, OpLogError, Version};

/// One at a time in this process: one without a digest yet is taken for a damaged one.
static WRITING: Mutex<()> = Mutex::new(());

/// Writes a checkpoint of `version` and blocks until it is durable. Call it from a thread that runs no async tasks.
pub(crate) fn write(log: &Log, version: Version) -> Result<(), OpLogError> {
    let _one_at_a_time = WRITING.lock();
    let failed = |why: String| OpLogError::Checkpoint { version, table: log.table().to_path_buf(), why };
    // By its own entries: of a version that is kept below the floor the files are not known.
    let expected = snapshot::load_from(log, version, version)?;
    set_aside(log, &expected.damaged)?;
    // Rooted at the table, so that no character of the pond's own path matters. The scheme is one for which deltalake
    // does not look at the local filesystem by itself: all it reads and writes passes through the store.
    let store = Arc::new(DurableStore::new(log.table()));
    let url = Url::parse("memory:///").map_err(|error| failed(error.to_string()))?;
    // The kernel blocks within async tasks and hands work to others, which needs a runtime of two threads.
    let make = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("checkpoint")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let made = runtime.block_on(async {
            let table = DeltaTableBuilder::from_url(url.clone())?
                .with_storage_backend(store, url)
                .with_version(version.0)
                .load()
                .await?;
            create_checkpoint(&table, None).await
        });
        made.map_err(|error| error.to_string())
    };
    // It panics where the system grants no thread.
    unpanicked(make).and_then(|made| made).map_err(failed)?;
    let path = log.checkpoint_path(version);
    let bytes = fs::read(&path).map_err(OpLogError::io("read", &path))?;
    let mut found = State::default();
    let actions = snapshot::parse_checkpoint(log, version, bytes::Bytes::from(bytes.clone()))?;
    actions.into_iter().for_each(|action| found.push(action));
    if let Some(why) = difference(&found, &expected.protocol, &expected.metadata, &expected.files) {
        return Err(failed(why));
    }
    write_digest(log, version, &bytes)
}

/// Puts a checkpoint that was verified elsewhere in its place, its digest before it.
pub(crate) fn install(log: &Log, version: Version, checkpoint: &[u8]) -> Result<(), OpLogError> {
    write_digest(log, version, checkpoint)?;
    let path = log.checkpoint_path(version);
    durable::write_durably(&path, checkpoint, Existing::Replace).map_err(OpLogError::io("write", &path))
}

fn write_digest(log: &Log, version: Version, checkpoint: &[u8]) -> Result<(), OpLogError> {
    let path = log.checkpoint_digest_path(version);
    let digest = snapshot::checkpoint_digest(checkpoint);
    durable::write_durably(&path, &digest, Existing::Replace).map_err(OpLogError::io("write", &path))
}

/// In what a checkpoint differs from the state that the log's entries give; `None` if in nothing that is read from it.
pub(crate) fn difference(
    found: &State,
    protocol: &Protocol,
    metadata: &Metadata,
    files: &BTreeMap<String, Add>,
) -> Option<String> {
    if found.protocol.as_ref() != Some(protocol) {
        return Some("its protocol is not that of the log's entries".into());
    }
    if found.metadata.as_ref() != Some(metadata) {
        return Some("its metaData is not that of the log's entries".into());
    }
    if let Some(name) = files.keys().find(|name| !found.files.contains_key(*name)) {
        return Some(format!("it lacks the live file {name}"));
    }
    found.files.iter().find_map(|(name, add)| match files.get(name) {
        None => Some(format!("it has the file {name}, which is not live")),
        // A checkpoint says of each file that it changes nothing.
        Some(other) if (&add.size, &add.stats, &add.tags) != (&other.size, &other.stats, &other.tags) => {
            Some(format!("what it says of the file {name} is not what the log's entries say"))
        }
        Some(_) => None,
    })
}

/// Takes damaged checkpoints out of everybody's sight, for which the entries suffice. They are kept as `damaged-…`.
pub(crate) fn set_aside(log: &Log, damaged: &[Version]) -> Result<(), OpLogError> {
    for &version in damaged {
        let path = log.checkpoint_path(version);
        let kept = path.with_file_name(format!("damaged-{}", delta::checkpoint_name(version)));
        tracing::warn!(path = %path.display(), kept = %kept.display(), "a damaged checkpoint is set aside");
        // Whoever follows it would look for the checkpoint in vain.
        for beside in [log.directory().join("_last_checkpoint"), log.checkpoint_digest_path(version)] {
            if beside.exists() {
                durable::remove(&beside).map_err(OpLogError::io("remove", &beside))?;
            }
        }
        durable::rename(&path, &kept).map_err(OpLogError::io("move", &path))?;
    }
    if !damaged.is_empty() {
        let directory = log.directory();
        durable::sync_directory(&directory).map_err(OpLogError::io("fsync", &directory))?;
    }
    Ok(())
}
