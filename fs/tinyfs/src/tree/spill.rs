//! Content of unlinked files that are still open, and of all files of a scratch: no row will tell of it, so it goes to spill files.

use std::ops::Bound;

use bytes::Bytes;

use crate::tree::node::{Body, Content, Node};
use crate::{Lsn, NodeId, Tree};

/// Bytes of such a file on their way to its spill file.
#[derive(Debug)]
pub(crate) struct Spilling {
    /// The file.
    pub(crate) node: NodeId,
    /// The persistence layer's number of its spill file, if it has one already.
    pub(crate) spill: Option<u32>,
    /// Offset, bytes and last operation of each extent.
    pub(crate) pieces: Vec<(u64, Bytes, Lsn)>,
}

impl Spilling {
    /// How many they are.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, data, _)| data.len() as u64).sum()
    }
}

impl Tree {
    fn rowless_content(&mut self, id: NodeId) -> Option<&mut Content> {
        let is_rowless = self.nodes.get(&id).is_some_and(|node| self.is_rowless(node));
        match self.nodes.get_mut(&id).filter(|_| is_rowless).map(|node| &mut **node) {
            Some(Node { body: Body::File(content), .. }) => Some(content),
            _ => None,
        }
    }

    /// Takes one of the files that have open bytes out of their set: after the last one, so that one that cannot be
    /// spilled keeps none of the others in memory.
    fn next_unlinked(&mut self) -> Option<NodeId> {
        let after = self.last_unlinked.map_or(Bound::Unbounded, Bound::Excluded);
        let next =
            self.unlinked.range((after, Bound::Unbounded)).next().or(self.unlinked.first()).copied()?;
        self.unlinked.remove(&next);
        self.last_unlinked = Some(next);
        Some(next)
    }

    /// Takes the open bytes of the next file that has any, to be written to its spill file.
    pub(crate) fn take_for_spill(&mut self) -> Option<Spilling> {
        while let Some(node) = self.next_unlinked() {
            let Some(content) = self.rowless_content(node) else { continue };
            let opened = content.pending.as_mut().map(|pending| std::mem::take(&mut pending.opened));
            let pieces = content.extents.hold_open(opened.unwrap_or_default());
            if pieces.is_empty() {
                continue;
            }
            let spill = content.pending.as_ref().and_then(|pending| pending.spill);
            let spilling = Spilling { node, spill, pieces };
            self.spilling_bytes = spilling.bytes();
            self.unlinked_bytes = self.unlinked_bytes.saturating_sub(self.spilling_bytes);
            return Some(spilling);
        }
        None
    }

    /// Notes that these bytes are in this spill file. False if the node is gone, and the spill file without use.
    pub(crate) fn spilled(&mut self, spilling: &Spilling, spill: u32) -> bool {
        self.spilling_bytes = 0;
        let Some(content) = self.rowless_content(spilling.node) else { return false };
        content.pending.get_or_insert_default().spill = Some(spill);
        for (offset, data, lsn) in &spilling.pieces {
            content.extents.settle_spilled(*offset, data.len() as u32, *lsn, spill);
        }
        true
    }

    /// Takes bytes back that could not be spilled. False if the node is gone.
    pub(crate) fn not_spilled(&mut self, spilling: &Spilling) -> bool {
        self.spilling_bytes = 0;
        let Some(content) = self.rowless_content(spilling.node) else { return false };
        // What came meanwhile is counted already.
        let (mut opened, mut bytes) = (Vec::new(), 0);
        for (offset, data, lsn) in &spilling.pieces {
            bytes += content.extents.reopen(*offset, data.len() as u32, *lsn, &mut opened);
        }
        content.note_opened(opened);
        self.unlinked_bytes += bytes;
        self.unlinked.insert(spilling.node);
        true
    }
}
