//! What goes over the control socket: one JSON object a line, a request and then its answer.

use std::path::PathBuf;

use pond_oplog::Version;
use pond_steward::{FactoryStatus, MaintainOptions, TagChange};
use pond_tinyfs::Advise;
use serde::{Deserialize, Serialize};

/// What a command asks of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// The pond's status, as in `.pond/status.json`.
    Status,
    /// Commit everything and run the post-commit factories.
    Sync,
    /// Commit everything.
    Commit,
    /// Make a factory's node.
    Mknod {
        /// The factory.
        factory: String,
        /// Path within the pond.
        path: String,
        /// Its configuration.
        configuration: Vec<u8>,
    },
    /// Run a factory's node.
    Run {
        /// Path within the pond.
        path: String,
        /// Further arguments.
        args: Vec<String>,
    },
    /// Settings: one, or all.
    ControlGet {
        /// Which.
        key: Option<String>,
    },
    /// Change a setting.
    ControlSet {
        /// Which.
        key: String,
        /// To what.
        value: String,
    },
    /// Give a version a name, or take it back.
    Tag {
        /// The name.
        name: String,
        /// What is to happen.
        change: TagChange,
        /// The command that asked for it, for the history.
        command: String,
    },
    /// Commit everything, and serve a scratch of that version, which is mounted on this place in a namespace that only the asker
    /// has: see [`crate::transaction`].
    BeginTransaction {
        /// Where.
        mountpoint: PathBuf,
    },
    /// Make one version of what was done there: once it is mounted nowhere any more.
    EndTransaction {
        /// The command, for the history.
        command: String,
        /// What whoever asks says of it.
        message: Option<String>,
    },
    /// Merge, prune and clean.
    Maintain(MaintainOptions),
    /// The factories the daemon knows: names and descriptions.
    Factories,
    /// Commit everything and, once the mount is gone, answer a second time with how the last commit went.
    Unmount,
}

/// The answer to [`Request::EndTransaction`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Published {
    /// What was done is this version.
    Version(Version),
    /// Nothing was done.
    Nothing,
    /// It clashes with what others did, and nothing was changed.
    Conflicts(Vec<PublishedConflict>),
}

/// A place at which what a transaction did clashes with what others did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedConflict {
    /// The path, as it was before either.
    pub path: Vec<u8>,
    /// What both did, in words.
    pub why: String,
}

/// The second answer to [`Request::Unmount`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Farewell {
    /// The version that holds everything.
    pub(crate) version: Version,
    /// The nodes whose work is not done.
    pub(crate) owed: Vec<FactoryStatus>,
}

/// An error from the daemon's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// For the user.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// The nearest error number.
    pub errno: i32,
}

impl RequestError {
    /// With no advice.
    pub(crate) fn new(message: impl Into<String>, errno: i32) -> Self {
        RequestError { message: message.into(), advice: None, errno }
    }
}

impl Advise for RequestError {
    fn advice(&self) -> Option<String> {
        self.advice.clone()
    }
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    /// It worked; what was asked for, in the form of the type that the Steward gives.
    Ok(serde_json::Value),
    /// It did not.
    Error(RequestError),
}
