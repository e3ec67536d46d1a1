//! A session: statements, one after the other, over one pond.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider};
use datafusion::execution::context::{SQLOptions, SessionContext};
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement as Parsed;
use object_store::local::LocalFileSystem;
use pond_oplog::At;

use crate::content::store::PondStore;
use crate::content::stores::Stores;
use crate::error::Result;
use crate::sql::references;
use crate::sql::statement::Statement;
use crate::world::{Pond, Tables, World};

/// So many of those who take most memory are known.
const KNOWN_CONSUMERS: usize = 3;

/// What a session may do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The version of what is named without one.
    pub at: At,
    /// Memory for joins, sorts and groups, bytes; what does not fit is spilled.
    pub memory: usize,
    /// How many parts of a query run side by side.
    pub threads: usize,
    /// Where what does not fit into memory goes.
    pub spill: PathBuf,
    /// How much of that there may be, bytes.
    pub spill_limit: u64,
    /// Whether `host:` may be named.
    pub host: bool,
}

/// A session.
pub struct Session {
    context: SessionContext,
    world: Arc<World>,
}

/// What a statement gives.
pub struct Answer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows. Dropping it ends the query.
    pub rows: SendableRecordBatchStream,
}

impl Session {
    /// A session over a pond, of which nothing is read yet.
    pub fn new(pond: Pond, options: &Options) -> Result<Self> {
        let stores = Stores::default();
        let pool = TrackConsumersPool::new(
            FairSpillPool::new(options.memory),
            NonZeroUsize::new(KNOWN_CONSUMERS).unwrap_or(NonZeroUsize::MIN),
        );
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![options.spill.clone()]))
            .with_max_temp_directory_size(options.spill_limit);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(pool))
            .with_disk_manager_builder(disk)
            .with_object_store_registry(Arc::new(stores))
            .build_arc()?;
        let store = Arc::new(PondStore::new("pond")?);
        runtime.register_object_store(store.url().as_ref(), store.clone());
        if options.host {
            let host = ObjectStoreUrl::local_filesystem();
            runtime.register_object_store(host.as_ref(), Arc::new(LocalFileSystem::new()));
        }
        let config = SessionConfig::new()
            .with_target_partitions(options.threads.max(1))
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema("pond", "public");
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .build();
        let context = SessionContext::new_with_state(state);
        let world = Arc::new(World::new(pond, options.at, options.host, store));
        let tables = Arc::new(Tables { world: world.clone(), session: OnceLock::new() });
        // Weakly, as the session has the tables.
        tables.session.set(context.state_weak_ref()).ok();
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema("public", tables as Arc<dyn SchemaProvider>)?;
        context.register_catalog("pond", Arc::new(catalog));
        Ok(Session { context, world })
    }

    /// Begins to run a statement: of `COPY`, what it copies.
    pub async fn run(&self, statement: &Statement) -> Result<Answer> {
        let mut parsed = match statement {
            Statement::Rows(parsed) => (**parsed).clone(),
            Statement::Copy(copy) => copy.source.clone(),
        };
        self.done().await;
        // One that is not there is an error even where nothing is asked of it.
        self.world.open_named().await?;
        let taken = references::take(&mut parsed)?;
        let state = self.context.state();
        for reference in &taken {
            self.world.bind(&state, reference).await?;
        }
        self.answer(parsed).await
    }

    async fn answer(&self, parsed: Parsed) -> Result<Answer> {
        let plan = self.context.state().statement_to_plan(parsed).await?;
        // The statement has been looked at; this is what it came to.
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).verify_plan(&plan)?;
        let frame = self.context.execute_logical_plan(plan).await?;
        let rows = frame.execute_stream().await?;
        Ok(Answer { schema: rows.schema(), rows })
    }

    /// Lets go of the versions that the last statement saw, and of their pins.
    pub async fn done(&self) {
        self.world.let_go().await;
    }

    /// Bytes of files in the pond that statements have asked for.
    pub fn bytes_read(&self) -> u64 {
        self.world.store.bytes_read()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("world", &self.world).finish_non_exhaustive()
    }
}
