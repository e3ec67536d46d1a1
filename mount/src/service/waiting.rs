//! Threads for work that may wait for long: for room, for the disk, for the kernel.

use crate::service::abort::guarded;

/// The threads. There are as many as there is work that waits, up to the runtime's limit.
#[derive(Clone)]
pub(crate) struct Waiting(tokio::runtime::Handle);

impl Waiting {
    /// Those of this runtime that may block.
    pub(crate) fn new(runtime: tokio::runtime::Handle) -> Self {
        Waiting(runtime)
    }

    /// Does this on one of the threads.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.0.spawn_blocking(move || guarded(work));
    }
}
