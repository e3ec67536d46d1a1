//! Where a command's paths lead: one trait for trees of files, and what holds for all of them.
//!
//! ```text
//! PATH    pond mounted      HostTree below the mountpoint   (the kernel, then the daemon)
//! PATH    not mounted       DirectTree over the Steward     (writer's lock if it changes something)
//! PATH@V                    DirectTree, opened read-only at version V
//! host:   anything          HostTree of /
//! ```
//!
//! Inside a pond symlinks lead to the same place in each of these, absolute ones from the pond's root:
//! [`FileTree::resolve`] follows them itself, and operations get paths that hold none.

mod direct;
mod file_tree;
mod host;
mod owners;
mod pond;

pub use direct::DirectTree;
pub use file_tree::{Destination, FileTree, Identity, Sink, Source, Stat};
pub use host::HostTree;
pub use owners::Owners;
pub use pond::{Access, Daemon, Pond, State};
