//! What whoever cached the tree must be told after a publish.

use crate::NodeId;

/// What a kernel that cached the tree before a change must be told. Ids are those that lookups gave out.
///
/// To be told in the order in which they come: a directory's names before the name of the directory.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Stale {
    /// The name no longer stands for `child`: it was removed, replaced, or its content is a new version under a new
    /// id. Whether anything else leads to `child`, [`TinyFs::has_name`](crate::TinyFs::has_name) knows.
    Name {
        /// The directory.
        parent: NodeId,
        /// The name in it.
        name: Box<[u8]>,
        /// What the name stood for.
        child: NodeId,
    },
    /// Attributes of the node changed.
    Attributes(NodeId),
    /// Entries of the directory changed: cached listings are old.
    Listing(NodeId),
}
