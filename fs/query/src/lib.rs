//! SQL over the files of a pond, and over its history: DataFusion, reading versions without a mount.
#![warn(missing_docs)]

mod content;
mod error;
mod output;
mod session;
mod sql;
mod tables;
mod world;

pub use arrow::array::RecordBatch as Batch;
pub use content::format::Format;
pub use content::pattern::{Pattern, Positions, is_pattern};
pub use content::store::PondStore;
pub use error::QueryError;
pub use output::{OutputFormat, OutputOptions, WriteError, Writer};
pub use session::{Answer, Options, Session};
pub use sql::statement::{Copy, Statement, parse};
pub use world::{Pond, Settings};
