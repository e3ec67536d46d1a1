//! Telling somebody how far a long transfer has got.

/// Is told about a long transfer, and may end it.
pub trait Progress: Send + Sync {
    /// Something of this many bytes begins; what began before has ended.
    fn begin(&self, what: &str, total_bytes: u64);

    /// So many more bytes are done.
    fn advance(&self, bytes: u64);

    /// It turned out that so many bytes more belong to it: the total that [`begin`](Self::begin) was told grows.
    fn expect(&self, _more_bytes: u64) {}

    /// It is done, or has failed.
    fn end(&self);

    /// Whether the user wants to stop. What was transferred stays and is not transferred again.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}
