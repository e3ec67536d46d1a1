//! What keeps a pond small, sound and readable by later programs, off the path of commits.

pub(crate) mod cleaner;
pub(crate) mod disk_use;
pub(crate) mod evolve;
pub mod fsck;
pub(crate) mod housekeeper;
pub(crate) mod maintenance;
pub(crate) mod merger;
pub(crate) mod report;
pub(crate) mod retention;
