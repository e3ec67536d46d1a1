//! Rows, journal, Parquet and Delta commits: the only code that touches the Delta table.
#![warn(missing_docs)]

mod clock;
mod disk;
mod error;
mod exchange;
mod files;
pub mod fsck;
mod journal;
mod log;
mod oplog;
mod parallel;
mod rows;
mod upkeep;
mod versions;

pub use clock::{Clock, Doubt, Now, Reading};
pub use disk::durable::{Existing, is_temporary, write_durably};
pub use disk::layout::Layout;
pub use disk::pin::Pin;
pub use disk::recorder::Step;
#[cfg(debug_assertions)]
pub use disk::recorder::{FAILPOINT, Recording};
pub use disk::store::DurableStore;
pub use disk::{durable, exclusive_names};
pub use error::OpLogError;
pub use exchange::export::{
    EntryFacts, LiveFiles, VersionFiles, checkpoint_bytes, entry_facts, live_files, schema_fingerprint,
    version_files,
};
pub use exchange::file_ref::FileRef;
pub use exchange::follow::{Ahead, ReadAhead};
pub use exchange::incoming::{Incoming, IncomingVersion};
pub use exchange::staging::StagedFile;
pub use files::content::CacheUse;
pub use files::damage::{DamageMet, DamagedPlace};
pub use journal::error::JournalError;
pub use journal::writer::{Journal, JournalSize};
pub use log::at::{At, AtError, SHOWN_TIME, TIMES};
pub use log::delta::{checkpoint_name, entry_name};
pub use log::floor::Floor;
pub use log::followed::HistoryFigures;
pub use log::format::may_write;
#[cfg(debug_assertions)]
pub use log::format::{Pretended, pretend_to_know};
pub use log::history::{CommitInfo, changes, history, history_of, tagged};
pub use log::position::{Identity, Origin, PondId, Position, Timeline, TxnSeq, Version};
pub use log::retained::{Kept, Retained};
pub use log::table::{DeltaTable, Salvaged};
pub use log::tags::{BadTagName, TagName};
pub use oplog::commit::Committed;
pub use oplog::drain::Drained;
pub use oplog::evolve::Growth;
pub use oplog::fork::{Amount, Forked};
pub use oplog::open::{Opened, Options};
pub use oplog::{OpLog, Pause};
pub use upkeep::clean::{CleanOptions, CleanReport};
pub use upkeep::merge::MergeLimits;
pub use upkeep::prune::PruneReport;
pub use upkeep::rewrite::{Rewrite, Rewritten};
pub use upkeep::sweep::SweepReport;
pub use versions::cost::{Cost, PathCost};
pub use versions::difference::{Attribute, Change, Difference, Side};
pub use versions::lives::Life;
pub use versions::names::Link;
pub use versions::past::{Became, Event, Gone, Past};
pub use versions::view::View;
pub use versions::views::Views;
