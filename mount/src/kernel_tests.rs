//! The whole of it under a real kernel. Needs root and `/dev/fuse`.

mod attribute_tests;
mod content_tests;
mod follow_tests;
mod harness;
mod inode32_tests;
mod listing_tests;
mod names_tests;
mod versions_tests;
