//! `pond backup …`: a backup store by itself.

mod drill;
mod failed;
mod find;
mod look;
mod matching;
mod remote;
mod restore;
mod staging;
mod verify;

use crate::cli::{BackupAction, BackupArgs};
use crate::context::Context;
use crate::error::Result;
use crate::interrupt;

/// Does what was asked.
pub fn backup(args: &BackupArgs, context: &mut Context) -> Result {
    interrupt::catch();
    match &args.action {
        BackupAction::List(args) => look::list(args, context),
        BackupAction::Describe(args) => look::describe(args, context),
        BackupAction::Find(args) => find::find(args, context),
        BackupAction::Restore(args) => restore::restore(args, context),
        BackupAction::Verify(args) => verify::verify(args, context),
    }
}
