//! All or nothing: what was done in a scratch, done once more on the tree that others went on changing.

pub(crate) mod apply;
pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod conflict;
pub(crate) mod fits;
