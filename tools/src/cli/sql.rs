//! Arguments and help of `pond sql`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use pond_oplog::At;
use pond_steward::settings::parse_size;

use crate::cli::values::{time_of_version, version};
use crate::time;

/// Ask the files of a pond, and its history, in SQL
///
/// Reads a version of the pond, the newest if none is named, beside a mount or without one, of a source or a replica, and never makes a writer wait. The
/// dialect is DataFusion's. Without QUERY and -f the statements come from standard input; on a terminal it prompts for them. Statements are
/// parted by `;`. It acts for the pond's owner, whatever the files' permissions are.
///
/// FROM takes files by path or pattern ('/data/*.parquet'; csv, json, jsonl, arrow, also .gz .zst .bz2 .xz), with columns from
/// directories such as year=2026; read_parquet, read_csv, read_json and read_arrow take one or several in brackets, and
/// hive_partitioning, union_by_name, filename (read_csv: header, delim, quote, nullstr, …; read_json: format => 'array'). 'host:/…' is outside the pond.
///
/// Behind a table VERSION AS OF 42, TIMESTAMP AS OF '2026-11-20 18:30' or AT (VERSION => 42) says which version of it is meant; one
/// statement may name several.
///
/// Tables of the pond's own: files (the tree), entries (names in directories), versions, oplog (the raw rows of the
/// Delta table), control (settings), changes(A, B) and history('/path').
///
/// Nothing is changed but by COPY (…) TO '/file.parquet', which is an ordinary version.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  pond sql \"SELECT count(*), sum(size) FROM files WHERE path LIKE '/data/%'\"
  pond sql \"SELECT day, avg(t) FROM '/data/*.csv.gz' GROUP BY day\" --format csv
  pond sql \"SELECT * FROM '/a.parquet' EXCEPT SELECT * FROM '/a.parquet' VERSION AS OF 42\"
  pond sql \"SELECT path FROM changes(41, 42)\" --json
  pond sql --timestamp -1d -f report.sql --output report.parquet
  pond sql \"COPY (SELECT * FROM 'host:in.csv') TO '/data/in.parquet'\"")]
pub struct SqlArgs {
    /// What to ask; several statements are parted by ;
    #[arg(value_name = "QUERY", conflicts_with = "file")]
    pub query: Option<String>,

    /// Read the statements from this file on the host; - is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    /// Ask this version of the pond, where a statement names none
    ///
    /// A number, tag:NAME, start for the oldest that is kept, or a time, as --timestamp takes it.
    #[arg(
        id = "sql_version", long = "version", value_name = "V", conflicts_with = "sql_timestamp",
        allow_hyphen_values = true, value_parser = version
    )]
    pub version: Option<At>,

    /// Ask the pond as it was at this time, where a statement names no version
    ///
    /// RFC 3339 (2026-11-20T18:30:00+01:00), local time (2026-11-20T18:30, "2026-11-20 18:30:15", 2026-11-20), how
    /// long ago (-10m; also s, h, d, w), or @SECONDS since 1970 UTC.
    #[arg(
        id = "sql_timestamp", long = "timestamp", value_name = "TIME", allow_hyphen_values = true,
        value_parser = time_of_version
    )]
    pub timestamp: Option<At>,

    /// How answers are written [default: as FILE of --output is called; else table, or jsonl with --json]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<AnswerFormat>,

    /// Write the answer into this file on the host, whole or not at all
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,

    /// Memory for joins, sorts and groups; what does not fit goes to disk [default: a quarter of the memory]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_limit: Option<u64>,

    /// Give each statement up after this time: 90s, 5m, 2h; a number alone is seconds
    #[arg(long, value_name = "TIME", value_parser = time::duration)]
    pub timeout: Option<Duration>,

    /// So many parts of a query run side by side [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Where on the host what does not fit into memory goes [default: $TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub temp_dir: Option<PathBuf>,
}

/// How answers are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum AnswerFormat {
    /// Columns for people.
    Table,
    /// Values between commas.
    Csv,
    /// One JSON array.
    Json,
    /// A JSON object a line.
    Jsonl,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC file.
    Arrow,
}

impl SqlArgs {
    /// The version that is asked where a statement names none.
    pub fn at(&self) -> At {
        self.version.or(self.timestamp).unwrap_or(At::Tip)
    }
}
