//! The files of `.pond/`, and one of them at a time.

use pond_tinyfs::Timestamp;

/// The files in `.pond/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Content {
    /// `VERSION/DIGEST` of the version shown.
    Position,
    /// Milliseconds behind the source.
    Lag,
    /// Everything about the pond and the mount, as JSON.
    Status,
    /// The end of the daemon's log.
    Log,
}

impl Content {
    pub(crate) const ALL: [Content; 4] = [Content::Position, Content::Lag, Content::Status, Content::Log];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Content::Position => "position",
            Content::Lag => "lag",
            Content::Status => "status.json",
            Content::Log => "log",
        }
    }

    /// Whether all users may read it: it tells no more than the versions beside it do.
    pub(crate) fn is_for_all(self) -> bool {
        matches!(self, Content::Position | Content::Lag)
    }

    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|content| content.name().as_bytes() == name)
    }
}

/// What a file said when it was looked up: bytes that never change.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) file: Content,
    pub(crate) bytes: Box<[u8]>,
    pub(crate) made: Timestamp,
}
