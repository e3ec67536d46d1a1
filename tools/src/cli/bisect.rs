//! `pond bisect`: its arguments.

use std::ffi::OsString;

use clap::Args;
use pond_oplog::At;

/// `pond bisect`
#[derive(Args, Debug)]
pub struct BisectArgs {
    /// A version in which all was well
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = super::version)]
    pub good: At,

    /// A later one in which it was not
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = super::version)]
    pub bad: At,

    /// Try only versions in which something changed at this path or below it
    #[arg(long, value_name = "PATH", value_parser = super::path_inside)]
    pub path: Option<String>,

    /// What tells good from bad, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
