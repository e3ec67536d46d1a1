//! Looking at what a store holds, without a pond: versions as points in time, one version in detail, and whether all of it is whole.

pub(crate) mod bundles;
mod chain;
mod flaw;
mod list;
mod manifests;
mod reach;
mod resolve;
mod survey;
mod verified;
mod verify;

pub use flaw::{Flaw, Severity};
pub use list::{BundleFact, Description, Facts, Listed, Place};
pub use resolve::Found;
pub use verify::{Level, Subset, Verify, VerifyReport};

use pond_oplog::At;
use tokio::runtime::Runtime;

use crate::config::RemoteConfig;
use crate::fetch::meter::until;
use crate::inspect::survey::Survey;
use crate::store::Store;
use crate::{Progress, ReplicateError};

/// A backup store that is looked at. Nothing in it is changed. Its methods block; they are not to be called from a thread that runs
/// async tasks.
pub struct Inspector {
    runtime: Runtime,
    store: Store,
}

impl Inspector {
    /// The store of a configuration (YAML).
    ///
    /// # Errors
    ///
    /// If the configuration is not valid, or a directory is not there. Nothing is asked of a server yet.
    pub fn open(config: &[u8]) -> Result<Self, ReplicateError> {
        let store = Store::open(&RemoteConfig::parse(config)?)?;
        Inspector::of(store)
    }

    /// One that is open already.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn of(store: Store) -> Result<Self, ReplicateError> {
        Ok(Inspector { runtime: crate::remote::runtime()?, store })
    }

    /// What errors call the store.
    pub fn place(&self) -> &str {
        self.store.place()
    }

    /// Its versions and bases, newest first; at most so many. One request for 1,000 objects that it has, two or three for each pack, and one
    /// for each version that is in none.
    ///
    /// # Errors
    ///
    /// If the store cannot be read or holds no backup. A manifest that is damaged or missing is a row without facts.
    pub fn list(&self, limit: Option<usize>, progress: &dyn Progress) -> Result<Vec<Listed>, ReplicateError> {
        self.wait(progress, async {
            let survey = Survey::make(&self.store).await?;
            list::list(&survey, limit).await
        })
    }

    /// What there is to know of one version.
    ///
    /// # Errors
    ///
    /// If the store does not have it, or its manifest is damaged.
    pub fn describe(&self, at: At, progress: &dyn Progress) -> Result<Description, ReplicateError> {
        self.wait(progress, async {
            let survey = Survey::make(&self.store).await?;
            list::describe(&survey, at).await
        })
    }

    /// Which version is meant, and what the store's newest is. Some twenty requests for a time, few else.
    ///
    /// # Errors
    ///
    /// If the store does not have it.
    pub fn find(&self, at: At, progress: &dyn Progress) -> Result<Found, ReplicateError> {
        self.wait(progress, async {
            let survey = Survey::make(&self.store).await?;
            resolve::resolve(&survey, at).await
        })
    }

    /// Whether what the store holds is whole.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or `progress` was cancelled ([`ReplicateError::Stopped`]). What is wrong with it is in the report.
    pub fn verify(&self, how: &Verify, progress: &dyn Progress) -> Result<VerifyReport, ReplicateError> {
        verify::verify(&self.runtime, &self.store, how, progress)
    }

    fn wait<T>(
        &self,
        progress: &dyn Progress,
        work: impl Future<Output = Result<T, ReplicateError>>,
    ) -> Result<T, ReplicateError> {
        self.runtime.block_on(async {
            tokio::select! {
                result = work => result,
                () = until(|| progress.cancelled()) => Err(ReplicateError::Stopped { at: "none yet".to_owned() }),
            }
        })
    }
}
