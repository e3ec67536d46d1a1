//! The control table, and the settings that it holds.

pub(crate) mod keys;
pub(crate) mod quantity;
pub(crate) mod retention;
pub(crate) mod row;
pub mod settings;
pub(crate) mod table;
