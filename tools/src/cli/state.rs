//! Arguments and help of the commands that say and settle how a pond stands.

use std::time::Duration;

use clap::Args;

use crate::cli::values::version_number;
use crate::time;

/// Commit everything now and run the post-commit factories; on a replica, pull now
///
/// When it returns, one version holds all that was written before, and the factories under
/// /etc/system.d have run: a push has reached its store. Fails if one of them failed; the commit stands
/// nevertheless. On a pond that is not mounted it first recovers what a crash left in the journal.
///
/// It commits first, and then says what it waits for if that takes longer than a second. Ctrl-C ends the waiting at any
/// time, and takes nothing back. A request that a store does not answer fails by itself after some three minutes.
///
/// On a replica it fetches what the backup store has and this pond has not. If that fails, the replica keeps what
/// it had, and the exit code is 1.
#[derive(Args, Debug, Default)]
#[command(after_long_help = "\
Examples:
  pond sync
  pond sync --no-push           commit only
  pond sync --timeout 5m        exit with 1 if pushes are not done by then; the commit stays")]
pub struct SyncArgs {
    /// Commit only; on a replica, pull nothing
    ///
    /// Does not wait for factories. Those of a mounted pond its daemon runs by itself; of one that is not mounted they run with
    /// the next command that changes it, or the next mount.
    #[arg(long, conflicts_with = "timeout")]
    pub no_push: bool,

    /// Fail if the factories, or on a replica the pull, take longer: 90s, 5m, 2h; a number alone is seconds
    ///
    /// Without it, it waits as long as it takes: a first push may take days.
    #[arg(long, value_name = "TIME", value_parser = time::duration)]
    pub timeout: Option<Duration>,
}

/// Show identity, mode, state, versions and sizes
///
/// Of a source also how far each remote has got. Of a replica its state (preparing, copying, catching_up,
/// synchronized, diverged, failed), its timeline, and how far it is behind; synchronized means equal to the
/// newest version in the backup store.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond status
  pond status --json | jq .version
  pond status --json | jq -r .replica.state
  pond status --wait-version 42           return once version 42 is here
  pond status --wait-version 42 --timeout 60")]
pub struct StatusArgs {
    /// Show it again whenever something changed, until Ctrl-C
    #[arg(long)]
    pub watch: bool,

    /// Exit with 1, and say why, unless all is well
    ///
    /// Not well are: a daemon that has died or does not answer, a source that takes no writes, commits, pushes, pulls or other
    /// factories that fail, and whatever else the status has a note of.
    #[arg(long, conflicts_with = "watch")]
    pub check: bool,

    /// Return once this version is here: committed, or on a replica visible
    #[arg(long, value_name = "N", value_parser = version_number, conflicts_with = "watch")]
    pub wait_version: Option<u64>,

    /// Fail if --wait-version has waited this long: 90s, 5m, 2h; a number alone is seconds
    #[arg(long, value_name = "TIME", requires = "wait_version", value_parser = time::duration)]
    pub timeout: Option<Duration>,
}
