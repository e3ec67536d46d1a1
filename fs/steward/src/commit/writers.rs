//! Writers: each is let in, slowed down, or refused, as `pacing::backpressure` says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pond_tinyfs::{Errno, Error, StorageError};

use crate::commit::committer::Committer;
use crate::commit::ledger::Wake;
use crate::pacing::backpressure::{Admission, GLANCE, Gauges, Wait};
use crate::pacing::scheduler::LOOK_AGAIN;

/// Those who want to write.
pub(crate) struct Writers {
    committer: Arc<Committer>,
    /// Bytes that those bring who were let in, and that are not in the tree yet.
    admitted: AtomicU64,
}

/// What a writer brings who was let in; until it is in the tree.
struct Admitted<'a> {
    bytes: u64,
    of: &'a AtomicU64,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Writers {
    pub(crate) fn new(committer: Arc<Committer>) -> Self {
        Writers { committer, admitted: AtomicU64::new(0) }
    }

    /// Who stores what they bring.
    pub(crate) fn committer(&self) -> &Committer {
        &self.committer
    }

    /// Whether a write may proceed now. Wakes a drainer when much has piled up.
    pub(crate) fn has_room(&self) -> bool {
        let gauges = self.gauges();
        self.committer.wake_drainers(&gauges.content, gauges.fsyncs_come);
        // What is refused the tree refuses, which is quicker than to wait for it.
        matches!(self.committer.bounds().admit(&gauges, 0, false), Admission::Now | Admission::Refuse)
    }

    /// Does what brings so many bytes of content once there is room for them: of many who wait no more are let in at once than
    /// fit.
    pub(crate) fn when_room<T>(
        &self,
        bytes: u64,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            self.wait_for_room(bytes)?;
            let others = self.admitted.fetch_add(bytes, Ordering::Relaxed);
            let counted = Admitted { bytes, of: &self.admitted };
            if self.committer.bounds().lets_in(&self.committer.fs().content_in_memory(), others, bytes) {
                return work();
            }
            drop(counted);
            std::thread::sleep(GLANCE);
        }
    }

    /// Waits until a write of so many bytes may proceed.
    pub(crate) fn wait_for_room(&self, bytes: u64) -> Result<(), Error> {
        let mut has_committed = false;
        loop {
            match self.committer.bounds().admit(&self.gauges(), bytes, has_committed) {
                Admission::Now => return Ok(()),
                Admission::After(pause) => {
                    std::thread::sleep(pause);
                    return Ok(());
                }
                Admission::AfterOthers(longest) => {
                    let mut ledger = self.committer.ledger();
                    if ledger.is_stopped() {
                        return Err(Errno::ROFS.into());
                    }
                    self.committer.wait_for_end(&mut ledger, longest);
                }
                Admission::UntilCommitted => {
                    has_committed = true;
                    self.commit_unless_failing();
                }
                Admission::UntilStored => self.wait_until_stored()?,
                Admission::Refuse => return Err(Errno::ROFS.into()),
            }
        }
    }

    fn gauges(&self) -> Gauges {
        let committer = &self.committer;
        let content = committer.fs().content_in_memory();
        Gauges {
            content,
            admitted: self.admitted.load(Ordering::Relaxed),
            available: committer.log().space().available,
            fsyncs_come: committer.bounds().may_be_ahead_of_fsyncs(&content) && committer.fsyncs_come(),
            read_only: committer.fs().is_read_only(),
        }
    }

    /// Whether there is room on the disk the tree knows after a commit. While commits fail nothing is waited for.
    fn commit_unless_failing(&self) {
        if self.committer.ledger().failure().is_none()
            && let Err(error) = self.committer.commit_now()
        {
            tracing::debug!(%error, "a commit on a disk with little room failed");
        }
    }

    /// Waits until a drain, a spill or a commit has made room, where there is none.
    fn wait_until_stored(&self) -> Result<(), Error> {
        let committer = &self.committer;
        let gauges = self.gauges();
        committer.wake_drainers(&gauges.content, gauges.fsyncs_come);
        let mut ledger = committer.ledger();
        let begun = ledger.storing(Instant::now()).begin(committer.fs().is_read_only());
        let mut drains = ledger.drains_ended();
        loop {
            let next = match begun {
                Ok(commit) => ledger.storing(Instant::now()).wait(
                    &committer.bounds(),
                    &committer.fs().content_in_memory(),
                    commit,
                ),
                Err(why) => why,
            };
            match next {
                Wait::AskForCommit => {
                    let wake = ledger.request_commit();
                    committer.wake(wake);
                }
                Wait::On => {}
                Wait::Over => return Ok(()),
                Wait::ReadOnly => return Err(Errno::ROFS.into()),
                Wait::CommitFails => return Err(why_failing(ledger.failure())),
                Wait::SpillFails => return Err(why_failing(ledger.spill_failure())),
            }
            // Not for ever: a file that is removed, or closed after that, makes room and tells nobody.
            committer.wait_for_end(&mut ledger, LOOK_AGAIN);
            if drains != ledger.drains_ended() {
                drains = ledger.drains_ended();
                committer.wake(Wake { drainer: true, ..Wake::NOBODY });
            }
        }
    }
}

fn why_failing(failure: Option<&StorageError>) -> Error {
    failure.cloned().map_or_else(|| Errno::IO.into(), Error::from)
}
