//! The pond's own tables: what it knows of its files and of their history.

pub(crate) mod changes;
pub(crate) mod control;
pub(crate) mod entries;
pub(crate) mod files;
pub(crate) mod history;
pub(crate) mod oplog;
pub(crate) mod paths;
pub(crate) mod rows;
pub(crate) mod values;
pub(crate) mod versions;
