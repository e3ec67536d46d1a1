//! Ids that lookups gave out, on a tree that others' changes are published to.
//!
//! There a regular file's id stands for one version of its content. A publish that changes the content of a file that
//! somebody refers to keeps the old node, frozen, under the id that it had, and shows the file under a new one. A
//! tree that never published has none of this and pays for none of it: each node is shown under its own id.

use crate::NodeId;
use crate::tree::node_map::{IdMap, NodeMap};

/// Ids that differ from those of their nodes.
#[derive(Debug, Default)]
pub(crate) struct Inos {
    /// Ids under which nodes are shown, where those are not their own, and the nodes' own.
    pub(crate) node_ids: IdMap<NodeId>,
    /// Old versions that somebody still refers to, by the id that they had.
    pub(crate) frozen: NodeMap,
}
