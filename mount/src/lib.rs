//! Mounts a pond: FUSE requests in, TinyFS calls out, and the daemon around them.
//!
//! [`mount_foreground`] serves a mount until it ends, [`mount_daemon`] does so in the background,
//! [`unmount`] ends one, and [`client`] talks to the daemon of a mounted pond over its control socket.
//! The adapter itself is thin: what a file is and may do is TinyFS's, what is durable is the Steward's.
#![warn(missing_docs)]

mod adapter;
mod coherence;
mod control;
mod daemon;
mod error;
mod inodes;
mod mounting;
mod service;
pub mod transaction;

pub use control::client;
pub use control::protocol::{Published, PublishedConflict, Request, RequestError};
pub use daemon::mount_foreground;
pub use daemon::ready::{Progress, Ready, mount_daemon};
pub use daemon::transaction::serve_transaction;
pub use error::MountError;
pub use mounting::busy_process::BusyProcess;
pub use mounting::mount_info::{Mount, mount_of_current_directory, mounts, mounts_of};
pub use mounting::options::{MountOptions, VersionsOption};
pub use mounting::remount::{Remounted, remount};
pub use mounting::unmount::{UnmountReport, unmount};
