//! What is to happen to a name of a version.

use pond_oplog::Version;
use serde::{Deserialize, Serialize};

/// What is to happen to a name of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TagChange {
    /// This version gets it; if none is said the newest, once everything is committed.
    Make(Option<Version>),
    /// Nothing is called so any more.
    Delete,
}
