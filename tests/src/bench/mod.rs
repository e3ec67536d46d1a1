//! What the benchmarks share: filesystems that are measured in turn, what is done to them, and what came of it.
//!
//! A measurement does one thing to one [`Contender`] and gives [`Figure`]s, all of them rates. Whoever runs it notes them
//! in a [`Table`], which prints medians and ratios, keeps them as JSON, and is drawn by [`chart`].

pub mod appends;
pub mod backup;
pub mod bulk;
pub mod chart;
pub mod contender;
pub mod large_file;
pub mod machine;
pub mod metadata;
pub mod scan;
pub mod table;

pub use contender::Contender;
pub use machine::{HOURS, drop_caches, pin};
pub use table::{Figure, Group, Row, Table};
