//! Rows, journal, Parquet and Delta commits: the only code that touches the Delta table.
#![warn(missing_docs)]

mod action;
mod checkpoint;
mod clean;
mod clock;
mod content;
mod content_column;
mod damage;
mod data_file;
mod decode;
mod delta;
mod drain;
pub mod durable;
mod encode;
mod entries;
mod error;
mod evolve;
pub mod exclusive_names;
mod export;
mod facts;
mod floor;
mod follow;
mod followed;
mod format;
mod frame;
pub mod fsck;
mod history;
mod incoming;
mod journal;
mod layout;
mod live;
mod load;
mod merge;
mod oplog;
mod page;
mod page_index;
mod parallel;
mod pieces;
mod pin;
mod placing;
mod position;
mod prune;
mod quarantine;
mod reading;
mod recorder;
mod recovery;
mod rewrite;
mod row_bytes;
mod row_group;
#[cfg(test)]
mod samples;
mod schema;
mod sink;
mod snapshot;
mod space;
mod spill;
mod staging;
mod store;
mod superseded;
mod sweep;
mod table;
mod txns;

pub use clean::{CleanOptions, CleanReport};
pub use clock::{Clock, Doubt, Now, Reading};
pub use content::CacheUse;
pub use damage::{DamageMet, DamagedPlace};
pub use delta::{checkpoint_name, entry_name};
pub use drain::Drained;
pub use durable::{Existing, is_temporary, write_durably};
pub use error::OpLogError;
pub use evolve::Growth;
pub use export::{
    EntryFacts, FileRef, LiveFiles, VersionFiles, checkpoint_bytes, entry_facts, live_files,
    schema_fingerprint, version_files,
};
pub use floor::Floor;
pub use follow::Ahead;
pub use followed::HistoryFigures;
pub use format::may_write;
#[cfg(debug_assertions)]
pub use format::{Pretended, pretend_to_know};
pub use history::{CommitInfo, changes, history, history_of};
pub use incoming::{Incoming, IncomingVersion};
pub use journal::{Journal, JournalError, JournalSize};
pub use layout::Layout;
pub use merge::MergeLimits;
pub use oplog::{Committed, OpLog, Opened, Options, Pause};
pub use pin::Pin;
pub use position::{At, Identity, Origin, PondId, Position, TxnSeq, Version};
pub use prune::PruneReport;
pub use recorder::Step;
#[cfg(debug_assertions)]
pub use recorder::{FAILPOINT, Recording};
pub use rewrite::{Rewrite, Rewritten};
pub use staging::StagedFile;
pub use store::DurableStore;
pub use sweep::SweepReport;
pub use table::{DeltaTable, Salvaged};
