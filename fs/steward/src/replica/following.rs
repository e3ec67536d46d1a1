//! What an open pond has that follows another: it brings versions in, and nothing that would make any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::replica::follow::Follower;

/// Why a replica takes no writes.
const FOLLOWS: &str = "it is a replica, and follows its backup store (factory_mode:remote is pull)";

/// Why a pond takes none that was just promoted.
const PROMOTED: &str = "it was promoted and is a source now: open it again to write to it";

/// What an open pond has that follows another.
pub(crate) struct Following {
    pub(crate) follower: Arc<Follower>,
    promoted: AtomicBool,
}

impl Following {
    pub(crate) fn new(follower: Arc<Follower>) -> Self {
        Following { follower, promoted: AtomicBool::new(false) }
    }

    /// Who brings versions in; nobody once it was promoted.
    pub(crate) fn follower(&self) -> Option<&Arc<Follower>> {
        (!self.promoted.load(Ordering::Acquire)).then_some(&self.follower)
    }

    /// It is a source from now on, of which nothing comes in and which takes writes once it was opened again.
    pub(crate) fn set_promoted(&self) {
        self.promoted.store(true, Ordering::Release);
    }

    /// Why it takes no writes.
    pub(crate) fn refusal(&self) -> &'static str {
        if self.promoted.load(Ordering::Acquire) { PROMOTED } else { FOLLOWS }
    }
}
