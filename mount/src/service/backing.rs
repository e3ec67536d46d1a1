//! What the adapter needs from below: the tree, durability, room to write, and what the virtual files say.

use pond_tinyfs::{Error, TinyFs};

use crate::inodes::content::Content;

/// Called once, from whatever thread, when everything received so far is durable or cannot be made so.
pub(crate) type Done = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A tree and those who look after it. The Steward's is in `session.rs`, that of the tests is in memory.
pub(crate) trait Backing: Send + Sync + 'static {
    /// The tree.
    fn fs(&self) -> &TinyFs;

    /// Whether others' changes are published to the tree: names may come without the kernel's doing.
    fn follows(&self) -> bool;

    /// Makes everything received so far durable; does not wait for it, but with `here`: then it may, for a small write to the
    /// disk.
    fn fsync(&self, done: Done, here: bool);

    /// Whether a write may go ahead now.
    fn has_room(&self) -> bool;

    /// Does what brings so many bytes, once it may.
    fn when_room<T>(&self, bytes: u64, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error>;

    /// What a file in `.pond/` says now. May block.
    fn content(&self, file: Content) -> Vec<u8>;
}
