//! Ships a pond to a backup store, and brings it back.
//!
//! The factory [`Remote`] pushes each commit of a source (bundle, then manifest, then HEAD) and pulls on a replica. What
//! lies in the store, and why, is in this crate's README; [`format`] has it as types.
#![warn(missing_docs)]

pub mod config;
mod error;
mod fetch;
pub mod format;
mod history;
mod inspect;
mod progress;
mod push;
mod remote;
mod replica;
pub mod store;

pub use error::{ReplicateError, StoreError};
pub use history::tip::Shortfall;
pub use inspect::{
    BundleFact, Description, Facts, Flaw, Found, Inspector, Level, Listed, Place, Severity, Subset, Verify,
    VerifyReport,
};
pub use progress::{NoProgress, Progress};
pub use remote::Remote;
pub use replica::init::{InitOptions, Restored, init_from_backup, init_from_store};
pub use replica::older::{Filled, fill_in, fill_in_from_store};
pub use replica::promote::{ClaimedTimeline, promote, promote_in_store};
pub use replica::restore::Backup;
