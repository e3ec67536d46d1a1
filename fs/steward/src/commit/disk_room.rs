//! Room on the disk: what writers must leave alone, so that the journal, commits and deletes have some when it is full.

use std::sync::Arc;

use pond_tinyfs::Space;

use crate::commit::log::CommitLog;
use crate::host::reserve::Reserve;
use crate::pacing::backpressure;

/// The room that there is, and the reserve.
pub(crate) struct DiskRoom {
    log: Arc<dyn CommitLog>,
    reserve: Reserve,
}

impl DiskRoom {
    pub(crate) fn new(log: Arc<dyn CommitLog>, reserve: Reserve) -> Self {
        log.keep_back(reserve.withheld());
        DiskRoom { log, reserve }
    }

    /// Gives up the reserve. True if there is room now that was not there before.
    pub(crate) fn give_up_reserve(&self) -> bool {
        let made_room = self.reserve.give_up();
        self.look();
        made_room
    }

    /// Makes the reserve again if it is gone and there is room.
    pub(crate) fn restore_reserve(&self) {
        let withheld = self.reserve.withheld();
        if withheld > 0 {
            // What the log tells is less what it keeps back for this very reserve.
            let space = self.log.space();
            self.reserve.restore(Space { available: space.available + withheld, ..space });
            self.look();
        }
    }

    /// Asks the disk anew, and keeps back the reserve only.
    pub(crate) fn look(&self) {
        self.log.keep_back(self.reserve.withheld());
    }

    /// Keeps writers away from what a commit of so many rows needs beside their content, until the next [`look`](Self::look).
    pub(crate) fn keep_back_for(&self, rows: u64) {
        self.log.keep_back(self.reserve.withheld() + backpressure::commit_overhead(rows));
    }

    /// Gives up the reserve where a commit that holds no content might not fit.
    pub(crate) fn make_room_for_entry(&self) {
        self.look();
        if self.log.space().available < backpressure::commit_overhead(0) {
            self.give_up_reserve();
        }
    }

    /// Bytes that maintenance may write.
    pub(crate) fn for_maintenance(&self) -> u64 {
        backpressure::room_for_maintenance(self.log.space(), self.reserve.size())
    }
}
