//! Ends the process where going on after a panic could commit a half-changed tree.

/// While it lives, a panic of this thread ends the process; the journal recovers at the next open.
pub(crate) struct EndProcessOnPanic(
    /// What was being done, for the log.
    pub(crate) &'static str,
);

impl Drop for EndProcessOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                during = self.0,
                "panicked; ending the process so that nothing half-done is committed"
            );
            std::process::abort();
        }
    }
}
