//! Pulling: bringing a replica to the store's tip, or to a version.
//!
//! HEAD says where the tip was; what is applied is decided by manifests alone. A run repeats itself until it is equal to
//! HEAD, since the source goes on meanwhile. Where HEAD names versions that are not in the store, it ends before the first of
//! them, unless the store has later ones: a hole is an error.

mod end;
mod reached;

use pond_oplog::{At, PondId, Position, Version, entry_facts, version_files};
use pond_steward::{Replica, ReplicaProgress, ReplicaState};
use pond_tinyfs::Advise;
use tokio::runtime::Runtime;

pub(crate) use reached::Reached;

use crate::fetch::Fetcher;
use crate::fetch::copy::{Copied, Copy};
use crate::fetch::meter::Meter;
use crate::fetch::plan::WORTH_PACKS;
use crate::format::{self, Head};
use crate::history::find;
use crate::history::lineage::Lineage;
use crate::history::tip::{InsteadOf, Tip};
use crate::replica::pull::reached::End;
use crate::store::Store;
use crate::{NoProgress, Progress, ReplicateError};

/// Brings an open replica up to date. Blocks; not to be called from a thread that runs async tasks. The result is a line for
/// the user.
pub(crate) fn run(runtime: &Runtime, store: &Store, replica: &Replica) -> Result<String, ReplicateError> {
    let before = replica.position().map(|position| position.version);
    let Reached { position, shortfall } =
        Pull::new(runtime, store, replica, &NoProgress).to(At::Tip, false)?;
    let at = match before {
        Some(before) if before == position.version => format!("at version {before} already"),
        _ => format!("at version {} now", position.version),
    };
    Ok(match shortfall {
        Some(shortfall) => format!("{at}, waiting for more: {shortfall}"),
        None => at,
    })
}

/// A run of pulling.
pub(crate) struct Pull<'a> {
    runtime: &'a Runtime,
    store: &'a Store,
    replica: &'a Replica,
    meter: Meter<'a>,
    /// Versions that were applied, and those that were to be.
    versions: (u64, u64),
    /// Keys of packs that turned out not to be part of the chain as a whole.
    excluded: Vec<String>,
    /// Whether a replica is being made, which is to have all that the store holds, also what HEAD does not tell of.
    restoring: bool,
    /// Where the history ends that HEAD says goes on.
    end: Option<End>,
    /// What HEAD said when it was last looked what lies beyond it, and what came of that.
    looked: Option<(Head, Tip)>,
}

/// What a round is to reach, and what it goes by.
struct Goal<'a> {
    /// What HEAD says, as far as it is believed.
    head: &'a Head,
    pond_id: PondId,
    lineage: Lineage,
    /// What was asked for.
    at: At,
    /// The version to be reached.
    target: Version,
}

/// What a round has come to.
enum Round {
    /// There is no more to do.
    Done(Position),
    /// The source has gone on, or there is another way to be tried.
    Again,
}

impl<'a> Pull<'a> {
    pub(crate) fn new(
        runtime: &'a Runtime,
        store: &'a Store,
        replica: &'a Replica,
        progress: &'a dyn Progress,
    ) -> Self {
        let meter = Meter::new(progress, replica);
        let (versions, excluded) = ((0, 0), Vec::new());
        Pull { runtime, store, replica, meter, versions, excluded, restoring: false, end: None, looked: None }
    }

    /// For making a replica: what lies in the store beyond HEAD is wanted too.
    pub(crate) fn restoring(self) -> Self {
        Pull { restoring: true, ..self }
    }

    /// Brings the replica to a version. A replica without history begins with the chain's first base, or with the newest
    /// one if `newest_base`.
    pub(crate) fn to(mut self, at: At, newest_base: bool) -> Result<Reached, ReplicateError> {
        self.rounds(at, newest_base).inspect_err(|error| self.failed(error))
    }

    /// Waits for the store, unless it is to stop.
    fn wait<T>(&self, work: impl Future<Output = Result<T, ReplicateError>>) -> Result<T, ReplicateError> {
        self.runtime.block_on(self.meter.unless_stopped(work))
    }

    fn rounds(&mut self, at: At, newest_base: bool) -> Result<Reached, ReplicateError> {
        // What an earlier run applied and could not show.
        self.replica.publish()?;
        loop {
            if self.meter.stopping() {
                return Err(self.meter.stopped());
            }
            let Tip { head, instead_of } = self.tip(at)?;
            self.end.take_if(|end| end.promised != head);
            if let (None, InsteadOf::Version(last)) = (&self.end, &instead_of) {
                let first = Version(head.version + 1);
                self.end = Some(End { promised: head.clone(), head: head.clone(), first, last: *last });
            }
            let known = self.end.as_ref().map_or(&head, |end| &end.head).clone();
            match self.round(&known, at, newest_base) {
                Ok(Round::Done(position)) => {
                    let shortfall = self.shortfall(at, instead_of, &position);
                    return Ok(Reached { position, shortfall });
                }
                Ok(Round::Again) => {}
                Err(ReplicateError::MissingVersion { version, .. })
                    if self.replica.position().is_none_or(|position| version > position.version) =>
                {
                    let (head, end) = (head, self.end_before(&known, at, version)?);
                    let last = self.end.as_ref().map_or(Version(head.version), |end| end.last);
                    let first = Version(end.version + 1);
                    self.end = Some(End { promised: head, head: end, first, last });
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn round(&mut self, head: &Head, at: At, newest_base: bool) -> Result<Round, ReplicateError> {
        let position = self.replica.position();
        let pond_id = match &position {
            None => head.pond_id,
            Some(position) => pond_id(self.replica, position)?,
        };
        if head.pond_id != pond_id {
            let place = self.store.place().to_owned();
            return Err(ReplicateError::ForeignPond { place, found: head.pond_id, ours: pond_id });
        }
        if let Some(position) = &position
            && at == At::Tip
            && head.timeline >= position.timeline
            && self.replica.last_manifest() == Some((position.version, head.manifest.clone()))
            && head.version == position.version.0
        {
            self.report(head, ReplicaState::Synchronized, position.version, None);
            return Ok(Round::Done(position.clone()));
        }
        let lineage = self.wait(Lineage::load(self.store, pond_id, head.timeline))?;
        if let Some(position) = &position {
            lineage.admit(self.store.place(), position)?;
        }
        let mut target = self.wait(self.target(head, &lineage, pond_id, at))?;
        // Who names a version wants that one, whatever came of its timeline.
        if at == At::Tip
            && let Some(successor) = self.wait(lineage.successor(self.store, pond_id))?
            && successor.fork < target
        {
            // Versions above the fork would have to be given up again.
            if let Some(position) = &position
                && position.version > successor.fork
            {
                return Err(ReplicateError::Diverged {
                    timeline: successor.timeline,
                    fork: successor.fork,
                    ours: position.version,
                });
            }
            target = successor.fork;
        }
        let goal = Goal { head, pond_id, lineage, at, target };
        let position = match position {
            Some(position) => position,
            None => self.begin(&goal, newest_base)?,
        };
        let mut anchor = self.anchor(&goal, &position)?;
        if position.version.0 == head.version && anchor != head.manifest {
            anchor = self.look_up(&goal, &position)?;
            if anchor != head.manifest {
                return Err(ReplicateError::BrokenChain {
                    version: position.version,
                    key: format::HEAD_KEY.to_owned(),
                    why: format!(
                        "HEAD says that its manifest has the digest {}, and it has {anchor}",
                        head.manifest
                    ),
                });
            }
        }
        match position.version >= target {
            true => self.arrived(&goal, position),
            false => self.copy(&goal, position, anchor),
        }
    }

    /// The version to be reached, as far as HEAD knows. For a time it may be too high: whoever applies looks at each
    /// version's own.
    async fn target(
        &self,
        head: &Head,
        lineage: &Lineage,
        pond_id: PondId,
        at: At,
    ) -> Result<Version, ReplicateError> {
        let tip = Version(head.version);
        let time = match at {
            At::Tip => return Ok(tip),
            At::Start => return Ok(Version(head.root)),
            At::Tag(tag) => {
                return Err(ReplicateError::Other(format!(
                    "a backup store does not tell which version has the tag {tag}: name the version by its number, or make a replica of \
                     the whole and read tag:{tag} there"
                )));
            }
            At::Version(version) if (head.root..=head.version).contains(&version.0) => return Ok(version),
            At::Version(version) => {
                let place = self.store.place();
                let promised = self.end.as_ref().map_or_else(String::new, |end| {
                    format!(", although HEAD.json there names version {}", end.last)
                });
                return Err(ReplicateError::Other(format!(
                    "there is no version {version} in {place}: it has versions {} to {tip}{promised}",
                    head.root
                )));
            }
            At::Timestamp(time) => time,
        };
        if head.timestamp <= time {
            return Ok(tip);
        }
        // The last versions of packs suffice: whoever applies looks at each one's own time.
        let (mut low, mut high) = (head.root, head.version);
        loop {
            let middle = format::pack_end(Version(low + (high - low) / 2));
            if middle.0 <= low || middle.0 >= high {
                break;
            }
            match find::single(self.store, lineage, pond_id, middle).await? {
                None => break,
                Some((manifest, _)) if manifest.timestamp <= time => low = middle.0,
                Some(_) => high = middle.0,
            }
        }
        Ok(Version(high.saturating_sub(1).max(head.root)))
    }

    /// Installs the base that history begins with.
    fn begin(&mut self, goal: &Goal<'_>, newest_base: bool) -> Result<Position, ReplicateError> {
        let &Goal { head, at, target, .. } = goal;
        let (version, timeline) = self.first_base(goal, newest_base)?;
        self.report(head, ReplicaState::Preparing, target, None);
        let fetcher = self.fetcher(goal, version);
        let base =
            Copy { runtime: self.runtime, fetcher: &fetcher, meter: &self.meter, replica: self.replica }
                .base(version, timeline)?;
        let manifest = &base.version.manifest;
        if let At::Timestamp(time) = at
            && manifest.timestamp > time
        {
            return Err(ReplicateError::Other(format!(
                "{} is younger than that: the first version that can be restored is version {version}",
                self.store.place()
            )));
        }
        self.report(head, ReplicaState::Copying, target, Some(manifest.timestamp));
        let position = base.install(self.replica)?;
        self.versions.0 += 1;
        Ok(position)
    }

    /// The digest on which the next version's manifest must build. The store's manifest of our version must be that of our
    /// very log entry.
    fn anchor(&self, goal: &Goal<'_>, position: &Position) -> Result<String, ReplicateError> {
        if let Some((version, digest)) = self.replica.last_manifest()
            && version == position.version
        {
            return Ok(digest);
        }
        self.look_up(goal, position)
    }

    /// Asks the store for the digest of the manifest of the version that is here, and keeps it.
    fn look_up(&self, goal: &Goal<'_>, position: &Position) -> Result<String, ReplicateError> {
        let version = position.version;
        let found = find::manifest_of(self.store, &goal.lineage, goal.pond_id, version, &position.digest);
        let found = self.wait(found)?;
        match found {
            None => Err(ReplicateError::missing(version, self.store.place())),
            Some((manifest, _)) if manifest.entry.blake3 != position.digest => Err(self.not_ours(position)),
            Some((_, digest)) => {
                self.replica.set_last_manifest(version, &digest)?;
                Ok(digest)
            }
        }
    }

    /// The replica is at the target or beyond it.
    fn arrived(&mut self, goal: &Goal<'_>, position: Position) -> Result<Round, ReplicateError> {
        let &Goal { head, pond_id, ref lineage, at, target } = goal;
        if let At::Version(version) = at
            && position.version > version
        {
            return Err(ReplicateError::Other(format!(
                "this replica is at version {} already, so it cannot stop at {version}: make another one",
                position.version
            )));
        }
        if position.version > target {
            // HEAD is behind: it was written late, or set back. Only manifests count.
            self.look_up(goal, &position)?;
            let next = position.version.next();
            let beyond = self.wait(find::single(self.store, lineage, pond_id, next))?;
            if let (At::Tip, Some((manifest, digest))) = (at, beyond) {
                let head =
                    Head { version: next.0, manifest: digest, timestamp: manifest.timestamp, ..head.clone() };
                // It may find nothing to do either: where another timeline forks here, what follows is not this history's.
                return self.round(&head, at, false);
            }
        }
        self.report(head, ReplicaState::Synchronized, position.version, None);
        Ok(Round::Done(position))
    }

    /// Fetches and applies what is missing. The first version of it must build on the manifest with the digest `anchor`.
    fn copy(&mut self, goal: &Goal<'_>, position: Position, anchor: String) -> Result<Round, ReplicateError> {
        let &Goal { head, at, target, .. } = goal;
        let first = position.version.next();
        let count = target.0 - position.version.0;
        self.versions.1 = self.versions.0 + count;
        // Of one version HEAD says when it was made; of several that the last was made then, so none can be younger.
        self.report(head, ReplicaState::CatchingUp, target, Some(head.timestamp));
        let fetcher = self.fetcher(goal, first);
        // Whoever wants an earlier version does not depend on what HEAD names.
        if count >= WORTH_PACKS && target.0 == head.version {
            self.wait(fetcher.confirm(head))?;
        }
        let copy =
            Copy { runtime: self.runtime, fetcher: &fetcher, meter: &self.meter, replica: self.replica };
        let mut done = self.versions.0;
        let copied = copy.versions(
            head,
            first,
            target,
            at,
            anchor.clone(),
            &mut |applied: u64, missing: Option<i64>| {
                done += applied;
                let (bytes_done, bytes_total) = self.meter.bytes();
                self.replica.report(ReplicaProgress {
                    state: ReplicaState::CatchingUp,
                    timeline: Some(head.timeline),
                    target_version: Some(target),
                    versions_done: done,
                    versions_total: self.versions.1,
                    bytes_done,
                    bytes_total,
                    first_missing_timestamp: missing.or(Some(head.timestamp)),
                    error: None,
                });
            },
        );
        self.versions.0 = done;
        match copied {
            // What is known of the manifest of our own version may be wrong: it was damaged when it was read, or the store
            // was made anew. The log entry decides whether the version is the same.
            Err(ReplicateError::BrokenChain { version, .. })
                if version == first && self.look_up(goal, &position)? != anchor =>
            {
                Ok(Round::Again)
            }
            Err(error) => Err(error),
            Ok(Copied::Excluded(key)) => {
                tracing::warn!(
                    key,
                    "a pack in the backup store is not part of the history as a whole; its versions are fetched one by one"
                );
                self.excluded.push(key);
                Ok(Round::Again)
            }
            Ok(Copied::All(position)) => {
                self.sweep()?;
                let stop = match at {
                    // What follows has surely moved on when it took long.
                    // Whoever restores looks once more, for what HEAD does not tell of.
                    At::Tip => !self.restoring && count < WORTH_PACKS && position.version.0 == head.version,
                    At::Version(_) | At::Tag(_) | At::Timestamp(_) | At::Start => true,
                };
                if !stop {
                    return Ok(Round::Again);
                }
                self.report(head, ReplicaState::Synchronized, position.version, None);
                Ok(Round::Done(position))
            }
        }
    }

    /// Removes what is left in the staging area once everything is applied.
    fn sweep(&self) -> Result<(), ReplicateError> {
        for file in self.replica.incoming().staged()? {
            self.replica.incoming().discard_staged(&file.name)?;
        }
        Ok(())
    }

    /// For the versions from `first` to the target.
    fn fetcher(&self, goal: &Goal<'_>, first: Version) -> Fetcher<'_> {
        let (lineage, range, excluded) = (goal.lineage.clone(), first..=goal.target, self.excluded.clone());
        Fetcher::new(self.store, self.replica.incoming(), goal.pond_id, lineage, range, excluded, &self.meter)
    }

    /// The store has another version of this number than the replica.
    fn not_ours(&self, position: &Position) -> ReplicateError {
        let layout = pond_oplog::Layout::new(self.replica.pond());
        let path = layout.delta_log().join(format::entry_name(position.version));
        pond_oplog::OpLogError::Diverged { version: position.version, path }.into()
    }

    fn report(&self, head: &Head, state: ReplicaState, target: Version, first_missing: Option<i64>) {
        // One that has all that is there waits for the rest.
        let (state, target, first_missing) = match (&self.end, state) {
            (Some(end), ReplicaState::Synchronized) if target < end.first => {
                (ReplicaState::CatchingUp, end.last, Some(end.promised.timestamp))
            }
            _ => (state, target, first_missing),
        };
        let (bytes_done, bytes_total) = self.meter.bytes();
        self.replica.report(ReplicaProgress {
            state,
            timeline: Some(head.timeline),
            target_version: Some(target),
            versions_done: self.versions.0,
            versions_total: self.versions.1.max(self.versions.0),
            bytes_done,
            bytes_total,
            first_missing_timestamp: first_missing,
            error: None,
        });
    }

    fn failed(&self, error: &ReplicateError) {
        let state = match error {
            ReplicateError::Stopped { .. } => return,
            error if error.is_divergence() => ReplicaState::Diverged,
            _ => ReplicaState::Failed,
        };
        let (bytes_done, bytes_total) = self.meter.bytes();
        self.replica.report(ReplicaProgress {
            state,
            versions_done: self.versions.0,
            versions_total: self.versions.1.max(self.versions.0),
            bytes_done,
            bytes_total,
            error: Some(error.in_full()),
            ..ReplicaProgress::default()
        });
    }
}

/// Whose replica it is.
pub(crate) fn pond_id(replica: &Replica, position: &Position) -> Result<PondId, ReplicateError> {
    let entry = version_files(replica.pond(), position.version)?.entry;
    entry_facts(position.version, &entry)?.pond_id.ok_or_else(|| {
        ReplicateError::Other(format!(
            "the log entry of version {} does not say whose it is",
            position.version
        ))
    })
}
