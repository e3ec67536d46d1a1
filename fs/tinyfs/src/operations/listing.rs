//! Reading directories: what a listing shows, where it goes on, and where it ends.

use crate::tree::directory::{COOKIE_PARENT, COOKIE_SELF, FIRST_COOKIE};
use crate::{Attributes, Errno, Error, FileType, NodeId, TinyFs, Tree};

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Name.
    pub name: &'a [u8],
    /// The node.
    pub id: NodeId,
    /// Its kind.
    pub kind: FileType,
    /// Where reading goes on after this entry.
    pub offset: u64,
}

/// Where a listing is: which entry it has come to, and where it ends. Entries that come after it began are not part of it, or
/// a program that renames what it lists would never see the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The place, counted within the directory, of the last entry that was shown; 0 before the first. An entry keeps its place, and
    /// a new one gets the next.
    pub after: u64,
    /// The first place that is not part of it, at most [`MAX_END`](Self::MAX_END); `u64::MAX` for a listing without an end of its own.
    pub end: u64,
}

impl Listing {
    /// Marks an offset that holds both numbers; a directory that has handed out more cookies than fit has listings
    /// without an end of their own, whose offsets are cookies.
    const BOTH: u64 = 1 << 62;
    const END_BITS: u32 = 30;

    /// The largest end that an offset can hold.
    pub const MAX_END: u64 = (1 << Self::END_BITS) - 1;

    /// What a [`DirEntry::offset`] holds; `None` if that is the place alone, as in a directory that has had more than
    /// [`MAX_END`](Self::MAX_END) entries.
    pub fn from_offset(offset: u64) -> Option<Self> {
        let (after, end) = (offset & u64::from(u32::MAX), (offset & !Self::BOTH) >> u32::BITS);
        (offset & Self::BOTH != 0 && end >= FIRST_COOKIE).then_some(Listing { after, end })
    }

    /// The offset that holds both.
    pub fn to_offset(self) -> u64 {
        if self.end == u64::MAX { self.after } else { Self::BOTH | self.end << u32::BITS | self.after }
    }

    /// Goes on from an offset; 0 begins one in a directory whose next entry gets this cookie. A program may seek to what
    /// lies between two offsets that it was given: what lies below the lowest of them (that of `.`) begins, too.
    fn at(offset: u64, next_cookie: u64) -> Self {
        match Self::from_offset(offset) {
            // The directory has had more entries since: all that follow are given.
            Some(Listing { after, end: Self::MAX_END }) if next_cookie > Self::MAX_END => {
                Listing { after, end: u64::MAX }
            }
            Some(listing) => listing,
            None if next_cookie > Self::MAX_END => Listing { after: offset, end: u64::MAX },
            None => Listing { after: 0, end: next_cookie },
        }
    }
}

impl TinyFs {
    /// Shows the entries after the one whose [`DirEntry::offset`] this is (0: from the start) until `each` says `false`.
    pub fn readdir(
        &self,
        id: NodeId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<(), Error> {
        let tree = self.tree();
        walk(&tree, id, offset, |entry, _| Ok(each(entry)))
    }

    /// The same with attributes; takes a reference on each node for which `each` said `true`,
    /// but for those of `.` and `..`.
    pub fn readdir_plus(
        &self,
        id: NodeId,
        offset: u64,
        each: &mut dyn FnMut(&DirEntry<'_>, &Attributes) -> bool,
    ) -> Result<(), Error> {
        let tree = self.tree();
        walk(&tree, id, offset, |entry, cookie| {
            let node = tree.find(entry.id)?;
            let more = each(entry, &node.attributes());
            if more && cookie > COOKIE_PARENT {
                self.refer(node, id, cookie);
            }
            Ok(more)
        })
    }
}

fn walk(
    tree: &Tree,
    id: NodeId,
    offset: u64,
    mut each: impl FnMut(&DirEntry<'_>, u64) -> Result<bool, Errno>,
) -> Result<(), Error> {
    let node = tree.get(id)?;
    let directory = node.directory()?;
    let listing = Listing::at(offset, directory.next_cookie());
    let mut show = |name: &[u8], id: NodeId, kind: FileType, cookie: u64| {
        each(&DirEntry { name, id, kind, offset: Listing { after: cookie, ..listing }.to_offset() }, cookie)
    };
    // An unlinked directory has no entries at all, not even these.
    if node.nlink > 0 {
        let own = [(&b"."[..], id, COOKIE_SELF), (b"..", directory.parent, COOKIE_PARENT)];
        for (name, id, cookie) in own {
            if listing.after < cookie && !show(name, id, FileType::Directory, cookie)? {
                return Ok(());
            }
        }
    }
    for entry in directory.after(listing.after).take_while(|entry| entry.cookie < listing.end) {
        if !show(&entry.name, tree.ino_of(entry.child), entry.kind, entry.cookie)? {
            return Ok(());
        }
    }
    Ok(())
}
