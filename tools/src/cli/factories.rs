//! Arguments and help of the commands on factories' nodes.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::values::path_inside;

/// Make a factory's node
///
/// The configuration is checked before anything is made. Missing parent directories are made. Nodes
/// under /etc/system.d run after each commit, in the order of their names. Secrets are written
/// ${env:NAME} in the configuration, never as themselves. `pond factories` lists the kinds.
///
/// The factory `remote` ships each commit to a backup store. Before its node is made the store is tried out: it
/// must be reachable and writable, and must refuse to write over what exists when asked to. There may be several,
/// each with its own store.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  echo 'path: /var/log/pond-commits' > exec-log.yaml
  pond mknod exec-log /etc/system.d/10-log --config-path exec-log.yaml
  pond mknod remote /etc/system.d/10-remote --config-path remote.yaml

remote.yaml for a directory:
  storage_type: local
  path: /srv/pond-backups

and for S3, or whatever speaks its protocol:
  storage_type: s3
  bucket: backups
  region: us-east-1
  endpoint: https://s3.example.com
  key: ${env:BACKUP_KEY}
  secret: ${env:BACKUP_SECRET}
  prefix: ponds/mine

with, where wanted:
  compression_level: 3          of zstd
  sync_interval: 1              seconds between two looks, on a replica
  allow_http: true              an endpoint without TLS")]
pub struct MknodArgs {
    /// The kind of factory
    pub factory: String,

    /// The node to make, a path inside the pond
    #[arg(value_parser = path_inside)]
    pub path: String,

    /// The configuration, a file on the host; - reads standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config_path: PathBuf,
}

/// Run a factory's node now
///
/// Does what would be done after a commit, also where nothing is new: `remote` looks whether its store still has everything.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  pond run /etc/system.d/10-log")]
pub struct RunArgs {
    /// The node, a path inside the pond
    #[arg(value_parser = path_inside)]
    pub path: String,

    /// What the factory is told; exec-log and remote take nothing
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}
