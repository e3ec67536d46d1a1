//! What ends the process rather than let a half-made change be committed.

/// Ends the process if the work panics: a change cut off half-way must not be committed, and the journal recovers.
pub(crate) fn guarded<T>(work: impl FnOnce() -> T) -> T {
    struct AbortOnUnwind;
    impl Drop for AbortOnUnwind {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let _guard = AbortOnUnwind;
    work()
}
