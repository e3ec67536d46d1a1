//! Which bytes of a file lie where: a map from offsets to extents, without overlaps; what no extent covers is a hole.
//!
//! Extents never cross a multiple of [`MAX_EXTENT`], so that a file written in any pattern ends with few of them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::tree::extent::{Extent, OpenExtent, Source};
use crate::{Location, Lsn, MAX_EXTENT};

/// Stands for the number of a row in held bytes that no row will hold, but a spill file.
const SPILLED: u32 = u32::MAX;

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

    /// Inserts an extent, joined with those beside it where all are stored in one run.
    pub(crate) fn put(&mut self, offset: u64, extent: Extent) {
        self.insert(offset, extent);
        self.join(offset);
    }

    /// Joins the extent at `offset` with the one after it and with the one before, if they are of one run.
    fn join(&mut self, offset: u64) {
        let ExtentMap::Many(map) = self else { return };
        let after = map.get(&offset).map(|extent| offset + u64::from(extent.length));
        for second in after.into_iter().chain([offset]) {
            let Some(extent) = map.get(&second) else { continue };
            let location = match extent.source {
                // An older pond's rows may hold more.
                Source::Stored(location) if extent.length <= MAX_EXTENT as u32 => location,
                Source::Run(first) => first,
                _ => continue,
            };
            let (length, whole) = (extent.length, extent.skip == 0);
            let Some((&first, before)) = map.range_mut(..second).next_back() else { continue };
            let joined = before.length.checked_add(length);
            if let (true, Some(joined)) = (whole, joined)
                && first + u64::from(before.length) == second
                && before.next_in_run() == Some(location)
                && let Source::Stored(location) | Source::Run(location) = before.source
            {
                before.length = joined;
                before.source = Source::Run(location);
                map.remove(&second);
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

    /// Whether an open extent begins at `offset`.
    pub(crate) fn is_open_at(&self, offset: u64) -> bool {
        self.floor(offset)
            .is_some_and(|(at, extent)| at == offset && matches!(extent.source, Source::Open(_)))
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
        let mut settled = Vec::new();
        self.each_held(start, length, lsn, seq, |at, extent| {
            extent.source = Source::Stored(location);
            settled.push(at);
        });
        settled.into_iter().for_each(|at| self.join(at));
    }

    /// The same for bytes that went into a spill file, in which they stand where they stand in this one.
    pub(crate) fn settle_spilled(&mut self, start: u64, length: u32, lsn: Lsn, spill: u32) {
        let mut settled = Vec::new();
        self.each_held(start, length, lsn, SPILLED, |at, extent| {
            let row = (at / MAX_EXTENT as u64) as u32;
            extent.skip = (at % MAX_EXTENT as u64) as u32;
            extent.source = Source::Stored(Location { file: spill, row });
            settled.push(at);
        });
        settled.into_iter().for_each(|at| self.join(at));
    }

    /// Turns such bytes into open ones again, notes in `opened` where, and gives their number.
    pub(crate) fn reopen(&mut self, start: u64, length: u32, lsn: Lsn, opened: &mut Vec<u64>) -> u64 {
        let mut bytes = 0;
        self.each_held(start, length, lsn, SPILLED, |at, extent| {
            if let Source::Held(held) = &extent.source {
                let from = extent.skip as usize;
                let data = held.data[from..from + extent.length as usize].to_vec();
                extent.skip = 0;
                extent.source = Source::Open(Box::new(OpenExtent { data, lsn }));
                opened.push(at);
                bytes += u64::from(extent.length);
            }
        });
        bytes
    }

    fn each_held(
        &mut self,
        start: u64,
        length: u32,
        lsn: Lsn,
        seq: u32,
        mut settle: impl FnMut(u64, &mut Extent),
    ) {
        let mut settle = |at: u64, extent: &mut Extent| {
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
        let end = start + u64::from(length);
        let found: Vec<u64> = self.overlapping(start, end).map(|(at, _)| at).collect();
        for at in found {
            let Some(extent) = self.get_mut(at) else { continue };
            let at = match extent.source {
                Source::Stored(location) if location == from => at,
                Source::Run(first) if first.file == from.file && first.row <= from.row => {
                    // Counted from the beginning of the run's first row.
                    let row = u64::from(from.row - first.row) * MAX_EXTENT as u64;
                    let bytes = u64::from(extent.skip)..u64::from(extent.skip) + u64::from(extent.length);
                    let (from, to) = (row.max(bytes.start), (row + MAX_EXTENT as u64).min(bytes.end));
                    if from >= to {
                        continue;
                    }
                    self.split(at + (to - bytes.start));
                    self.split(at + (from - bytes.start));
                    at + (from - bytes.start)
                }
                _ => continue,
            };
            if let Some(extent) = self.get_mut(at) {
                extent.source = Source::Stored(to);
                self.join(at);
            }
        }
    }

    /// Has a stored extent begin at `position`, if one covers it.
    fn split(&mut self, position: u64) {
        if let Some((at, extent)) = self.floor_mut(position)
            && at < position
            && position < at + u64::from(extent.length)
        {
            let tail = extent.tail((position - at) as u32);
            extent.truncate((position - at) as u32);
            self.insert(position, tail);
        }
    }

    /// Says that this operation wrote all open extents.
    pub(crate) fn date(&mut self, lsn: Lsn) {
        let date = |extent: &mut Extent| {
            if let Source::Open(open) = &mut extent.source {
                open.lsn = lsn;
            }
        };
        match self {
            ExtentMap::Empty => {}
            ExtentMap::One(_, extent) => date(extent),
            ExtentMap::Many(map) => map.values_mut().for_each(date),
        }
    }

    /// Moves the bytes of open extents out, held from now on, for a spill file. `opened` says where they may begin, in any order: a
    /// file of many GiB is spilled a little at a time, and must not be gone through each time.
    pub(crate) fn hold_open(&mut self, mut opened: Vec<u64>) -> Vec<(u64, Bytes, Lsn)> {
        opened.sort_unstable();
        opened.dedup();
        let mut moved = Vec::new();
        for at in opened {
            let Some(extent) = self.get_mut(at) else { continue };
            if let Source::Open(open) = &mut extent.source {
                let (data, lsn) = (Bytes::from(std::mem::take(&mut open.data)), open.lsn);
                moved.push((at, data.clone(), lsn));
                *extent = Extent::held(data, lsn, SPILLED);
            }
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
mod tests;
