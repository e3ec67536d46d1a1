//! A replica: made from a backup, following its source version by version, and becoming a source.

pub(crate) mod follow;
pub(crate) mod following;
pub(crate) mod incoming;
pub(crate) mod init;
pub(crate) mod promote;
pub(crate) mod status;
pub(crate) mod timeline;
