//! The factories that this program knows.

use std::sync::Arc;

use pond_replicate::{Progress, Remote};
use pond_steward::Registry;

/// The Steward's own, and `remote`, which tells `progress` of long pushes.
pub fn all(progress: Arc<dyn Progress>) -> Registry {
    let mut registry = Registry::default();
    registry.register(Arc::new(Remote::with_progress(progress)));
    registry
}
