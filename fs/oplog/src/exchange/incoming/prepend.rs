//! Versions before the oldest one that is here: a history that began at a later base is filled in downwards.
//!
//! **What is here is one contiguous run of versions at any moment**, so each entry gets its name only once that of the
//! version after it is durable. A run that is cut off goes on below the oldest entry that is there. Versions between that
//! and the base are read only once history reaches its new beginning, since nothing before the base's checkpoint
//! stands for what came before them; the newest version is not touched.

use bytes::Bytes;

use super::{Checked, Incoming, IncomingVersion, State, same};
use crate::exchange::export::{self, EntryFacts};
use crate::log::{checkpoint, delta};
use crate::{OpLogError, Version};

impl Incoming {
    /// The oldest version whose entry is here; `None` where there is none. Older ones may be
    /// [put before it](Self::prepend).
    pub fn oldest(&self) -> Result<Option<Version>, OpLogError> {
        Ok(self.log.list_any()?.entries.first().copied().map(Version))
    }

    /// Puts consecutive versions, whose data files were staged, before the oldest one: the last of them is the one
    /// before it. Each is durable before the one before it has a name.
    ///
    /// # Errors
    ///
    /// Those of [`Incoming::apply`]; checks come before any change.
    pub fn prepend(&self, versions: &[IncomingVersion]) -> Result<(), OpLogError> {
        let mut state = self.state.lock();
        state.usable(&self.log)?;
        let mut checked = Vec::with_capacity(versions.len());
        let mut next = self.first_facts()?;
        for incoming in versions.iter().rev() {
            let facts = self.check_before(incoming, &next)?;
            if !same(&incoming.files, &facts.added) {
                let why = "its log entry adds other files than those that came with it";
                return Err(self.not_applicable(incoming.version, why.into()));
            }
            self.check_files(incoming.version, &facts.added)?;
            next = facts.clone();
            checked.push(Checked { incoming, facts });
        }
        let files = checked.iter().map(|checked| (checked.incoming.version, checked.facts.added.as_slice()));
        self.move_files(&mut state, files)?;
        self.put_downwards(&mut state, &checked)
    }

    /// Puts the base with which history is to begin before the oldest version, which is the one after it. `base.files`
    /// are all that are live there, and `checkpoint` is the table's state, which only version 0 can do without.
    ///
    /// # Errors
    ///
    /// Those of [`Incoming::install_base`]; checks come before any change.
    pub fn prepend_base(&self, base: IncomingVersion, checkpoint: Option<Bytes>) -> Result<(), OpLogError> {
        let mut state = self.state.lock();
        state.usable(&self.log)?;
        let facts = self.check_before(&base, &self.first_facts()?)?;
        let version = base.version;
        self.check_base(&base, self.log.parse(version, &base.entry)?, checkpoint.as_ref())?;
        self.check_files(version, &base.files)?;
        self.move_files(&mut state, std::iter::once((version, base.files.as_slice())))?;
        if let Some(checkpoint) = &checkpoint {
            // Before the entry: with that history begins here, and must have something to begin with.
            checkpoint::install(&self.log, version, checkpoint)?;
        }
        self.put_downwards(&mut state, &[Checked { incoming: &base, facts }])?;
        self.forget_staged(&delta::checkpoint_name(version));
        Ok(())
    }

    /// What the oldest entry says of itself.
    fn first_facts(&self) -> Result<EntryFacts, OpLogError> {
        let Some(version) = self.oldest()? else {
            return Err(
                self.not_applicable(Version(0), "there is no version that it could come before".into())
            );
        };
        export::facts(&self.log, version, &self.log.read(version)?)
    }

    /// Checks that a version comes right before another one of the same pond.
    fn check_before(&self, incoming: &IncomingVersion, next: &EntryFacts) -> Result<EntryFacts, OpLogError> {
        let version = incoming.version;
        let facts = export::facts(&self.log, version, &self.log.parse(version, &incoming.entry)?)?;
        if version.next() != next.position.version {
            let why = format!(
                "it is not the one before version {}, which is the oldest here",
                next.position.version
            );
            return Err(self.not_applicable(version, why));
        }
        self.check_order(&facts.position, &next.position)?;
        match (facts.pond_id, next.pond_id) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                Err(self.not_applicable(version, format!("it is of pond {theirs} and this is {ours}")))
            }
            _ => Ok(facts),
        }
    }

    /// Names entries, the newest first, each durable before the next.
    fn put_downwards(&self, state: &mut State, checked: &[Checked<'_>]) -> Result<(), OpLogError> {
        for one in checked {
            self.put_entries(state, std::slice::from_ref(one))?;
            self.forget_staged(&delta::entry_name(one.incoming.version));
        }
        Ok(())
    }
}
