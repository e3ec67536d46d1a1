//! A row: its columns in Arrow, its bytes in the journal, the changes of a directory within it.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod entries;
pub(crate) mod plain;
#[cfg(test)]
pub(crate) mod samples;
pub(crate) mod schema;
pub(crate) mod txns;
