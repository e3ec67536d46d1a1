//! Cuts: what changed since the last one, as rows.

use bytes::Bytes;

use crate::tree::extent::{Extent, Source};
use crate::tree::node::{Body, Content, PendingContent};
use crate::{ExtentContent, ExtentRecord, Lsn, Placed, Record, Row, Tree};

/// Rows that make a consistent state: all operations up to `cut_lsn`, nothing of later ones.
#[derive(Debug)]
pub struct Cut {
    /// The rows since the cut before, sorted by `(lsn, seq)`.
    pub rows: Vec<Row>,
    /// The last operation of this cut.
    pub cut_lsn: Lsn,
    /// Bytes of content and of extended attributes in the rows.
    pub bytes: u64,
}

impl Tree {
    /// Takes all that changed since the last cut.
    pub(crate) fn cut(&mut self, timestamp: i64) -> Cut {
        let mut rows = std::mem::take(&mut self.rows);
        for id in std::mem::take(&mut self.dirty) {
            let Some(node) = self.nodes.get_mut(&id).filter(|node| node.dirty) else { continue };
            node.dirty = false;
            node.version += 1;
            let (part, lsn, version) = (node.part, node.lsn, u64::from(node.version));
            let row = |lsn, record| Row { part, node: id, lsn, seq: 0, version, timestamp, record };
            match &mut node.body {
                Body::Directory(directory) if directory.is_changed() => {
                    let changes = directory.take_changes();
                    if !changes.is_empty() {
                        rows.push(row(lsn, Record::Entries(changes)));
                    }
                }
                Body::File(content) => {
                    if let Some(pending) = content.pending.take() {
                        take_content(content, *pending, |lsn, record| rows.push(row(lsn, record)));
                    }
                }
                _ => {}
            }
            rows.push(row(lsn, Record::Node(Box::new(node.record()))));
        }
        self.number(&mut rows, timestamp);
        self.hold(&rows);
        self.unstored_bytes += self.uncut_bytes;
        let bytes = std::mem::take(&mut self.uncut_bytes) + xattr_bytes(&rows);
        Cut { rows, cut_lsn: self.last_lsn, bytes }
    }

    /// Sorts rows and gives those of one operation their numbers.
    fn number(&self, rows: &mut [Row], timestamp: i64) {
        let rank = |record: &Record| match record {
            Record::Hole { .. } => 0,
            Record::Extent(_) => 1,
            Record::Entries(_) => 2,
            Record::Node(_) => 3,
        };
        rows.sort_by_key(|row| (row.lsn, rank(&row.record)));
        let mut before = Lsn(0);
        let mut seq = 0;
        for row in rows {
            seq = if row.lsn == before { seq + 1 } else { 0 };
            before = row.lsn;
            row.seq = seq;
            row.timestamp = timestamp;
        }
    }

    /// Lets the tree share the bytes of the extent rows that were just taken.
    fn hold(&mut self, rows: &[Row]) {
        for row in rows {
            let Record::Extent(ExtentRecord { offset, content: ExtentContent::Memory(data), .. }) =
                &row.record
            else {
                continue;
            };
            if let Some(node) = self.nodes.get_mut(&row.node)
                && let Body::File(content) = &mut node.body
                && let Some(extent) = content.extents.get_mut(*offset)
            {
                *extent = Extent::held(data.clone(), row.lsn, row.seq);
            }
        }
    }

    /// The bytes of these rows are in the table: memory may let go of them.
    pub(crate) fn stored(&mut self, placed: &[Placed]) {
        for place in placed {
            self.unstored_bytes = self.unstored_bytes.saturating_sub(u64::from(place.length));
            if let Some(node) = self.nodes.get_mut(&place.node)
                && let Body::File(content) = &mut node.body
            {
                content.extents.settle(place.offset, place.length, place.lsn, place.seq, place.location);
            }
        }
    }
}

fn xattr_bytes(rows: &[Row]) -> u64 {
    let xattrs = rows.iter().filter_map(|row| match &row.record {
        Record::Node(node) => node.xattrs.as_ref(),
        _ => None,
    });
    xattrs.flatten().map(|(name, value)| (name.len() + value.len()) as u64).sum()
}

/// Turns the pending content of one file into rows, and moves the bytes of its open extents into them.
fn take_content(content: &mut Content, mut pending: PendingContent, mut push: impl FnMut(Lsn, Record)) {
    for hole in pending.holes {
        push(hole.lsn, Record::Hole { offset: hole.offset, length: hole.length });
    }
    pending.opened.sort_unstable();
    pending.opened.dedup();
    for offset in pending.opened {
        let Some(extent) = content.extents.get_mut(offset) else { continue };
        if let Source::Open(open) = &mut extent.source {
            let data = std::mem::take(&mut open.data);
            let lsn = open.lsn;
            let length = extent.length;
            let bytes = Bytes::from(data);
            push(lsn, Record::Extent(ExtentRecord { offset, length, content: ExtentContent::Memory(bytes) }));
        }
    }
}
