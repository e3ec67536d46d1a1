//! Arguments and help of the commands that make, check and tidy up a whole pond, and of completions.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use clap_complete::Shell;
use pond_oplog::At;

use crate::cli::values::{time_of_version, version};

/// Make an empty pond, or a replica of one from a backup store
///
/// Only where there is nothing yet, or an empty directory. `pond mount` makes empty ponds by itself.
///
/// With --from-backup the pond becomes a replica: it gets the history that the store holds, byte for byte, and
/// from then on follows it, with `pond mount` by itself and with `pond sync` when told to. Nothing is applied
/// before its digest was checked. What was cut off (Ctrl-C, a crash, the network) goes on where it was when
/// the same command is given again, and fetches nothing twice.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond --pond /srv/pond init
  pond --pond /srv/replica init --from-backup remote.yaml
  pond --pond /srv/replica init --from-backup remote.yaml --version 42
                          the history up to version 42
  pond --pond /srv/replica init --from-backup remote.yaml --tip
                          without the versions before the newest base

remote.yaml is the configuration that the source was given with `pond mknod remote`:
  storage_type: s3
  bucket: backups
  endpoint: https://s3.example.com
  key: ${env:BACKUP_KEY}
  secret: ${env:BACKUP_SECRET}")]
pub struct InitArgs {
    /// Make a replica from the backup store of this configuration, a file on the host; - reads standard input
    ///
    /// Run again after it was cut off, it goes on where it stopped. Run on a replica that was made with --tip and is not
    /// mounted, it fills in the older versions.
    #[arg(long, value_name = "CFG", value_hint = ValueHint::FilePath)]
    pub from_backup: Option<PathBuf>,

    /// Stop at this version
    #[arg(
        id = "init_version", long = "version", value_name = "V", requires = "from_backup",
        conflicts_with_all = ["init_timestamp", "tip"], allow_hyphen_values = true, value_parser = version
    )]
    pub version: Option<At>,

    /// Stop at the newest version of this time or before
    ///
    /// RFC 3339 (2026-11-20T18:30:00+01:00), local time (2026-11-20T18:30, "2026-11-20 18:30:15", 2026-11-20), how
    /// long ago (-10m; also s, h, d, w), or @SECONDS since 1970 UTC.
    #[arg(
        id = "init_timestamp", long = "timestamp", value_name = "T", requires = "from_backup",
        conflicts_with = "tip", allow_hyphen_values = true, value_parser = time_of_version
    )]
    pub timestamp: Option<At>,

    /// Start from the newest base, and leave the versions before it out
    ///
    /// The same command without --tip fills them in later, while the pond is not mounted.
    #[arg(long, requires = "from_backup")]
    pub tip: bool,
}

/// `pond fsck`
#[derive(Args, Debug)]
pub struct FsckArgs {
    /// Repair what can be repaired without losing anything
    #[arg(long)]
    pub repair: bool,

    /// With --repair: take files from the backup store of this configuration, a file on the host; - reads standard input
    #[arg(long, value_name = "CFG", requires = "repair", value_hint = ValueHint::FilePath)]
    pub from_backup: Option<PathBuf>,
}

/// `pond maintain`
#[derive(Args, Debug)]
pub struct MaintainArgs {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// With --dry-run: as if the setting `retention` were this
    #[arg(long, value_name = "RETENTION", requires = "dry_run")]
    pub retention: Option<String>,
}

/// Print a script that completes pond's commands in a shell
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond completions bash > ~/.local/share/bash-completion/completions/pond
  pond completions zsh > ~/.zfunc/_pond")]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Make a pond of its own from this one, or from an old version
///
/// The new pond has everything that the version has, and a history that begins there; its identity is another. Both live on
/// independently, whatever either writes, merges, lets go of or removes. Data files are shared by hard links, so that it takes next to no
/// time and space; on another filesystem they are copied. Files that hold later changes than the version are written anew without them.
///
/// Without --version everything is committed first, and the fork is made from the newest version. No factory (remotes, say) runs in the
/// fork until its setting `enabled_factories` names the nodes that shall.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond fork /srv/experiment
  pond fork --version -2h /srv/before
  pond --pond /srv/experiment mount /mnt/experiment
  pond --pond /srv/experiment control set enabled_factories /etc/system.d/10-remote")]
pub struct ForkArgs {
    /// The new pond's directory, which must not be there, or be empty
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,

    /// The version it is made from: a number, tag:NAME, start, or a time
    #[arg(id = "fork_version", long = "version", value_name = "V", allow_hyphen_values = true, value_parser = version)]
    pub version: Option<At>,
}
