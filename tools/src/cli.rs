//! The command line: every command, option and help text, and nothing that does anything.
//!
//! Here are the program's own options and the list of commands; their arguments and help lie in files by group.

mod backup;
mod bisect;
mod factories;
mod history;
mod looking;
mod mounting;
mod paths;
mod settings;
mod sql;
mod state;
mod txn;
mod values;
mod whole;

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};

pub use backup::{
    BackupAction, BackupArgs, BackupDescribeArgs, BackupFindArgs, BackupListArgs, BackupRestoreArgs,
    BackupVerifyArgs, StoreArgs, VerifyLevel,
};
pub use bisect::BisectArgs;
pub use factories::{MknodArgs, RunArgs};
pub use history::{ShowArgs, TagArgs};
pub use looking::{DiffArgs, LogArgs, RestoreArgs, SpaceArgs, UndeleteArgs};
pub use mounting::{AtArgs, MountArgs, UmountArgs};
pub use paths::{CatArgs, CopyArgs, ListArgs, MkdirArgs, MvArgs, RmArgs};
pub use settings::{ControlAction, ControlArgs, ControlMode};
pub use sql::{AnswerFormat, SqlArgs};
pub use state::{StatusArgs, SyncArgs};
pub use txn::TxnArgs;
pub use whole::{CompletionsArgs, ForkArgs, FsckArgs, InitArgs, MaintainArgs};

use crate::cli::values::directory;
use crate::output::LogFormat;

/// A filesystem whose whole history is a Delta Lake table.
#[derive(Parser, Debug)]
#[command(
    name = "pond",
    version,
    long_about = "A filesystem whose whole history is a Delta Lake table.\n\n\
        Mount a pond and use it with ordinary programs: about once a second everything that was \
        written becomes a version in a Delta table, and every version can be read again. Most \
        commands work on a mounted pond and on one that is not.",
    after_long_help = "\
Examples:
  pond mount /mnt/pond              make a pond, mount it, and use it like any directory
  pond log                          its versions, newest first
  pond cat notes/today@42           a file as version 42 had it
  pond umount /mnt/pond             commit everything and unmount

Paths inside a pond start at its root, with or without the leading slash. PATH@V is the path as \
version V had it. V is a number, a time (2026-11-20T18:30, local unless it ends in Z or an offset), how long \
ago (-10m; also s, h, d, w), tag:NAME, or start for the oldest that is kept; write PATH@tip for a name that itself ends in @V. \
host:PATH is a path outside the pond. Times are shown in local time.

With --json a command that states one fact prints one JSON object, and one that lists prints JSON \
lines. A name that is not UTF-8 is approximate in \"path\", and exact, in hexadecimal, in \"path_hex\", \
which is there only then.

Exit codes: 0 success, 1 failure, 2 wrong usage.",
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What help calls the options of every command.
const GLOBAL: &str = "Options of every command";

/// Options of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// The pond's directory [default: the pond mounted here, else pond in the user's data directory]
    ///
    /// Without it, $POND says; without that, it is the pond in whose mount the current directory lies; anywhere else,
    /// $XDG_DATA_HOME/pond or ~/.local/share/pond.
    #[arg(
        long, global = true, help_heading = GLOBAL, env = "POND", value_name = "DIR", hide_env = true,
        value_hint = ValueHint::DirPath, value_parser = OsStringValueParser::new().try_map(directory)
    )]
    pub pond: Option<PathBuf>,

    /// Print facts as JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,

    /// How progress, warnings and errors are written to standard error
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,

    /// Say more about what is being done; twice for more still
    #[arg(short, long, global = true, help_heading = GLOBAL, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    Init(InitArgs),
    Mount(MountArgs),
    Umount(UmountArgs),
    Sync(SyncArgs),
    Status(StatusArgs),

    /// Show the history, newest version first
    ///
    /// TXN is the number of the pond's transaction; ORIGIN who asked for the commit: a mount, a command, a command in a transaction (txn)
    /// with its message, or recovery after a crash; FILES and BYTES what the version added to the table.
    ///
    /// With PATH only the versions in which that file changed, also under the names that it had before, and its end. Where programs
    /// write a new file and rename it over the old one, the new one goes on where the old one ended (`replaced`). With --deleted
    /// what is gone, and the last version that had it: `pond undelete` brings it back.
    #[command(after_long_help = "\
Examples:
  pond log -n 10
  pond log notes/today            how this file came about
  pond log --deleted '**/*.txt'   text files that are gone
  pond log --json | jq .version")]
    Log(LogArgs),

    /// Show one version: when, by whom, and which paths it changed
    ///
    /// Compares the tree with that of the version before. A path is created, removed, moved, written (its
    /// content changed), or changed (its attributes or, for a directory, its entries).
    #[command(after_long_help = "Example:\n  pond show 42")]
    Show(ShowArgs),

    /// Show what differs between two versions
    ///
    /// A path is created, removed, moved, written (its content differs), changed (its attributes differ), linked or unlinked (it has
    /// a hard link more or less). A directory that moved is one line, whatever is below it. Without B, A is compared with the
    /// newest version: on a mounted pond changes of the last moments, which no version holds yet, are not part of it; `pond
    /// sync` commits them. The work goes with what changed in between, not with the size of the pond.
    #[command(after_long_help = "\
Examples:
  pond diff 41 42
  pond diff -1h                 what changed in the last hour
  pond diff 41 42 /notes        only below /notes
  pond diff start --stat        how many lines of each file, since the oldest version
  pond diff 41 42 --content     the lines themselves, for `patch -p1`")]
    Diff(DiffArgs),

    /// Make a file or directory what it was in a version
    ///
    /// What differs is written, as a new version (on a mounted pond as the mount's commits come, which may be several); nothing of the
    /// history is lost, so this can be taken back in the same way.
    /// Owners, modes, times, extended attributes, hard links and holes come back too. What that version did not have stays, unless
    /// --delete is given. Works on a mounted pond and on one that is not. Neither an error nor Ctrl-C leaves half a file.
    #[command(after_long_help = "\
Examples:
  pond restore notes/today@42
  pond restore /docs@-1h --delete --dry-run     what making /docs what it was an hour ago would do
  pond restore /docs@-1h --delete
  pond restore /docs@42 --to /docs-then
  pond copy /docs@42 host:docs-then             out of the pond")]
    Restore(RestoreArgs),

    /// Bring back a file or directory that is gone, as the last version had it
    ///
    /// `pond log --deleted` lists what is gone. Nothing is replaced: where the name is taken, --to gives another.
    #[command(after_long_help = "\
Examples:
  pond undelete notes/today
  pond undelete notes/today --to notes/yesterday")]
    Undelete(UndeleteArgs),

    /// Show what history costs, by age and by path
    ///
    /// Tells how much of the data files the newest version needs and how much only older ones do: when that went out of use, where it
    /// lay, and what each `retention` would free once `pond maintain` has gone over it. Figures are estimates, shared out by what rows
    /// weigh; their sum is that of the files. Files of which less than an eighth is of no use are not written anew.
    #[command(after_long_help = "\
Examples:
  pond space
  pond space /home              by the directories in /home
  pond control set retention 7d
  pond space --json | jq .retention_would_free")]
    Space(SpaceArgs),

    /// List paths inside the pond
    ///
    /// A directory is listed entry by entry; a pattern lists the paths that match. `*` and `?` stay within
    /// one name, `**` crosses directories, `[ab]` and `{a,b}` choose. Names that begin with a dot are
    /// listed too. Symlinks are not followed by patterns.
    #[command(
        visible_alias = "ls",
        after_long_help = "\
Examples:
  pond list                     the root directory
  pond list '**/*.txt'          all text files
  pond list logs@42             a directory as version 42 had it
  pond list --json '**' | jq -r .path"
    )]
    List(ListArgs),

    Cat(CatArgs),
    Copy(CopyArgs),
    Mkdir(MkdirArgs),
    Rm(RmArgs),
    Mv(MvArgs),
    Txn(TxnArgs),
    Bisect(BisectArgs),
    Sql(SqlArgs),
    Mknod(MknodArgs),
    Run(RunArgs),

    /// List the kinds of factories, and the nodes that exist
    Factories,

    Control(ControlArgs),

    /// Make a replica writable, on a timeline of its own
    ///
    /// For when the source is lost, or is to hand over. The backup store notes that a new timeline begins with this
    /// replica's version; from then on this pond is the source, and pushes there. The old source becomes read-only
    /// when it next pushes. Replicas at this version or before it cross over; one that had got further holds versions
    /// that are not part of the new timeline, and says `diverged`.
    ///
    /// The pond must not be mounted. There is no way back: a source does not become a replica again but by
    /// `pond init --from-backup` in another place.
    #[command(after_long_help = "\
Example:
  pond --pond /srv/replica sync           the newest that the store has
  pond umount /mnt/replica
  pond --pond /srv/replica promote
  pond --pond /srv/replica mount /mnt/pond")]
    Promote,

    Backup(BackupArgs),

    Tag(TagArgs),

    Fork(ForkArgs),

    /// Check everything: files, rows, journal, settings
    ///
    /// Reads every byte of the pond and compares it with the digests in its history: log entries, checkpoints, data files and
    /// each extent in them, the journal, the control table; and whether the rows make a tree. Names what is damaged or missing
    /// with the paths and versions that it concerns. Works on a mounted pond too, beside its daemon. Exits with 1 if
    /// anything is damaged or missing.
    ///
    /// With --repair it does what can be done without losing anything, on a pond that is not mounted: data files and log
    /// entries come back from the pond's remote if it has one, checkpoints are made anew. What was damaged is kept beside it
    /// as NAME.damaged-TIME.
    #[command(after_long_help = "\
Examples:
  pond fsck
  pond fsck --json | jq -r 'select(.event == \"finding\") | .file'
  pond umount /mnt/pond && pond fsck --repair
  pond fsck --repair --from-backup remote.yaml      where the damage hides which remote there is")]
    Fsck(FsckArgs),

    /// Merge data files, let go of old versions, and remove what nobody needs any more
    ///
    /// A mounted pond does this by itself, a little at a time; this does all there is to do, at once. Small data files
    /// are joined, with every row kept. Versions that the setting `retention` does not keep are let go of
    /// (`pond control set retention 30d`, or `'1000 versions'`, of which those that maintenance itself makes do not count; unset,
    /// every version is kept): the floor rises, and what
    /// only older versions show is dropped. A policy such as `'all 1h, minutely 1d, hourly 30d, daily'` keeps what is older thinned out:
    /// all versions of the last hour, the last of each minute for a day, of each hour for 30 days, and of each day (UTC) for ever; also
    /// `weekly`, `monthly` and `yearly`. Versions that have a tag stay (`pond tag`). Files that others stand for are removed once they were replaced as long ago
    /// as the setting `keep_replaced` says (24h; some ten seconds at least, for reads that had begun), every remote has passed that
    /// version, and nobody reads from them.
    #[command(after_long_help = "\
Examples:
  pond maintain
  pond maintain --dry-run                     what it would do, and free
  pond maintain --dry-run --retention 30d     what it would free if versions were kept for 30 days
  pond control set retention 'all 1h, hourly 7d, daily 90d'")]
    Maintain(MaintainArgs),

    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests;
