//! `oplog`: the raw rows of the Delta table. They say what happened, not what there is: for that they have to be folded.

use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::datasource::TableProvider;
use datafusion::execution::object_store::ObjectStoreUrl;
use object_store::ObjectMeta;
use object_store::local::LocalFileSystem;
use pond_oplog::{Layout, Version};

use crate::content::files::{Files, Listed, Shape};
use crate::content::format::Format;
use crate::error::{QueryError, Result};

/// Where DataFusion finds the data files.
const URL: &str = "oplog://data";

/// The rows of all data files that are live at a version.
pub(crate) async fn table(
    session: &dyn Session,
    pond: &Path,
    version: Version,
) -> Result<Arc<dyn TableProvider>> {
    let data = Layout::new(pond).data();
    let failed = |error: object_store::Error| QueryError::new(error.to_string());
    let store = LocalFileSystem::new_with_prefix(&data).map_err(failed)?;
    let url = ObjectStoreUrl::parse(URL)?;
    session.runtime_env().register_object_store(url.as_ref(), Arc::new(store));
    let live = pond_oplog::live_files(pond, version)?;
    // The newest first: it has all columns, which files that were written before one was added lack.
    let listed = live.files.into_iter().rev().map(|file| Listed {
        object: ObjectMeta {
            location: object_store::path::Path::from(file.name.as_str()),
            // A data file never changes.
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: file.length,
            e_tag: None,
            version: None,
        },
        path: file.name.into_bytes(),
    });
    let shape = Shape { hive_partitioning: Some(false), ..Shape::default() };
    Ok(Arc::new(Files::open(session, url, Format::Parquet, listed.collect(), &shape).await?))
}
