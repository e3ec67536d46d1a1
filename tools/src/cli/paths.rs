//! Arguments and help of the commands on paths inside the pond.

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::path::{self, GivenPath, GlobPath, ReadPath, WritePath};

/// `pond list`
#[derive(Args, Debug)]
pub struct ListArgs {
    /// A path or pattern, with @V as version V had it
    #[arg(value_name = "GLOB[@V]", default_value = "/", value_parser = OsStringValueParser::new().try_map(GlobPath::parse))]
    pub glob: GlobPath,

    /// Everything below the directory, too
    #[arg(short = 'R', long)]
    pub recursive: bool,

    /// Accepted for those who are used to ls: modes, owners, sizes and times are shown in any case
    #[arg(short, long)]
    pub long: bool,

    /// Accepted for those who are used to ls: names that begin with a dot are listed in any case
    #[arg(short, long)]
    pub all: bool,
}

/// Write files inside the pond to standard output
///
/// Symlinks are followed, absolute ones from the pond's root. An error, also in the middle of a
/// file, makes it exit with 1.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond cat notes/today
  pond cat notes/today@42       as version 42 had it
  pond cat odd@5@tip            the file named odd@5")]
pub struct CatArgs {
    /// Files inside the pond
    #[arg(value_name = "PATH[@V]", required = true, value_parser = OsStringValueParser::new().try_map(ReadPath::parse))]
    pub paths: Vec<ReadPath>,
}

/// Copy files and directories into the pond, out of it, or inside it
///
/// Directories are copied whole. Mode, times, symlinks, extended attributes, holes, and hard links
/// among what is copied are kept; the owner too where permitted. If DEST is a directory the copies go
/// into it, under their own names; `host:dir/.` copies what is in the directory.
///
/// Each file is written under a temporary name (.pond-copy-…) and then renamed, so that neither
/// an error nor Ctrl-C leaves half a file; what exists under the name is replaced. A file that cannot be copied
/// is reported, the others are copied, and the exit code is 1.
#[derive(Args, Debug)]
#[command(
    visible_alias = "cp",
    after_long_help = "\
Examples:
  pond copy host:report.pdf /docs/
  pond copy host:project /               the whole directory
  pond copy /docs@42 host:docs-then      out of the pond, as version 42 had it
  pond copy notes/today@42 notes/today   bring an old state back"
)]
pub struct CopyArgs {
    /// What to copy: PATH[@V] inside the pond, or host:PATH
    #[arg(value_name = "SRC", required = true, value_parser = OsStringValueParser::new().try_map(ReadPath::parse))]
    pub sources: Vec<ReadPath>,

    /// Where to: PATH inside the pond, or host:PATH
    #[arg(value_name = "DEST", required = true, value_parser = OsStringValueParser::new().try_map(WritePath::parse))]
    pub destination: WritePath,

    /// Accepted for those who are used to cp: directories are copied whole in any case
    #[arg(short, long, visible_short_aliases = ['a', 'R'], alias = "archive")]
    pub recursive: bool,
}

/// Make directories inside the pond
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  pond mkdir -p logs/2026/11")]
pub struct MkdirArgs {
    /// Make missing parents too, and do not mind directories that exist
    #[arg(short, long)]
    pub parents: bool,

    /// Directories inside the pond
    #[arg(value_name = "PATH", required = true, value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub paths: Vec<GivenPath>,
}

/// Remove files and directories inside the pond
///
/// Older versions still have them.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  pond rm -r logs/2025")]
pub struct RmArgs {
    /// Remove directories with everything in them
    #[arg(short, long)]
    pub recursive: bool,

    /// Do not mind what does not exist
    #[arg(short, long)]
    pub force: bool,

    /// Paths inside the pond
    #[arg(value_name = "PATH", required = true, value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub paths: Vec<GivenPath>,
}

/// Move or rename inside the pond
///
/// One rename, so it is all or nothing for each SRC. If DEST is a directory, SRC goes into it; else a file
/// there is replaced. It does not cross the border of the pond: use `pond copy`, then `pond rm`.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:\n  pond mv draft.txt final.txt\n  pond mv a b c archive/")]
pub struct MvArgs {
    /// What to move
    #[arg(value_name = "SRC", required = true, value_parser = OsStringValueParser::new().try_map(WritePath::parse))]
    pub sources: Vec<WritePath>,

    /// The new name, or a directory
    #[arg(value_name = "DEST", required = true, value_parser = OsStringValueParser::new().try_map(WritePath::parse))]
    pub destination: WritePath,
}
