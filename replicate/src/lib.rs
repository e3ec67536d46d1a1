//! Ships a pond to a backup store, and brings it back.
//!
//! The factory [`Remote`] pushes each commit of a source (bundle, then manifest, then HEAD) and pulls on a replica. What
//! lies in the store, and why, is in this crate's README; [`format`] has it as types.
#![warn(missing_docs)]

mod base;
mod bundle;
mod chain;
pub mod config;
mod copy;
mod download;
mod error;
mod fetch;
mod find;
pub mod format;
mod init;
mod lineage;
mod meter;
mod older;
mod pack;
mod plan;
mod progress;
mod promote;
mod pull;
mod push;
mod remote;
mod restore;
mod staged_pack;
pub mod store;
mod timeline;
mod tip;
mod unbundle;
mod verify;
mod workers;

pub use error::{ReplicateError, StoreError};
pub use init::{InitOptions, Restored, init_from_backup, init_from_store};
pub use older::{Filled, fill_in, fill_in_from_store};
pub use progress::{NoProgress, Progress};
pub use promote::{ClaimedTimeline, promote, promote_in_store};

pub use remote::Remote;
pub use restore::Backup;
pub use tip::Shortfall;
