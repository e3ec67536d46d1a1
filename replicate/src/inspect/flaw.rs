//! What is wrong with a store.

use pond_oplog::Version;
use serde::Serialize;

use crate::ReplicateError;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is lost by it.
    Notice,
    /// An object is damaged or missing.
    Damage,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flaw {
    /// How bad it is.
    pub severity: Severity,
    /// The object, relative to `backups/`.
    pub key: String,
    /// The version that it belongs to; of a pack its first.
    pub version: Option<Version>,
    /// What is wrong, and, of a file within it, with which.
    pub problem: String,
    /// Paths that it concerns, where that is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Versions that cannot be restored, first and last, because of this or of what else is wrong there. None where each can be: what the
    /// object has lies elsewhere too.
    pub hits: Option<(Version, Version)>,
}

impl Flaw {
    /// A damage.
    pub(crate) fn damage(
        key: impl Into<String>,
        version: Option<Version>,
        problem: impl Into<String>,
    ) -> Self {
        let (key, problem) = (key.into(), problem.into());
        Flaw { severity: Severity::Damage, key, version, problem, paths: Vec::new(), hits: None }
    }

    /// A damage that a restore met.
    pub fn of_restore(version: Option<Version>, problem: String, paths: Vec<String>) -> Self {
        Flaw { paths, ..Flaw::damage("restore", version, problem) }
    }

    /// Something to know.
    pub(crate) fn notice(
        key: impl Into<String>,
        version: Option<Version>,
        problem: impl Into<String>,
    ) -> Self {
        Flaw { severity: Severity::Notice, ..Flaw::damage(key, version, problem) }
    }

    /// What this error says of an object; the error itself if it says nothing of one.
    pub(crate) fn of(
        key: &str,
        version: Option<Version>,
        error: ReplicateError,
    ) -> Result<Self, ReplicateError> {
        match error {
            ReplicateError::Corrupt { version: its, why, .. } => Ok(Flaw::damage(key, its.or(version), why)),
            ReplicateError::BrokenChain { version, why, .. } => Ok(Flaw::damage(key, Some(version), why)),
            ReplicateError::ForeignPond { found, ours, .. } => {
                let why = format!("it is of another pond, {found}; the store is of {ours}");
                Ok(Flaw::damage(key, version, why))
            }
            error => Err(error),
        }
    }
}
