//! Who a pond is and where its history stands.

use std::fmt;
use std::str::FromStr;

use pond_tinyfs::Lsn;
use serde::{Deserialize, Serialize};

/// Number of a Delta version; the first is 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version after this one.
    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a line of history: the first is 1, and each promotion of a replica begins a higher one. Versions go on across them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u64);

impl Timeline {
    /// The one that a pond begins with.
    pub const FIRST: Timeline = Timeline(1);

    /// The timeline after this one.
    pub fn next(self) -> Timeline {
        Timeline(self.0 + 1)
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of a pond transaction; the one that made the pond is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TxnSeq(pub u64);

impl TxnSeq {
    /// The transaction after this one.
    pub fn next(self) -> TxnSeq {
        TxnSeq(self.0 + 1)
    }
}

impl fmt::Display for TxnSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a pond: 16 random bytes, written as a UUID; the same on a source and its replicas.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PondId(uuid::Uuid);

impl PondId {
    /// A new one.
    pub fn random() -> Self {
        PondId(uuid::Uuid::new_v4())
    }

    /// The 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        PondId(uuid::Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for PondId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for PondId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(PondId)
    }
}

/// Who a pond is, as its table's configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    /// The pond.
    pub pond_id: PondId,
    /// Least format that a program must know to read it.
    pub min_reader: u32,
    /// Least format that a program must know to write it.
    pub min_writer: u32,
    /// From what it was made, if it is a fork or goes back to one: that pond's id, the version, and its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// Where history stands: one version and what its log entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Position {
    /// The version.
    pub version: Version,
    /// BLAKE3-256 of its log entry's bytes, lowercase hex.
    pub digest: String,
    /// When it was committed, microseconds since 1970 UTC; strictly increasing over versions.
    pub timestamp: i64,
    /// Last transaction up to it.
    pub txn_seq: TxnSeq,
    /// Last operation that it holds.
    #[serde(serialize_with = "lsn_as_number")]
    pub cut_lsn: Lsn,
    /// The timeline on which it was committed; the first is 1.
    pub timeline: Timeline,
}

impl Position {
    /// What holds between a version and the one after it, by the name of the number that goes on: each commit relies on it, the
    /// check of a pond looks for it, and no incoming version is taken that breaks it.
    pub(crate) fn goes_on_in(&self, next: &Position) -> [(&'static str, bool); 5] {
        [
            ("version", next.version == self.version.next()),
            ("transaction", next.txn_seq > self.txn_seq),
            ("timestamp", next.timestamp > self.timestamp),
            ("last operation", next.cut_lsn >= self.cut_lsn),
            ("timeline", next.timeline >= self.timeline),
        ]
    }
}

fn lsn_as_number<S: serde::Serializer>(lsn: &Lsn, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(lsn.0)
}

/// Who asked for a commit. Secrets must have been redacted by the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// `mount`, `command`, `transaction`, `recovery`, `init`, …
    pub kind: String,
    /// The command line, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What whoever asked said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Origin {
    /// Of this kind, without a command.
    pub fn of(kind: &str) -> Self {
        Origin { kind: kind.into(), command: None, message: None }
    }

    /// A mount's periodic or final commit.
    pub fn mount() -> Self {
        Origin::of("mount")
    }

    /// A command's commit; `command` is what `pond log` shows.
    pub fn command(command: impl Into<String>) -> Self {
        Origin { command: Some(command.into()), ..Origin::of("command") }
    }

    /// All that a command did in a transaction; `command` and the message are what `pond log` shows.
    pub fn transaction(command: impl Into<String>, message: Option<String>) -> Self {
        Origin { command: Some(command.into()), message, ..Origin::of("transaction") }
    }

    /// A commit that writes data files anew, or lets go of old versions.
    pub fn maintenance() -> Self {
        Origin::of("maintenance")
    }

    /// The commit of what recovery found in the journal.
    pub fn recovery() -> Self {
        Origin::of("recovery")
    }
}
