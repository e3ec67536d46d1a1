//! What a mount shows: a pond that makes or follows versions, or one version for good.

use std::path::Path;
use std::sync::Arc;

use pond_oplog::Position;
use pond_steward::{Reader, Status, Steward, StewardError};
use pond_tinyfs::TinyFs;

/// What a mount shows.
#[derive(Clone)]
pub(crate) enum Shown {
    /// The newest version, as it is made here or comes in.
    Newest(Arc<Steward>),
    /// One version.
    Fixed(Arc<Reader>),
}

impl Shown {
    /// Who makes or brings in versions, where anybody does.
    pub(crate) fn steward(&self) -> Option<&Arc<Steward>> {
        match self {
            Shown::Newest(steward) => Some(steward),
            Shown::Fixed(_) => None,
        }
    }

    /// `$POND`.
    pub(crate) fn pond(&self) -> &Path {
        match self {
            Shown::Newest(steward) => steward.pond(),
            Shown::Fixed(reader) => reader.pond(),
        }
    }

    /// The tree.
    pub(crate) fn fs(&self) -> &Arc<TinyFs> {
        match self {
            Shown::Newest(steward) => steward.fs(),
            Shown::Fixed(reader) => reader.fs(),
        }
    }

    /// The version that is shown now.
    pub(crate) fn position(&self) -> Position {
        match self {
            Shown::Newest(steward) => steward.position(),
            Shown::Fixed(reader) => reader.position(),
        }
    }

    /// The pond's status.
    pub(crate) fn status(&self) -> Status {
        match self {
            Shown::Newest(steward) => steward.status(),
            Shown::Fixed(reader) => reader.status(),
        }
    }

    /// Commits everything, where there may be anything to commit.
    pub(crate) fn close(&self) -> Result<Position, StewardError> {
        match self {
            Shown::Newest(steward) => steward.close(),
            Shown::Fixed(reader) => Ok(reader.position()),
        }
    }
}
