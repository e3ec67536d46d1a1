//! What decisions go by: the ledger as those see it who ask what to do next.

use std::time::{Duration, Instant};

use pond_tinyfs::ContentInMemory;

use super::{Batch, Ledger};
use crate::pacing::backpressure::Storing;
use crate::pacing::scheduler::{Commits, Crowd, Drains, Unjournaled, Yielding};

impl Ledger {
    /// For the committer; `is_dirty`: whether there is something that was not cut.
    pub(crate) fn commits(&self, is_dirty: bool, interval: Duration, due: Instant) -> Commits {
        Commits {
            stopped: self.stopped,
            requested: self.requested,
            retry_at: self.retry_at,
            has_changes: is_dirty || !self.all_committed(),
            interval,
            due,
        }
    }

    /// For the committer, where merging has been behind since then.
    pub(crate) fn crowd(&self, since: Instant, interval: Duration) -> Crowd {
        Crowd { stopped: self.stopped, requested: self.requested, since, interval }
    }

    /// For drainers.
    pub(crate) fn drains(&self, content: ContentInMemory, fsyncs_come: bool) -> Drains {
        Drains {
            stopped: self.stopped,
            may_commit: self.must_not_commit().is_none(),
            is_failing: self.failure.is_some(),
            spill_failed: self.spill_failure.is_some(),
            draining: self.draining(u64::MAX),
            content,
            fsyncs_come,
        }
    }

    /// For a commit or a drain whose processor others want, who are owed so much.
    pub(crate) fn yielding(&self, content: ContentInMemory, owed: Duration) -> Yielding {
        Yielding {
            is_closing: self.stopped || self.closing,
            requested: self.requested,
            hurried_from: self.hurried_from,
            content,
            owed,
        }
    }

    /// For an fsync that would journal these batches.
    pub(crate) fn to_journal(&self, batches: &[Batch]) -> Unjournaled {
        Unjournaled {
            content: batches.iter().map(|batch| batch.bytes).sum(),
            rows: batches.iter().map(|batch| batch.rows.len()).sum(),
            leaves_memory: batches.iter().any(Batch::leaves_memory),
            may_commit: self.must_not_commit().is_none(),
        }
    }

    /// For who waits for something to be stored.
    pub(crate) fn storing(&self, now: Instant) -> Storing {
        Storing {
            refuses: self.refusal.is_some(),
            stopped: self.stopped,
            is_failing: self.failure.is_some(),
            is_resting: self.retry_at.is_some_and(|retry_at| now < retry_at),
            spill_failed: self.spill_failure.is_some(),
            requested: self.requested,
            started: self.attempts_started,
            ended: self.attempts_ended,
            draining: self.draining(u64::MAX),
        }
    }
}
