//! The crate as a program of tests, with those that mount: under a real kernel, as root and with `/dev/fuse`.
//!
//! `cargo test --test kernel kernel_tests`. They look into the crate, so its modules are compiled here once more, and its other
//! tests run here too; those of the library alone need neither.
#![allow(dead_code, unused_imports)] // What only other crates use.

mod adapter;
mod coherence;
mod control;
mod daemon;
mod error;
mod inodes;
mod kernel_tests;
mod mounting;
mod service;

pub use control::client;
pub use control::protocol::{Request, RequestError};
pub use daemon::mount_foreground;
pub use daemon::ready::{Progress, Ready, mount_daemon};
pub use error::MountError;
pub use mounting::busy_process::BusyProcess;
pub use mounting::mount_info::{Mount, mount_of_current_directory, mounts, mounts_of};
pub use mounting::options::{MountOptions, VersionsOption};
pub use mounting::remount::{Remounted, remount};
pub use mounting::unmount::{UnmountReport, unmount};
