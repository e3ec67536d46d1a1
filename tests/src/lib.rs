//! What the end-to-end tests and the benchmarks share: ponds that are made, mounted, killed and cleaned up.
//!
//! Everything here goes through the `pond` program and the kernel, as a user does; nothing links pond's own
//! crates. A tool that is missing fails the test that needs it, with the command that installs it: no test
//! skips itself quietly. Nothing waits without a bound, and whatever a test leaves behind (mounts, daemons, directories)
//! goes when its [`TestPond`] is dropped, also in a panic.

pub mod bench;
pub mod binary;
pub mod cgroup;
pub mod command;
pub mod content;
pub mod disk;
pub mod helpers;
pub mod measure;
pub mod passthrough;
pub mod pond;
pub mod postgres;
pub mod processes;
pub mod proxy;
pub mod s3;
pub mod scale;
pub mod tools;
pub mod tree;
pub mod wait;

pub use binary::pond_binary;
pub use command::{Finished, run, succeed, unmount};
pub use content::Random;
pub use pond::TestPond;
pub use wait::wait_until;
