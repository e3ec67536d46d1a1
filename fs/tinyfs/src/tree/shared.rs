//! A node that the trees of several versions may share.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::tree::node::Node;

/// A node on the heap. Whoever changes one that others share gets a copy of its own first, to which nobody refers yet.
#[derive(Clone, Debug)]
pub(crate) struct SharedNode(Arc<Node>);

impl SharedNode {
    pub(crate) fn new(node: Node) -> Self {
        SharedNode(Arc::new(node))
    }

    /// Whether the two are one node in memory, which neither tree has changed.
    pub(crate) fn is_shared_with(&self, other: &SharedNode) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for SharedNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl DerefMut for SharedNode {
    fn deref_mut(&mut self) -> &mut Node {
        Arc::make_mut(&mut self.0)
    }
}
