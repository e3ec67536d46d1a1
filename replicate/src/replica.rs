//! What is made of a store's history: a replica, one that follows, one that becomes a source, and single files for a repair.

pub(crate) mod init;
pub(crate) mod older;
pub(crate) mod promote;
pub(crate) mod pull;
pub(crate) mod restore;
