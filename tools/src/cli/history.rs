//! Arguments of the commands that show the history.

use clap::Args;
use pond_oplog::At;

use crate::cli::values::{number, version};

/// `pond log`
#[derive(Args, Debug)]
pub struct LogArgs {
    /// At most so many versions
    #[arg(short = 'n', long = "limit", value_name = "N", allow_negative_numbers = true, value_parser = number)]
    pub limit: Option<usize>,
}

/// `pond show`
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The version: a number, start, or a time
    #[arg(value_name = "V", allow_hyphen_values = true, value_parser = version)]
    pub version: At,
}
