//! The whole of it under a real kernel. Needs root and `/dev/fuse`.

mod follow_tests;
mod inode32_tests;
mod mount_tests;
