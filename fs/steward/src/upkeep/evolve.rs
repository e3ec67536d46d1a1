//! Growing the pond's table, for those who first need a column or a property of a later format.

use pond_oplog::{Growth, Position};

use crate::{Steward, StewardError};

impl Steward {
    /// Adds columns and properties to the pond's table, by a version of their own; nothing happens where all are there. Where history
    /// stands then.
    ///
    /// # Errors
    ///
    /// [`StewardError::ReadOnly`] or [`StewardError::Closed`] of a pond that takes no writes, and those of
    /// [`OpLog::evolve`](pond_oplog::OpLog::evolve).
    pub fn evolve(&self, growth: &Growth) -> Result<Position, StewardError> {
        if self.running.lock().is_none() || self.committer.ledger().refusal().is_some() {
            return Err(self.not_writable());
        }
        if self.oplog.lacks(growth)? {
            self.committer.between_commits(|| {
                let position = self.oplog.evolve(growth)?.unwrap_or_else(|| self.oplog.position());
                Ok((position, (0, 0)))
            })?;
        }
        Ok(self.position())
    }
}
