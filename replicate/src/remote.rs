//! The factory `remote`: pushes after each commit of a source, pulls on a replica.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use pond_oplog::{PondId, Timeline, Version};
use pond_steward::{
    Factory, FactoryContext, FactoryError, FactoryPond, PostCommit, Replica, TIMELINE_ID_KEY, VersionSource,
};
use pond_tinyfs::Advise;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::config::{RemoteConfig, Storage};
use crate::format::Damage;
use crate::history::chain::{self, Hint};
use crate::push::{Pusher, Source};
use crate::store::Store;
use crate::{NoProgress, Progress, ReplicateError};

/// How often a push asks whether the process wants to end.
const STOPPING: Duration = Duration::from_millis(50);

/// The factory `remote`.
///
/// Several nodes of it may stand side by side, each with a store and a watermark of its own.
pub struct Remote {
    /// Begun with the first run, so that a program may still fork before.
    runtime: OnceLock<Runtime>,
    /// What is known of each node's store, by its path. Dropped after a failure: the store knows best.
    pushers: Mutex<HashMap<String, Kept>>,
    /// The store that each node pulls from.
    stores: Mutex<HashMap<String, (RemoteConfig, Store)>>,
    progress: Arc<dyn Progress>,
}

struct Kept {
    config: RemoteConfig,
    timeline: Timeline,
    pusher: Pusher,
}

impl Default for Remote {
    fn default() -> Self {
        Remote::with_progress(Arc::new(NoProgress))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remote")
    }
}

impl Remote {
    /// One that tells of long pushes.
    pub fn with_progress(progress: Arc<dyn Progress>) -> Self {
        Remote { runtime: OnceLock::new(), pushers: Mutex::default(), stores: Mutex::default(), progress }
    }

    fn runtime(&self) -> Result<&Runtime, ReplicateError> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = runtime()?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    fn push(&self, context: &FactoryContext<'_>) -> Result<String, ReplicateError> {
        let config = RemoteConfig::parse(context.configuration)?;
        let timeline = context.pond.oplog().position().timeline;
        let runtime = self.runtime()?;
        // Dropped unless it comes to its end, and with it what it believes of the store.
        let kept = self.pushers.lock().remove(context.path);
        let kept = kept.filter(|kept| kept.config == config && kept.timeline == timeline);
        let mut pusher = match kept {
            Some(kept) => kept.pusher,
            None => {
                let source = self.source(&config, context, timeline)?;
                let opening = Pusher::open(source, pushed(context));
                let opened = runtime.block_on(unless_stopping(context.pond, opening));
                opened
                    .unwrap_or_else(|| Err(ReplicateError::Stopped { at: "of the last run".to_owned() }))
                    .map_err(|error| superseded(context.pond, error))?
            }
        };
        let before = pusher.tip();
        let result = runtime.block_on(unless_stopping(context.pond, pusher.push()));
        result
            .unwrap_or_else(|| Err(ReplicateError::Stopped { at: pusher.tip().to_string() }))
            .map_err(|error| superseded(context.pond, error))?;
        let (tip, place) = (pusher.tip(), pusher.place().to_owned());
        let damage = damage(&pusher.chain.damaged, &place);
        self.pushers.lock().insert(context.path.to_owned(), Kept { config, timeline, pusher });
        let pushed = match tip.0 - before.0 {
            0 => format!("{place} is at version {tip}"),
            1 => format!("pushed version {tip} to {place}"),
            _ => format!("pushed versions {} to {tip} to {place}", before.next()),
        };
        Ok(pushed + &damage)
    }

    fn bring_in(&self, context: &FactoryContext<'_>, replica: &Replica) -> Result<String, ReplicateError> {
        let config = RemoteConfig::parse(context.configuration)?;
        let known = self.stores.lock().remove(context.path).filter(|(known, _)| *known == config);
        let store = match known {
            Some((_, store)) => store,
            None => Store::open(&config)?,
        };
        let pulled = crate::replica::pull::run(self.runtime()?, &store, replica)?;
        // Kept with its connections; after a failure the next run makes new ones.
        self.stores.lock().insert(context.path.to_owned(), (config, store));
        Ok(pulled)
    }

    fn source(
        &self,
        config: &RemoteConfig,
        context: &FactoryContext<'_>,
        timeline: Timeline,
    ) -> Result<Source, ReplicateError> {
        let oplog = context.pond.oplog().clone();
        Ok(Source {
            store: Store::open(config)?,
            pond: context.pond.path().to_owned(),
            pond_id: oplog.identity().pond_id,
            timeline,
            timeline_id: timeline_id(context.pond)?,
            level: config.compression_level,
            newest: Arc::new(move || oplog.position().version),
            progress: self.progress.clone(),
        })
    }
}

impl Factory for Remote {
    fn name(&self) -> &str {
        "remote"
    }

    fn description(&self) -> &str {
        "ships each commit to a backup store, and follows it on a replica (storage_type: local or s3)"
    }

    fn validate(&self, configuration: &[u8]) -> Result<(), FactoryError> {
        RemoteConfig::check(configuration).map(drop).map_err(ReplicateError::into_factory_error)
    }

    fn post_commit(&self) -> Option<&dyn PostCommit> {
        Some(self)
    }

    fn version_source(&self) -> Option<&dyn VersionSource> {
        Some(self)
    }

    fn writes_to(&self, configuration: &[u8]) -> Result<Vec<PathBuf>, FactoryError> {
        let config = RemoteConfig::parse(configuration).map_err(ReplicateError::into_factory_error)?;
        Ok(match config.storage {
            Storage::Local { path } => vec![path],
            Storage::S3(_) => Vec::new(),
        })
    }

    fn probe(&self, configuration: &[u8], pond_id: PondId) -> Result<(), FactoryError> {
        let probe = || {
            let config = RemoteConfig::parse(configuration)?;
            Store::create_place(&config)?;
            let store = Store::open(&config)?;
            let runtime = self.runtime()?;
            runtime.block_on(store.probe())?;
            match runtime.block_on(chain::read_head(&store)) {
                Ok(Hint::Head(head)) if head.pond_id != pond_id => Err(ReplicateError::ForeignPond {
                    place: store.place().to_owned(),
                    found: head.pond_id,
                    ours: pond_id,
                }),
                // Without it, or with one that is damaged, the push finds out what is there.
                _ => Ok(()),
            }
        };
        probe().map_err(ReplicateError::into_factory_error)
    }
}

impl PostCommit for Remote {
    fn run(&self, context: &FactoryContext<'_>) -> Result<String, FactoryError> {
        context.refuse_arguments()?;
        let result = match context.mode {
            "push" => self.push(context),
            "pull" => Err(ReplicateError::SourcePulls),
            other => Err(ReplicateError::NoMode(other.to_owned())),
        };
        result.map_err(ReplicateError::into_factory_error)
    }
}

impl VersionSource for Remote {
    fn pull(&self, context: &FactoryContext<'_>, replica: &Replica) -> Result<String, FactoryError> {
        context.refuse_arguments()?;
        let result = match context.mode {
            "pull" => self.bring_in(context, replica),
            other => Err(ReplicateError::NoMode(other.to_owned())),
        };
        result.map_err(ReplicateError::into_factory_error)
    }

    fn interval(&self, configuration: &[u8]) -> Result<Option<Duration>, FactoryError> {
        let config = RemoteConfig::parse(configuration).map_err(ReplicateError::into_factory_error)?;
        Ok(Some(config.sync_interval))
    }
}

/// A runtime for transfers. A store on a local disk blocks its threads, so there are more of them than cores.
pub(crate) fn runtime() -> Result<Runtime, ReplicateError> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get()) + 2;
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("pond-remote")
        .enable_all()
        .build()
        .map_err(ReplicateError::io("start the threads of a transfer"))
}

/// What is to be said of data files that were shipped damaged; nothing if there are none.
fn damage(damaged: &[Damage], place: &str) -> String {
    let Some(first) = damaged.first() else { return String::new() };
    let more = match damaged.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let before = match first.version {
        0 => String::new(),
        version => format!(", and up to version {} all can", version - 1),
    };
    format!(
        "; the data file {} of version {}{more} was damaged here when it was pushed: what it held cannot be restored from \
         {place}{before}. `pond fsck` says which paths it concerns",
        first.file, first.version
    )
}

/// The version up to which earlier runs have pushed, as the Steward remembers.
fn pushed(context: &FactoryContext<'_>) -> Option<Version> {
    match &context.commits {
        Some(owed) => owed.start().0.checked_sub(1).map(Version),
        None => Some(context.pond.oplog().position().version),
    }
}

/// The id under which the pond claimed its timeline; none for one that was never promoted.
fn timeline_id(pond: &FactoryPond) -> Result<Option<Uuid>, ReplicateError> {
    let Some(id) = pond.control_get(TIMELINE_ID_KEY) else { return Ok(None) };
    let unreadable =
        |error| ReplicateError::Other(format!("the setting {TIMELINE_ID_KEY} is not an id ({id}): {error}"));
    id.parse().map(Some).map_err(unreadable)
}

/// Does this, unless the process wants to end before: none then. What was under way is taken up again by the next run.
async fn unless_stopping<T>(pond: &FactoryPond, work: impl Future<Output = T>) -> Option<T> {
    let stopping = async {
        while !pond.stopping() {
            tokio::time::sleep(STOPPING).await;
        }
    };
    tokio::select! {
        result = work => Some(result),
        () = stopping => None,
    }
}

/// Where a promoted replica makes history now, this pond makes no more.
fn superseded(pond: &FactoryPond, error: ReplicateError) -> ReplicateError {
    if let ReplicateError::Superseded { .. } = &error
        && let Err(unsaved) = pond.refuse_writes(&error.in_full())
    {
        tracing::error!(error = %unsaved, "that the pond takes no more writes could not be written down");
    }
    error
}
