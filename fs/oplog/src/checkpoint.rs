//! Checkpoints: the state of a table at a version in one Parquet file, so that opening does not replay the log.
//!
//! deltalake writes them, through our own store, hence durably, `_last_checkpoint` included.
//! It works from the log on disk alone, so commits go on meanwhile.

use std::sync::Arc;

use deltalake::DeltaTableBuilder;
use deltalake::checkpoints::create_checkpoint;
use url::Url;

use crate::delta::Log;
use crate::{DurableStore, OpLogError, Version};

/// Writes a checkpoint of `version` and blocks until it is durable. Call it from a thread that runs no async tasks.
pub(crate) fn write(log: &Log, version: Version) -> Result<(), OpLogError> {
    let failed = |why: String| OpLogError::Checkpoint { version, table: log.table().to_path_buf(), why };
    // Rooted at the table, so that no character of the pond's own path matters. The scheme is one for which deltalake
    // does not look at the local filesystem by itself: all it reads and writes passes through the store.
    let store = Arc::new(DurableStore::new(log.table()));
    let url = Url::parse("memory:///").map_err(|error| failed(error.to_string()))?;
    // The kernel blocks within async tasks and hands work to others, which needs a runtime of two threads.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("checkpoint")
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    runtime
        .block_on(async {
            let table = DeltaTableBuilder::from_url(url.clone())?
                .with_storage_backend(store, url)
                .with_version(version.0)
                .load()
                .await?;
            create_checkpoint(&table, None).await
        })
        .map_err(|error| failed(error.to_string()))
}
