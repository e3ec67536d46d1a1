//! Factories: what one is, what it may do, and running those that are due after commits.

pub mod configuration;
pub(crate) mod error;
pub(crate) mod exec_log;
pub(crate) mod factory;
pub(crate) mod host_path;
pub(crate) mod nodes;
pub(crate) mod pond;
pub(crate) mod progress;
pub(crate) mod registry;
pub(crate) mod runner;
