//! The two kinds of open ponds.

use std::sync::Arc;

use pond_tinyfs::{Errno, Error};

use crate::commit::fsync::Done;
use crate::replica::following::Following;
use crate::source::{Source, Storing};

/// What an open pond has beside what every one has.
#[derive(Clone)]
pub(crate) enum Kind {
    /// It makes versions.
    Source(Arc<Source>),
    /// It follows the pond that does.
    Replica(Arc<Following>),
}

impl Kind {
    /// Calls `done` once everything received before this call survives power loss; see [`Fsync`](crate::commit::fsync::Fsync).
    pub(crate) fn fsync(&self, done: Done, here: bool) {
        match self {
            Kind::Source(source) => source.fsync.fsync(done, here),
            // All that it shows is durable.
            Kind::Replica(_) => done(Ok(())),
        }
    }

    /// Whether a write may proceed at once.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Kind::Source(source) => source.writers.has_room(),
            // The tree refuses it, which is quicker than to wait.
            Kind::Replica(_) => true,
        }
    }

    /// Does what brings so many bytes of content once it may.
    pub(crate) fn when_room<T>(
        &self,
        bytes: u64,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self {
            Kind::Source(source) => source.writers.when_room(bytes, work),
            Kind::Replica(_) => Err(Errno::ROFS.into()),
        }
    }

    /// Waits until anything may be written at all.
    pub(crate) fn wait_for_room(&self) -> Result<(), Error> {
        match self {
            Kind::Source(source) => source.writers.wait_for_room(0),
            Kind::Replica(_) => Err(Errno::ROFS.into()),
        }
    }

    /// How storing stands: a replica stores nothing, and takes no writes.
    pub(crate) fn storing(&self) -> Storing {
        match self {
            Kind::Source(source) => source.storing(),
            Kind::Replica(following) => {
                Storing { refusal: Some(following.refusal().into()), ..Storing::default() }
            }
        }
    }
}
