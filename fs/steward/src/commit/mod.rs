//! From the tree to durable versions: what waits to be stored, who may write meanwhile, and what is stored next.

pub(crate) mod committer;
pub(crate) mod disk_room;
pub(crate) mod drain;
#[cfg(test)]
pub(crate) mod faulty_log;
pub(crate) mod fsync;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod merges;
#[cfg(test)]
mod simulation;
pub(crate) mod writers;
