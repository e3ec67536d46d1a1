//! Versions that leave a pond and versions that come in.

pub(crate) mod export;
pub(crate) mod file_ref;
pub(crate) mod follow;
pub(crate) mod incoming;
pub(crate) mod placing;
pub(crate) mod quarantine;
pub(crate) mod staging;
