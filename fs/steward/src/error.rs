//! Errors: each names the thing, keeps its cause and says what to do next.

use std::io;
use std::path::{Path, PathBuf};

use pond_oplog::{OpLogError, Timeline, TxnSeq};
use pond_tinyfs::{Advise, StorageError};

use crate::{FactoryError, LockHolder};

/// Why the Steward could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StewardError {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb: "open the lock file".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There are no transactions on what makes no versions.
    #[error("{pond} is a replica, which only follows its source", pond = pond.display())]
    NoTransactions {
        /// The pond.
        pond: PathBuf,
    },
    /// What was done in a transaction could not be made in the tree. Nothing was changed.
    #[error("what the command did cannot be taken over: {source}")]
    NotPublished {
        /// Why not.
        source: pond_tinyfs::Error,
    },
    /// What was done in a transaction is in the tree, and not yet durable.
    #[error("what the command did is in the pond, but not yet durable: {why}")]
    PublishedOnly {
        /// Why the commit failed.
        why: String,
    },
    /// Another process writes to the pond.
    #[error(
        "{pond} is in use by {holder}",
        pond = pond.display()
    )]
    LockHeld {
        /// The pond.
        pond: PathBuf,
        /// Who uses it.
        holder: LockHolder,
    },
    /// There is nothing.
    #[error("there is no pond at {path}", path = .0.display())]
    NoPond(PathBuf),
    /// There is something else.
    #[error("{path} is not a pond: {why}", path = path.display())]
    NotAPond {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// `init` found a pond.
    #[error("{path} is a pond already", path = path.display())]
    AlreadyAPond {
        /// The pond.
        path: PathBuf,
    },
    /// `init` found something else.
    #[error(
        "{path} is not empty ({found} is in it): a pond is made only where there is nothing yet or an empty directory",
        path = path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A pond was to be made within another one, from which it is made.
    #[error("{path} is {why}", path = path.display())]
    OwnPlace {
        /// The directory.
        path: PathBuf,
        /// Within what it is.
        why: &'static str,
    },
    /// An earlier `init` or `fork` was cut off.
    #[error("making the pond {path} was cut off, and it holds nothing yet", path = path.display())]
    InitUnfinished {
        /// The pond.
        path: PathBuf,
    },
    /// An earlier init from a backup was cut off.
    #[error(
        "making the replica {path} from its backup was cut off",
        path = path.display()
    )]
    ReplicaUnfinished {
        /// The pond.
        path: PathBuf,
    },
    /// Init from a backup found a replica that is whole.
    #[error("{path} is a replica already", path = path.display())]
    AlreadyAReplica {
        /// The pond.
        path: PathBuf,
    },
    /// Only a replica can be promoted.
    #[error("{path} is a source and takes writes already: only a replica can be promoted", path = path.display())]
    NotAReplica {
        /// The pond.
        path: PathBuf,
    },
    /// A timeline that a replica cannot be promoted to.
    #[error("{path} is on timeline {current}, and a new one must be higher than that: {timeline} is not", path = path.display())]
    BadTimeline {
        /// The pond.
        path: PathBuf,
        /// The timeline of its newest version.
        current: Timeline,
        /// The one that was asked for.
        timeline: Timeline,
    },
    /// A promotion of which only the settings were written.
    #[error(
        "{path} is a source on timeline {timeline} now, but its first version there could not be committed: {reason}; once \
         that is mended, the next `pond mount`, or any command on it, commits it",
        path = path.display()
    )]
    PromotedUnfinished {
        /// The pond.
        path: PathBuf,
        /// The timeline that it was promoted to.
        timeline: Timeline,
        /// Why there is no version on it.
        #[source]
        reason: Box<StewardError>,
    },
    /// A remote does not run before a promoted pond has a version on its own timeline.
    #[error(
        "{factory} does not run yet: the pond was promoted to timeline {timeline} and has no version on it; the next \
         `pond mount`, or any command on the unmounted pond, commits that version"
    )]
    TimelinePending {
        /// The factory.
        factory: String,
        /// The timeline.
        timeline: Timeline,
    },
    /// A pull was told to stop and did not.
    #[error(
        "a pull of {pond} still runs after {seconds} s; the pond stays locked until this process ends",
        pond = pond.display()
    )]
    StillPulling {
        /// The pond.
        pond: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The settings are gone, and with them whether the pond is a source or a replica.
    #[error(
        "{path} has data but no control table, so its role is unknown; writing to a replica would fork its history",
        path = path.display()
    )]
    ControlMissing {
        /// The pond.
        path: PathBuf,
    },
    /// A row of the control table does not make sense.
    #[error(
        "the control table {path} is corrupt: {why}",
        path = path.display()
    )]
    ControlCorrupt {
        /// The table.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The pond takes no writes.
    #[error("the pond is read-only: {why}")]
    ReadOnly {
        /// Since when or what.
        why: String,
    },
    /// A commit failed. What it was to hold is kept in memory and tried again.
    #[error("transaction {txn_seq} could not be committed: {reason}; it is kept and tried again")]
    NotCommitted {
        /// The transaction.
        txn_seq: TxnSeq,
        /// Why not.
        #[source]
        reason: StorageError,
    },
    /// The last commit before the end failed.
    #[error(
        "the pond was closed with {changes} that could not be committed: {reason}; {kept}",
        changes = crate::count(*rows as u64, "change"),
        kept = if *in_journal {
            "they are in the journal, and the next mount commits them"
        } else {
            "those made after the last fsync are lost"
        }
    )]
    ClosedUncommitted {
        /// Rows that no version holds.
        rows: usize,
        /// Why not.
        #[source]
        reason: StorageError,
        /// Whether the journal holds them all.
        in_journal: bool,
    },
    /// The Steward has ended.
    #[error("the pond is closed")]
    Closed,
    /// There is no such setting.
    #[error("there is no setting {0}")]
    UnknownSetting(String),
    /// A setting cannot be had.
    #[error("{key} cannot be {value:?}: {why}")]
    BadSetting {
        /// Its name.
        key: String,
        /// What it was to be.
        value: String,
        /// Why it cannot be.
        why: &'static str,
        /// What to do instead.
        advice: Option<&'static str>,
    },
    /// A factory does not know a mode.
    #[error("factory_mode:{factory} cannot be {mode:?}: {factory} runs as {modes}")]
    UnknownMode {
        /// The factory.
        factory: String,
        /// The mode that it was to run in.
        mode: String,
        /// Those that it knows.
        modes: String,
    },
    /// No such factory.
    #[error("there is no factory {name:?}")]
    UnknownFactory {
        /// The name that was asked for.
        name: String,
        /// The names that would have worked.
        known: String,
    },
    /// A configuration that its factory refuses.
    #[error("the configuration for {factory} is not valid: {reason}")]
    BadConfiguration {
        /// The factory.
        factory: String,
        /// What it said.
        #[source]
        reason: FactoryError,
    },
    /// What a configuration leads to does not serve.
    #[error("{factory} cannot work with this configuration: {reason}")]
    ProbeFailed {
        /// The factory.
        factory: String,
        /// What it said.
        #[source]
        reason: FactoryError,
    },
    /// A factory failed.
    #[error("{path} ({factory}) failed: {reason}")]
    FactoryFailed {
        /// Its node.
        path: String,
        /// The factory.
        factory: String,
        /// What it said.
        #[source]
        reason: FactoryError,
    },
    /// On a replica a factory runs only where it was told to.
    #[error("{factory} does not run on a replica")]
    NotOnAReplica {
        /// The factory.
        factory: String,
    },
    /// The node is not a factory's.
    #[error("{path} is not a factory's node")]
    NotDynamic {
        /// The path.
        path: String,
    },
    /// A path that cannot be used.
    #[error("cannot use the path {path:?}: {why}")]
    BadPath {
        /// The path.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// The tree refused.
    #[error("cannot {action} {path}: {source}")]
    Tree {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: pond_tinyfs::Error,
    },
    /// The log.
    #[error(transparent)]
    OpLog(#[from] OpLogError),
}

impl StewardError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        StewardError::Io { action, path: path.to_owned(), source }
    }

    /// The error number that a system call is answered with.
    pub fn errno(&self) -> i32 {
        match self {
            StewardError::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            StewardError::LockHeld { .. } => libc::EBUSY,
            StewardError::ReadOnly { .. } => libc::EROFS,
            StewardError::NotCommitted { reason, .. } => reason.errno,
            StewardError::PromotedUnfinished { reason, .. } => reason.errno(),
            StewardError::Tree { source, .. } | StewardError::NotPublished { source } => source.errno(),
            StewardError::OpLog(error) => error.errno(),
            StewardError::UnknownSetting(_)
            | StewardError::BadSetting { .. }
            | StewardError::NotAReplica { .. }
            | StewardError::BadTimeline { .. }
            | StewardError::UnknownMode { .. }
            | StewardError::UnknownFactory { .. }
            | StewardError::BadConfiguration { .. }
            | StewardError::ProbeFailed { .. }
            | StewardError::NotDynamic { .. }
            | StewardError::BadPath { .. } => libc::EINVAL,
            _ => libc::EIO,
        }
    }
}

impl Advise for StewardError {
    fn advice(&self) -> Option<String> {
        let advice = match self {
            StewardError::LockHeld { .. } => "unmount it there with `pond umount`, or wait until it is done",
            StewardError::NoPond(_) => "`pond init` makes one",
            StewardError::NoTransactions { .. } => {
                "run the transaction on the source, or try the command in `pond mount --scratch`, or in a `pond fork`"
            }
            StewardError::NotPublished { source } => return source.advice(),
            StewardError::PublishedOnly { .. } => "`pond sync` tries again, and says when it is",
            StewardError::NotAPond { .. } => "name a pond's directory with --pond or $POND",
            StewardError::InitUnfinished { .. } => "run `pond init`, or `pond fork`, again",
            StewardError::ReplicaUnfinished { .. } => {
                "run `pond init --from-backup` again, which goes on where it stopped"
            }
            StewardError::AlreadyAReplica { .. } => "`pond sync` brings it up to date",
            StewardError::ControlMissing { .. } => {
                "say what it is with `pond control set factory_mode:remote push` (a source) or `… pull` (a replica)"
            }
            StewardError::ControlCorrupt { .. } => {
                "move it away and say again what the pond is with `pond control set factory_mode:remote push` (a source) or \
                 `… pull` (a replica)"
            }
            StewardError::UnknownSetting(_) => "`pond control` lists them all",
            StewardError::BadSetting { advice, .. } => return advice.map(str::to_owned),
            StewardError::UnknownFactory { known, .. } => return Some(format!("there are {known}")),
            StewardError::NotOnAReplica { factory } => {
                return Some(format!("allow it with `pond control set factory_mode:{factory} MODE`"));
            }
            StewardError::NotDynamic { .. } => "`pond mknod` makes one",
            StewardError::NotCommitted { reason, .. } | StewardError::ClosedUncommitted { reason, .. } => {
                return reason.advice();
            }
            StewardError::PromotedUnfinished { reason, .. } => return reason.advice(),
            StewardError::BadConfiguration { reason, .. }
            | StewardError::ProbeFailed { reason, .. }
            | StewardError::FactoryFailed { reason, .. } => return reason.advice(),
            StewardError::Tree { source, .. } => return source.advice(),
            StewardError::OpLog(error) => return error.advice(),
            _ => return None,
        };
        Some(advice.to_owned())
    }
}
