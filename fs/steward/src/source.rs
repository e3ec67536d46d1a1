//! What an open pond has that makes versions: what stores them, who may write meanwhile, and what keeps them few.

use std::sync::Arc;

use pond_oplog::Position;
use pond_tinyfs::StorageError;

use crate::StewardError;
use crate::commit::committer::Committer;
use crate::commit::fsync::Fsync;
use crate::commit::writers::Writers;
use crate::pacing::scheduler::Effort;
use crate::upkeep::maintenance::Maintenance;

/// What an open pond has that makes versions.
pub(crate) struct Source {
    pub(crate) committer: Arc<Committer>,
    pub(crate) writers: Arc<Writers>,
    pub(crate) fsync: Arc<Fsync>,
    pub(crate) maintenance: Arc<Maintenance>,
}

/// How storing stands.
#[derive(Default)]
pub(crate) struct Storing {
    /// Rows that no version holds.
    pub(crate) rows: u64,
    /// Whether there is anything that no version holds.
    pub(crate) is_dirty: bool,
    /// Why the last commit failed.
    pub(crate) failure: Option<StorageError>,
    /// Why no writes are taken.
    pub(crate) refusal: Option<Arc<str>>,
}

impl Source {
    /// How storing stands now.
    pub(crate) fn storing(&self) -> Storing {
        let ledger = self.committer.ledger();
        Storing {
            rows: ledger.rows() as u64,
            is_dirty: self.committer.fs().is_dirty() || !ledger.all_committed(),
            failure: ledger.failure().cloned(),
            refusal: ledger.refusal().map(|refusal| refusal.why().clone()),
        }
    }

    /// Commits what is left when nothing more comes, or puts it into the journal.
    pub(crate) fn commit_the_last(&self) -> Result<Position, StewardError> {
        self.committer.commit_now().map_err(|error| match error {
            StewardError::NotCommitted { reason, .. } => StewardError::ClosedUncommitted {
                in_journal: self.fsync.make_durable(Effort::Frame).is_ok(),
                rows: self.committer.ledger().rows(),
                reason,
            },
            error => error,
        })
    }
}
