//! Transactions: what was done in a scratch of the newest version becomes one version, or nothing.

use std::sync::Arc;

use pond_oplog::{At, Origin, Version};
use pond_tinyfs::{Conflict, NotPublished, Stale};

use crate::{OpenOptions, Scratch, Steward, StewardError};

/// A transaction's scratch gets one part in so many of the budget of the cache.
const SHARE_OF_CACHE: u64 = 4;

/// How a transaction ended.
#[derive(Debug)]
pub enum TransactionEnd {
    /// It is this version, which is durable.
    Version(Version),
    /// It changed nothing, and made no version.
    Nothing,
    /// What it did cannot be had together with what others did meanwhile, and nothing was changed: where, in the order of the paths.
    Conflicts(Vec<Conflict>),
}

impl Steward {
    /// Commits everything, and opens a scratch of that version.
    ///
    /// # Errors
    ///
    /// Those of [`commit_now`](Self::commit_now) and [`Scratch::open`]; and where the pond takes no writes, as a replica does.
    pub fn begin_transaction(&self) -> Result<Arc<Scratch>, StewardError> {
        if self.source().is_none() {
            return Err(StewardError::NoTransactions { pond: self.pond().to_owned() });
        }
        self.refuse_unless_writable()?;
        let version = self.commit_now()?.version;
        let options = OpenOptions {
            cache_budget: Some(self.common.budgets.cache / SHARE_OF_CACHE),
            registry: self.registry().clone(),
            ..OpenOptions::default()
        };
        Scratch::open(self.pond(), At::Version(version), options)
    }

    /// Makes one version of all that was done in a scratch that [`begin_transaction`](Self::begin_transaction) gave, which nobody may
    /// change any more. It is durable when this returns, and whoever watches changes was told.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, there is no room for it, or no writes are taken: nothing was changed then. And
    /// [`StewardError::PublishedOnly`], where the change was made and could not be committed yet.
    pub fn end_transaction(&self, scratch: &Scratch, origin: Origin) -> Result<TransactionEnd, StewardError> {
        let failed = |source| StewardError::NotPublished { source };
        let Some(source) = self.source() else { return Err(self.not_writable()) };
        self.refuse_unless_writable()?;
        let mut changes = scratch.fs().changes_since(scratch.version());
        if changes.is_empty() {
            return Ok(TransactionEnd::Nothing);
        }
        scratch.fs().read_changes(&mut changes).map_err(failed)?;
        // What programs have changed in memory that they have mapped is written now, and then it clashes.
        let tell = |stale: &[Stale]| {
            if let Some(watcher) = self.common.watcher.read().as_ref() {
                watcher(stale);
            }
        };
        tell(&changes.touched().map(Stale::Attributes).collect::<Vec<_>>());
        let published = match source.committer.publish(scratch.version(), changes, origin) {
            Ok(published) => published,
            Err(NotPublished::Conflicts(conflicts)) => return Ok(TransactionEnd::Conflicts(conflicts)),
            Err(NotPublished::Failed(error)) => return Err(failed(error)),
        };
        tell(&published.stale);
        let committed = source
            .committer
            .commit_now()
            .map_err(|error| StewardError::PublishedOnly { why: error.to_string() })?;
        // Whoever committed it has noted which version it became.
        let made = source.committer.version_of(published.lsn).unwrap_or(committed);
        Ok(TransactionEnd::Version(made.version))
    }
}
