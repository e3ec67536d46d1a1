//! What has an inode number, and what `stat` shows of it.

pub(crate) mod attributes;
pub(crate) mod content;
pub(crate) mod listings;
pub(crate) mod old;
pub(crate) mod table;
pub(crate) mod virtual_files;
