//! Arguments and help of `pond backup …`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use pond_oplog::At;
use pond_replicate::Subset;

use crate::cli::values::{number, time_of_version, version, version_number};

/// Look at a backup store, check it, and restore files from it, without a pond
///
/// What a remote (`pond mknod remote`) has shipped lies in a store: a directory, or a bucket. These commands read it by itself: they need
/// no pond, and change nothing in the store. --remote says which it is: the configuration file that the source was given, or the
/// remote's node in the pond. Left out, it is the pond's only remote.
#[derive(Args, Debug)]
#[command(
    subcommand_required = true,
    after_long_help = "\
Examples:
  pond backup list -n 20 --remote remote.yaml
  pond backup describe -1h --remote remote.yaml
  pond backup find '**/*.key' --remote remote.yaml
  pond backup verify --level data                     of the remote of the pond that is mounted here
  pond backup verify --remote /etc/system.d/10-remote
  pond backup restore --to /srv/restored --version -1d --path '/docs/**/*.txt' --remote remote.yaml"
)]
pub struct BackupArgs {
    #[command(subcommand)]
    pub action: BackupAction,
}

/// What to do with a store.
#[derive(Subcommand, Debug)]
pub enum BackupAction {
    List(BackupListArgs),
    Describe(BackupDescribeArgs),
    Find(BackupFindArgs),
    Verify(BackupVerifyArgs),
    Restore(BackupRestoreArgs),
}

/// Which store.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The store: a remote's configuration, a file on the host (- reads standard input), or the remote's node in the pond
    #[arg(long, value_name = "R", value_hint = ValueHint::FilePath)]
    pub remote: Option<OsString>,
}

/// List the versions that the store holds, newest first
///
/// KIND is base for what has everything that was live at a version, so that a restore can begin there, and version for what one version
/// added to the one before. STORED is what it takes there, LIES where: alone in a folder of its own, in a pack of up to 64 versions, in
/// both, or missing. PARENT is the manifest on which it builds, MANIFEST its own. Times are those of the commits.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond backup list -n 10 --remote remote.yaml
  pond backup list --json --remote remote.yaml | jq -r 'select(.place == \"missing\") | .version'")]
pub struct BackupListArgs {
    #[command(flatten)]
    pub store: StoreArgs,

    /// At most so many versions
    #[arg(short = 'n', long = "limit", value_name = "N", allow_negative_numbers = true, value_parser = number)]
    pub limit: Option<usize>,
}

/// Show one version of the store: its files, its bundles, and what a restore of it takes
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond backup describe 42 --remote remote.yaml
  pond backup describe -2d --remote remote.yaml        as it was two days ago")]
pub struct BackupDescribeArgs {
    /// The version: a number, start for the oldest, or a time
    #[arg(id = "described", value_name = "V", allow_hyphen_values = true, value_parser = version)]
    pub version: At,

    #[command(flatten)]
    pub store: StoreArgs,
}

/// Say which versions of the store have a path, or what matches a pattern
///
/// Names live in what the versions hold, so all of them are fetched, into a temporary replica that is removed at the end; it needs as much
/// room as the store. Patterns are those of `pond list`.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond backup find notes/today --remote remote.yaml
  pond backup find '**/*.key' --scratch /srv/tmp --remote remote.yaml")]
pub struct BackupFindArgs {
    /// The path, with all below it, or the pattern
    #[arg(value_name = "GLOB")]
    pub glob: OsString,

    #[command(flatten)]
    pub store: StoreArgs,

    /// The directory in which to fetch [default: $TMPDIR, or /tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub scratch: Option<PathBuf>,
}

/// How thoroughly to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum VerifyLevel {
    /// Every manifest is there, makes sense, and names the one before it, from the oldest to the newest
    Chain,
    /// Besides, every object is there with its length, and packs say what they hold
    Sizes,
    /// Besides, every byte is read and compared with its digest
    Data,
    /// Besides, everything is restored into a scratch place, and checked there as `pond fsck` does
    Restore,
}

/// Check whether what the store holds is whole
///
/// Names what is damaged or missing, by object and version, and which versions cannot be restored because of it: those from a damaged one
/// to the next base. Exits with 1 if anything is damaged. Reads a few objects at a time, and keeps nothing of them but with --level restore.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond backup verify --remote remote.yaml
  pond backup verify --remote remote.yaml --level data --resume /var/tmp/verified
                          run again after Ctrl-C it goes on
  pond backup verify --remote remote.yaml --level data --subset 3/7
                          the third of seven parts: one each day of the week
  pond backup verify --remote remote.yaml --level data --subset 10%
                          a tenth, others each time
  pond backup verify --remote remote.yaml --level restore --scratch /srv/tmp
                          a full drill: needs room for all of it")]
pub struct BackupVerifyArgs {
    #[command(flatten)]
    pub store: StoreArgs,

    /// How thoroughly
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "sizes")]
    pub level: VerifyLevel,

    /// With --level data: read only this share of the objects, as 1/7 or 10%
    #[arg(long, value_name = "SHARE", value_parser = subset)]
    pub subset: Option<Subset>,

    /// With --level data: keep in this file what was found whole, and go on from there after an interruption
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub resume: Option<PathBuf>,

    /// With --level restore: the directory in which to restore [default: $TMPDIR, or /tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub scratch: Option<PathBuf>,
}

/// Restore files from the store into a directory of the host
///
/// Gives plain files with all that they had: hard links, holes, extended attributes, owners, modes, times. It fetches the newest base that is
/// not above the version, and the versions after it, into DIR/.pond-restore, which is gone at the end; nothing is used before its digest was
/// checked. Interrupted, the same command goes on, and fetches nothing twice. What is there already stays unless --overwrite is given: what
/// is the same is left as it is, and what is not is told and makes the exit code 1.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond backup restore --to /srv/restored --remote remote.yaml
                          everything, as the newest version has it
  pond backup restore --to /srv/restored --timestamp '2026-11-20 18:30' --remote remote.yaml
  pond backup restore --to . --path /docs --path '/src/**/*.rs' --remote remote.yaml
                          /docs and all Rust files, below the current directory
  pond backup restore --to /home --path '/*' --overwrite --delete --dry-run --remote remote.yaml
                          what making /home what it was would do
  pond backup restore --to /srv/replica --as-pond --remote remote.yaml
                          a pond that follows the source, as `pond init --from-backup` makes")]
pub struct BackupRestoreArgs {
    #[command(flatten)]
    pub store: StoreArgs,

    /// The directory in which the files come; made if only it is missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: PathBuf,

    /// The version: a number, start for the oldest, or a time [default: the newest]
    #[arg(
        id = "restored", long = "version", value_name = "V", conflicts_with = "restored_timestamp",
        allow_hyphen_values = true, value_parser = version
    )]
    pub version: Option<At>,

    /// The newest version of this time or before
    #[arg(
        id = "restored_timestamp", long = "timestamp", value_name = "T", allow_hyphen_values = true,
        value_parser = time_of_version
    )]
    pub timestamp: Option<At>,

    /// Only this path of the pond, or what matches, with all below it; may be given several times
    #[arg(long, value_name = "GLOB", conflicts_with = "as_pond")]
    pub path: Vec<OsString>,

    /// Replace what is there and differs
    #[arg(long, conflicts_with = "as_pond")]
    pub overwrite: bool,

    /// With --overwrite: remove what is there and was not in that version
    #[arg(long, requires = "overwrite")]
    pub delete: bool,

    /// Only list what would be done; fetches into a temporary directory
    #[arg(long, conflicts_with = "as_pond")]
    pub dry_run: bool,

    /// Give everything to the user who runs this
    #[arg(long, conflicts_with_all = ["as_pond", "owner_map"])]
    pub no_owner: bool,

    /// Other owners than in the pond: a file with lines `user OLD NEW` and `group OLD NEW`, all numbers
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "as_pond")]
    pub owner_map: Option<PathBuf>,

    /// Make a replica, as `pond init --from-backup` does, rather than plain files
    #[arg(long)]
    pub as_pond: bool,

    /// Fail unless the store has this version, or later ones: it may be an old copy
    #[arg(long, value_name = "N", value_parser = version_number)]
    pub expect: Option<u64>,
}

fn subset(text: &str) -> Result<Subset, String> {
    let wrong = || "give a share as 1/7, the first of seven, or as 10%".to_owned();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| wrong())?;
        // Only to choose others each time.
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        return match (0.0..=100.0).contains(&percent) {
            true => Ok(Subset::Percent { percent, seed: seed.into() }),
            false => Err(wrong()),
        };
    }
    let (number, of) = text.split_once('/').ok_or_else(wrong)?;
    let (number, of) = (number.parse().map_err(|_| wrong())?, of.parse().map_err(|_| wrong())?);
    match number >= 1 && number <= of {
        true => Ok(Subset::Share { number, of }),
        false => Err(wrong()),
    }
}
