//! What a store has of a pond's history, without fetching any of it: timelines, the chain of versions on each, and where it ends.

pub(crate) mod chain;
pub(crate) mod find;
pub(crate) mod lineage;
pub(crate) mod timeline;
pub(crate) mod tip;
