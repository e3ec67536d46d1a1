//! The Steward: the one that commits.
//!
//! It holds the writer lock, takes consistent cuts of the tree and turns them into numbered transactions,
//! makes fsync durable, keeps the control table, and runs factories. It knows nothing of FUSE and of how rows are
//! stored.
#![warn(missing_docs)]

mod assembly;
mod commit;
mod common;
mod control;
mod error;
mod factories;
mod host;
mod init;
mod kind;
mod open;
mod options;
mod pacing;
mod paths;
mod plural;
mod reader;
mod replica;
mod scratch;
mod source;
mod status;
mod steward;
mod tag_change;
mod threads;
mod transaction;
mod upkeep;

pub use control::keys::{REMOTE_CONFIG_KEY, TIMELINE_ID_KEY};
pub use control::settings;
pub use control::table::role;
pub use error::StewardError;
pub use factories::configuration;
pub use factories::error::FactoryError;
pub use factories::exec_log::ExecLog;
pub use factories::factory::{Derive, Factory, FactoryContext, PostCommit, VersionSource};
pub use factories::pond::FactoryPond;
pub use factories::registry::Registry;
pub use host::lock::lock_holder;
pub use host::lock_holder::LockHolder;
pub use host::memory::{leave_huge_pages, limit as memory_limit};
pub use host::mount_table;
pub use host::priority::Priority;
pub use init::Found;
pub use options::OpenOptions;
pub use paths::ChangeWatcher;
pub use plural::count;
pub use reader::{Reader, settings_of, versions};
pub use replica::incoming::Replica;
pub use replica::status::{ManifestMark, ReplicaProgress, ReplicaState, ReplicaStatus, replica_status};
pub use scratch::Scratch;
pub use status::{
    Budgets, FactoryStatus, HistoryStatus, JournalStatus, MemoryUse, Role, Sizes, State, Status, Uncommitted,
};
pub use steward::{RunReport, Steward, SyncReport};
pub use tag_change::TagChange;
pub use transaction::TransactionEnd;
pub use upkeep::fsck;
pub use upkeep::report::{MaintainEvent, MaintainOptions, MaintainReport, MaintainStep};
