//! What is asked of the tree: system calls, and what those ask who keep its rows.

pub(crate) mod access;
pub(crate) mod attributes;
pub(crate) mod content;
pub(crate) mod draft;
pub(crate) mod listing;
pub(crate) mod lookup;
pub(crate) mod make;
pub(crate) mod names;
pub(crate) mod references;
pub(crate) mod relocate;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod same;
pub(crate) mod since;
pub(crate) mod spill;
