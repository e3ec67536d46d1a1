//! The words that all others use.

pub(crate) mod advice;
pub(crate) mod attr;
pub(crate) mod error;
pub(crate) mod id;
pub(crate) mod limits;
pub(crate) mod row;
pub(crate) mod stale;
