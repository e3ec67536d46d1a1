//! Arguments of the commands that show the history.

use clap::Args;
use pond_oplog::{At, TagName};

use crate::cli::values::version;

/// `pond show`
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// The version: a number, tag:NAME, start, or a time
    #[arg(value_name = "V", allow_hyphen_values = true, value_parser = version)]
    pub version: At,
}

/// Give a version a name, which keeps it
///
/// A version that has a name stays readable, whatever the setting `retention` lets go of before and after it. `tag:NAME` is
/// understood wherever a version is named. Tags are part of the history, so replicas have them too.
///
/// Without a version, everything is committed first, and the newest version gets the name.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond tag before-the-upgrade
  pond tag release-1.0 42              also a time: 2026-11-20T18:30, -2h
  pond tag --list
  pond list -l @tag:release-1.0
  pond cat /etc/app.conf@tag:before-the-upgrade
  pond tag --delete before-the-upgrade")]
pub struct TagArgs {
    /// The name: letters, digits and most other characters, without spaces, / and @
    #[arg(required_unless_present = "list")]
    pub name: Option<TagName>,

    /// The version that gets it; without, everything is committed and the newest version gets it
    #[arg(value_name = "V", allow_hyphen_values = true, value_parser = version)]
    pub at: Option<At>,

    /// List the tags there are, and their versions
    #[arg(long, conflicts_with_all = ["name", "delete"])]
    pub list: bool,

    /// Take the name back; the version is kept from then on only as long as the setting `retention` says
    #[arg(long, conflicts_with = "at")]
    pub delete: bool,
}
