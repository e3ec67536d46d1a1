//! The content of files: found, and read without a mount.

pub(crate) mod files;
pub(crate) mod format;
pub(crate) mod glob;
pub(crate) mod hive;
pub(crate) mod host;
pub(crate) mod name;
pub(crate) mod pattern;
pub(crate) mod store;
pub(crate) mod stores;
pub(crate) mod walk;
