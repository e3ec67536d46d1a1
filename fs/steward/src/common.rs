//! What an open pond has, whether it makes versions or follows another's.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;
use pond_oplog::OpLog;
use pond_tinyfs::TinyFs;

use crate::Budgets;
use crate::control::table::Control;
use crate::factories::runner::Runner;
use crate::paths::ChangeWatcher;
use crate::upkeep::cleaner::Cleaner;
use crate::upkeep::housekeeper::Housekeeper;

/// What an open pond has, whether it makes versions or follows another's.
pub(crate) struct Common {
    pub(crate) pond: PathBuf,
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) control: Arc<Control>,
    pub(crate) post_commit: Arc<Runner>,
    pub(crate) cleaner: Arc<Cleaner>,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) watcher: Arc<RwLock<Option<ChangeWatcher>>>,
    pub(crate) budgets: Budgets,
    /// Whether maintenance runs in the background.
    pub(crate) maintained: bool,
    /// Whether factories run after commits.
    pub(crate) factories_run: bool,
}
