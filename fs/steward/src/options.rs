//! How to open a pond.

use std::sync::Arc;
use std::time::Duration;

use pond_oplog::{Clock, Options, Origin};

use crate::control::settings::{CACHE_BUDGET_KEY, DIRTY_BUDGET_KEY};
use crate::control::table::Control;
use crate::host::memory::HugePages;
use crate::{Budgets, Registry};

/// How to open a pond.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Longest time from an operation to the start of the commit that holds it. Default 1 s.
    pub commit_interval: Duration,
    /// Budget of content that is accepted and not yet stored, bytes. `None`: the setting `dirty_budget`.
    pub dirty_budget: Option<u64>,
    /// Budget of the content cache in bytes. `None`: the setting `cache_budget`.
    pub cache_budget: Option<u64>,
    /// The factories known.
    pub registry: Registry,
    /// Who asks, for the commits' log entries; secrets must have been redacted.
    pub origin: Origin,
    /// How long to wait for another writer to end; `None` does not wait.
    pub wait_for_lock: Option<Duration>,
    /// Whether a replica that is opened brings versions in by itself; else only [`Steward::sync`](crate::Steward::sync) does. Default true.
    pub follow: bool,
    /// Whether data files are merged, pruned and cleaned in the background, which makes versions of its own; else only
    /// [`Steward::maintain`](crate::Steward::maintain) does. Default true.
    pub maintenance: bool,
    /// Whether factories run after commits; else what they owe is left for the next who opens the pond. Default true.
    pub factories: bool,
    /// What tells the time. Default: the machine.
    pub clock: Arc<Clock>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions {
            commit_interval: Duration::from_secs(1),
            dirty_budget: None,
            cache_budget: None,
            registry: Registry::default(),
            origin: Origin::mount(),
            wait_for_lock: None,
            follow: true,
            maintenance: true,
            factories: true,
            clock: Clock::of_the_machine(),
        }
    }
}

impl OpenOptions {
    fn cache_bytes(&self, control: &Control) -> u64 {
        self.cache_budget.unwrap_or_else(|| control.size(CACHE_BUDGET_KEY))
    }

    /// The budgets of memory, which is had without huge pages from now on.
    pub(crate) fn budgets(&self, control: &Control) -> Budgets {
        HugePages::without();
        let dirty = self.dirty_budget.unwrap_or_else(|| control.size(DIRTY_BUDGET_KEY));
        Budgets { dirty, cache: self.cache_bytes(control) }
    }

    pub(crate) fn log_options(&self, control: &Control) -> Options {
        Options { cache_bytes: self.cache_bytes(control), clock: self.clock.clone(), ..Options::default() }
    }
}
