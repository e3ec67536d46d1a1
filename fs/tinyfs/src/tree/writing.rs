//! Changes of a file's content, and the accounts of the bytes that wait to be stored.

use bytes::Bytes;

use crate::tree::extent::Extent;
use crate::tree::extent_map::ExtentMap;
use crate::tree::node::PendingHole;
use crate::{Errno, ExtentContent, ExtentRecord, Lsn, NodeId, Record, Row, Tree};

impl Tree {
    /// Writes bytes into a file and keeps the accounts. The file exists and is one.
    pub(crate) fn put(&mut self, id: NodeId, offset: u64, data: &[u8], lsn: Lsn) -> Result<(), Errno> {
        let orphan = self.is_rowless(self.get(id)?);
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        let content = node.content_mut()?;
        let mut opened = Vec::new();
        let change = content.extents.write(offset, data, lsn, &mut opened);
        content.allocated = content.allocated.saturating_add_signed(change.allocated);
        content.note_opened(opened);
        if orphan {
            self.unlinked_bytes = self.unlinked_bytes.saturating_add_signed(change.open);
            if change.open > 0 {
                self.unlinked.insert(id);
            }
        } else {
            self.uncut_bytes = self.uncut_bytes.saturating_add_signed(change.open);
        }
        Ok(())
    }

    /// Puts bytes into a file of which the next cut has a row: they are shared with it, not copied. They cross no multiple of
    /// [`MAX_EXTENT`](crate::MAX_EXTENT), the file has a name, and nothing else changes before that cut.
    pub(crate) fn put_row(&mut self, id: NodeId, offset: u64, data: Bytes, lsn: Lsn) -> Result<(), Errno> {
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        let (part, version) = (node.part, u64::from(node.version) + 1);
        let content = node.content_mut()?;
        let length = data.len() as u32;
        let mut opened = Vec::new();
        let change = content.extents.carve(offset, offset + u64::from(length), &mut opened);
        content.note_opened(opened);
        let grown = change.allocated + i64::from(length);
        content.allocated = content.allocated.saturating_add_signed(grown);
        // The cut numbers the row, and says so here.
        content.extents.insert(offset, Extent::held(data.clone(), lsn, 0));
        self.uncut_bytes = self.uncut_bytes.saturating_add_signed(change.open + i64::from(length));
        let record = Record::Extent(ExtentRecord { offset, length, content: ExtentContent::Memory(data) });
        self.rows.push(Row { part, node: id, lsn, seq: 0, version, timestamp: 0, record });
        Ok(())
    }

    /// Gives open extents of so many bytes to a file in the place of those that it has, and keeps the accounts.
    pub(crate) fn exchange(
        &mut self,
        id: NodeId,
        extents: ExtentMap,
        opened: Vec<u64>,
        bytes: u64,
        lsn: Lsn,
    ) -> Result<ExtentMap, Errno> {
        let orphan = self.is_rowless(self.get(id)?);
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        let content = node.content_mut()?;
        let before = content.open_bytes();
        let old = std::mem::replace(&mut content.extents, extents);
        content.allocated = bytes;
        let pending = content.pending.get_or_insert_default();
        pending.opened = opened;
        if orphan {
            self.unlinked_bytes = self.unlinked_bytes.saturating_sub(before) + bytes;
            self.unlinked.insert(id);
        } else {
            pending.note_hole(PendingHole { lsn, offset: 0, length: None });
            self.uncut_bytes = self.uncut_bytes.saturating_sub(before) + bytes;
        }
        Ok(old)
    }

    /// Makes a hole in a file and keeps the accounts; `None` reaches to the end.
    pub(crate) fn punch(
        &mut self,
        id: NodeId,
        offset: u64,
        length: Option<u64>,
        lsn: Lsn,
    ) -> Result<(), Errno> {
        let orphan = self.is_rowless(self.get(id)?);
        let node = self.nodes.get_mut(&id).ok_or(Errno::STALE)?;
        let content = node.content_mut()?;
        let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
        let mut opened = Vec::new();
        let change = content.extents.carve(offset, end, &mut opened);
        content.allocated = content.allocated.saturating_add_signed(change.allocated);
        content.note_opened(opened);
        if orphan {
            self.unlinked_bytes = self.unlinked_bytes.saturating_add_signed(change.open);
        } else {
            let pending = content.pending.get_or_insert_default();
            pending.note_hole(PendingHole { lsn, offset, length });
            self.uncut_bytes = self.uncut_bytes.saturating_add_signed(change.open);
        }
        Ok(())
    }
}
