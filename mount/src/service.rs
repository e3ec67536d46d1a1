//! What decides about a request: what is shown, what may be changed, who waits for what.

pub(crate) mod abort;
pub(crate) mod backing;
pub(crate) mod content;
pub(crate) mod inodes;
pub(crate) mod listings;
pub(crate) mod readahead;
pub(crate) mod readers;
pub(crate) mod shown;
pub(crate) mod virtual_files;
