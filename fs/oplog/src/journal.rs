//! The journal: rows that an fsync made durable and that no Delta commit holds yet.

pub(crate) mod error;
pub(crate) mod frame;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod writer;
