//! Single files back from the store, for repairing a pond in place.
//!
//! A version is fetched and verified as for a replica, into an empty one beside the pond's own directories, from where
//! whoever repairs takes what it needs.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pond_oplog::fsck::Restore;
use pond_oplog::{Layout, PondId, Timeline, Version};
use pond_steward::Replica;
use tokio::runtime::Runtime;

use crate::config::RemoteConfig;
use crate::fetch::Fetcher;
use crate::fetch::meter::Meter;
use crate::fetch::plan::Unit;
use crate::fetch::workers::Workers;
use crate::format::Head;
use crate::history::lineage::Lineage;
use crate::history::tip;
use crate::store::Store;
use crate::{Progress, ReplicateError};

/// Name of the directory under `$POND` in which files are fetched.
const SCRATCH: &str = "repair";
/// Threads that unpack.
const THREADS: usize = 4;

/// Files of a pond as its backup store has them. What it fetched is removed with it.
pub struct Backup<'a> {
    runtime: Runtime,
    store: Store,
    head: Head,
    pond_id: PondId,
    lineage: Lineage,
    replica: Option<Replica>,
    scratch: PathBuf,
    entries: HashMap<Version, Bytes>,
    checkpoints: HashMap<Version, Bytes>,
    progress: &'a dyn Progress,
}

impl<'a> Backup<'a> {
    /// The backup of the pond at `pond` in the store of `config` (YAML). `pond_id` is the pond's, where it is known. Blocks;
    /// not to be called from a thread that runs async tasks. The caller holds the writer's lock.
    ///
    /// # Errors
    ///
    /// If the store cannot be reached, or holds another pond.
    pub fn open(
        pond: &Path,
        config: &[u8],
        pond_id: Option<PondId>,
        progress: &'a dyn Progress,
    ) -> Result<Self, ReplicateError> {
        let store = Store::open(&RemoteConfig::parse(config)?)?;
        let runtime = crate::remote::runtime()?;
        let head = runtime.block_on(tip::head(&store))?;
        if let Some(ours) = pond_id.filter(|ours| *ours != head.pond_id) {
            let place = store.place().to_owned();
            return Err(ReplicateError::ForeignPond { place, found: head.pond_id, ours });
        }
        let pond_id = head.pond_id;
        let lineage = runtime.block_on(Lineage::load(&store, pond_id, head.timeline))?;
        let scratch = pond.join(SCRATCH);
        clear(&scratch)?;
        let replica = Some(Replica::init(&scratch, config)?);
        let (entries, checkpoints) = (HashMap::new(), HashMap::new());
        Ok(Backup {
            runtime,
            store,
            head,
            pond_id,
            lineage,
            replica,
            scratch,
            entries,
            checkpoints,
            progress,
        })
    }

    /// Which store it is.
    pub fn place(&self) -> &str {
        self.store.place()
    }

    /// Fetches what a version added, or else a base from which its files can be had.
    fn fetch(&mut self, version: Version) -> Result<(), ReplicateError> {
        if self.entries.contains_key(&version) {
            return Ok(());
        }
        let failed = match self.fetch_delta(version) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Versions up to the root's have no bundles of their own, only what of theirs is live in a base.
        let (root, timeline) = (Version(self.head.root), self.head.root_timeline);
        if version > root {
            return Err(failed);
        }
        self.fetch_base(root, timeline)
    }

    fn fetch_delta(&mut self, version: Version) -> Result<(), ReplicateError> {
        let unit = Unit { first: version, last: version, pack: None };
        let fetched = self.with_fetcher(version, |fetcher, workers, runtime, meter| {
            runtime.block_on(meter.unless_stopped(fetcher.unit(workers, &unit)))
        })?;
        self.entries.extend(fetched.into_iter().map(|fetched| (version, fetched.entry)));
        Ok(())
    }

    fn fetch_base(&mut self, version: Version, timeline: Timeline) -> Result<(), ReplicateError> {
        if self.checkpoints.contains_key(&version) {
            return Ok(());
        }
        let base = self.with_fetcher(version, |fetcher, workers, runtime, meter| {
            runtime.block_on(meter.unless_stopped(fetcher.base(workers, version, timeline)))
        })?;
        self.entries.insert(version, base.version.entry);
        self.checkpoints.insert(version, base.checkpoint);
        Ok(())
    }

    fn with_fetcher<T>(
        &self,
        version: Version,
        work: impl for<'s> FnOnce(
            &Fetcher<'s>,
            &Workers<'s, '_>,
            &Runtime,
            &Meter<'_>,
        ) -> Result<T, ReplicateError>,
    ) -> Result<T, ReplicateError> {
        let replica =
            self.replica.as_ref().ok_or_else(|| ReplicateError::Other("the backup was closed".into()))?;
        let meter = Meter::new(self.progress, replica);
        let lineage = self.lineage.clone();
        let fetcher = Fetcher::new(
            &self.store,
            replica.incoming(),
            self.pond_id,
            lineage,
            version..=version,
            Vec::new(),
            &meter,
        );
        meter.begin("restoring", 0);
        let result = std::thread::scope(|scope| {
            let workers = Workers::new(scope, THREADS);
            work(&fetcher, &workers, &self.runtime, &meter)
        });
        meter.end();
        result
    }

    fn staged(&self, name: &str) -> Option<PathBuf> {
        let path = Layout::new(&self.scratch).inflight().join(format!("in-{name}"));
        path.exists().then_some(path)
    }
}

impl Restore for Backup<'_> {
    fn entry(&mut self, version: Version) -> Result<Vec<u8>, String> {
        self.fetch(version).map_err(|error| error.to_string())?;
        let missing = || format!("{} does not have the log entry of version {version}", self.place());
        self.entries.get(&version).map(|entry| entry.to_vec()).ok_or_else(missing)
    }

    fn checkpoint(&mut self, version: Version) -> Result<Vec<u8>, String> {
        let bases = [
            (self.head.root, self.head.root_timeline),
            (self.head.newest_base, self.head.newest_base_timeline),
        ];
        let timeline = bases.iter().find(|(base, _)| *base == version.0).map(|(_, timeline)| *timeline);
        let timeline = timeline.unwrap_or_else(|| self.lineage.timeline_of(version));
        self.fetch_base(version, timeline).map_err(|error| error.to_string())?;
        let missing = || format!("{} does not have a base of version {version}", self.place());
        self.checkpoints.get(&version).map(|checkpoint| checkpoint.to_vec()).ok_or_else(missing)
    }

    fn file(&mut self, version: Version, name: &str) -> Result<PathBuf, String> {
        let fetched = self.fetch(version);
        if let Some(path) = self.staged(name) {
            return Ok(path);
        }
        // A replica that began with a base takes its files for those of the base's version.
        let base = self
            .fetch_base(Version(self.head.newest_base), self.head.newest_base_timeline)
            .or_else(|_| self.fetch_base(Version(self.head.root), self.head.root_timeline));
        match (self.staged(name), fetched, base) {
            (Some(path), _, _) => Ok(path),
            (None, Err(error), _) | (None, Ok(()), Err(error)) => Err(error.to_string()),
            (None, Ok(()), Ok(())) => Err(format!("{} does not have it", self.place())),
        }
    }
}

impl Drop for Backup<'_> {
    fn drop(&mut self) {
        // Before its directory, in which it keeps a lock.
        self.replica = None;
        if let Err(error) = clear(&self.scratch) {
            tracing::warn!(%error, "what was fetched for a repair stays");
        }
    }
}

fn clear(scratch: &Path) -> Result<(), ReplicateError> {
    match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ReplicateError::io(format!("remove {}", scratch.display()))(error))
        }
        _ => Ok(()),
    }
}
