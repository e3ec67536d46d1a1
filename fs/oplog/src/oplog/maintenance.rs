//! Versions that add no rows: their cut is that of the version before.

use crate::log::action::{Action, metric};
use crate::log::delta::Put;
use crate::log::next_version::{NextVersion, Operation};
use crate::log::{retained, snapshot, tags};
use crate::{At, Growth, Kept, OpLog, OpLogError, Origin, Position, Retained, TagName, Version};

impl OpLog {
    /// Says what is kept from now on, in a version of its own: no other version can be read any more.
    ///
    /// # Errors
    ///
    /// As [`OpLog::commit_rewrite`].
    pub fn commit_floor(&self, retained: &Retained) -> Result<Position, OpLogError> {
        let mut turn = self.turn()?;
        let next = self.next_maintenance();
        let floor = retained.floor;
        let parameter = ("floor", floor.version.to_string());
        let mut actions = floor.actions(self.identity().pond_id, next.timestamp);
        // A version that was given a name since the caller looked is kept all the same.
        let (before, mut below) = (self.live().kept(), retained.below.clone());
        for version in self.live().tags().into_values().filter(|version| *version < floor.version) {
            let place = below.partition_point(|kept| kept.version() < version);
            if below.get(place).is_none_or(|kept| kept.version() != version) {
                let there = before.iter().find(|kept| kept.version() == version).cloned();
                below.extend(
                    there.map_or_else(|| self.describe(version..version.next()), |kept| Ok(vec![kept]))?,
                );
                below.sort_by_key(Kept::version);
            }
        }
        let path = self.log().entry_path(next.version);
        let properties = retained::properties(&below, &before)
            .map_err(|error| OpLogError::Encode { path, why: error.to_string() })?;
        if !properties.is_empty() {
            let growth = Growth { min_writer: retained::FORMAT, properties, ..Growth::default() };
            actions.extend(self.grown(&growth)?.map(Action::from));
        }
        let position = turn.settle(self.put_maintenance(&next, "RAISE FLOOR", parameter, actions))?;
        self.live().set_floor(Some(floor));
        self.live().set_kept(below);
        self.committed(&position);
        Ok(position)
    }

    /// Gives a version a name, or with `None` takes the name back, in a version of its own. A version that has a name is kept.
    ///
    /// # Errors
    ///
    /// [`OpLogError::TagTaken`] and [`OpLogError::NoSuchTag`], and those of versions that there are not; else as
    /// [`OpLog::commit_rewrite`].
    pub fn commit_tag(
        &self,
        tag: TagName,
        version: Option<Version>,
        origin: &Origin,
    ) -> Result<Position, OpLogError> {
        let mut turn = self.turn()?;
        let mut tags = self.live().tags();
        match (version, tags.get(&tag)) {
            (Some(_), Some(&version)) => return Err(OpLogError::TagTaken { tag, version }),
            (None, None) => {
                return Err(OpLogError::NoSuchTag { tag, path: self.log().table().to_path_buf() });
            }
            // Nobody lets go of it meanwhile: that takes the turn too.
            (Some(version), None) => {
                snapshot::resolve(self.log(), &self.log().list()?, At::Version(version))?;
                tags.insert(tag, version);
            }
            (None, Some(_)) => drop(tags.remove(&tag)),
        }
        let next = self.next_maintenance();
        let mut actions = vec![tags::action(self.identity().pond_id, tag, version, next.timestamp)];
        if version.is_some() {
            // Earlier programs would let go of it.
            let growth = Growth { min_writer: retained::FORMAT, ..Growth::default() };
            actions.extend(self.grown(&growth)?.map(Action::from));
        }
        let operation = (if version.is_some() { "TAG" } else { "DELETE TAG" }, ("tag", tag.to_string()));
        let position = turn.settle(self.put_entry(&next, operation, actions, origin))?;
        self.live().set_tags(tags);
        self.committed(&position);
        Ok(position)
    }

    /// The numbers of a version that says nothing new: its cut is that of the one before.
    pub(crate) fn next_maintenance(&self) -> NextVersion {
        let last = self.position();
        NextVersion::after(&last, last.cut_lsn, self.timeline(), self.clock().now().time)
    }

    /// Puts such a version's entry, which nobody but maintenance asked for. The caller has the turn.
    pub(crate) fn put_maintenance(
        &self,
        next: &NextVersion,
        name: &str,
        parameter: (&str, String),
        actions: Vec<Action>,
    ) -> Result<Position, OpLogError> {
        self.put_entry(next, (name, parameter), actions, &Origin::maintenance())
    }

    fn put_entry(
        &self,
        next: &NextVersion,
        (name, parameter): (&str, (&str, String)),
        actions: Vec<Action>,
        origin: &Origin,
    ) -> Result<Position, OpLogError> {
        let pond_id = self.identity().pond_id;
        let adds = || actions.iter().filter_map(|action| action.add.as_ref());
        let metrics = [
            (metric::FILES, adds().count() as u64),
            (metric::BYTES, adds().map(|add| add.size).sum()),
            ("numRemovedFiles", actions.iter().filter(|action| action.remove.is_some()).count() as u64),
        ];
        let operation = Operation { name, parameter, metrics: &metrics, origin };
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
