//! Filling in the versions before the base that a replica began with.
//!
//! From the newest downwards: each manifest is the one that the manifest after it names as its parent, so all of it is part
//! of the very history that is here already, whichever pack it comes from. What is here stays a contiguous run, and a
//! run that is cut off goes on below what it has put.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use pond_oplog::{Version, version_files};
use pond_steward::{Replica, StewardError};
use tokio::runtime::Runtime;

use crate::config::RemoteConfig;
use crate::fetch::copy::{THREADS, UNITS, incoming_version};
use crate::fetch::meter::Meter;
use crate::fetch::plan::{Pack, plan};
use crate::fetch::workers::Workers;
use crate::fetch::{Fetched, Fetcher};
use crate::format::{Head, Kind, PACK_VERSIONS};
use crate::history::lineage::Lineage;
use crate::history::{find, tip};
use crate::push::base;
use crate::replica::pull::pond_id;
use crate::store::Store;
use crate::{Progress, ReplicateError};

/// Versions that are fetched before they are put; a multiple of what is in a pack.
const STEP: u64 = 16 * PACK_VERSIONS;

/// What was filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The version with which history begins now: the store's first base.
    pub first: Version,
    /// The version with which it began before.
    pub before: Version,
}

/// Gives a replica that was begun at a later base (`--tip`) the versions before it, from the store of `config` (YAML). Its
/// newest version stays as it is. Blocks; not to be called from a thread that runs async tasks.
///
/// # Errors
///
/// [`StewardError::AlreadyAReplica`] if nothing is missing, [`StewardError::LockHeld`] while it is mounted. After any error, or
/// a kill, the replica is whole, and another call goes on without fetching again what was verified.
pub fn fill_in(pond: &Path, config: &[u8], progress: &dyn Progress) -> Result<Filled, ReplicateError> {
    let store = Store::open(&RemoteConfig::parse(config)?)?;
    fill_in_from_store(pond, &store, progress)
}

/// [`fill_in`] with a store that is open already.
///
/// # Errors
///
/// As there.
pub fn fill_in_from_store(
    pond: &Path,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Filled, ReplicateError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ReplicateError::io("start a runtime"))?;
    let head = runtime.block_on(tip::head(store))?;
    let root = Version(head.root);
    let before = base::oldest(pond)?;
    // Also while somebody has it mounted: there is nothing to be done.
    if before <= root {
        return Err(StewardError::AlreadyAReplica { path: pond.to_owned() }.into());
    }
    let replica = Replica::take_up(pond)?;
    let meter = Meter::new(progress, &replica);
    let mut older =
        Older { runtime: &runtime, store, replica: &replica, meter: &meter, excluded: Vec::new() };
    older.run(&head, root)?;
    for file in replica.incoming().staged()? {
        replica.incoming().discard_staged(&file.name)?;
    }
    Ok(Filled { first: root, before })
}

struct Older<'a> {
    runtime: &'a Runtime,
    store: &'a Store,
    replica: &'a Replica,
    meter: &'a Meter<'a>,
    /// Keys of packs that turned out not to be part of the chain.
    excluded: Vec<String>,
}

impl Older<'_> {
    fn wait<T>(&self, work: impl Future<Output = Result<T, ReplicateError>>) -> Result<T, ReplicateError> {
        self.runtime.block_on(self.meter.unless_stopped(work))
    }

    fn run(&mut self, head: &Head, root: Version) -> Result<(), ReplicateError> {
        let incoming = self.replica.incoming();
        let place = || self.store.place().to_owned();
        let nothing = || ReplicateError::NoBackup { place: place() };
        let position = self.replica.position().ok_or_else(nothing)?;
        let pond_id = pond_id(self.replica, &position)?;
        if head.pond_id != pond_id {
            return Err(ReplicateError::ForeignPond { place: place(), found: head.pond_id, ours: pond_id });
        }
        let lineage = self.wait(Lineage::load(self.store, pond_id, head.timeline))?;
        lineage.admit(self.store.place(), &position)?;
        let mut oldest = incoming.oldest()?.ok_or_else(nothing)?;
        let entry = version_files(self.replica.pond(), oldest)?.position.digest;
        let found = self.wait(find::manifest_of(self.store, &lineage, pond_id, oldest, &entry))?;
        let missing = || ReplicateError::missing(oldest, self.store.place());
        let (manifest, _) = found.ok_or_else(missing)?;
        if manifest.entry.blake3 != entry {
            let log = pond_oplog::Layout::new(self.replica.pond()).delta_log();
            let path = log.join(crate::format::entry_name(oldest));
            return Err(pond_oplog::OpLogError::Diverged { version: oldest, path }.into());
        }
        // Of a version that is only to be had as a base it is not known on which manifest it builds. Then the log entries'
        // own order, which is checked wherever versions are taken in, has to do.
        let mut parent = manifest.parent.filter(|_| manifest.kind == Kind::Delta);
        while oldest > root.next() {
            if self.meter.stopping() {
                return Err(self.meter.stopped());
            }
            let last = Version(oldest.0 - 1);
            let first = Version(last.0 & !(STEP - 1)).max(root.next());
            let range = root.next()..=last;
            let excluded = self.excluded.clone();
            let fetcher =
                Fetcher::new(self.store, incoming, pond_id, lineage.clone(), range, excluded, self.meter);
            let versions = self.fetch(&fetcher, first, last)?;
            let Some(fitting) = self.fitting(&fetcher, &versions, &parent)? else { continue };
            let versions = &versions[fitting..];
            incoming.prepend(&versions.iter().map(incoming_version).collect::<Vec<_>>())?;
            for version in versions {
                fetcher.forget_manifest(version)?;
                if let Some(pack) = &version.pack
                    && pack.pack().first.max(root.next()) == version.version()
                {
                    fetcher.forget_pack(pack.pack())?;
                }
            }
            if let Some(lowest) = versions.first() {
                (oldest, parent) = (lowest.version(), lowest.manifest.parent.clone());
            }
        }
        let range = root..=root;
        let fetcher = Fetcher::new(self.store, incoming, pond_id, lineage, range, Vec::new(), self.meter);
        let fetched = std::thread::scope(|scope| {
            let workers = Workers::new(scope, THREADS);
            self.wait(fetcher.base(&workers, root, head.root_timeline))
        })?;
        if parent.as_ref().is_some_and(|parent| *parent != fetched.version.digest) {
            return Err(broken(&fetched.version, &parent));
        }
        Ok(incoming.prepend_base(incoming_version(&fetched.version), Some(fetched.checkpoint))?)
    }

    /// The versions from `first` to `last`, in their order, staged.
    fn fetch(
        &self,
        fetcher: &Fetcher<'_>,
        first: Version,
        last: Version,
    ) -> Result<Vec<Fetched>, ReplicateError> {
        std::thread::scope(|scope| {
            let workers = Workers::new(scope, THREADS);
            let work = async {
                let packs = fetcher.packs().await?;
                let is_staged = |pack: &Pack| fetcher.is_staged(pack);
                let units = plan(&packs, fetcher.lineage(), first, last, &is_staged);
                let bytes = units.iter().filter_map(|unit| unit.pack.as_ref()).map(|pack| pack.length).sum();
                self.meter.begin(&format!("versions {last} down to {first}"), bytes);
                // A failure ends what has not begun; what is under way comes to its end and is not fetched again.
                let failed = AtomicBool::new(false);
                let fetched: Vec<_> = futures::stream::iter(&units)
                    .map(async |unit| match failed.load(Ordering::Relaxed) {
                        true => Err(self.meter.stopped()),
                        false => {
                            let fetched = fetcher.unit(&workers, unit).await;
                            failed.fetch_or(fetched.is_err(), Ordering::Relaxed);
                            fetched
                        }
                    })
                    .buffered(UNITS)
                    .collect()
                    .await;
                // The first error is the one that ended it.
                fetched.into_iter().collect::<Result<Vec<_>, _>>().map(|units| units.concat())
            };
            let fetched = self.wait(work);
            self.meter.end();
            fetched
        })
    }

    /// How many of these do not come before what is here, from the first on: those before one that does not fit. None if the
    /// last does not fit already, and comes from a pack that was not the chain's: it is to be had otherwise.
    fn fitting(
        &mut self,
        fetcher: &Fetcher<'_>,
        versions: &[Fetched],
        parent: &Option<String>,
    ) -> Result<Option<usize>, ReplicateError> {
        let mut wanted = parent.clone();
        for (index, version) in versions.iter().enumerate().rev() {
            if wanted.as_ref().is_none_or(|wanted| *wanted == version.digest) {
                wanted.clone_from(&version.manifest.parent);
                continue;
            }
            match &version.pack {
                Some(pack) => {
                    tracing::warn!(
                        key = pack.pack().key,
                        "a pack in the backup store is not part of the history; its versions are fetched one by one"
                    );
                    self.excluded.push(pack.pack().key.clone());
                }
                None => {
                    fetcher.forget_manifest(version)?;
                    if index + 1 == versions.len() {
                        return Err(broken(version, &wanted));
                    }
                }
            }
            return Ok((index + 1 < versions.len()).then_some(index + 1));
        }
        Ok(Some(0))
    }
}

fn broken(version: &Fetched, wanted: &Option<String>) -> ReplicateError {
    let wanted = wanted.as_deref().unwrap_or("nothing");
    ReplicateError::BrokenChain {
        version: version.version(),
        key: version.manifest.key(),
        why: format!("its digest is {}, and the manifest after it builds on {wanted}", version.digest),
    }
}
