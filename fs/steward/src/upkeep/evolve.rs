//! Growing the pond's table, for those who first need a column or a property of a later format.

use pond_oplog::{Growth, Position};

use crate::source::Source;
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
        let takes_writes = |source: &&Source| source.committer.ledger().refusal().is_none();
        let source = self.source().filter(takes_writes).filter(|_| self.running.lock().is_some());
        let source = source.ok_or_else(|| self.not_writable())?;
        let oplog = self.oplog();
        if oplog.lacks(growth)? {
            source.committer.between_commits(|| {
                let position = oplog.evolve(growth)?.unwrap_or_else(|| oplog.position());
                Ok((position, (0, 0)))
            })?;
        }
        Ok(self.position())
    }
}
