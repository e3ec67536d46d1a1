//! What the adapter needs from below: the tree, durability, room to write, and what the virtual files say.

use std::sync::Arc;

use pond_oplog::At;
use pond_tinyfs::{Error, Timestamp, TinyFs};

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

    /// The tree by which permissions are judged that old versions give: what is there now. None where nobody keeps it up to date.
    fn now(&self) -> Option<&TinyFs>;

    /// Opens a version; says its number. It is kept for as long as its tree is held. May block.
    ///
    /// # Errors
    ///
    /// `ENOENT` for what there is not, or not any more.
    fn version(&self, at: At) -> Result<(u64, Arc<TinyFs>), Error>;

    /// The numbers of so many of the newest versions, oldest first. May block.
    fn versions(&self, count: usize) -> Result<Vec<u64>, Error>;

    /// When there last came a version.
    fn versions_changed(&self) -> Timestamp;

    /// Lets go of versions that nobody has held for a while.
    fn let_go_of_versions(&self);

    /// What a file in `.pond/` says now. May block.
    fn content(&self, file: Content) -> Vec<u8>;
}
