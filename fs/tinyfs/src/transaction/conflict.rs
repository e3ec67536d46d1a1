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
    /// What a command did in a scratch, and others there, in words.
    pub fn words(self) -> &'static str {
        match self {
            Clash::Changed => "the command changed it, and so did others",
            Clash::Name => "the command made or took this name, and so did others",
            Clash::EndedThere => "the command changed, filled or linked it, and others removed it",
            Clash::EndedHere => "the command removed it, and others changed, filled or linked it",
            Clash::Cycle => "the command moved it into a directory that others moved into it",
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
