//! Why what was done in a scratch cannot be done on the tree that others changed meanwhile.

use crate::Error;

/// What both sides did that cannot both be had.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Clash {
    /// Both changed it: content, attributes or, there, its links.
    Changed,
    /// Both gave this name, or took it.
    Name,
    /// It was changed, filled or linked here, and is no longer there.
    EndedThere,
    /// It was ended here, and was changed, filled or linked there.
    EndedHere,
    /// Directories were moved so that one would lie in itself.
    Cycle,
}

impl Clash {
    /// Words for it, after the path.
    pub fn words(self) -> &'static str {
        match self {
            Clash::Changed => "was changed on both sides",
            Clash::Name => "is a name that both sides gave or took",
            Clash::EndedThere => "was changed here and removed there",
            Clash::EndedHere => "was removed here and changed there",
            Clash::Cycle => "was moved into a directory that was moved into it",
        }
    }
}

/// A place at which two sides clash.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Conflict {
    /// The path, as it was before either side changed anything.
    pub path: Vec<u8>,
    /// How they clash.
    pub clash: Clash,
}

/// Why nothing was published.
#[derive(Debug)]
pub enum NotPublished {
    /// The two sides clash, in these places, in the order of their paths.
    Conflicts(Vec<Conflict>),
    /// There is no room, or no changes are taken.
    Failed(Error),
}

impl From<crate::Errno> for NotPublished {
    fn from(errno: crate::Errno) -> Self {
        NotPublished::Failed(errno.into())
    }
}
