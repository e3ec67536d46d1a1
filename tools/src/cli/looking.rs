//! Arguments of the commands that look at what was, and bring it back.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use pond_oplog::At;

use crate::cli::values::{number, version};
use crate::path::{self, GivenPath, ReadPath};

/// `pond diff`
#[derive(Args, Debug)]
pub struct DiffArgs {
    /// The version to begin with: a number, tag:NAME, start, or a time
    #[arg(value_name = "A", allow_hyphen_values = true, value_parser = version)]
    pub from: At,

    /// The version to compare it with; left out, the newest
    #[arg(value_name = "B", allow_hyphen_values = true)]
    pub to: Option<OsString>,

    /// Only this path, and what is below it; it begins with /
    #[arg(value_name = "/PATH")]
    pub path: Option<OsString>,

    /// Count the lines that differ, file by file
    #[arg(long)]
    pub stat: bool,

    /// Show the lines that differ, as a unified diff
    #[arg(long, conflicts_with = "stat")]
    pub content: bool,
}

impl DiffArgs {
    /// The version to compare with, and the path.
    ///
    /// # Errors
    ///
    /// Which of the two is none, and why.
    pub fn to_and_path(&self) -> Result<(At, Option<GivenPath>), String> {
        let (to, path) = match (self.to.as_deref(), self.path.as_deref()) {
            (Some(path), None) if path.as_bytes().starts_with(b"/") => (None, Some(path)),
            both => both,
        };
        let to = to.map_or(Ok(At::Tip), |to| {
            to.to_str().ok_or_else(|| "a version is text".to_owned()).and_then(version)
        })?;
        Ok((to, path.map(rooted).transpose()?))
    }
}

fn rooted(path: &OsStr) -> Result<GivenPath, String> {
    match path.as_bytes().starts_with(b"/") {
        true => GivenPath::new(path.as_bytes()),
        false => Err(format!("{} is no path: beside versions a path begins with /", path.display())),
    }
}

/// `pond log`
#[derive(Args, Debug)]
pub struct LogArgs {
    /// Only versions in which this file or directory changed, under whatever names it had
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub path: Option<GivenPath>,

    /// At most so many versions
    #[arg(short = 'n', long = "limit", value_name = "N", allow_negative_numbers = true, value_parser = number)]
    pub limit: Option<usize>,

    /// List what is gone, with the last version that had it; only what matches, if a pattern is given
    #[arg(long, value_name = "GLOB", num_args = 0..=1, conflicts_with = "path")]
    pub deleted: Option<Option<OsString>>,
}

/// `pond restore`
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// A file or directory inside the pond, as this version had it
    #[arg(value_name = "PATH@V", value_parser = OsStringValueParser::new().try_map(ReadPath::parse))]
    pub path: ReadPath,

    /// Put it there, under exactly this name, and leave PATH as it is
    #[arg(long, value_name = "DEST", value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub to: Option<GivenPath>,

    /// Remove what is there and was not in that version
    #[arg(long)]
    pub delete: bool,

    /// Only list what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `pond undelete`
#[derive(Args, Debug)]
pub struct UndeleteArgs {
    /// The path that is gone
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub path: GivenPath,

    /// Put it there instead
    #[arg(long, value_name = "DEST", value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub to: Option<GivenPath>,

    /// Only list what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// `pond space`
#[derive(Args, Debug)]
pub struct SpaceArgs {
    /// Tell the directories in this one apart, rather than those of the root
    #[arg(value_name = "PATH", value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub path: Option<GivenPath>,
}
