//! A pond that is only read: one version of it, and what its settings say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pond_oplog::{At, CacheUse, HistoryFigures, Layout, Position, View, Views};
use pond_tinyfs::{Advise, TinyFs};

use crate::control::table::Control;
use crate::factories::nodes::FactoryNodes;
use crate::factories::progress::{Progress, newest_by_others};
use crate::host::memory;
use crate::upkeep::disk_use::DiskUse;
use crate::{
    Budgets, HistoryStatus, JournalStatus, MemoryUse, OpenOptions, Registry, State, Status, StewardError,
    Uncommitted, init,
};

/// The versions of a pond, to be opened as they are asked for; what they have in common is read once. Of the options only the cache's
/// budget matters.
pub fn versions(pond: &Path, options: &OpenOptions) -> Result<Views, StewardError> {
    init::refuse_unless_pond(pond)?;
    // Without its settings a pond is read with the default budget: whoever writes is told of the damage.
    let control = Control::open(pond, false).unwrap_or_else(|_| Control::unknown(pond));
    Ok(Views::new(pond, &options.log_options(&control)))
}

/// The pond's settings that are set, by name, as they are now.
pub fn settings_of(pond: &Path) -> Result<Vec<(String, String)>, StewardError> {
    Ok(Control::open(pond, false)?.select(None))
}

/// One version of a pond, and what the pond's settings are now. Opening one takes no lock, starts no thread, and writes nothing
/// but a pin; several may be open, also while another process writes.
pub struct Reader {
    pond: PathBuf,
    versions: Arc<Views>,
    view: Arc<View>,
    nodes: FactoryNodes,
    budgets: Budgets,
    notes: Vec<String>,
    disk: DiskUse,
}

impl Reader {
    /// Opens a version. Of the options only the cache's budget and the registry matter.
    pub fn open(pond: &Path, at: At, options: OpenOptions) -> Result<Arc<Reader>, StewardError> {
        init::refuse_unless_pond(pond)?;
        let (control, unreadable) = match Control::open(pond, false) {
            Ok(control) => (control, None),
            // Settings matter to those who write.
            Err(error) => (Control::unknown(pond), Some(error.in_full())),
        };
        let budgets = options.budgets(&control);
        let versions = Arc::new(Views::new(pond, &options.log_options(&control)));
        let view = versions.open(at)?;
        let notes = view.notes().iter().cloned().chain(unreadable).collect();
        let position = view.position();
        let progress = Progress::new(position, newest_by_others(pond, position.version));
        let nodes = FactoryNodes {
            fs: view.fs().clone(),
            control: Arc::new(control),
            registry: options.registry,
            progress: Arc::new(progress),
            is_fork: view.identity().origin.is_some(),
        };
        Ok(Arc::new(Reader {
            pond: pond.to_owned(),
            versions,
            view,
            nodes,
            budgets,
            notes,
            disk: DiskUse::default(),
        }))
    }

    /// `$POND`.
    pub fn pond(&self) -> &Path {
        &self.pond
    }

    /// The version.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The tree; changing it answers `EROFS`.
    pub fn fs(&self) -> &Arc<TinyFs> {
        self.view.fs()
    }

    /// The pond's versions, of which this is one: others that are opened there share its cache.
    pub fn versions(&self) -> &Arc<Views> {
        &self.versions
    }

    /// The version, and what its log entry says of it.
    pub fn position(&self) -> Position {
        self.view.position().clone()
    }

    /// The factories known.
    pub fn registry(&self) -> &Registry {
        &self.nodes.registry
    }

    /// One setting, or all, by name.
    pub fn control_get(&self, key: Option<&str>) -> Vec<(String, String)> {
        self.nodes.control.select(key)
    }

    /// Facts and figures of the version, and of the pond as it is now.
    pub fn status(&self) -> Status {
        let mut notes = self.notes.clone();
        let factories = self.nodes.status().unwrap_or_else(|error| {
            notes.push(error.in_full());
            Vec::new()
        });
        let HistoryFigures { files, bytes, floor } = self.view.history_figures();
        let CacheUse { pages, indexes } = self.view.cache_use();
        Status {
            pond_id: self.view.identity().pond_id.to_string(),
            path: self.pond.clone(),
            mode: self.nodes.control.known_role(),
            state: State::ReadOnly,
            read_only_because: self.nodes.control.superseded(),
            position: self.position(),
            nodes: self.fs().node_count(),
            uncommitted: Uncommitted::default(),
            commit_error: None,
            journal: JournalStatus::default(),
            budgets: self.budgets,
            memory: MemoryUse { resident: memory::resident(), content: 0, pages, indexes },
            sizes: self.disk.of(&self.pond),
            history: HistoryStatus {
                live_files: files,
                live_bytes: bytes,
                floor: floor.map(|floor| floor.version),
            },
            damage: self.view.damage_met(),
            factories,
            replica: None,
            notes,
            log_path: Layout::new(&self.pond).log_file(),
            pid: std::process::id(),
        }
    }
}
