//! Which bytes of a file lie where: a map from offsets to extents, without overlaps; what no extent
//! covers is a hole.
//!
//! An *open* extent is in memory and may still grow or be overwritten; a cut turns it into a *held*
//! one, whose bytes a row shares; a commit turns that into a *stored* one. Extents never cross a
//! multiple of [`MAX_EXTENT`], so that a file written in any pattern ends with few of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Location, Lsn, MAX_EXTENT};

/// Stands for the number of a row in held bytes that no row will hold, but a spill file.
const SPILLED: u32 = u32::MAX;

/// Bytes that no row holds yet.
#[derive(Clone, Debug)]
pub(crate) struct OpenExtent {
    pub(crate) data: Vec<u8>,
    /// The last operation that wrote here.
    pub(crate) lsn: Lsn,
}

/// Bytes that a row holds and no commit has stored yet.
#[derive(Debug)]
pub(crate) struct HeldExtent {
    pub(crate) data: Bytes,
    pub(crate) lsn: Lsn,
    pub(crate) seq: u32,
}

/// Where the bytes of an extent are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Open(Box<OpenExtent>),
    Held(Arc<HeldExtent>),
    Stored(Location),
}

/// A run of bytes: `length` of them, starting `skip` bytes into its source.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) length: u32,
    pub(crate) skip: u32,
    pub(crate) source: Source,
}

impl Extent {
    pub(crate) fn held(data: Bytes, lsn: Lsn, seq: u32) -> Self {
        let length = data.len() as u32;
        Extent { length, skip: 0, source: Source::Held(Arc::new(HeldExtent { data, lsn, seq })) }
    }

    pub(crate) fn stored(location: Location, length: u32) -> Self {
        Extent { length, skip: 0, source: Source::Stored(location) }
    }

    /// Keeps the first `length` bytes.
    fn truncate(&mut self, length: u32) {
        self.length = length;
        if let Source::Open(open) = &mut self.source {
            open.data.truncate(length as usize);
        }
    }

    /// What is left behind the first `n` bytes.
    fn tail(&self, n: u32) -> Extent {
        let source = match &self.source {
            Source::Open(open) => {
                Source::Open(Box::new(OpenExtent { data: open.data[n as usize..].to_vec(), lsn: open.lsn }))
            }
            Source::Held(held) => Source::Held(held.clone()),
            Source::Stored(location) => Source::Stored(*location),
        };
        let skip = if matches!(source, Source::Open(_)) { 0 } else { self.skip + n };
        Extent { length: self.length - n, skip, source }
    }
}

/// A file's extents. Nearly all files have one or none, which needs no allocation.
#[derive(Clone, Debug, Default)]
pub(crate) enum ExtentMap {
    #[default]
    Empty,
    One(u64, Extent),
    Many(BTreeMap<u64, Extent>),
}

/// By how many bytes a change made a file's memory and its allocation grow or shrink.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    /// Open bytes.
    pub(crate) open: i64,
    /// Bytes that extents cover.
    pub(crate) allocated: i64,
}

impl Change {
    fn lose(&mut self, source: &Source, length: u64) {
        self.allocated -= length as i64;
        if matches!(source, Source::Open(_)) {
            self.open -= length as i64;
        }
    }
}

/// The start of the window of [`MAX_EXTENT`] bytes after the one that `offset` lies in.
fn window_end(offset: u64) -> u64 {
    (offset / MAX_EXTENT as u64 + 1) * MAX_EXTENT as u64
}

impl ExtentMap {
    pub(crate) fn insert(&mut self, offset: u64, extent: Extent) {
        match self {
            ExtentMap::Empty => *self = ExtentMap::One(offset, extent),
            ExtentMap::One(..) => {
                let ExtentMap::One(first, one) = std::mem::take(self) else { return };
                *self = ExtentMap::Many(BTreeMap::from([(first, one), (offset, extent)]));
            }
            ExtentMap::Many(map) => {
                map.insert(offset, extent);
            }
        }
    }

    fn remove(&mut self, offset: u64) -> Option<Extent> {
        match self {
            ExtentMap::Empty => None,
            ExtentMap::One(at, _) if *at != offset => None,
            ExtentMap::One(..) => match std::mem::take(self) {
                ExtentMap::One(_, extent) => Some(extent),
                _ => None,
            },
            ExtentMap::Many(map) => map.remove(&offset),
        }
    }

    pub(crate) fn get_mut(&mut self, offset: u64) -> Option<&mut Extent> {
        match self {
            ExtentMap::One(at, extent) if *at == offset => Some(extent),
            ExtentMap::Many(map) => map.get_mut(&offset),
            _ => None,
        }
    }

    /// The last extent that starts at or before `offset`.
    fn floor(&self, offset: u64) -> Option<(u64, &Extent)> {
        match self {
            ExtentMap::One(at, extent) if *at <= offset => Some((*at, extent)),
            ExtentMap::Many(map) => map.range(..=offset).next_back().map(|(at, e)| (*at, e)),
            _ => None,
        }
    }

    fn floor_mut(&mut self, offset: u64) -> Option<(u64, &mut Extent)> {
        match self {
            ExtentMap::One(at, extent) if *at <= offset => Some((*at, extent)),
            ExtentMap::Many(map) => map.range_mut(..=offset).next_back().map(|(at, e)| (*at, e)),
            _ => None,
        }
    }

    /// The extents that have a byte in `[start, end)`, in order.
    pub(crate) fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, &Extent)> {
        let first = match self.floor(start) {
            Some((at, extent)) if at + u64::from(extent.length) > start => at,
            _ => start,
        };
        let (one, many) = match self {
            ExtentMap::Empty => (None, None),
            ExtentMap::One(at, extent) => ((*at >= first && *at < end).then_some((*at, extent)), None),
            // An empty range whose start is behind its end would panic.
            ExtentMap::Many(map) => (None, (first < end).then(|| map.range(first..end))),
        };
        one.into_iter().chain(many.into_iter().flatten().map(|(at, extent)| (*at, extent)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.overlapping(0, u64::MAX)
    }

    /// Where the last extent ends.
    pub(crate) fn end(&self) -> Option<u64> {
        self.floor(u64::MAX).map(|(at, extent)| at + u64::from(extent.length))
    }

    /// Makes `[start, end)` a hole, and notes in `opened` where a remainder of an open extent
    /// begins anew.
    pub(crate) fn carve(&mut self, start: u64, end: u64, opened: &mut Vec<u64>) -> Change {
        let mut change = Change::default();
        if start >= end {
            return change;
        }
        if let Some((at, extent)) = self.floor_mut(start)
            && at < start
            && at + u64::from(extent.length) > start
        {
            let stop = at + u64::from(extent.length);
            change.lose(&extent.source, stop.min(end) - start);
            let tail = (stop > end).then(|| extent.tail((end - at) as u32));
            extent.truncate((start - at) as u32);
            if let Some(tail) = tail {
                self.put_tail(end, tail, opened);
                return change;
            }
        }
        let inside: Vec<u64> =
            self.overlapping(start, end).map(|(at, _)| at).filter(|at| *at >= start).collect();
        for at in inside {
            let Some(extent) = self.remove(at) else { continue };
            let stop = at + u64::from(extent.length);
            change.lose(&extent.source, stop.min(end) - at);
            if stop > end {
                self.put_tail(end, extent.tail((end - at) as u32), opened);
            }
        }
        change
    }

    fn put_tail(&mut self, offset: u64, tail: Extent, opened: &mut Vec<u64>) {
        if matches!(tail.source, Source::Open(_)) {
            opened.push(offset);
        }
        self.insert(offset, tail);
    }

    /// Puts `data` at `offset` as open bytes.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8], lsn: Lsn, opened: &mut Vec<u64>) -> Change {
        let end = offset + data.len() as u64;
        // Wholly inside an open extent: overwrite in place.
        if let Some((at, extent)) = self.floor_mut(offset)
            && at + u64::from(extent.length) >= end
            && let Source::Open(open) = &mut extent.source
        {
            let from = (offset - at) as usize;
            open.data[from..from + data.len()].copy_from_slice(data);
            open.lsn = lsn;
            return Change::default();
        }
        let mut change = self.carve(offset, end, opened);
        let mut position = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let room = (window_end(position) - position) as usize;
            let (chunk, after) = rest.split_at(room.min(rest.len()));
            self.append_or_insert(position, chunk, lsn, opened);
            position += chunk.len() as u64;
            rest = after;
        }
        change.open += data.len() as i64;
        change.allocated += data.len() as i64;
        change
    }

    /// Puts a chunk that crosses no window into a gap, grown onto the open extent before it where
    /// there is one in the same window.
    fn append_or_insert(&mut self, offset: u64, chunk: &[u8], lsn: Lsn, opened: &mut Vec<u64>) {
        if let Some((at, extent)) = self.floor_mut(offset)
            && at + u64::from(extent.length) == offset
            && window_end(at) == window_end(offset)
            && let Source::Open(open) = &mut extent.source
        {
            open.data.extend_from_slice(chunk);
            open.lsn = lsn;
            extent.length += chunk.len() as u32;
            return;
        }
        opened.push(offset);
        let open = OpenExtent { data: chunk.to_vec(), lsn };
        self.insert(
            offset,
            Extent { length: chunk.len() as u32, skip: 0, source: Source::Open(Box::new(open)) },
        );
    }

    /// Turns held bytes of the row `(lsn, seq)` within `[start, start + length)` into stored ones.
    pub(crate) fn settle(&mut self, start: u64, length: u32, lsn: Lsn, seq: u32, location: Location) {
        self.each_held(start, length, lsn, seq, |_, extent| extent.source = Source::Stored(location));
    }

    /// The same for bytes that went into a spill file, in which they stand where they stand in this one.
    pub(crate) fn settle_spilled(&mut self, start: u64, length: u32, lsn: Lsn, spill: u32) {
        self.each_held(start, length, lsn, SPILLED, |at, extent| {
            let row = (at / MAX_EXTENT as u64) as u32;
            extent.skip = (at % MAX_EXTENT as u64) as u32;
            extent.source = Source::Stored(Location { file: spill, row });
        });
    }

    /// Turns such bytes into open ones again.
    pub(crate) fn reopen(&mut self, start: u64, length: u32, lsn: Lsn) {
        self.each_held(start, length, lsn, SPILLED, |_, extent| {
            if let Source::Held(held) = &extent.source {
                let from = extent.skip as usize;
                let data = held.data[from..from + extent.length as usize].to_vec();
                extent.skip = 0;
                extent.source = Source::Open(Box::new(OpenExtent { data, lsn }));
            }
        });
    }

    fn each_held(&mut self, start: u64, length: u32, lsn: Lsn, seq: u32, settle: impl Fn(u64, &mut Extent)) {
        let settle = |at: u64, extent: &mut Extent| {
            if let Source::Held(held) = &extent.source
                && held.lsn == lsn
                && held.seq == seq
            {
                settle(at, extent);
            }
        };
        match self {
            ExtentMap::Empty => {}
            ExtentMap::One(at, extent) => settle(*at, extent),
            ExtentMap::Many(map) => {
                map.range_mut(start..start + u64::from(length)).for_each(|(at, extent)| settle(*at, extent));
            }
        }
    }

    /// Notes that a row whose bytes lay at `from`, within `[start, start + length)`, was written anew at `to`.
    pub(crate) fn relocate(&mut self, start: u64, length: u32, from: Location, to: Location) {
        let relocate = |extent: &mut Extent| {
            if let Source::Stored(location) = &mut extent.source
                && *location == from
            {
                *location = to;
            }
        };
        match self {
            ExtentMap::Empty => {}
            ExtentMap::One(_, extent) => relocate(extent),
            ExtentMap::Many(map) => {
                map.range_mut(start..start + u64::from(length)).for_each(|(_, extent)| relocate(extent));
            }
        }
    }

    /// Moves all open bytes out, held from now on, for a spill file.
    pub(crate) fn hold_open(&mut self) -> Vec<(u64, Bytes, Lsn)> {
        let mut moved = Vec::new();
        let mut hold = |at: u64, extent: &mut Extent| {
            if let Source::Open(open) = &mut extent.source {
                let (data, lsn) = (Bytes::from(std::mem::take(&mut open.data)), open.lsn);
                moved.push((at, data.clone(), lsn));
                *extent = Extent::held(data, lsn, SPILLED);
            }
        };
        match self {
            ExtentMap::Empty => {}
            ExtentMap::One(at, extent) => hold(*at, extent),
            ExtentMap::Many(map) => map.iter_mut().for_each(|(at, extent)| hold(*at, extent)),
        }
        moved
    }

    /// First byte at or after `offset` that an extent covers.
    pub(crate) fn next_data(&self, offset: u64) -> Option<u64> {
        self.overlapping(offset, u64::MAX).next().map(|(at, _)| at.max(offset))
    }

    /// First byte at or after `offset` that no extent covers.
    pub(crate) fn next_hole(&self, offset: u64) -> u64 {
        let mut position = offset;
        for (at, extent) in self.overlapping(offset, u64::MAX) {
            if at > position {
                break;
            }
            position = at + u64::from(extent.length);
        }
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads back what open extents hold, holes as zeros.
    fn bytes(map: &ExtentMap, length: usize) -> Vec<u8> {
        let mut out = vec![0; length];
        for (at, extent) in map.iter() {
            if let Source::Open(open) = &extent.source {
                assert_eq!(open.data.len(), extent.length as usize);
                out[at as usize..at as usize + open.data.len()].copy_from_slice(&open.data);
            }
        }
        out
    }

    #[test]
    fn any_pattern_of_writes_and_holes_reads_back_as_a_plain_buffer_would() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move |n: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % n
        };
        for round in 0..50 {
            let mut map = ExtentMap::default();
            let mut plain = vec![0u8; 400_000];
            let mut open = 0i64;
            for n in 0..200u64 {
                let start = random(300_000);
                let length = random(if round % 2 == 0 { 500 } else { 100_000 }) + 1;
                let mut opened = Vec::new();
                if random(4) == 0 {
                    open += map.carve(start, start + length, &mut opened).open;
                    plain[start as usize..(start + length) as usize].fill(0);
                } else {
                    let data = vec![n as u8 + 1; length as usize];
                    open += map.write(start, &data, Lsn(n), &mut opened).open;
                    plain[start as usize..(start + length) as usize].copy_from_slice(&data);
                }
                let covered: i64 = map.iter().map(|(_, extent)| i64::from(extent.length)).sum();
                assert_eq!(open, covered);
            }
            assert!(bytes(&map, plain.len()) == plain);
        }
    }

    #[test]
    fn small_appends_grow_one_extent_up_to_its_window() {
        let mut map = ExtentMap::default();
        let mut opened = Vec::new();
        for n in 0..64u64 {
            map.write(n * 4096, &[1; 4096], Lsn(n), &mut opened);
        }
        assert_eq!(map.iter().count(), 2);
        assert_eq!(opened, vec![0, MAX_EXTENT as u64]);
    }
}
