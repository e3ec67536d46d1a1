//! Where a pull begins and ends in a store that has less than its HEAD names.

use pond_oplog::{At, Position, Timeline, Version};

use super::{Goal, Pull};
use crate::ReplicateError;
use crate::format::Head;
use crate::history::find;
use crate::history::lineage::Lineage;
use crate::history::tip::{self, InsteadOf, Shortfall, Tip};

impl Pull<'_> {
    /// What HEAD says, or what lies in the store where more is wanted than HEAD tells of.
    pub(super) fn tip(&mut self, at: At) -> Result<Tip, ReplicateError> {
        let hint = self.wait(tip::hint(self.store))?;
        let beyond = match at {
            // Once it has what HEAD names.
            At::Tip => {
                self.replica.position().is_some_and(|position| position.version.0 >= hint.head.version)
            }
            At::Version(version) => version.0 > hint.head.version,
            At::Timestamp(time) => time > hint.head.timestamp,
            At::Start | At::Tag(_) => false,
        };
        if !self.restoring || !beyond {
            return Ok(hint);
        }
        if let Some((head, tip)) = &self.looked
            && *head == hint.head
        {
            return Ok(tip.clone());
        }
        let said = hint.head.clone();
        let tip = self.wait(tip::newest(self.store, hint))?;
        self.looked = Some((said, tip.clone()));
        Ok(tip)
    }

    /// What is to be said of a store that has less than it should.
    pub(super) fn shortfall(&self, at: At, instead_of: InsteadOf, position: &Position) -> Option<Shortfall> {
        let place = self.store.place().to_owned();
        match (&self.end, at, instead_of) {
            // It has what was asked for.
            (_, At::Version(_) | At::Tag(_) | At::Start, _) => None,
            (Some(end), ..) if position.version < end.first => {
                Some(Shortfall::Missing { place, first: end.first, last: end.last })
            }
            (_, At::Tip, InsteadOf::Unreadable(why)) => {
                Some(Shortfall::NoHead { place, why, newest: position.version })
            }
            _ => None,
        }
    }

    /// The history up to the version before one that is missing, if it ends there: else there is a hole.
    pub(super) fn end_before(&self, head: &Head, at: At, missing: Version) -> Result<Head, ReplicateError> {
        let store = self.store;
        let place = || store.place().to_owned();
        let base = (Version(head.newest_base), head.newest_base_timeline);
        if missing < base.0 && self.wait(find::is_base(store, base))? {
            return Err(ReplicateError::OnlyFromBase { version: missing, base: base.0, place: place() });
        }
        let lineage = self.wait(Lineage::load(store, head.pond_id, head.timeline))?;
        let last = Version(head.version);
        let later = self.wait(tip::whole_after(store, &lineage, missing, last))?;
        let end = self.wait(tip::before(store, &lineage, head, missing))?;
        let end = end.ok_or_else(|| ReplicateError::missing(missing, store.place()))?;
        match (later, at) {
            (None, At::Tip | At::Timestamp(_)) => Ok(end),
            (later, _) => {
                let instead = Some(Version(end.version));
                Err(ReplicateError::MissingVersion { version: missing, place: place(), later, instead })
            }
        }
    }

    /// The base that a history begins with: the chain's first, or the newest that is in the store and not above the target.
    pub(super) fn first_base(
        &self,
        goal: &Goal<'_>,
        newest_base: bool,
    ) -> Result<(Version, Timeline), ReplicateError> {
        let Goal { head, lineage, target, .. } = goal;
        let root = (Version(head.root), head.root_timeline);
        let newest = (Version(head.newest_base), head.newest_base_timeline);
        if !newest_base {
            return Ok(root);
        }
        if newest.0 <= *target && self.wait(find::is_base(self.store, newest))? {
            return Ok(newest);
        }
        let found = self.wait(find::newest_base(self.store, lineage, root.0, *target))?;
        Ok(found.unwrap_or(root))
    }
}
