//! Packs that cannot be used.

use std::sync::Arc;

use pond_oplog::Version;

use crate::ReplicateError;
use crate::fetch::plan::Pack;

/// A pack that is damaged or gone, so that its versions are to be had otherwise.
pub(super) struct Unusable {
    pub(super) pack: Arc<Pack>,
    /// The object, and the one within it.
    pub(super) key: String,
    pub(super) version: Option<Version>,
    pub(super) why: String,
}

impl Unusable {
    /// What whoever wants one of its versions is told.
    pub(super) fn error(&self) -> ReplicateError {
        ReplicateError::Corrupt { key: self.key.clone(), version: self.version, why: self.why.clone() }
    }
}
