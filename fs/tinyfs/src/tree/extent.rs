//! Bytes of a file that follow each other, and where they are.
//!
//! An *open* extent is in memory and may still grow or be overwritten; a cut turns it into a *held*
//! one, whose bytes a row shares; a commit turns that into a *stored* one. Stored ones that follow each
//! other in the file and in the rows of one data file are joined into a *run*, so that a large file takes little memory.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Location, Lsn, MAX_EXTENT};

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
    /// In one row.
    Stored(Location),
    /// In a row and those that follow it, of which all but the last hold [`MAX_EXTENT`] bytes, and the first is there
    /// to its end.
    Run(Location),
}

/// Bytes that follow each other: `length` of them, starting `skip` bytes into their source.
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
    pub(crate) fn truncate(&mut self, length: u32) {
        self.length = length;
        if let Source::Open(open) = &mut self.source {
            open.data.truncate(length as usize);
        }
    }

    /// What is left behind the first `n` bytes.
    pub(crate) fn tail(&self, n: u32) -> Extent {
        let source = match &self.source {
            Source::Open(open) => {
                Source::Open(Box::new(OpenExtent { data: open.data[n as usize..].to_vec(), lsn: open.lsn }))
            }
            Source::Held(held) => Source::Held(held.clone()),
            Source::Stored(location) => Source::Stored(*location),
            Source::Run(first) => {
                let (location, skip) = within(*first, u64::from(self.skip) + u64::from(n));
                return Extent { length: self.length - n, skip, source: Source::Run(location) };
            }
        };
        let skip = if matches!(source, Source::Open(_)) { 0 } else { self.skip + n };
        Extent { length: self.length - n, skip, source }
    }

    /// The rows in which `length` bytes after the first `from` are stored: where, from which byte, and how many.
    pub(crate) fn stored_rows(&self, from: u32, length: u32) -> impl Iterator<Item = (Location, u32, u32)> {
        let start = u64::from(self.skip) + u64::from(from);
        let (one, run) = match self.source {
            Source::Open(_) | Source::Held(_) => (None, None),
            Source::Stored(location) => (Some((location, start as u32, length)), None),
            Source::Run(first) => (None, Some(first)),
        };
        let mut position = start;
        let end = start + u64::from(length);
        let rows = run.into_iter().flat_map(move |first| {
            std::iter::from_fn(move || {
                let (location, skip) = within(first, position);
                let take = (end - position).min(MAX_EXTENT as u64 - u64::from(skip)) as u32;
                position += u64::from(take);
                (take > 0).then_some((location, skip, take))
            })
        });
        one.into_iter().chain(rows)
    }

    /// Where the bytes that follow this would be stored, were they of the same run.
    pub(crate) fn next_in_run(&self) -> Option<Location> {
        let end = u64::from(self.skip) + u64::from(self.length);
        match self.source {
            Source::Stored(location) if end == MAX_EXTENT as u64 => Some(within(location, end).0),
            Source::Run(first) if end.is_multiple_of(MAX_EXTENT as u64) => Some(within(first, end).0),
            _ => None,
        }
    }
}

/// The row, and the byte of it, that is byte `n` of the run that begins with row `first`.
pub(crate) fn within(first: Location, n: u64) -> (Location, u32) {
    let row = first.row.saturating_add((n / MAX_EXTENT as u64) as u32);
    (Location { row, ..first }, (n % MAX_EXTENT as u64) as u32)
}
