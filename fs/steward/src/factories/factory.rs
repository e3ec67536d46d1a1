//! Factories: named kinds of nodes with a configuration, that do something when they are run.
//!
//! A factory says what it is called and whether a configuration is valid, and which of three things it does: work after commits
//! ([`PostCommit`]), bring versions in ([`VersionSource`]), compute content ([`Derive`]). The Steward keeps the nodes, decides when
//! they run, and remembers how it went.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use pond_oplog::{PondId, Version, View};

use crate::{FactoryError, FactoryPond, Replica, StewardError};

/// A kind of dynamic node.
pub trait Factory: Send + Sync + 'static {
    /// The name by which `mknod` knows it.
    fn name(&self) -> &str;

    /// One line for `pond factories`.
    fn description(&self) -> &str;

    /// Whether a configuration is one. Secrets are still `${env:NAME}`, and need not be set.
    fn validate(&self, configuration: &[u8]) -> Result<(), FactoryError>;

    /// The modes in which `factory_mode:NAME` may have it run here; empty if it takes any.
    fn modes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Files and directories of the host that a run with a valid configuration writes to. They are looked at before a node is made
    /// and before each run: none may be in the pond's own directory or mount.
    fn writes_to(&self, _configuration: &[u8]) -> Result<Vec<PathBuf>, FactoryError> {
        Ok(Vec::new())
    }

    /// Tries out what a valid configuration leads to (a store, say), before a node is made with it in this pond.
    fn probe(&self, _configuration: &[u8], _pond_id: PondId) -> Result<(), FactoryError> {
        Ok(())
    }

    /// What it does after commits and when it is run by hand; `None` if nothing.
    fn post_commit(&self) -> Option<&dyn PostCommit> {
        None
    }

    /// How it brings versions in; `None` if it does not. A factory that does is a remote: after commits it ships versions to where
    /// it brings them in from.
    fn version_source(&self) -> Option<&dyn VersionSource> {
        None
    }

    /// How it computes what its nodes show; `None` if they show nothing.
    fn derive(&self) -> Option<&dyn Derive> {
        None
    }
}

/// Work after commits.
pub trait PostCommit {
    /// Does its work; the result is a line for the user.
    ///
    /// A run may be repeated: after a failure, and after a crash also for versions that it has handled.
    fn run(&self, context: &FactoryContext<'_>) -> Result<String, FactoryError>;

    /// Whether a run may change the pond. Such a factory is not started again by commits that hold only
    /// what factories wrote.
    fn writes(&self) -> bool {
        false
    }
}

/// Brings in versions that were made elsewhere, on a replica.
pub trait VersionSource {
    /// Brings in what there is, shows it and reports how that goes, all by way of `replica`; the result is a line for the user.
    fn pull(&self, context: &FactoryContext<'_>, replica: &Replica) -> Result<String, FactoryError>;

    /// How often to do so; `None` if only when it is asked to.
    fn interval(&self, _configuration: &[u8]) -> Result<Option<Duration>, FactoryError> {
        Ok(None)
    }
}

/// Computes content. Nothing asks for it yet: nodes show their configuration.
pub trait Derive {
    /// What a node with this configuration shows in a version. The same for the same version and configuration.
    fn derive(&self, configuration: &[u8], view: &View) -> Result<Vec<u8>, FactoryError>;
}

/// What a run is told.
pub struct FactoryContext<'a> {
    /// The factory that runs.
    pub factory: &'a str,
    /// The factory's mode (`factory_mode:NAME`), which is its first argument.
    pub mode: &'a str,
    /// Further arguments of `pond run`; none after a commit.
    pub args: &'a [String],
    /// The node's configuration; [`configuration::parse`](crate::factories::configuration::parse) reads it.
    pub configuration: &'a [u8],
    /// The node's path.
    pub path: &'a str,
    /// The versions since its last success; `None` if there are none.
    pub commits: Option<RangeInclusive<Version>>,
    /// The pond.
    pub pond: &'a FactoryPond,
}

impl FactoryContext<'_> {
    /// For a factory that knows no arguments: an error where `pond run` gave some, which would otherwise seem to be heeded.
    pub fn refuse_arguments(&self) -> Result<(), FactoryError> {
        match self.args {
            [] => Ok(()),
            [first, ..] => {
                Err(FactoryError::new(format!("{} takes no arguments, not {first:?}", self.factory)))
            }
        }
    }

    /// Sets one of the factory's own settings, whose names begin with the factory's and a colon; it is durable when
    /// this returns. Those of other factories are not its to set.
    pub fn control_set(&self, key: &str, value: &str) -> Result<(), StewardError> {
        match key.split_once(':') {
            Some((factory, _)) if factory == self.factory && factory != "factory_mode" => {
                self.pond.control.set_all(&[(key, value)])
            }
            _ => Err(StewardError::BadSetting {
                key: key.to_owned(),
                value: value.to_owned(),
                why: "a factory's own settings begin with its name and a colon",
                advice: None,
            }),
        }
    }
}
