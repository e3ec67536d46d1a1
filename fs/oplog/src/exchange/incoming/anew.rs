//! Beginning anew: what was applied is given up, for a replica that nobody has seen yet.

use super::Incoming;
use crate::disk::{durable, listing};
use crate::files::file_name;
use crate::{OpLogError, Version};

impl Incoming {
    /// Removes every version that was applied; what is staged stays. Only while the replica is being made: afterwards its
    /// versions may be nowhere else. Cut off, it leaves a contiguous beginning of the history.
    pub fn begin_anew(&self) -> Result<(), OpLogError> {
        let mut state = self.state.lock();
        state.usable(&self.log)?;
        let mut checkpoint = self.checkpoint.lock();
        let directory = self.log.directory();
        let listing = self.log.list_any()?;
        let newest_first = listing.entries.iter().rev().map(|&version| self.log.entry_path(Version(version)));
        let derived = listing.checkpoints.iter().map(|&version| self.log.checkpoint_path(Version(version)));
        let hint = Some(directory.join("_last_checkpoint")).filter(|path| path.exists());
        for path in hint.into_iter().chain(derived).chain(newest_first) {
            durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
        }
        durable::sync_directory(&directory).map_err(|error| {
            state.fail(&self.log, Version(listing.entries.last().copied().unwrap_or(0)), error)
        })?;
        (state.position, state.pond_id, *checkpoint) = (None, None, None);
        // Nothing names them any more.
        let data = self.layout.data();
        for name in listing::names(&data)?.iter().filter(|name| file_name::txn_seq(name).is_some()) {
            let path = data.join(name);
            durable::remove(&path).map_err(OpLogError::io("remove", &path))?;
        }
        Ok(())
    }
}
