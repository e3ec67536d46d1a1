//! Statements as they are typed: understood, and what they name found in them.

pub(crate) mod arguments;
pub(crate) mod dialect;
pub(crate) mod references;
pub(crate) mod statement;
pub(crate) mod tokens;
pub(crate) mod when;
