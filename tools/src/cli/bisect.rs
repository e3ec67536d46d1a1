//! Arguments and help of `pond bisect`.

use std::ffi::OsString;

use clap::Args;
use pond_oplog::At;

use crate::cli::values::{path_inside, version};

/// Find the first version in which something went wrong, by halving
///
/// Runs COMMAND in scratches of versions between --good and --bad: writable copies that are thrown away, with COMMAND's current
/// directory, and $POND_BISECT, at their root. An exit code of 0 says that the version is good, 125 that it cannot be told, and any
/// other up to 127 that it is bad; what is beyond, or a signal, ends the search. Prints the first bad version as `pond show` does:
/// when, by whom, what it changed. Works on a pond that is mounted, on one that is not, and on a replica.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond bisect --good 120 --bad 842 -- make test
  pond bisect --good 120 --bad -10m --path /src -- sh -c 'cd src && make && ./check'
  pond bisect --good start --bad 842 -- test -e notes/today         when was it removed?
  pond bisect --good 120 --bad 842 -- sh -c 'test $(wc -l <log) -lt 1000'")]
pub struct BisectArgs {
    /// A version in which all was well
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = version)]
    pub good: At,

    /// A later one in which it was not
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = version)]
    pub bad: At,

    /// Try only versions in which something changed at this path or below it
    #[arg(long, value_name = "PATH", value_parser = path_inside)]
    pub path: Option<String>,

    /// What tells good from bad, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
