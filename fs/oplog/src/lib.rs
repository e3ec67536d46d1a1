//! Rows, journal, Parquet and Delta commits: the only code that touches the Delta table.
#![warn(missing_docs)]

mod action;
mod checkpoint;
mod content;
mod data_file;
mod decode;
mod delta;
mod durable;
mod encode;
mod entries;
mod error;
mod frame;
mod history;
mod journal;
mod layout;
mod load;
mod oplog;
mod position;
mod recovery;
#[cfg(test)]
mod samples;
mod schema;
mod snapshot;
mod space;
mod spill;
mod store;
mod sweep;
mod table;

pub use durable::{Existing, write_durably};
pub use error::OpLogError;
pub use history::{CommitInfo, changes, history};
pub use journal::{Journal, JournalError, JournalSize};
pub use layout::Layout;
pub use oplog::{Committed, OpLog, Opened, Options};
pub use position::{At, Identity, Origin, PondId, Position, TxnSeq, Version};
pub use store::DurableStore;
pub use sweep::SweepReport;
pub use table::DeltaTable;
