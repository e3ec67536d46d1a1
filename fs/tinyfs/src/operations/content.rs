//! Content: reading, writing, holes, preallocation, copying.

use bytes::Bytes;

use crate::fs::find_room;
use crate::operations::access;
use crate::tree::extent::Source;
use crate::types::limits::MAX_SIZE;
use crate::{
    Caller, Errno, Error, Location, NodeId, PersistenceLayer, StorageError, Timestamp, TinyFs, Tree,
};

/// Bytes that `copy_range` moves in one step.
const COPY_STEP: u64 = 1 << 20;

/// What `SEEK_DATA` and `SEEK_HOLE` count in, bytes, as on ext4: programs take the smallest hole for the block size.
const SEEK_BLOCK: u64 = 4096;

/// How to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteFlags {
    /// Write at the end, whatever the offset says (`O_APPEND`).
    pub append: bool,
    /// Take setuid, setgid and file capabilities away (FUSE's `WRITE_KILL_SUIDGID`).
    pub kill_suid_gid: bool,
}

/// What `fallocate` shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallocate {
    /// Make sure that the range lies within the file, with zeros where there was nothing.
    Allocate,
    /// Reserve without growing the file.
    AllocateKeepSize,
    /// Make a hole; the file keeps its size.
    PunchHole,
    /// Make the range read as zeros; the file may grow.
    ZeroRange,
    /// Make the range read as zeros; the file keeps its size.
    ZeroRangeKeepSize,
}

enum Piece {
    Bytes(Bytes),
    Zeros(usize),
    Stored(Location, u32, u32),
}

/// What to read and where it lies; made under the tree's lock, carried out without it.
pub struct ReadPlan {
    pieces: Vec<Piece>,
    length: usize,
}

impl ReadPlan {
    /// Bytes that the plan will give.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Carries the plan out if that needs no I/O; never blocks. Else the plan keeps what it got so far.
    pub fn fill_cached(&mut self, persistence: &dyn PersistenceLayer) -> Option<Vec<u8>> {
        for piece in &mut self.pieces {
            if let Piece::Stored(location, skip, length) = *piece {
                *piece = Piece::Bytes(persistence.read_cached(location, skip, length)?);
            }
        }
        // Nothing is left that would have to be read.
        self.fill(persistence).ok()
    }

    /// Carries the plan out; may block on I/O.
    pub fn fill(&self, persistence: &dyn PersistenceLayer) -> Result<Vec<u8>, StorageError> {
        let mut out = Vec::with_capacity(self.length);
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Zeros(n) => out.resize(out.len() + n, 0),
                Piece::Stored(location, skip, length) => {
                    out.extend_from_slice(&persistence.read(*location, *skip, *length)?);
                }
            }
        }
        Ok(out)
    }
}

fn plan(tree: &Tree, id: NodeId, offset: u64, length: usize) -> Result<ReadPlan, Error> {
    let node = tree.find(id)?;
    if let crate::tree::node::Body::Dynamic(dynamic) = &node.body {
        let all = &dynamic.configuration;
        let start = offset.min(all.len() as u64) as usize;
        let end = (start + length).min(all.len());
        return Ok(ReadPlan { pieces: vec![Piece::Bytes(all.slice(start..end))], length: end - start });
    }
    let content = node.content()?;
    let end = offset.saturating_add(length as u64).min(node.size);
    let mut pieces = Vec::new();
    let mut position = offset.min(end);
    let total = (end - position) as usize;
    for (at, extent) in content.extents.overlapping(position, end) {
        if at > position {
            pieces.push(Piece::Zeros((at - position) as usize));
            position = at;
        }
        let skipped = (position - at) as u32;
        let take = u64::from(extent.length - skipped).min(end - position) as u32;
        let range = || {
            let from = (extent.skip + skipped) as usize;
            from..from + take as usize
        };
        match &extent.source {
            Source::Open(open) => pieces.push(Piece::Bytes(Bytes::copy_from_slice(&open.data[range()]))),
            Source::Held(held) => pieces.push(Piece::Bytes(held.data.slice(range()))),
            Source::Stored(_) | Source::Run(_) => {
                let rows = extent.stored_rows(skipped, take);
                pieces.extend(rows.map(|(location, skip, length)| Piece::Stored(location, skip, length)));
            }
        }
        position += u64::from(take);
    }
    if position < end {
        pieces.push(Piece::Zeros((end - position) as usize));
    }
    Ok(ReadPlan { pieces, length: total })
}

impl TinyFs {
    /// Plans to read `length` bytes from `offset`, fewer at the end of the file.
    pub fn read(&self, id: NodeId, offset: u64, length: usize) -> Result<ReadPlan, Error> {
        plan(&self.tree(), id, offset, length)
    }

    /// Where the stored extents lie that `length` bytes from `offset` are read from, in the order of their bytes.
    pub fn locations(&self, id: NodeId, offset: u64, length: u64) -> Result<Vec<Location>, Error> {
        let tree = self.tree();
        let node = tree.find(id)?;
        let end = offset.saturating_add(length).min(node.size);
        let offset = offset.min(end);
        let mut locations = Vec::new();
        for (at, extent) in node.content()?.extents.overlapping(offset, end) {
            let from = offset.saturating_sub(at) as u32;
            let length = u64::from(extent.length - from).min(end - at.max(offset)) as u32;
            locations.extend(extent.stored_rows(from, length).map(|(location, ..)| location));
        }
        Ok(locations)
    }

    /// Writes all of `data`, or nothing.
    pub fn write(
        &self,
        caller: &Caller,
        id: NodeId,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
    ) -> Result<usize, Error> {
        let mut tree = self.grow(data.len() as u64)?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        node.content()?;
        access::permit(caller, node, access::WRITE)?;
        let offset = if flags.append { node.size } else { offset };
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= MAX_SIZE).ok_or(Errno::FBIG)?;
        if data.is_empty() {
            return Ok(0);
        }

        let lsn = tree.begin();
        tree.put(id, offset, data, lsn)?;
        let node = tree.get_mut(id)?;
        node.size = node.size.max(end);
        node.mtime = now;
        node.ctime = now;
        if flags.kill_suid_gid || (!caller.checked && !caller.is_root()) {
            access::drop_privileges(node);
        }
        tree.touch(id, lsn);
        Ok(data.len())
    }

    /// Preallocates, makes holes or zeros. Space is not set aside: whether a later write fits is
    /// decided when it comes, but a preallocation that could not fit now answers `ENOSPC`.
    pub fn fallocate(
        &self,
        caller: &Caller,
        id: NodeId,
        offset: u64,
        length: u64,
        mode: Fallocate,
    ) -> Result<(), Error> {
        let available = self.persistence().space().available;
        let mut tree = self.change()?;
        let now = Timestamp::now();
        let id = tree.own_id(id)?;
        let node = tree.get(id)?;
        node.content()?;
        access::permit(caller, node, access::WRITE)?;
        if length == 0 {
            return Err(Errno::INVAL.into());
        }
        let end = offset.checked_add(length).filter(|end| *end <= MAX_SIZE).ok_or(Errno::FBIG)?;
        if mode != Fallocate::PunchHole {
            // What is there already needs no more.
            let extents = node.content()?.extents.overlapping(offset, end);
            let there = extents.map(|(at, extent)| (at + u64::from(extent.length)).min(end) - at.max(offset));
            let needed = length.saturating_sub(there.sum());
            find_room(&tree, available, needed)
                .or_else(|_| find_room(&tree, self.persistence().space_now().available, needed))?;
        }

        let lsn = tree.begin();
        if matches!(mode, Fallocate::PunchHole | Fallocate::ZeroRange | Fallocate::ZeroRangeKeepSize) {
            tree.punch(id, offset, Some(length), lsn)?;
        }
        let node = tree.get_mut(id)?;
        if matches!(mode, Fallocate::Allocate | Fallocate::ZeroRange) {
            node.size = node.size.max(end);
        }
        node.mtime = now;
        node.ctime = now;
        if !caller.is_root() {
            access::drop_privileges(node);
        }
        tree.touch(id, lsn);
        Ok(())
    }

    /// The first byte at or after `offset` that is no hole (`SEEK_DATA`). Blocks of [`SEEK_BLOCK`] bytes that hold a
    /// written byte are data as a whole.
    pub fn seek_data(&self, id: NodeId, offset: u64) -> Result<u64, Error> {
        let tree = self.tree();
        let node = tree.find(id)?;
        if let crate::tree::node::Body::Dynamic(_) = node.body {
            return if offset < node.size { Ok(offset) } else { Err(Errno::NXIO.into()) };
        }
        let block = offset - offset % SEEK_BLOCK;
        let found = node.content()?.extents.next_data(block);
        let found = found.map(|at| offset.max(at - at % SEEK_BLOCK)).filter(|at| *at < node.size);
        Ok(found.ok_or(Errno::NXIO)?)
    }

    /// The first byte at or after `offset` that is a hole, or the end of the file (`SEEK_HOLE`).
    pub fn seek_hole(&self, id: NodeId, offset: u64) -> Result<u64, Error> {
        let tree = self.tree();
        let node = tree.find(id)?;
        if offset >= node.size {
            return Err(Errno::NXIO.into());
        }
        if let crate::tree::node::Body::Dynamic(_) = node.body {
            return Ok(node.size);
        }
        let extents = &node.content()?.extents;
        let mut block = offset - offset % SEEK_BLOCK;
        while let Some(data) = extents.next_data(block).filter(|data| data - block < SEEK_BLOCK) {
            block = extents.next_hole(data).next_multiple_of(SEEK_BLOCK);
        }
        Ok(block.max(offset).min(node.size))
    }

    /// Copies up to `length` bytes from one file to another, holes as zeros. May block on I/O;
    /// returns how many bytes were copied, fewer at the end of the source.
    pub fn copy_range(
        &self,
        caller: &Caller,
        source: NodeId,
        source_offset: u64,
        target: NodeId,
        target_offset: u64,
        length: u64,
    ) -> Result<u64, Error> {
        if source == target && source_offset.abs_diff(target_offset) < length {
            return Err(Errno::INVAL.into());
        }
        let mut copied = 0;
        let kill_suid_gid = !caller.is_root();
        while copied < length {
            let step = (length - copied).min(COPY_STEP) as usize;
            let data = self.read(source, source_offset + copied, step)?.fill(&**self.persistence())?;
            if data.is_empty() {
                break;
            }
            let flags = WriteFlags { append: false, kill_suid_gid };
            match self.write(caller, target, target_offset + copied, &data, flags) {
                Ok(n) => copied += n as u64,
                Err(error) if copied == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(copied)
    }
}
