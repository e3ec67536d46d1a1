//! Mounts a pond: FUSE requests in, TinyFS calls out, and the daemon around them.
//!
//! [`mount_foreground`] serves a mount until it ends, [`mount_daemon`] does so in the background,
//! [`unmount`] ends one, and [`client`] talks to the daemon of a mounted pond over its control socket.
//! The adapter itself is thin: what a file is and may do is TinyFS's, what is durable is the Steward's.
#![warn(missing_docs)]

mod abort;
mod adapter;
mod backing;
mod busy;
mod coherence;
mod convert;
mod daemon;
mod error;
#[cfg(test)]
mod follow_tests;
mod fusermount;
mod log_file;
mod mount_info;
mod mount_point;
#[cfg(test)]
mod mount_tests;
mod options;
mod protocol;
mod readahead;
mod readers;
mod ready;
mod remount;
mod reply;
mod server;
mod session;
mod stale;
mod unmount;
mod virtual_files;

pub mod client;

pub use busy::BusyProcess;
pub use daemon::mount_foreground;
pub use error::MountError;
pub use mount_info::{Mount, mounts, mounts_of, pond_of_current_directory};
pub use options::MountOptions;
pub use protocol::{Request, RequestError};
pub use ready::{Progress, Ready, mount_daemon};
pub use remount::{Remounted, remount};
pub use unmount::{UnmountReport, unmount};
