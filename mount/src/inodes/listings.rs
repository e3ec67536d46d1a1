//! Positions in directories that 31 bits hold, for listings under way.
//!
//! An offset of the tree holds two numbers: which entry comes next, and where the listing ends. With `inode32` the kernel gets the
//! first alone, and the second is kept here for each directory that is open.

use std::collections::HashMap;

use parking_lot::Mutex;
use pond_tinyfs::Listing;

/// The listings of a mount that are under way.
#[derive(Default)]
pub(crate) struct Listings(Mutex<Ends>);

#[derive(Default)]
struct Ends {
    last: u64,
    /// By the handle of the open directory, once it was read from its beginning.
    ends: HashMap<u64, u64>,
}

impl Listings {
    /// A handle for a directory that is opened.
    pub(crate) fn open(&self) -> u64 {
        let mut ends = self.0.lock();
        ends.last += 1;
        ends.last
    }

    /// The directory is closed.
    pub(crate) fn close(&self, handle: u64) {
        self.0.lock().ends.remove(&handle);
    }

    /// One answer of a listing, which goes on from a position that the kernel was given; 0 begins anew.
    pub(crate) fn positions(&self, handle: u64, position: u64) -> Positions<'_> {
        let from = match position {
            0 => 0,
            _ if position > Listing::MAX_END => position,
            after => {
                let end = self.0.lock().ends.get(&handle).copied();
                Listing { after, end: end.unwrap_or(Listing::MAX_END) }.to_offset()
            }
        };
        Positions { from, narrow: Some((self, handle)), begins: position == 0 }
    }
}

/// How one answer names the places in a directory.
pub(crate) struct Positions<'a> {
    /// The tree's offset at which it begins.
    pub(crate) from: u64,
    narrow: Option<(&'a Listings, u64)>,
    begins: bool,
}

impl Positions<'_> {
    /// The tree's own offsets.
    pub(crate) fn wide(from: u64) -> Self {
        Positions { from, narrow: None, begins: false }
    }

    /// What the kernel is given for an offset of the tree: 31 bits, unless the directory has had more than [`Listing::MAX_END`]
    /// entries.
    pub(crate) fn of(&mut self, offset: u64) -> u64 {
        let Some((listings, handle)) = self.narrow else { return offset };
        let Some(listing) = Listing::from_offset(offset) else { return offset };
        if std::mem::take(&mut self.begins) {
            listings.0.lock().ends.insert(handle, listing.end);
        }
        listing.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(after: u64, end: u64) -> u64 {
        Listing { after, end }.to_offset()
    }

    #[test]
    fn a_listing_ends_where_it_began_to_and_goes_on_from_any_position() {
        let listings = Listings::default();
        let (handle, other) = (listings.open(), listings.open());
        let mut first = listings.positions(handle, 0);
        assert_eq!((first.from, first.of(at(1, 100)), first.of(at(55, 100))), (0, 1, 55));
        assert_eq!(listings.positions(handle, 55).from, at(55, 100));
        // Rewound, it is another listing; other handles have their own.
        listings.positions(handle, 0).of(at(1, 200));
        assert_eq!(listings.positions(handle, 55).from, at(55, 200));
        assert_eq!(listings.positions(other, 55).from, at(55, Listing::MAX_END));
        listings.close(handle);
        assert_eq!(listings.positions(handle, 55).from, at(55, Listing::MAX_END));
    }

    #[test]
    fn positions_in_directories_that_had_very_many_entries_are_what_they_are() {
        let large = Listing::MAX_END + 5;
        let listings = Listings::default();
        let mut positions = listings.positions(1, large);
        assert_eq!((positions.from, positions.of(large + 1)), (large, large + 1));
    }

    #[test]
    fn without_a_table_offsets_are_the_trees() {
        let mut positions = Positions::wide(at(7, 100));
        assert_eq!((positions.from, positions.of(at(8, 100))), (at(7, 100), at(8, 100)));
    }
}
