//! Errors: each names the version or key, keeps its cause and says what to do next.

use pond_oplog::{OpLogError, PondId, Timeline, Version};
use pond_steward::{FactoryError, StewardError};
use pond_tinyfs::Advise;
use uuid::Uuid;

/// What a store did not do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {key} in {place}: {cause}")]
pub struct StoreError {
    /// The store: a directory, or `s3://bucket` and endpoint.
    pub place: String,
    /// The object, below the configured place.
    pub key: String,
    /// What was tried: `get`, `put`, `list`, …
    pub operation: &'static str,
    /// What sort of failure it is.
    pub kind: StoreErrorKind,
    /// What to check.
    pub advice: &'static str,
    /// Why not, in plain words: what the server answered, or the operating system said.
    pub cause: String,
}

/// Sorts of failures of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// Credentials are wrong or not enough.
    Denied,
    /// The bucket, or the directory, is not there.
    NoSuchPlace,
    /// The object is not there and had to be.
    Missing,
    /// The store does not do what a backup needs.
    Unsuitable,
    /// The request makes no sense to the store; it would not the next time either.
    Refused,
    /// The disk of a directory is full, read-only or broken.
    Disk,
    /// The store did not answer, or said that it cannot just now. It was tried several times.
    Unavailable,
}

/// Why a push, a pull or a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    /// The configuration, or an environment variable that it names.
    #[error("the configuration of the remote is not valid: {0}")]
    Configuration(#[source] FactoryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pond's log.
    #[error(transparent)]
    OpLog(#[from] OpLogError),
    /// The Steward.
    #[error(transparent)]
    Steward(#[from] StewardError),
    /// A local file or thread.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, with the path.
        action: String,
        /// Why not.
        source: std::io::Error,
    },
    /// An object of a newer program.
    #[error("{key} has format {format} and this program knows {known}")]
    TooNew {
        /// The object.
        key: String,
        /// The format that it says.
        format: u32,
        /// The newest that is known.
        known: u32,
    },
    /// An object, or a file within one, that is not what it should be.
    #[error("{key} in the backup store is damaged{at}: {why}; nothing of it was used", at = at_version(*.version))]
    Corrupt {
        /// The object, and the file within it.
        key: String,
        /// The version that it belongs to, where that is known.
        version: Option<Version>,
        /// What is wrong.
        why: String,
    },
    /// A data file here is not what was written: no base is made of it.
    #[error("the data file {name}, which is live at version {version}, is damaged here")]
    DamagedSource {
        /// The version of which a base was to be made.
        version: Version,
        /// The file, within `data/`.
        name: String,
    },
    /// The chain of manifests does not hold together.
    #[error("the history in the backup store is broken at version {version}: {key}: {why}")]
    BrokenChain {
        /// The version.
        version: Version,
        /// Its manifest.
        key: String,
        /// What does not fit.
        why: String,
    },
    /// A version that should be in the store is neither there by itself, nor in a pack, nor in a base.
    #[error(
        "version {version} is missing from {place}{later}; a replica keeps what it has",
        later = later_text(*.later)
    )]
    MissingVersion {
        /// The version.
        version: Version,
        /// The store.
        place: String,
        /// A later one that is there, where that was looked for.
        later: Option<Version>,
        /// The newest version that a new replica can be made of, where that is known.
        instead: Option<Version>,
    },
    /// A version that should be in the store is missing, and only from a later base on the history is whole again.
    #[error(
        "version {version} is missing from {place}, and a replica can go on only from the base of version {base}; this one \
         keeps what it has, which the store may not have any more"
    )]
    OnlyFromBase {
        /// The version.
        version: Version,
        /// The version of the newest base.
        base: Version,
        /// The store.
        place: String,
    },
    /// The store holds another pond.
    #[error("{place} holds the backup of another pond ({found}; this one is {ours})")]
    ForeignPond {
        /// The store.
        place: String,
        /// The pond in the store.
        found: PondId,
        /// This pond.
        ours: PondId,
    },
    /// Another pond with the same identity wrote the same version.
    #[error(
        "a second writer: {key} in {place} is not this pond's version {version} ({why}). Two copies of one pond \
         pushed to the same place; nothing was changed there"
    )]
    SecondWriter {
        /// The store.
        place: String,
        /// The manifest that was there first.
        key: String,
        /// The version.
        version: Version,
        /// How it differs.
        why: String,
    },
    /// A replica was promoted.
    #[error(
        "{place} has timeline {theirs}, which a promoted replica began{fork}: that one is the source now, and this pond, on \
         timeline {ours}, takes no more writes and pushes nothing. {left}",
        fork = fork_text(*.fork),
        left = left_text(*.fork)
    )]
    Superseded {
        /// The store.
        place: String,
        /// This pond's timeline.
        ours: Timeline,
        /// The higher one.
        theirs: Timeline,
        /// The last version that both have.
        fork: Option<Version>,
    },
    /// Two replicas were promoted to the same timeline, each in a store that did not know of the other.
    #[error(
        "{place} has timeline {timeline} of another replica, which was promoted to the same number{fork} (its id is {theirs}, \
         this pond's is {ours}): their histories have diverged, and nothing of this one is pushed there",
        fork = fork_text(*.fork)
    )]
    ClaimedTwice {
        /// The store.
        place: String,
        /// The timeline that both claimed.
        timeline: Timeline,
        /// The last version that the other one has in common with the timeline before.
        fork: Option<Version>,
        /// The id in the store.
        theirs: Uuid,
        /// The one under which this pond claimed it.
        ours: Uuid,
    },
    /// The store is empty, and was not.
    #[error("{place} holds no backup, although versions up to {pushed} were pushed to it")]
    Emptied {
        /// The store.
        place: String,
        /// The last version that was pushed.
        pushed: Version,
    },
    /// The store holds no backup yet.
    #[error("{place} holds no backup")]
    NoBackup {
        /// The store.
        place: String,
    },
    /// The store is on a timeline that is older than the replica's.
    #[error(
        "{place} is on timeline {theirs}, which is older than this replica's, {ours}; it keeps what it has"
    )]
    LowerTimeline {
        /// The store.
        place: String,
        /// The timeline of HEAD.
        theirs: Timeline,
        /// The replica's.
        ours: Timeline,
    },
    /// The replica has versions that the new timeline has not.
    #[error(
        "diverged: timeline {timeline} began at version {fork} and this replica is at {ours}, so it holds versions that \
         are not part of it; it keeps serving them"
    )]
    Diverged {
        /// The new timeline.
        timeline: Timeline,
        /// Its first version's parent.
        fork: Version,
        /// Where the replica is.
        ours: Version,
    },
    /// The process wants to end.
    #[error("stopped at version {at} because the process ends")]
    Stopped {
        /// The last version that is done.
        at: String,
    },
    /// A mode that a remote does not have.
    #[error("a remote has no mode {0:?}")]
    NoMode(String),
    /// A source was told to pull.
    #[error("a source does not pull")]
    SourcePulls,
    /// A log entry that an earlier pull fetched is not the one that the manifest names.
    #[error("the log entry of version {0} that was fetched earlier is another one; it was removed")]
    StaleEntry(Version),
    /// Something else, as a sentence.
    #[error("{0}")]
    Other(String),
}

impl ReplicateError {
    /// A version that is not in the store.
    pub(crate) fn missing(version: Version, place: &str) -> Self {
        ReplicateError::MissingVersion { version, place: place.to_owned(), later: None, instead: None }
    }

    /// A local failure.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| ReplicateError::Io { action, source }
    }

    /// Whether the replica holds versions that are not part of the store's history, so that no pull can mend it.
    pub(crate) fn is_divergence(&self) -> bool {
        matches!(
            self,
            ReplicateError::Diverged { .. }
                | ReplicateError::LowerTimeline { .. }
                | ReplicateError::OpLog(OpLogError::Diverged { .. })
        )
    }

    /// The version before the one that is damaged or missing in the store, to which a restore may still get. None where it
    /// is not about a version, or not known.
    pub fn restorable(&self) -> Option<Version> {
        match self {
            ReplicateError::MissingVersion { instead, .. } => *instead,
            ReplicateError::BrokenChain { version, .. }
            | ReplicateError::Corrupt { version: Some(version), .. } => version.0.checked_sub(1).map(Version),
            _ => None,
        }
    }

    /// What a factory says of it.
    pub(crate) fn into_factory_error(self) -> FactoryError {
        match self {
            // Whoever shows it says that it is about the configuration.
            ReplicateError::Configuration(reason) => reason,
            other => FactoryError::because(other),
        }
    }
}

impl Advise for StoreError {
    fn advice(&self) -> Option<String> {
        Some(self.advice.to_owned())
    }
}

impl Advise for ReplicateError {
    fn advice(&self) -> Option<String> {
        let advice = match self {
            ReplicateError::Configuration(reason) => return reason.advice(),
            ReplicateError::Store(error) => return error.advice(),
            ReplicateError::OpLog(error) => return error.advice(),
            ReplicateError::Steward(error) => return error.advice(),
            ReplicateError::TooNew { .. } => "upgrade pond here",
            ReplicateError::DamagedSource { .. } => "`pond fsck` says what it concerns",
            ReplicateError::MissingVersion { instead: Some(version), .. } => {
                return Some(format!(
                    "the newest version that can be restored is {version}: `pond init --from-backup FILE --version {version}`"
                ));
            }
            ReplicateError::OnlyFromBase { base, .. } => {
                return Some(format!(
                    "`pond init --from-backup` makes another one in a new directory, whose history begins at version {base}"
                ));
            }
            ReplicateError::ForeignPond { .. } => "give each pond a place of its own",
            ReplicateError::SecondWriter { .. } | ReplicateError::ClaimedTwice { .. } => {
                "keep one of the two; give this one a remote of its own, or remove its node"
            }
            ReplicateError::Superseded { .. } => {
                "to follow the new source, make a replica with `pond init --from-backup` in another directory"
            }
            ReplicateError::Emptied { .. } => {
                "is it the right disk or bucket, and is it mounted? If it was emptied on purpose, remove the remote's node and \
                 make it again"
            }
            ReplicateError::NoBackup { .. } => {
                "check the path or bucket and prefix, or let the source push first"
            }
            ReplicateError::Diverged { .. } => "make a new replica with `pond init --from-backup`",
            ReplicateError::Stopped { .. } => "the next run goes on from there",
            ReplicateError::NoMode(_) => {
                "say `pond control set factory_mode:remote push` on a source, `… pull` on a replica"
            }
            ReplicateError::SourcePulls => "`pond promote` makes a source of a replica",
            ReplicateError::StaleEntry(_) => "pull again",
            _ => return None,
        };
        Some(advice.to_owned())
    }
}

fn at_version(version: Option<Version>) -> String {
    version.map_or_else(String::new, |version| format!(" (version {version})"))
}

/// What became of the versions of a pond that another one superseded.
fn left_text(fork: Option<Version>) -> String {
    match fork {
        Some(fork) => format!(
            "Its versions up to {fork} are part of the new history; those above version {fork} are here only: copy what you need \
             from them, as with `pond copy`"
        ),
        None => "What was not pushed before is here only: copy what you need of it, as with `pond copy`"
            .to_owned(),
    }
}

fn fork_text(fork: Option<Version>) -> String {
    fork.map_or_else(String::new, |fork| format!(" at version {fork}"))
}

fn later_text(later: Option<Version>) -> String {
    later.map_or_else(String::new, |later| format!(", although version {later} is there"))
}
