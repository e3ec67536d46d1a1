//! What keeps a history small: merging, pruning, cleaning, and what readers hold against that.

pub(crate) mod clean;
pub(crate) mod dead_rows;
pub(crate) mod facts;
#[cfg(test)]
pub(crate) mod histories;
pub(crate) mod merge;
pub(crate) mod prune;
pub(crate) mod rewrite;
pub(crate) mod sweep;
