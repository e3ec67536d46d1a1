//! The control table, and the settings that it holds.

pub(crate) mod keys;
pub(crate) mod row;
pub mod settings;
pub(crate) mod table;
