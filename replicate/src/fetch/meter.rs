//! How far a transfer has got, and whether it is to stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pond_steward::Replica;

use crate::{Progress, ReplicateError};

/// Whether to stop is looked at so often.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// Counts what comes, for the user and for the replica's status.
pub(crate) struct Meter<'a> {
    progress: &'a dyn Progress,
    /// The one into which it comes; none where nothing is taken in.
    replica: Option<&'a Replica>,
    done: AtomicU64,
    total: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, replica: &'a Replica) -> Self {
        Meter { replica: Some(replica), ..Meter::of_reading(progress) }
    }

    /// For what is only read.
    pub(crate) fn of_reading(progress: &'a dyn Progress) -> Self {
        Meter { progress, replica: None, done: AtomicU64::new(0), total: AtomicU64::new(0) }
    }

    /// Something of this many bytes begins.
    pub(crate) fn begin(&self, what: &str, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.progress.begin(what, bytes);
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.progress.end();
    }

    /// It turned out to be so many bytes more.
    pub(crate) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
        self.progress.expect(bytes);
    }

    /// So many bytes came.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.progress.advance(bytes);
    }

    /// Bytes that came, and those that are known to be needed.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.total.load(Ordering::Relaxed).max(done))
    }

    /// Whether the user or the process wants to end.
    pub(crate) fn stopping(&self) -> bool {
        self.replica.is_some_and(Replica::stopping) || self.progress.cancelled()
    }

    /// Does something unless it is to stop.
    pub(crate) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, ReplicateError>>,
    ) -> Result<T, ReplicateError> {
        tokio::select! {
            result = work => result,
            () = until(|| self.stopping()) => Err(self.stopped()),
        }
    }

    /// The error of a run that was stopped.
    pub(crate) fn stopped(&self) -> ReplicateError {
        let position = self.replica.and_then(Replica::position);
        let at = position.map_or_else(|| "none yet".to_owned(), |position| position.version.to_string());
        ReplicateError::Stopped { at }
    }
}

/// Waits until something is so.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(STOP_CHECK).await;
    }
}
