//! One commit at a time, and none any more once nobody knows what the last one left.

use parking_lot::{Mutex, MutexGuard};

use crate::OpLogError;
use crate::log::delta::Log;

/// Whose turn it is to commit.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<Result<(), String>>);

/// The right to commit, until it is dropped.
pub(crate) struct Turn<'a>(MutexGuard<'a, Result<(), String>>);

impl Turns {
    /// Commits are possible, or why not.
    pub(crate) fn new(writable: Result<(), String>) -> Self {
        Turns(Mutex::new(writable))
    }

    /// Waits until no commit is under way.
    ///
    /// # Errors
    ///
    /// [`OpLogError::ReadOnly`] if there can be no more.
    pub(crate) fn take(&self, log: &Log) -> Result<Turn<'_>, OpLogError> {
        let turn = self.0.lock();
        match &*turn {
            Ok(()) => Ok(Turn(turn)),
            Err(why) => Err(OpLogError::ReadOnly { path: log.table().to_path_buf(), why: why.clone() }),
        }
    }
}

impl Turn<'_> {
    /// There can be no more commits.
    pub(crate) fn end_writing(&mut self, why: String) {
        *self.0 = Err(why);
    }

    /// Passes on what a commit came to. There can be no more where nobody knows whether the entry survives power loss.
    pub(crate) fn settle<T>(&mut self, committed: Result<T, OpLogError>) -> Result<T, OpLogError> {
        if let Err(error @ OpLogError::Unconfirmed { .. }) = &committed {
            self.end_writing(error.to_string());
        }
        committed
    }
}
