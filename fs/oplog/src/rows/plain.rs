//! Rows ↔ bytes, for the journal: each row as its members one after the other.
//!
//! ```text
//! row      part u64 · node u64 · lsn u64 · seq u32 · version u64 · timestamp i64 · record u8 · the record
//! node 0     kind u8 · mode u16 · uid u32 · gid u32 · nlink u32 · size u64 · rdev u32 · atime, mtime, ctime, btime i64
//!            · next cookie u64 · members u8 (1 factory, 2 content, 4 xattrs) · factory bytes · content bytes
//!            · xattrs: count u32, and for each name bytes · value bytes
//! entries 1  count u32, and for each op u8 · kind u8 · child u64 · cookie u64 · name bytes
//! extent 2   offset u64 · content bytes
//! cut 3      offset u64 · bounded u8 · length u64
//! bytes      length u32 · the bytes
//! ```
//!
//! Numbers are little-endian; kinds and ops are their places in [`FileType::ALL`] and [`OPS`]. A frame of a few rows is
//! what an fsync waits for, and a table's column for each of their members takes longer to set up than they take to write. What
//! holds the bytes has a digest over them: nothing here notices a flipped bit.

use bytes::{BufMut, Bytes, BytesMut};
use pond_tinyfs::{
    EntryChange, EntryOp, ExtentContent, ExtentRecord, FileType, Lsn, NodeId, NodeRecord, Record, Row,
    Timestamp, Xattrs,
};

const NODE: u8 = 0;
const ENTRIES: u8 = 1;
const EXTENT: u8 = 2;
const CUT: u8 = 3;

const FACTORY: u8 = 1;
const CONTENT: u8 = 2;
const XATTRS: u8 = 4;

const OPS: [EntryOp; 3] = [EntryOp::Insert, EntryOp::Remove, EntryOp::Reset];

/// Content of more bytes is not copied: it becomes a piece of its own.
const COPIED: usize = 4 << 10;

/// Encodes rows; the pieces follow each other.
///
/// # Errors
///
/// If an extent's bytes are not in memory, or not as many as its row says.
pub(crate) fn encode<'a>(rows: impl Iterator<Item = &'a Row>) -> Result<Vec<Bytes>, String> {
    let mut writer = Writer::default();
    for row in rows {
        writer.row(row)?;
    }
    Ok(writer.finish())
}

#[derive(Default)]
struct Writer {
    pieces: Vec<Bytes>,
    buffer: BytesMut,
}

impl Writer {
    fn finish(mut self) -> Vec<Bytes> {
        if !self.buffer.is_empty() {
            self.pieces.push(self.buffer.freeze());
        }
        self.pieces
    }

    fn length(&mut self, length: usize) -> Result<(), String> {
        self.buffer.put_u32_le(u32::try_from(length).map_err(|_| format!("{length} bytes in one member"))?);
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.length(bytes.len())?;
        self.buffer.put_slice(bytes);
        Ok(())
    }

    fn content(&mut self, content: &Bytes) -> Result<(), String> {
        if content.len() <= COPIED {
            return self.bytes(content);
        }
        self.length(content.len())?;
        self.pieces.push(self.buffer.split().freeze());
        self.pieces.push(content.clone());
        Ok(())
    }

    fn row(&mut self, row: &Row) -> Result<(), String> {
        self.buffer.put_u64_le(row.part.get());
        self.buffer.put_u64_le(row.node.get());
        self.buffer.put_u64_le(row.lsn.0);
        self.buffer.put_u32_le(row.seq);
        self.buffer.put_u64_le(row.version);
        self.buffer.put_i64_le(row.timestamp);
        match &row.record {
            Record::Node(node) => self.node(node),
            Record::Entries(changes) => self.entries(changes),
            Record::Extent(extent) => self.extent(row, extent),
            Record::Hole { offset, length } => {
                self.buffer.put_u8(CUT);
                self.buffer.put_u64_le(*offset);
                self.buffer.put_u8(length.is_some().into());
                self.buffer.put_u64_le(length.unwrap_or_default());
                Ok(())
            }
        }
    }

    fn node(&mut self, node: &NodeRecord) -> Result<(), String> {
        let buffer = &mut self.buffer;
        buffer.put_u8(NODE);
        buffer.put_u8(node.kind as u8);
        buffer.put_u16_le(node.mode);
        for number in [node.uid, node.gid, node.nlink] {
            buffer.put_u32_le(number);
        }
        buffer.put_u64_le(node.size);
        buffer.put_u32_le(node.rdev);
        for time in [node.atime, node.mtime, node.ctime, node.btime] {
            buffer.put_i64_le(time.0);
        }
        buffer.put_u64_le(node.next_cookie);
        let member = |there: bool, bit: u8| if there { bit } else { 0 };
        buffer.put_u8(
            member(node.factory.is_some(), FACTORY)
                | member(node.content.is_some(), CONTENT)
                | member(node.xattrs.is_some(), XATTRS),
        );
        if let Some(factory) = &node.factory {
            self.bytes(factory.as_bytes())?;
        }
        if let Some(content) = &node.content {
            self.content(content)?;
        }
        if let Some(xattrs) = &node.xattrs {
            self.length(xattrs.len())?;
            for (name, value) in xattrs {
                self.bytes(name)?;
                self.bytes(value)?;
            }
        }
        Ok(())
    }

    fn entries(&mut self, changes: &[EntryChange]) -> Result<(), String> {
        self.buffer.put_u8(ENTRIES);
        self.length(changes.len())?;
        for change in changes {
            let op = OPS.iter().position(|op| *op == change.op).unwrap_or_default();
            self.buffer.put_u8(op as u8);
            self.buffer.put_u8(change.kind as u8);
            self.buffer.put_u64_le(change.child.get());
            self.buffer.put_u64_le(change.cookie);
            self.bytes(&change.name)?;
        }
        Ok(())
    }

    fn extent(&mut self, row: &Row, extent: &ExtentRecord) -> Result<(), String> {
        let which = || format!("extent {}.{} of node {}", row.lsn, row.seq, row.node);
        let ExtentContent::Memory(content) = &extent.content else {
            return Err(format!("{} is stored already", which()));
        };
        if content.len() != extent.length as usize {
            return Err(format!("{} says {} bytes and has {}", which(), extent.length, content.len()));
        }
        self.buffer.put_u8(EXTENT);
        self.buffer.put_u64_le(extent.offset);
        self.content(content)
    }
}

/// Decodes rows and hands them out in their order.
///
/// # Errors
///
/// What does not fit the format.
pub(crate) fn decode(bytes: &[u8], mut each: impl FnMut(Row)) -> Result<(), String> {
    let mut reader = Reader { rest: bytes };
    while !reader.rest.is_empty() {
        let at = bytes.len() - reader.rest.len();
        each(reader.row().map_err(|why| format!("the row at byte {at}: {why}"))?);
    }
    Ok(())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("it is cut off")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("it is cut off")?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, String> {
        self.array().map(i64::from_le_bytes).map(Timestamp)
    }

    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn id(&mut self) -> Result<NodeId, String> {
        let raw = self.u64()?;
        NodeId::new(raw).ok_or_else(|| format!("{raw:016x} is no node"))
    }

    fn kind(&mut self) -> Result<FileType, String> {
        let number = self.u8()?;
        FileType::ALL.get(usize::from(number)).copied().ok_or_else(|| format!("there is no kind {number}"))
    }

    fn row(&mut self) -> Result<Row, String> {
        let (part, node, lsn) = (self.id()?, self.id()?, Lsn(self.u64()?));
        let (seq, version, timestamp) = (self.u32()?, self.u64()?, self.time()?.0);
        let record = match self.u8()? {
            NODE => Record::Node(Box::new(self.node()?)),
            ENTRIES => Record::Entries(self.entries()?),
            EXTENT => {
                let (offset, content) = (self.u64()?, self.bytes()?);
                let content = ExtentContent::Memory(Bytes::copy_from_slice(content));
                Record::Extent(ExtentRecord { offset, length: content_length(&content)?, content })
            }
            CUT => {
                let (offset, bounded, length) = (self.u64()?, self.u8()? != 0, self.u64()?);
                Record::Hole { offset, length: bounded.then_some(length) }
            }
            other => return Err(format!("there is no record {other}")),
        };
        Ok(Row { part, node, lsn, seq, version, timestamp, record })
    }

    fn node(&mut self) -> Result<NodeRecord, String> {
        let kind = self.kind()?;
        let mode = self.array().map(u16::from_le_bytes)?;
        let (uid, gid, nlink) = (self.u32()?, self.u32()?, self.u32()?);
        let (size, rdev) = (self.u64()?, self.u32()?);
        let (atime, mtime, ctime, btime) = (self.time()?, self.time()?, self.time()?, self.time()?);
        let next_cookie = self.u64()?;
        let members = self.u8()?;
        let factory = match members & FACTORY {
            0 => None,
            _ => {
                let name = std::str::from_utf8(self.bytes()?);
                Some(name.map_err(|_| "a factory's name is not UTF-8")?.into())
            }
        };
        let content = match members & CONTENT {
            0 => None,
            _ => Some(Bytes::copy_from_slice(self.bytes()?)),
        };
        let xattrs = match members & XATTRS {
            0 => None,
            _ => {
                let mut xattrs = Xattrs::new();
                for _ in 0..self.u32()? {
                    xattrs.insert(self.bytes()?.into(), self.bytes()?.into());
                }
                Some(xattrs)
            }
        };
        Ok(NodeRecord {
            kind,
            mode,
            uid,
            gid,
            nlink,
            size,
            rdev,
            atime,
            mtime,
            ctime,
            btime,
            xattrs,
            next_cookie,
            factory,
            content,
        })
    }

    fn entries(&mut self) -> Result<Vec<EntryChange>, String> {
        let count = self.u32()?;
        // Nothing is set aside for a number that was only read.
        let mut changes = Vec::new();
        for _ in 0..count {
            let op = self.u8()?;
            let op = *OPS.get(usize::from(op)).ok_or_else(|| format!("there is no change {op}"))?;
            let (kind, child, cookie) = (self.kind()?, self.id()?, self.u64()?);
            changes.push(EntryChange { name: self.bytes()?.into(), child, kind, cookie, op });
        }
        Ok(changes)
    }
}

fn content_length(content: &ExtentContent) -> Result<u32, String> {
    match content {
        ExtentContent::Memory(bytes) if !bytes.is_empty() => {
            u32::try_from(bytes.len()).map_err(|error| error.to_string())
        }
        _ => Err("an extent has no bytes".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::samples::{all_kinds, extent};

    fn bytes(rows: &[Row]) -> Vec<u8> {
        encode(rows.iter()).unwrap().concat()
    }

    fn rows(bytes: &[u8]) -> Result<Vec<Row>, String> {
        let mut rows = Vec::new();
        decode(bytes, |row| rows.push(row)).map(|()| rows)
    }

    #[test]
    fn every_kind_of_row_comes_back() {
        let all = all_kinds();
        assert_eq!(rows(&bytes(&all)).unwrap(), all);
        assert_eq!(rows(&[]).unwrap(), []);
    }

    #[test]
    fn what_is_cut_off_anywhere_is_an_error_or_fewer_rows() {
        let all: Vec<Row> = all_kinds().into_iter().take(9).collect();
        let whole = bytes(&all);
        for length in 0..whole.len() {
            match rows(&whole[..length]) {
                Ok(fewer) => assert!(fewer.len() < all.len() && all.starts_with(&fewer)),
                Err(why) => assert!(why.contains("cut off"), "{why}"),
            }
        }
    }

    #[test]
    fn what_is_no_row_is_an_error_and_takes_no_memory() {
        let good = bytes(&all_kinds());
        for at in 0..good.len().min(2000) {
            let mut bad = good.clone();
            bad[at] = 0xff;
            // It may be another row; it must be no panic.
            let _other = rows(&bad);
        }
        assert!(rows(&[0xff; 200]).unwrap_err().contains("is no node"));
    }

    #[test]
    fn long_content_is_not_copied_and_stored_content_is_refused() {
        let long = extent(2, 9, 0, vec![7; COPIED + 1]);
        assert_eq!(encode([&long].into_iter()).unwrap().len(), 2);
        let short = extent(2, 9, 0, vec![7; COPIED]);
        assert_eq!(encode([&short, &short].into_iter()).unwrap().len(), 1);
        let mut stored = long.clone();
        if let Record::Extent(extent) = &mut stored.record {
            extent.content = ExtentContent::Stored(pond_tinyfs::Location { file: 1, row: 2 });
        }
        assert!(encode([&stored].into_iter()).unwrap_err().contains("stored already"));
    }
}
