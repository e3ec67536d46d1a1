//! Decoders that panic on some damaged bytes, made to fail instead.

/// Runs what panics where it should fail, which is an error here: a Parquet decoder on some damaged bytes.
pub(crate) fn unpanicked<T>(decode: impl FnOnce() -> T) -> Result<T, String> {
    // What the closure leaves half-done is dropped with it: caches take in only what is whole.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode)).map_err(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        format!("a library gave up: {}", message.unwrap_or_default())
    })
}
