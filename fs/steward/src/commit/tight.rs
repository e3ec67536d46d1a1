//! A disk with little room left, where what is free and what is owed no longer say whether a write fits.
//!
//! What a commit is writing counts twice, on the disk and in memory, and so does what the journal holds. Only a commit tells
//! how much is left, so a write waits for one as soon as more is owed than half of what is free: the commits before ENOSPC
//! grow smaller by halves, and few are needed.

use crate::commit::committer::Committer;

/// What a commit needs beside its rows, bytes: the log entry, and the ends of its data files.
const COMMIT_OVERHEAD: u64 = 64 << 10;

/// Where less than one part in so many is free, the disk is full.
const FULL: u64 = 64;

/// What a row needs beside its content, bytes.
const ROW_OVERHEAD: u64 = 256;

impl Committer {
    /// Whether a write might be refused for which there is room.
    pub(crate) fn is_tight(&self) -> bool {
        // Not what unlinked files hold: no commit stores that.
        self.fs.committable_bytes() > self.log.space().available / 2
    }

    /// Bytes that maintenance may write: most is left to writers, and where nothing is free a part of the reserve, which is there for
    /// what makes room.
    pub(crate) fn room_for_maintenance(&self) -> u64 {
        self.log.space().available / 2 + self.reserve.size() / 4
    }

    /// Whether next to nothing is free, so that what makes room is worth its cost.
    pub(crate) fn is_full(&self) -> bool {
        let space = self.log.space();
        space.available < space.total / FULL
    }

    /// Gives up the reserve where a commit that holds no content might not fit.
    pub(crate) fn make_room_for_entry(&self) {
        // Asks the disk anew.
        self.log.keep_back(self.reserve.withheld());
        if self.log.space().available < COMMIT_OVERHEAD {
            self.give_up_reserve();
        }
    }

    /// Where it is tight, waits for a commit; whether there is room the tree knows afterwards. While commits fail nothing
    /// is waited for.
    pub(crate) fn commit_where_tight(&self) {
        if self.is_tight()
            && self.ledger().failure.is_none()
            && let Err(error) = self.commit_now()
        {
            tracing::debug!(%error, "a commit on a tight disk failed");
        }
    }

    /// Keeps writers away from what a commit of so many rows needs beside their content, which the tree counts as owed.
    /// Holds until the commit has landed.
    pub(crate) fn keep_back_for(&self, rows: u64) {
        self.log.keep_back(self.reserve.withheld() + COMMIT_OVERHEAD + rows * ROW_OVERHEAD);
    }
}
