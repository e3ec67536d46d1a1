//! The commands: one file per group. Each takes its arguments and what all of them share.

mod backup;
mod bisect;
mod cat;
mod changes;
mod completions;
mod control;
mod copy;
mod diff;
mod factories;
mod fork;
mod fsck;
mod history;
mod init;
mod list;
mod maintain;
mod mount;
mod names;
mod past;
mod promote;
mod restore;
mod scratch_mount;
mod show;
mod space;
mod sql;
mod status;
mod sync;
mod tag;
mod troubles;
mod txn;
mod wait_version;
mod walk;

use crate::cli::Command;
use crate::context::Context;
use crate::error::Result;

pub use control::help as control_help;
pub use mount::{AS_POND, check_options, describe_unmount, mount_quietly};

/// Does what was asked.
pub fn run(command: Command, context: &mut Context) -> Result {
    match command {
        Command::Init(args) => init::init(&args, context),
        Command::Mount(args) => mount::mount(&args, context),
        Command::Umount(args) => mount::umount(&args.mountpoint, context),
        Command::Sync(args) => sync::sync(&args, context),
        Command::Status(args) => status::status(&args, context),
        Command::Log(args) => past::log(&args, context),
        Command::Show(args) => show::show(&args, context),
        Command::Diff(args) => diff::diff(&args, context),
        Command::Restore(args) => restore::restore(&args, context),
        Command::Undelete(args) => restore::undelete(&args, context),
        Command::Space(args) => space::space(&args, context),
        Command::List(args) => list::list(&args, context),
        Command::Cat(args) => cat::cat(&args, context),
        Command::Copy(args) => copy::copy(&args, context),
        Command::Mkdir(args) => names::mkdir(&args, context),
        Command::Rm(args) => names::rm(&args, context),
        Command::Mv(args) => names::mv(&args, context),
        Command::Mknod(args) => factories::mknod(&args, context),
        Command::Run(args) => factories::run(args, context),
        Command::Factories => factories::list(context),
        Command::Control(args) => control::control(args, context),
        Command::Fsck(args) => fsck::fsck(&args, context),
        Command::Promote => promote::promote(context),
        Command::Backup(args) => backup::backup(&args, context),
        Command::Tag(args) => tag::tag(&args, context),
        Command::Fork(args) => fork::fork(&args, context),
        Command::Maintain(args) => maintain::maintain(args, context),
        Command::Sql(args) => sql::sql(&args, context),
        Command::Bisect(args) => bisect::bisect(&args, context),
        Command::Txn(args) => txn::txn(&args, context),
        Command::Completions(args) => completions::completions(&args, context),
    }
}
