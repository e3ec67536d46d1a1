//! Versions that add no rows: their cut is that of the version before.

use crate::log::action::{Action, metric};
use crate::log::delta::Put;
use crate::log::next_version::{NextVersion, Operation};
use crate::{Floor, OpLog, OpLogError, Origin, Position};

impl OpLog {
    /// Raises the floor, in a version of its own: below it no version can be read any more.
    ///
    /// # Errors
    ///
    /// As [`OpLog::commit_rewrite`].
    pub fn commit_floor(&self, floor: Floor) -> Result<Position, OpLogError> {
        let mut turn = self.turn()?;
        let next = self.next_maintenance();
        let parameter = ("floor", floor.version.to_string());
        let actions = floor.actions(self.identity().pond_id, next.timestamp);
        let position = turn.settle(self.put_maintenance(&next, "RAISE FLOOR", parameter, actions))?;
        self.live().set_floor(Some(floor));
        self.committed(&position);
        Ok(position)
    }

    /// The numbers of a version that says nothing new: its cut is that of the one before.
    pub(crate) fn next_maintenance(&self) -> NextVersion {
        let last = self.position();
        NextVersion::after(&last, last.cut_lsn, self.timeline(), self.clock().now().time)
    }

    /// Puts such a version's entry. The caller has the turn.
    pub(crate) fn put_maintenance(
        &self,
        next: &NextVersion,
        name: &str,
        parameter: (&str, String),
        actions: Vec<Action>,
    ) -> Result<Position, OpLogError> {
        let pond_id = self.identity().pond_id;
        let adds = || actions.iter().filter_map(|action| action.add.as_ref());
        let metrics = [
            (metric::FILES, adds().count() as u64),
            (metric::BYTES, adds().map(|add| add.size).sum()),
            ("numRemovedFiles", actions.iter().filter(|action| action.remove.is_some()).count() as u64),
        ];
        let operation = Operation { name, parameter, metrics: &metrics, origin: &Origin::maintenance() };
        let all = std::iter::once(next.cut_action(pond_id)).chain(actions).collect();
        let path = self.log().entry_path(next.version);
        let bytes = next
            .entry(pond_id, operation, all)
            .map_err(|error| OpLogError::Encode { path: path.clone(), why: error.to_string() })?;
        match self.log().put(next.version, &bytes)? {
            Put::Done => Ok(next.position(&bytes)),
            Put::SomeoneElse => {
                let kept = "memory and the journal; the next commit sets it aside".to_string();
                Err(OpLogError::SomeoneElse { version: next.version, path, kept })
            }
        }
    }
}
