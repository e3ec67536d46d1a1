//! Copying: versions are fetched side by side, and applied in their order as soon as they are known to be part of the chain.
//!
//! A version is applied only after its manifest was found to build on that of the version before. For one that lies in the
//! store by itself this suffices, as its manifest was put where none was. A pack may also come from a second writer that
//! lost: its versions wait until something outside it builds on them, or the manifest that lies by itself of the last one
//! that is wanted agrees. That need not be the pack's last version: a fork may lie within a pack.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use pond_oplog::{At, FileRef, IncomingVersion, Position, Timeline, Version};
use pond_steward::Replica;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::ReplicateError;
use crate::fetch::meter::Meter;
use crate::fetch::plan::{Pack, Packs, WORTH_PACKS, plan};
use crate::fetch::staged_pack::StagedPack;
use crate::fetch::workers::Workers;
use crate::fetch::{Fetched, FetchedBase, Fetcher};
use crate::format::{Head, Manifest};

/// Units that are fetched at once; what they have in memory is bounded elsewhere.
pub(crate) const UNITS: usize = 16;
/// Units that wait to be applied.
const WAITING: usize = 16;
/// Threads that unpack.
pub(crate) const THREADS: usize = 8;
/// Packs whose versions wait. More cost memory, fewer requests: one is made for so many.
const WAITING_PACKS: usize = 4;
/// Versions that are applied together, when so many are at hand.
const BATCH: usize = 256;

/// What copies the versions of a round.
pub(crate) struct Copy<'a> {
    pub(crate) runtime: &'a Runtime,
    pub(crate) fetcher: &'a Fetcher<'a>,
    pub(crate) meter: &'a Meter<'a>,
    pub(crate) replica: &'a Replica,
}

/// What came of it.
pub(crate) enum Copied {
    /// Everything that was wanted is applied.
    All(Position),
    /// The pack of this key is not part of the chain, at least not as a whole: its versions are to be had otherwise.
    Excluded(String),
}

/// What the versions of a round must fit.
struct Chain<'a> {
    head: &'a Head,
    at: At,
    /// Digest of the manifest of the version before the next.
    tip: String,
    /// Versions that fit.
    sure: Vec<Fetched>,
    /// Versions of packs that fit if these packs are part of the chain.
    waiting: Vec<Fetched>,
}

/// What a version turned out to be.
enum Link {
    /// It fits.
    Fits,
    /// It lies beyond what is wanted.
    Beyond,
    /// It does not fit what is before it, for this reason.
    Wrong(Box<Fetched>, String),
}

impl Copy<'_> {
    /// Fetches a base.
    pub(crate) fn base(&self, version: Version, timeline: Timeline) -> Result<FetchedBase, ReplicateError> {
        std::thread::scope(|scope| {
            let workers = Workers::new(scope, THREADS);
            self.runtime.block_on(self.meter.unless_stopped(self.fetcher.base(&workers, version, timeline)))
        })
    }

    /// Fetches and applies the versions from `first` to `last`, of which the first builds on `tip`. `applied` is told how
    /// many more are applied, and when the next was made.
    pub(crate) fn versions(
        &self,
        head: &Head,
        first: Version,
        last: Version,
        at: At,
        tip: String,
        applied: &mut dyn FnMut(u64, Option<i64>),
    ) -> Result<Copied, ReplicateError> {
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel(WAITING);
            let producer = std::thread::Builder::new()
                .name("pull".into())
                .spawn_scoped(scope, move || {
                    let workers = Workers::new(scope, THREADS);
                    let work = self.fetch(&workers, first, last, sender);
                    let fetched = self.runtime.block_on(self.meter.unless_stopped(work));
                    self.meter.end();
                    fetched
                })
                .map_err(ReplicateError::io("start a thread"))?;
            let chain = Chain { head, at, tip, sure: Vec::new(), waiting: Vec::new() };
            let result = self.apply_all(receiver, chain, applied);
            let fetched = producer.join().unwrap_or_else(|_| {
                Err(ReplicateError::Other("the thread that fetches versions panicked".into()))
            });
            let copied = match (result, fetched) {
                (Ok(End::Reached(copied)), _) => Ok(copied),
                (Err(error), _) | (Ok(End::Dry(_)), Err(error)) => Err(error),
                (Ok(End::Dry(chain)), Ok(())) => self.finish(chain, applied),
            };
            // Once at the end, as each costs more the longer the history is. A replica without one opens slowly, and is whole.
            if let Err(error) = self.replica.incoming().checkpoint_if_due() {
                tracing::warn!(%error, "could not write a checkpoint");
            }
            copied
        })
    }

    /// Sends versions in their order, until the receiver has enough.
    async fn fetch<'s, 'e>(
        &'e self,
        workers: &Workers<'s, 'e>,
        first: Version,
        last: Version,
        sender: mpsc::Sender<Vec<Fetched>>,
    ) -> Result<(), ReplicateError>
    where
        'e: 's,
    {
        let packs = match last.0 - first.0 + 1 >= WORTH_PACKS || self.fetcher.has_staged_packs()? {
            true => self.fetcher.packs().await?,
            false => Packs::default(),
        };
        let is_staged = |pack: &Pack| self.fetcher.is_staged(pack);
        let units = plan(&packs, self.fetcher.lineage(), first, last, &is_staged);
        let bytes = units.iter().filter_map(|unit| unit.pack.as_ref()).map(|pack| pack.length).sum();
        self.meter.begin(&format!("versions {first} to {last}"), bytes);
        // After a failure nothing more is begun, and what is under way comes to its end: what it has is not fetched again.
        let failed = AtomicBool::new(false);
        let fetch = async |unit| match failed.load(Ordering::Relaxed) {
            true => Err(self.meter.stopped()),
            false => {
                let fetched = self.fetcher.unit(workers, unit).await;
                failed.fetch_or(fetched.is_err(), Ordering::Relaxed);
                fetched
            }
        };
        let fetched = futures::stream::iter(&units).map(fetch).buffered(UNITS);
        let mut fetched = std::pin::pin!(fetched);
        let mut result = Ok(());
        while let Some(versions) = fetched.next().await {
            match versions {
                Ok(versions) if result.is_ok() => {
                    if sender.send(versions).await.is_err() {
                        break;
                    }
                }
                Ok(_) => {}
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    fn apply_all<'c>(
        &self,
        mut receiver: mpsc::Receiver<Vec<Fetched>>,
        mut chain: Chain<'c>,
        applied: &mut dyn FnMut(u64, Option<i64>),
    ) -> Result<End<'c>, ReplicateError> {
        while let Some(mut versions) = receiver.blocking_recv() {
            while versions.len() < BATCH
                && let Ok(more) = receiver.try_recv()
            {
                versions.extend(more);
            }
            if self.meter.stopping() {
                return Err(self.meter.stopped());
            }
            let mut end = None;
            for version in versions {
                match chain.link(version) {
                    Link::Fits => continue,
                    Link::Beyond => end = Some(self.arbitrate(&mut chain).map(|foreign| (foreign, None))),
                    Link::Wrong(version, why) => {
                        end = Some(self.arbitrate(&mut chain).map(|foreign| (foreign, Some((version, why)))));
                    }
                }
                break;
            }
            if end.is_none()
                && chain.packs().len() >= WAITING_PACKS
                && let Some(key) = self.arbitrate(&mut chain)?
            {
                end = Some(Ok((Some(key), None)));
            }
            // What is known to be good is kept whatever comes after it.
            self.apply(std::mem::take(&mut chain.sure), applied)?;
            match end.transpose()? {
                None => {}
                Some((Some(key), _)) => return Ok(End::Reached(Copied::Excluded(key))),
                Some((None, Some((version, why)))) => return self.refuse(*version, why).map(End::Reached),
                Some((None, None)) => return self.finish(chain, applied).map(End::Reached),
            }
        }
        Ok(End::Dry(chain))
    }

    /// Applies what waits, once nothing more comes.
    fn finish(
        &self,
        mut chain: Chain<'_>,
        applied: &mut dyn FnMut(u64, Option<i64>),
    ) -> Result<Copied, ReplicateError> {
        let foreign = self.arbitrate(&mut chain)?;
        self.apply(std::mem::take(&mut chain.sure), applied)?;
        match (foreign, self.replica.position()) {
            (Some(key), _) => Ok(Copied::Excluded(key)),
            (None, Some(position)) => Ok(Copied::All(position)),
            (None, None) => Err(self.meter.stopped()),
        }
    }

    /// Decides which packs that wait are part of the chain: those of which the last version that waits has the manifest
    /// that lies by itself. Gives the key of the first that is not; what follows it does not wait any more either.
    fn arbitrate(&self, chain: &mut Chain<'_>) -> Result<Option<String>, ReplicateError> {
        let agrees = |version: Option<&Fetched>| match version {
            None => Ok(true),
            Some(version) => self.runtime.block_on(self.meter.unless_stopped(self.fetcher.agrees(version))),
        };
        if agrees(chain.waiting.last())? {
            chain.confirm();
            return Ok(None);
        }
        for pack in chain.packs() {
            let (its, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut chain.waiting).into_iter().partition(|version: &Fetched| {
                    version.pack.as_ref().is_some_and(|its| Arc::ptr_eq(its, &pack))
                });
            if !agrees(its.last())? {
                // It stays where it is staged: what it has of the chain is perhaps nowhere else.
                return Ok(Some(pack.pack().key.clone()));
            }
            chain.sure.extend(its);
            chain.waiting = others;
        }
        Ok(None)
    }

    /// A version that does not fit although all before it is right.
    fn refuse(&self, version: Fetched, why: String) -> Result<Copied, ReplicateError> {
        match &version.pack {
            Some(pack) => Ok(Copied::Excluded(pack.pack().key.clone())),
            None => {
                // It may have been damaged on its way here: it is asked for again the next time.
                self.fetcher.forget_manifest(&version)?;
                let key = version.manifest.key();
                Err(ReplicateError::BrokenChain { version: version.version(), key, why })
            }
        }
    }

    fn apply(
        &self,
        versions: Vec<Fetched>,
        applied: &mut dyn FnMut(u64, Option<i64>),
    ) -> Result<(), ReplicateError> {
        let (Some(first), Some(last)) = (versions.first(), versions.last()) else { return Ok(()) };
        applied(0, Some(first.manifest.timestamp));
        let incoming = self.replica.incoming();
        incoming.apply(&versions.iter().map(incoming_version).collect::<Vec<_>>())?;
        for version in &versions {
            note_damage(self.replica, &version.manifest)?;
        }
        // Shown first: it is what somebody waits for.
        let shown = self.replica.publish();
        self.replica.set_last_manifest(last.version(), &last.digest)?;
        shown?;
        applied(versions.len() as u64, None);
        for version in &versions {
            self.fetcher.forget_manifest(version)?;
            if let Some(pack) = &version.pack
                && pack.pack().last == version.version()
            {
                self.fetcher.forget_pack(pack.pack())?;
            }
        }
        Ok(())
    }
}

/// How applying ended.
enum End<'c> {
    /// With a result.
    Reached(Copied),
    /// With nothing more to apply.
    Dry(Chain<'c>),
}

impl Chain<'_> {
    /// Takes the next version, if it builds on the one before it.
    fn link(&mut self, next: Fetched) -> Link {
        if let At::Timestamp(time) = self.at
            && next.manifest.timestamp > time
        {
            return Link::Beyond;
        }
        let at_head = next.version().0 == self.head.version;
        if !next.of_base && next.manifest.parent.as_ref() != Some(&self.tip) {
            let parent = next.manifest.parent.as_deref().unwrap_or("nothing");
            let why =
                format!("it builds on {parent}, and the manifest before it has the digest {}", self.tip);
            return Link::Wrong(Box::new(next), why);
        }
        if at_head && next.digest != self.head.manifest {
            let why = format!("its digest is {}, and HEAD says {}", next.digest, self.head.manifest);
            return Link::Wrong(Box::new(next), why);
        }
        self.tip = next.digest.clone();
        match next.pack {
            None if !next.of_base => {
                self.confirm();
                self.sure.push(next);
            }
            _ => self.waiting.push(next),
        }
        if at_head {
            self.confirm();
        }
        Link::Fits
    }

    /// The packs whose versions wait, in their order.
    fn packs(&self) -> Vec<Arc<StagedPack>> {
        let mut packs: Vec<_> = self.waiting.iter().filter_map(|version| version.pack.clone()).collect();
        packs.dedup_by(|one, other| Arc::ptr_eq(one, other));
        packs
    }

    /// What waits is part of the chain.
    fn confirm(&mut self) {
        self.sure.append(&mut self.waiting);
    }
}

impl FetchedBase {
    /// Makes it the beginning of a replica's history.
    pub(crate) fn install(&self, replica: &Replica) -> Result<Position, ReplicateError> {
        let position = replica
            .incoming()
            .install_base(incoming_version(&self.version), Some(self.checkpoint.clone()))?;
        let manifest = &self.version.manifest;
        note_damage(replica, manifest)?;
        let digest = manifest.parent.as_ref().unwrap_or(&self.version.digest);
        replica.set_last_manifest(position.version, digest)?;
        Ok(position)
    }
}

/// Keeps it with a replica if a version was shipped with damaged files; of several the first is told.
pub(crate) fn note_damage(replica: &Replica, manifest: &Manifest) -> Result<(), ReplicateError> {
    let mut damaged = manifest.files.iter().filter(|file| file.damaged);
    let Some(file) = damaged.next() else { return Ok(()) };
    let also = match damaged.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let version = manifest.version;
    let note = format!(
        "the data file {}{also} of version {version} was damaged at the source when it was pushed, so what it held cannot be read",
        file.name
    );
    tracing::warn!(version, file = file.name, "a data file was damaged at the source when it was pushed");
    match replica.status().note {
        Some(known) if known.contains("was damaged at the source") => Ok(()),
        Some(known) => Ok(replica.set_note(&format!("{known}; {note}"))?),
        None => Ok(replica.set_note(&note)?),
    }
}

/// What the log takes in.
pub(crate) fn incoming_version(fetched: &Fetched) -> IncomingVersion {
    let files = |manifest: &Manifest| {
        let files = manifest.files.iter().map(|file| FileRef {
            name: file.name.clone(),
            length: file.length,
            // What the log says: of a file that was damaged at the source that is another digest than that of its bytes.
            blake3: if file.damaged { file.written.clone() } else { Some(file.blake3.clone()) },
        });
        files.collect()
    };
    IncomingVersion {
        version: fetched.version(),
        entry: fetched.entry.clone(),
        files: files(&fetched.manifest),
    }
}
