//! Names of the settings by which the pond itself goes.

/// The setting that says what the pond is: `push` for a source, `pull` for a replica.
pub(crate) const ROLE_KEY: &str = "factory_mode:remote";

/// The setting that holds the configuration of the store that a replica follows.
pub const REMOTE_CONFIG_KEY: &str = "remote_config";

/// The setting that says on which timeline a promoted pond commits.
pub(crate) const TIMELINE_KEY: &str = "timeline";

/// The setting with the random id under which a promoted pond claimed its timeline. Two replicas may claim the same
/// number, each in a store of its own.
pub const TIMELINE_ID_KEY: &str = "timeline_id";

/// The setting that says why a source takes no writes any more; empty if it does.
pub(crate) const SUPERSEDED_KEY: &str = "superseded";
