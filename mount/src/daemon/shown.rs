//! What a mount shows: a pond that makes or follows versions, one version for good, or a scratch of one.

use std::path::Path;
use std::sync::Arc;

use pond_oplog::{Options, Position, Views};
use pond_steward::{Reader, Scratch, Status, Steward, StewardError};
use pond_tinyfs::TinyFs;

/// Old versions get one part in so many of the budget of the cache, for their content and for trees that nobody uses.
const SHARE_OF_VERSIONS: u64 = 4;

/// What a mount shows.
#[derive(Clone)]
pub(crate) enum Shown {
    /// The newest version, as it is made here or comes in.
    Newest(Arc<Steward>),
    /// One version.
    Fixed(Arc<Reader>),
    /// One version, and changes that end with the mount.
    Scratch(Arc<Scratch>),
}

impl Shown {
    /// Who makes or brings in versions, where anybody does.
    pub(crate) fn steward(&self) -> Option<&Arc<Steward>> {
        match self {
            Shown::Newest(steward) => Some(steward),
            Shown::Fixed(_) | Shown::Scratch(_) => None,
        }
    }

    /// `$POND`.
    pub(crate) fn pond(&self) -> &Path {
        match self {
            Shown::Newest(steward) => steward.pond(),
            Shown::Fixed(reader) => reader.pond(),
            Shown::Scratch(scratch) => scratch.pond(),
        }
    }

    /// The tree.
    pub(crate) fn fs(&self) -> &Arc<TinyFs> {
        match self {
            Shown::Newest(steward) => steward.fs(),
            Shown::Fixed(reader) => reader.fs(),
            Shown::Scratch(scratch) => scratch.fs(),
        }
    }

    /// The version that is shown now.
    pub(crate) fn position(&self) -> Position {
        match self {
            Shown::Newest(steward) => steward.position(),
            Shown::Fixed(reader) => reader.position(),
            Shown::Scratch(scratch) => scratch.position(),
        }
    }

    /// The pond's versions, to look at beside it.
    pub(crate) fn versions(&self) -> Arc<Views> {
        match self {
            Shown::Newest(_) | Shown::Scratch(_) => {
                let cache_bytes = self.status().budgets.cache / SHARE_OF_VERSIONS;
                Arc::new(Views::new(self.pond(), &Options { cache_bytes, ..Options::default() }))
            }
            Shown::Fixed(reader) => reader.versions().clone(),
        }
    }

    /// The pond's status.
    pub(crate) fn status(&self) -> Status {
        match self {
            Shown::Newest(steward) => steward.status(),
            Shown::Fixed(reader) => reader.status(),
            Shown::Scratch(scratch) => scratch.status(),
        }
    }

    /// Commits everything, where there may be anything to commit.
    pub(crate) fn close(&self) -> Result<Position, StewardError> {
        match self {
            Shown::Newest(steward) => steward.close(),
            Shown::Fixed(reader) => Ok(reader.position()),
            Shown::Scratch(scratch) => Ok(scratch.position()),
        }
    }
}
