//! The Steward: the one that commits.
//!
//! It holds the writer lock, takes consistent cuts of the tree and turns them into numbered transactions,
//! makes fsync durable, keeps the control table, and runs factories. It knows nothing of FUSE and of how rows are
//! stored.
#![warn(missing_docs)]

mod commit;
mod commit_log;
pub mod configuration;
mod control;
mod control_row;
mod courtesy;
mod drain;
mod end_process;
mod error;
mod evolve;
mod exec_log;
mod factory;
mod factory_pond;
#[cfg(test)]
mod faulty_log;
mod follow;
pub mod fsck;
mod fsync;
mod host_path;
mod housekeeper;
mod init;
mod ledger;
mod lock;
mod maintenance;
mod memory;
mod merges;
pub mod mount_table;
mod open;
mod paths;
mod post_commit;
mod priority;
mod progress;
mod promote;
mod replica;
mod replica_init;
mod replica_status;
mod reserve;
mod room;
pub mod settings;
mod status;
mod steward;
mod threads;
mod tight;
mod words;

pub use control::{REMOTE_CONFIG_KEY, TIMELINE_ID_KEY, role};
pub use error::{FactoryError, StewardError};
pub use exec_log::ExecLog;
pub use factory::{Factory, FactoryContext, REMOTE, Registry};
pub use factory_pond::FactoryPond;
pub use init::Found;
pub use lock::{LockHolder, lock_holder};
pub use maintenance::{MaintainEvent, MaintainOptions, MaintainReport, MaintainStep};
pub use open::OpenOptions;
pub use paths::ChangeWatcher;
pub use priority::Priority;
pub use replica::Replica;
pub use replica_status::{ManifestMark, ReplicaProgress, ReplicaState, ReplicaStatus, replica_status};
pub use status::{
    Budgets, FactoryStatus, HistoryStatus, JournalStatus, MemoryUse, Role, Sizes, State, Status, Uncommitted,
};
pub use steward::{RunReport, Steward, SyncReport};
pub use words::count;
