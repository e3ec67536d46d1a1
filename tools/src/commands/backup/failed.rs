//! How a command on a store fails.

use pond_replicate::ReplicateError;

use crate::error::Failure;
use crate::interrupt;

/// What a failure of the store means; after Ctrl-C the process ends by that.
pub fn failed(what: &str, error: &ReplicateError) -> Failure {
    match interrupt::check() {
        Err(interrupted) => interrupted,
        Ok(()) => Failure::because(what, error),
    }
}
