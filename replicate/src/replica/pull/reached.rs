//! What a pull has come to, and where the history ends that it can have.

use pond_oplog::{Position, Version};

use crate::format::Head;
use crate::history::tip::Shortfall;

/// Where a pull comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The version.
    pub(crate) position: Position,
    /// What was not to be had.
    pub(crate) shortfall: Option<Shortfall>,
}

/// The end of what is whole in a store.
pub(super) struct End {
    /// What HEAD says, or what else was believed.
    pub(super) promised: Head,
    /// What it would say if it were right.
    pub(super) head: Head,
    /// The first version that is missing.
    pub(super) first: Version,
    /// The last version that HEAD names.
    pub(super) last: Version,
}
