//! The Delta log: entries, checkpoints, the state at a version, and what a version tells about itself.

pub(crate) mod action;
pub(crate) mod at;
pub(crate) mod checkpoint;
pub(crate) mod commits;
pub(crate) mod delta;
pub(crate) mod floor;
pub(crate) mod followed;
pub(crate) mod format;
pub(crate) mod history;
pub(crate) mod live;
pub(crate) mod next_version;
pub(crate) mod position;
pub(crate) mod reading;
pub(crate) mod replaced;
pub(crate) mod retained;
pub(crate) mod snapshot;
pub(crate) mod table;
pub(crate) mod tags;
