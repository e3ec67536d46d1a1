//! Push: what a store does not have yet, bundle, then manifest, then HEAD.
//!
//! Only manifests arbitrate. They are put where there is none; what is found there instead is either this pond's own, from a
//! run whose end was lost, and adopted, or a second writer's, and then nothing more is written. A push that is cut off at
//! any request is taken up again from what the store says: no state of its own is kept across processes.

pub(crate) mod base;
pub(crate) mod bundle;
mod catch_up;
mod discover;
mod packs;
mod pieces;
pub(crate) mod pusher;
mod ship;

use std::collections::BTreeSet;

use pond_oplog::Version;

use crate::ReplicateError;
use crate::format::{self, HEAD_KEY};
use crate::history::chain::Chain;
use crate::history::timeline;
use crate::push::pusher::{Recent, StopOnDrop, blocking};

pub(crate) use pusher::{Pusher, Source};

impl Pusher {
    /// Finds out what the store has, and begins a chain in one that has none. `pushed` is the version up to which an
    /// earlier run has pushed.
    pub(crate) async fn open(source: Source, pushed: Option<Version>) -> Result<Self, ReplicateError> {
        let pond = source.pond.clone();
        let schema = blocking(move || Ok(pond_oplog::schema_fingerprint(&pond)?)).await?;
        let stop = StopOnDrop::default();
        let found = discover::chain(&source, pushed).await?;
        let (chain, began) = match found {
            Some(chain) => (chain, false),
            None => (base::begin(&source, &schema, &stop.0).await?, true),
        };
        let next_base_check = chain.newest_base.0;
        let mut pusher = Pusher {
            source,
            schema,
            chain,
            recent: Recent::default(),
            unpacked: BTreeSet::new(),
            orphans: Vec::new(),
            head_is_old: true,
            head_may_follow: false,
            next_base_check,
            stop,
        };
        if !began {
            pusher.sweep().await;
            pusher.find_missing_packs().await?;
        }
        Ok(pusher)
    }

    /// Removes what a push that was killed left where this one goes on.
    async fn sweep(&self) {
        let Chain { tip, .. } = self.chain;
        let timeline = self.source.timeline;
        let mut folders = vec![String::new(), format::TIMELINES.to_owned(), format::packs_folder(timeline)];
        let versions = (tip.0..=tip.0 + format::PACK_VERSIONS).map(Version).map(format::version_folder);
        folders.extend(versions.map(|folder| format::in_timeline(timeline, &folder)));
        self.source.store.sweep(folders).await;
        self.source.store.end_abandoned_uploads().await;
    }

    /// Ships everything up to the newest version, then what makes restoring cheap: packs and bases.
    ///
    /// After an error the pusher must be opened anew.
    pub(crate) async fn push(&mut self) -> Result<(), ReplicateError> {
        let newest = (self.source.newest)();
        if self.is_another_place(newest).await? {
            tracing::warn!(
                place = self.place(),
                version = self.chain.tip.0,
                "the backup store is not the one that was last pushed to; looking what it has"
            );
            *self = Pusher::open(self.source.clone(), Some(self.chain.tip)).await?;
        }
        self.ship_up_to(newest).await?;
        self.write_missing_packs().await?;
        self.write_base_if_due().await
    }

    /// Ships versions and says so in HEAD.
    pub(crate) async fn ship_up_to(&mut self, goal: Version) -> Result<(), ReplicateError> {
        self.catch_up(goal).await?;
        if self.head_is_old {
            self.write_head().await?;
        }
        Ok(())
    }

    /// Says in HEAD where the chain is, unless a higher timeline has taken over: HEAD is that one's then.
    pub(crate) async fn write_head(&mut self) -> Result<(), ReplicateError> {
        if !std::mem::take(&mut self.head_may_follow) {
            self.refuse_if_superseded().await?;
        }
        let head = self.chain.head(self.source.pond_id, self.source.timeline);
        self.source.store.put(HEAD_KEY, format::encode(&head)?).await?;
        self.head_is_old = false;
        Ok(())
    }

    /// Whether a store is not the one in which this chain's tip is: a disk was unmounted, another one mounted in its place, which
    /// may have less of the chain, or it was emptied. Where versions are owed a bucket is not asked, which does not change under
    /// its name; where none are, nothing else would be asked of it.
    async fn is_another_place(&self, newest: Version) -> Result<bool, ReplicateError> {
        let store = &self.source.store;
        if !store.is_local() && newest > self.chain.tip {
            return Ok(false);
        }
        let found = store.get(&self.chain.key).await?;
        Ok(found.is_none_or(|manifest| format::digest(&manifest) != self.chain.digest))
    }

    /// A promoted replica's timeline above this pond's ends this pond's writing. Its number need not be the next one: a
    /// replica that has been promoted before, from another store, goes on from there.
    async fn refuse_if_superseded(&self) -> Result<(), ReplicateError> {
        discover::refuse_if_superseded(&self.source, &timeline::numbers(&self.source.store).await?).await
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
