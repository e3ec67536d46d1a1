//! A step from one version's tree to a later one's: the nodes that rows speak of, copied, with the rows replayed on them.

use std::collections::{HashMap, HashSet};

use crate::fold::{Fold, FoldError, wrong};
use crate::tree::node::{Body, Node};
use crate::tree::node_map::NodeMap;
use crate::tree::shared::SharedNode;
use crate::{EntryOp, Lsn, NodeId, Record, Row, Tree};

/// The names of a directory that rows speak of.
pub(crate) enum Touched {
    Names(HashSet<Box<[u8]>>),
    /// A snapshot came: any of them.
    All,
}

/// What a publish will put in place.
pub(crate) struct Step {
    /// The nodes that rows speak of, as they will be; those with no links end.
    pub(crate) nodes: NodeMap,
    /// The names that rows speak of, by directory.
    pub(crate) touched: HashMap<NodeId, Touched>,
    /// Files whose content rows speak of.
    pub(crate) content: HashSet<NodeId>,
    /// The last operation before and after.
    pub(crate) base: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) unstored_bytes: u64,
}

/// What rows change, copied to replay them on.
pub(crate) struct Copies {
    nodes: NodeMap,
    touched: HashMap<NodeId, Touched>,
    content: HashSet<NodeId>,
    /// The last operation before.
    base: Lsn,
}

impl Copies {
    /// Copies what the rows change.
    pub(crate) fn of(tree: &Tree, rows: &[Row]) -> Result<Self, FoldError> {
        let mut nodes = NodeMap::default();
        let mut content = HashSet::new();
        let mut touched: HashMap<NodeId, Touched> = HashMap::new();
        let base = tree.last_lsn;
        for row in rows {
            if row.lsn <= base {
                let message = format!("has a row of operation {}, which was published before", row.lsn);
                return Err(wrong(row.node, message));
            }
            match &row.record {
                Record::Entries(changes) => {
                    let names = touched.entry(row.node).or_insert_with(|| Touched::Names(HashSet::new()));
                    for change in changes {
                        match names {
                            _ if change.op == EntryOp::Reset => *names = Touched::All,
                            Touched::Names(names) => drop(names.insert(change.name.clone())),
                            Touched::All => {}
                        }
                    }
                }
                Record::Extent(_) | Record::Hole { .. } => drop(content.insert(row.node)),
                Record::Node(_) => {}
            }
        }
        for row in rows {
            if let Some(node) = tree.nodes.get(&row.node)
                && !nodes.contains_key(&row.node)
            {
                if node.nlink == 0 {
                    return Err(wrong(row.node, "has rows after its end".into()));
                }
                nodes.insert(row.node, SharedNode::new(copy(node, touched.get(&row.node))));
            }
        }
        Ok(Copies { nodes, touched, content, base })
    }

    /// Replays the rows on the copies.
    pub(crate) fn replay(self, rows: Vec<Row>, cut_lsn: Lsn) -> Result<Step, FoldError> {
        let Copies { nodes, touched, content, base } = self;
        let mut fold = Fold::onto(nodes, base.max(cut_lsn));
        for row in rows {
            fold.push(row);
        }
        let Tree { nodes, last_lsn, unstored_bytes, .. } = fold.replay()?;
        Ok(Step { nodes, touched, content, base, last_lsn, unstored_bytes })
    }
}

/// A node to replay rows on: all of it, or of a directory what rows speak of.
fn copy(node: &Node, touched: Option<&Touched>) -> Node {
    let body = match (&node.body, touched) {
        (Body::Directory(directory), None) => {
            Body::Directory(Box::new(directory.excerpt(std::iter::empty())))
        }
        (Body::Directory(directory), Some(Touched::Names(names))) => {
            Body::Directory(Box::new(directory.excerpt(names.iter().map(|name| &**name))))
        }
        (body, _) => body.clone(),
    };
    node.copy(body)
}
