//! The command line: every command, option and help text, and nothing that does anything.

mod bisect;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use pond_oplog::{At, AtError, TIMES};

pub use crate::cli::bisect::BisectArgs;
use crate::output::LogFormat;
use crate::path::{self, GivenPath, GlobPath, ReadPath, WritePath};
use crate::time;

/// A filesystem whose whole history is a Delta Lake table.
#[derive(Parser, Debug)]
#[command(
    name = "pond",
    version,
    long_about = "A filesystem whose whole history is a Delta Lake table.\n\n\
        Mount a pond and use it with ordinary programs: about once a second everything that was \
        written becomes a version in a Delta table, and every version can be read again. Most \
        commands work on a mounted pond and on one that is not.",
    after_long_help = "\
Examples:
  pond mount /mnt/pond              make a pond, mount it, and use it like any directory
  pond log                          its versions, newest first
  pond cat notes/today@42           a file as version 42 had it
  pond umount /mnt/pond             commit everything and unmount

Paths inside a pond start at its root, with or without the leading slash. PATH@V is the path as \
version V had it. V is a number, a time (2026-11-20T18:30, local unless it ends in Z or an offset), how long \
ago (-10m; also s, h, d, w), or start for the oldest that is kept; write PATH@tip for a name that itself ends in @V. \
host:PATH is a path outside the pond. Times are shown in local time.

With --json a command that states one fact prints one JSON object, and one that lists prints JSON \
lines. A name that is not UTF-8 is approximate in \"path\", and exact, in hexadecimal, in \"path_hex\", \
which is there only then.

Exit codes: 0 success, 1 failure, 2 wrong usage.",
    max_term_width = 100
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What help calls the options of every command.
const GLOBAL: &str = "Options of every command";

/// Options of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// The pond's directory [default: the pond mounted here, else pond in the user's data directory]
    ///
    /// Without it, $POND says; without that, it is the pond in whose mount the current directory lies; anywhere else,
    /// $XDG_DATA_HOME/pond or ~/.local/share/pond.
    #[arg(
        long, global = true, help_heading = GLOBAL, env = "POND", value_name = "DIR", hide_env = true,
        value_hint = ValueHint::DirPath, value_parser = OsStringValueParser::new().try_map(directory)
    )]
    pub pond: Option<PathBuf>,

    /// Print facts as JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,

    /// How progress, warnings and errors are written to standard error
    #[arg(long, global = true, help_heading = GLOBAL, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,

    /// Say more about what is being done; twice for more still
    #[arg(short, long, global = true, help_heading = GLOBAL, action = ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make an empty pond, or a replica of one from a backup store
    ///
    /// Only where there is nothing yet, or an empty directory. `pond mount` makes empty ponds by itself.
    ///
    /// With --from-backup the pond becomes a replica: it gets the history that the store holds, byte for byte, and
    /// from then on follows it, with `pond mount` by itself and with `pond sync` when told to. Nothing is applied
    /// before its digest was checked. What was cut off (Ctrl-C, a crash, the network) goes on where it was when
    /// the same command is given again, and fetches nothing twice.
    #[command(after_long_help = "\
Examples:
  pond --pond /srv/pond init
  pond --pond /srv/replica init --from-backup remote.yaml
  pond --pond /srv/replica init --from-backup remote.yaml --version 42
                          the history up to version 42
  pond --pond /srv/replica init --from-backup remote.yaml --tip
                          without the versions before the newest base

remote.yaml is the configuration that the source was given with `pond mknod remote`:
  storage_type: s3
  bucket: backups
  endpoint: https://s3.example.com
  key: ${env:BACKUP_KEY}
  secret: ${env:BACKUP_SECRET}")]
    Init(InitArgs),

    /// Mount a pond
    ///
    /// Makes the pond if there is none, says so, and makes the last component of MOUNTPOINT. Returns when the
    /// pond can be used; a daemon serves it until `pond umount`. Ctrl-C before that leaves nothing mounted. When root mounts, other users may use
    /// it unless --private says otherwise; ordinary users need fusermount3.
    ///
    /// A replica is read-only, and follows its source by itself: each new version is shown as a whole, and a file
    /// that is open keeps the bytes that it had when it was opened. .pond/lag says how many milliseconds it is behind.
    #[command(after_long_help = "\
Examples:
  pond mount /mnt/pond
  pond mount /mnt/old --version 42        the tree as version 42 had it, read-only
  pond mount /mnt/old --timestamp '2026-11-20 18:30'
  pond mount /mnt/try --scratch           a copy to try things in, thrown away by `pond umount`
  pond mount /mnt/try --scratch --version 42
  pond mount /mnt/pond -o nosuid,nodev,commit=5

In /etc/fstab, with mount.fuse.pond and umount.fuse.pond installed as links to pond (the pond must be there, \
unless the options have `create` among them):
  /srv/pond  /mnt/pond  fuse.pond  defaults,nofail,commit=1  0 0")]
    Mount(MountArgs),

    /// Commit everything, unmount, and wait for the daemon's end
    ///
    /// When it returns, all that was written is committed and another mount may follow at once. Fails,
    /// naming the processes, while files in the mount are open.
    #[command(alias = "unmount", after_long_help = "Example:\n  pond umount /mnt/pond")]
    Umount(UmountArgs),

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
    #[command(after_long_help = "\
Examples:
  pond sync
  pond sync --no-push           commit only
  pond sync --timeout 5m        exit with 1 if pushes are not done by then; the commit stays")]
    Sync(SyncArgs),

    /// Show identity, mode, state, versions and sizes
    ///
    /// Of a source also how far each remote has got. Of a replica its state (preparing, copying, catching_up,
    /// synchronized, diverged, failed), its timeline, and how far it is behind; synchronized means equal to the
    /// newest version in the backup store.
    #[command(after_long_help = "\
Examples:
  pond status
  pond status --json | jq .version
  pond status --json | jq -r .replica.state
  pond status --wait-version 42           return once version 42 is here
  pond status --wait-version 42 --timeout 60")]
    Status(StatusArgs),

    /// Show the history, newest version first
    ///
    /// TXN is the number of the pond's transaction; ORIGIN who asked for the commit: a mount, a command, or
    /// recovery after a crash; FILES and BYTES what the version added to the table.
    #[command(after_long_help = "Examples:\n  pond log -n 10\n  pond log --json | jq .version")]
    Log(LogArgs),

    /// Show one version: when, by whom, and which paths it changed
    ///
    /// Compares the tree with that of the version before. A path is created, removed, moved, written (its
    /// content changed), or changed (its attributes or, for a directory, its entries).
    #[command(after_long_help = "Example:\n  pond show 42")]
    Show(ShowArgs),

    /// List paths inside the pond
    ///
    /// A directory is listed entry by entry; a pattern lists the paths that match. `*` and `?` stay within
    /// one name, `**` crosses directories, `[ab]` and `{a,b}` choose. Names that begin with a dot are
    /// listed too. Symlinks are not followed by patterns.
    #[command(
        visible_alias = "ls",
        after_long_help = "\
Examples:
  pond list                     the root directory
  pond list '**/*.txt'          all text files
  pond list logs@42             a directory as version 42 had it
  pond list --json '**' | jq -r .path"
    )]
    List(ListArgs),

    /// Write files inside the pond to standard output
    ///
    /// Symlinks are followed, absolute ones from the pond's root. An error, also in the middle of a
    /// file, makes it exit with 1.
    #[command(after_long_help = "\
Examples:
  pond cat notes/today
  pond cat notes/today@42       as version 42 had it
  pond cat odd@5@tip            the file named odd@5")]
    Cat(CatArgs),

    /// Copy files and directories into the pond, out of it, or inside it
    ///
    /// Directories are copied whole. Mode, times, symlinks, extended attributes, holes, and hard links
    /// among what is copied are kept; the owner too where permitted. If DEST is a directory the copies go
    /// into it, under their own names; `host:dir/.` copies what is in the directory.
    ///
    /// Each file is written under a temporary name (.pond-copy-…) and then renamed, so that neither
    /// an error nor Ctrl-C leaves half a file; what exists under the name is replaced. A file that cannot be copied
    /// is reported, the others are copied, and the exit code is 1.
    #[command(
        visible_alias = "cp",
        after_long_help = "\
Examples:
  pond copy host:report.pdf /docs/
  pond copy host:project /               the whole directory
  pond copy /docs@42 host:docs-then      out of the pond, as version 42 had it
  pond copy notes/today@42 notes/today   bring an old state back"
    )]
    Copy(CopyArgs),

    /// Make directories inside the pond
    #[command(after_long_help = "Example:\n  pond mkdir -p logs/2026/11")]
    Mkdir(MkdirArgs),

    /// Remove files and directories inside the pond
    ///
    /// Older versions still have them.
    #[command(after_long_help = "Example:\n  pond rm -r logs/2025")]
    Rm(RmArgs),

    /// Move or rename inside the pond
    ///
    /// One rename, so it is all or nothing for each SRC. If DEST is a directory, SRC goes into it; else a file
    /// there is replaced. It does not cross the border of the pond: use `pond copy`, then `pond rm`.
    #[command(after_long_help = "Examples:\n  pond mv draft.txt final.txt\n  pond mv a b c archive/")]
    Mv(MvArgs),

    /// Find the first version in which something went wrong, by halving
    ///
    /// Runs COMMAND in scratches of versions between --good and --bad: writable copies that are thrown away, with COMMAND's current
    /// directory, and $POND_BISECT, at their root. An exit code of 0 says that the version is good, 125 that it cannot be told, and any
    /// other up to 127 that it is bad; what is beyond, or a signal, ends the search. Prints the first bad version as `pond show` does:
    /// when, by whom, what it changed. Works on a pond that is mounted, on one that is not, and on a replica.
    #[command(after_long_help = "\
Examples:
  pond bisect --good 120 --bad 842 -- make test
  pond bisect --good 120 --bad -10m --path /src -- sh -c 'cd src && make && ./check'
  pond bisect --good start --bad 842 -- test -e notes/today         when was it removed?
  pond bisect --good 120 --bad 842 -- sh -c 'test $(wc -l <log) -lt 1000'")]
    Bisect(BisectArgs),

    /// Make a factory's node
    ///
    /// The configuration is checked before anything is made. Missing parent directories are made. Nodes
    /// under /etc/system.d run after each commit, in the order of their names. Secrets are written
    /// ${env:NAME} in the configuration, never as themselves. `pond factories` lists the kinds.
    ///
    /// The factory `remote` ships each commit to a backup store. Before its node is made the store is tried out: it
    /// must be reachable and writable, and must refuse to write over what exists when asked to. There may be several,
    /// each with its own store.
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
    Mknod(MknodArgs),

    /// Run a factory's node now
    ///
    /// Does what would be done after a commit, also where nothing is new: `remote` looks whether its store still has everything.
    #[command(after_long_help = "Example:\n  pond run /etc/system.d/10-log")]
    Run(RunArgs),

    /// List the kinds of factories, and the nodes that exist
    Factories,

    /// Read and change the settings of the control table
    ///
    /// Settings belong to this copy of the pond and are never replicated, as factory_mode:NAME, which says
    /// how the factory NAME runs here. Without an action all settings are listed.
    #[command(after_long_help = crate::commands::control_help())]
    Control(ControlArgs),

    /// Make a replica writable, on a timeline of its own
    ///
    /// For when the source is lost, or is to hand over. The backup store notes that a new timeline begins with this
    /// replica's version; from then on this pond is the source, and pushes there. The old source becomes read-only
    /// when it next pushes. Replicas at this version or before it cross over; one that had got further holds versions
    /// that are not part of the new timeline, and says `diverged`.
    ///
    /// The pond must not be mounted. There is no way back: a source does not become a replica again but by
    /// `pond init --from-backup` in another place.
    #[command(after_long_help = "\
Example:
  pond --pond /srv/replica sync           the newest that the store has
  pond umount /mnt/replica
  pond --pond /srv/replica promote
  pond --pond /srv/replica mount /mnt/pond")]
    Promote,

    /// Check everything: files, rows, journal, settings
    ///
    /// Reads every byte of the pond and compares it with the digests in its history: log entries, checkpoints, data files and
    /// each extent in them, the journal, the control table; and whether the rows make a tree. Names what is damaged or missing
    /// with the paths and versions that it concerns. Works on a mounted pond too, beside its daemon. Exits with 1 if
    /// anything is damaged or missing.
    ///
    /// With --repair it does what can be done without losing anything, on a pond that is not mounted: data files and log
    /// entries come back from the pond's remote if it has one, checkpoints are made anew. What was damaged is kept beside it
    /// as NAME.damaged-TIME.
    #[command(after_long_help = "\
Examples:
  pond fsck
  pond fsck --json | jq -r 'select(.event == \"finding\") | .file'
  pond umount /mnt/pond && pond fsck --repair
  pond fsck --repair --from-backup remote.yaml      where the damage hides which remote there is")]
    Fsck(FsckArgs),

    /// Merge data files, let go of old versions, and remove what nobody needs any more
    ///
    /// A mounted pond does this by itself, a little at a time; this does all there is to do, at once. Small data files
    /// are joined, with every row kept. Versions that the setting `retention` does not keep are let go of
    /// (`pond control set retention 30d`, or `'1000 versions'`, of which those that maintenance itself makes do not count; unset,
    /// every version is kept): the floor rises, and what
    /// only older versions show is dropped. Files that others stand for are removed once they were replaced as long ago
    /// as the setting `keep_replaced` says (24h; some ten seconds at least, for reads that had begun), every remote has passed that
    /// version, and nobody reads from them.
    #[command(after_long_help = "\
Examples:
  pond maintain
  pond maintain --dry-run                     what it would do, and free
  pond maintain --dry-run --retention 30d     what it would free if versions were kept for 30 days")]
    Maintain(MaintainArgs),

    /// Print a script that completes pond's commands in a shell
    #[command(after_long_help = "\
Examples:
  pond completions bash > ~/.local/share/bash-completion/completions/pond
  pond completions zsh > ~/.zfunc/_pond")]
    Completions(CompletionsArgs),
}

/// `pond init`
#[derive(Args, Debug)]
pub struct InitArgs {
    /// Make a replica from the backup store of this configuration, a file on the host; - reads standard input
    ///
    /// Run again after it was cut off, it goes on where it stopped. Run on a replica that was made with --tip and is not
    /// mounted, it fills in the older versions.
    #[arg(long, value_name = "CFG", value_hint = ValueHint::FilePath)]
    pub from_backup: Option<PathBuf>,

    /// Stop at this version
    #[arg(
        id = "init_version", long = "version", value_name = "V", requires = "from_backup",
        conflicts_with_all = ["init_timestamp", "tip"], allow_hyphen_values = true, value_parser = version
    )]
    pub version: Option<At>,

    /// Stop at the newest version of this time or before
    ///
    /// RFC 3339 (2026-11-20T18:30:00+01:00), local time (2026-11-20T18:30, "2026-11-20 18:30:15", 2026-11-20), how
    /// long ago (-10m; also s, h, d, w), or @SECONDS since 1970 UTC.
    #[arg(
        id = "init_timestamp", long = "timestamp", value_name = "T", requires = "from_backup",
        conflicts_with = "tip", allow_hyphen_values = true, value_parser = time_of_version
    )]
    pub timestamp: Option<At>,

    /// Start from the newest base, and leave the versions before it out
    ///
    /// The same command without --tip fills them in later, while the pond is not mounted.
    #[arg(long, requires = "from_backup")]
    pub tip: bool,
}

/// `pond fsck`
#[derive(Args, Debug)]
pub struct FsckArgs {
    /// Repair what can be repaired without losing anything
    #[arg(long)]
    pub repair: bool,

    /// With --repair: take files from the backup store of this configuration, a file on the host; - reads standard input
    #[arg(long, value_name = "CFG", requires = "repair", value_hint = ValueHint::FilePath)]
    pub from_backup: Option<PathBuf>,
}

/// `pond mount`
#[derive(Args, Debug)]
pub struct MountArgs {
    /// Where; its last component is made if it is missing
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,

    /// Stay in the foreground, messages on standard error, until unmounted or Ctrl-C
    #[arg(short, long)]
    pub foreground: bool,

    /// Take no writes
    #[arg(long)]
    pub read_only: bool,

    /// Follow the source: what a replica does anyway
    ///
    /// Asks for it: mounting fails where there is nothing to follow.
    #[arg(long, conflicts_with_all = ["read_only", "at_version", "at_timestamp"])]
    pub follow: bool,

    /// A scratch: writable, seen by nobody else, and gone when it is unmounted
    ///
    /// It begins as the version that is asked for, or the newest, of a source or a replica, mounted or not. What is written there takes
    /// space in the pond's directory until then. fsync promises nothing.
    #[arg(long, conflicts_with_all = ["read_only", "follow"])]
    pub scratch: bool,

    #[command(flatten)]
    pub at: AtArgs,

    /// Only for the user who mounts
    #[arg(long)]
    pub private: bool,

    /// Fail if there is no pond, rather than make one
    #[arg(long)]
    pub no_create: bool,

    /// Options as in fstab: ro, nosuid, nodev, noexec, commit=SECONDS, …
    ///
    /// ro, rw, nosuid, nodev, noexec, sync, allow_other, private, create, nonempty, inode32, commit=SECONDS, remount, and what
    /// mount(8) has for every filesystem. inode32 is for 32-bit programs that cannot list or stat otherwise.
    #[arg(short = 'o', value_name = "OPTS", action = ArgAction::Append)]
    pub options: Vec<String>,
}

/// Which state of the pond.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct AtArgs {
    /// The tree as this version had it, read-only but for a scratch
    ///
    /// A number, start for the oldest that is kept, or a time, as --timestamp takes it.
    #[arg(
        id = "at_version", long = "version", value_name = "V", conflicts_with = "at_timestamp",
        allow_hyphen_values = true, value_parser = version
    )]
    pub version: Option<At>,

    /// The tree as it was at this time, read-only but for a scratch
    ///
    /// RFC 3339 (2026-11-20T18:30:00+01:00), local time (2026-11-20T18:30, "2026-11-20 18:30:15", 2026-11-20), how
    /// long ago (-10m; also s, h, d, w), or @SECONDS since 1970 UTC.
    #[arg(
        id = "at_timestamp", long = "timestamp", value_name = "TIME", allow_hyphen_values = true,
        value_parser = time_of_version
    )]
    pub timestamp: Option<At>,
}

impl AtArgs {
    /// The version that is meant, if one was given.
    pub fn at(&self) -> Option<At> {
        self.version.or(self.timestamp)
    }
}

/// `pond umount`
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// Where the pond is mounted
    #[arg(value_hint = ValueHint::DirPath)]
    pub mountpoint: PathBuf,
}

/// `pond sync`
#[derive(Args, Debug, Default)]
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

/// `pond status`
#[derive(Args, Debug)]
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

/// `pond maintain`
#[derive(Args, Debug)]
pub struct MaintainArgs {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,

    /// With --dry-run: as if the setting `retention` were this
    #[arg(long, value_name = "RETENTION", requires = "dry_run")]
    pub retention: Option<String>,
}

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

/// `pond cat`
#[derive(Args, Debug)]
pub struct CatArgs {
    /// Files inside the pond
    #[arg(value_name = "PATH[@V]", required = true, value_parser = OsStringValueParser::new().try_map(ReadPath::parse))]
    pub paths: Vec<ReadPath>,
}

/// `pond copy`
#[derive(Args, Debug)]
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

/// `pond mkdir`
#[derive(Args, Debug)]
pub struct MkdirArgs {
    /// Make missing parents too, and do not mind directories that exist
    #[arg(short, long)]
    pub parents: bool,

    /// Directories inside the pond
    #[arg(value_name = "PATH", required = true, value_parser = OsStringValueParser::new().try_map(path::parse_inside))]
    pub paths: Vec<GivenPath>,
}

/// `pond rm`
#[derive(Args, Debug)]
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

/// `pond mv`
#[derive(Args, Debug)]
pub struct MvArgs {
    /// What to move
    #[arg(value_name = "SRC", required = true, value_parser = OsStringValueParser::new().try_map(WritePath::parse))]
    pub sources: Vec<WritePath>,

    /// The new name, or a directory
    #[arg(value_name = "DEST", required = true, value_parser = OsStringValueParser::new().try_map(WritePath::parse))]
    pub destination: WritePath,
}

/// `pond mknod`
#[derive(Args, Debug)]
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

/// `pond run`
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The node, a path inside the pond
    #[arg(value_parser = path_inside)]
    pub path: String,

    /// What the factory is told; exec-log and remote take nothing
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// `pond control`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ControlArgs {
    /// Trigger something instead: sync does what `pond sync` does, also on a replica
    #[arg(long, value_enum)]
    pub mode: Option<ControlMode>,

    #[command(subcommand)]
    pub action: Option<ControlAction>,
}

/// What `pond control --mode` triggers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ControlMode {
    /// Commit everything now and run the post-commit factories.
    Sync,
}

/// What to do with settings.
#[derive(Subcommand, Debug)]
pub enum ControlAction {
    /// Print the value of a setting
    Get {
        /// Its name
        #[arg(value_parser = SettingName)]
        key: String,
    },
    /// Change a setting; it is committed at once
    Set {
        /// Its name
        #[arg(value_parser = SettingName)]
        key: String,
        /// Its value
        value: String,
    },
    /// Take a setting back: its default holds again; it is committed at once
    Unset {
        /// Its name
        #[arg(value_parser = SettingName)]
        key: String,
    },
    /// List all settings: what holds, and whether it was set here or is the default
    List,
}

/// The name of a setting: any text, of which the command itself says what it is; shells complete those that there are.
#[derive(Clone)]
struct SettingName;

impl TypedValueParser for SettingName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        clap::builder::StringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = clap::builder::PossibleValue> + '_>> {
        let names = pond_steward::settings::SETTINGS.iter().map(|setting| setting.name);
        let names =
            names.filter(|name| !name.ends_with(':')).chain(["factory_mode:remote", "factory_mode:exec-log"]);
        // Help lists them by themselves, with what they are for.
        Some(Box::new(names.map(clap::builder::PossibleValue::new)))
    }
}

/// `pond completions`
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// A path inside the pond, as text.
fn path_inside(text: &str) -> Result<String, String> {
    path::parse_inside(text.into()).map(|_| text.to_owned())
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "a number is wanted, 0 or more".to_owned())
}

fn version(text: &str) -> Result<At, String> {
    At::parse(text).map_err(|error| error.to_string())
}

/// A version that is named by a time.
fn time_of_version(text: &str) -> Result<At, String> {
    match At::parse(text) {
        Ok(at @ At::Timestamp(_)) => Ok(at),
        Err(error @ AtError::NotOneTime { .. }) => Err(error.to_string()),
        Ok(_) | Err(AtError::NoForm(_)) => Err(format!("\"{text}\" is not a time: give {TIMES}")),
    }
}

fn version_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a version is a number; `pond log` lists them".to_owned())
}

fn directory(text: OsString) -> Result<PathBuf, String> {
    match text.is_empty() {
        true => Err("the pond's directory cannot be empty; unset $POND for the default, or name one".into()),
        false => Ok(PathBuf::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::When;
    use clap::CommandFactory;
    use pond_oplog::Version;

    fn parse(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"pond").chain(args))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn examples_are_not_broken_at_the_terminals_edge() {
        fn check(command: &clap::Command) {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn version_is_the_programs_alone_and_the_mounts_after_mount() {
        assert_eq!(parse(&["--version"]).unwrap_err().kind(), clap::error::ErrorKind::DisplayVersion);
        let Command::Mount(mount) = parse(&["mount", "/m", "--version", "7"]).unwrap().command else {
            unreachable!()
        };
        assert_eq!(mount.at.at(), Some(At::Version(Version(7))));
        assert!(parse(&["mount", "/m", "--version", "7", "--timestamp", "@1"]).is_err());
        assert!(parse(&["mount", "/m", "--version", "x"]).is_err());
    }

    #[test]
    fn a_version_is_named_by_a_time_as_well_wherever_one_is_named() {
        for args in [
            ["mount", "/m", "--version", "-10m"],
            ["mount", "/m", "--version", "2026-11-20T18:30"],
            ["mount", "/m", "--version", "start"],
            ["mount", "/m", "--timestamp", "-10m"],
            ["init", "--from-backup=c", "--version", "-2w"],
            ["init", "--from-backup=c", "--timestamp", "2026-11-20"],
            ["show", "--json", "--", "-10m"],
        ] {
            assert!(parse(&args).is_ok(), "{args:?}");
        }
        let show = parse(&["show", "-10m", "--json"]).unwrap();
        assert!(show.global.json && matches!(show.command, Command::Show(_)));
        assert!(parse(&["mount", "/m", "--timestamp", "7"]).is_err());
        assert!(parse(&["mount", "/m", "--timestamp", "start"]).is_err());
    }

    #[test]
    fn init_stops_somewhere_only_on_the_way_from_a_backup() {
        let Command::Init(init) = parse(&["init"]).unwrap().command else { unreachable!() };
        assert_eq!(init.from_backup, None);
        let given = ["init", "--from-backup", "c.yaml", "--version", "7"];
        let Command::Init(init) = parse(&given).unwrap().command else { unreachable!() };
        assert_eq!((init.from_backup, init.version), (Some("c.yaml".into()), Some(At::Version(Version(7)))));
        assert!(parse(&["init", "--version", "7"]).is_err());
        assert!(parse(&["init", "--tip"]).is_err());
        assert!(parse(&["init", "--from-backup", "c", "--tip", "--version", "7"]).is_err());
        assert!(parse(&["init", "--from-backup", "c", "--timestamp", "@1", "--version", "7"]).is_err());
    }

    #[test]
    fn what_stands_still_does_not_follow() {
        assert!(parse(&["mount", "/m", "--follow"]).is_ok());
        assert!(parse(&["mount", "/m", "--follow", "--version", "7"]).is_err());
        assert!(parse(&["mount", "/m", "--follow", "--read-only"]).is_err());
    }

    #[test]
    fn global_options_stand_before_and_after_the_command() {
        for args in [["--json", "status", "--pond", "/p"], ["--pond", "/p", "status", "--json"]] {
            let cli = parse(&args).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.pond.as_deref(), Some("/p".as_ref()));
        }
        assert!(parse(&["--pond", "", "status"]).is_err());
    }

    #[test]
    fn list_shows_the_root_unless_told() {
        let Command::List(list) = parse(&["list"]).unwrap().command else { unreachable!() };
        assert_eq!(list.glob, GlobPath { pattern: b"/".to_vec(), when: When::Now });
        let Command::List(list) = parse(&["ls", "a/**@3"]).unwrap().command else { unreachable!() };
        assert_eq!(
            list.glob,
            GlobPath { pattern: b"a/**".to_vec(), when: When::At(At::Version(Version(3))) }
        );
    }

    #[test]
    fn copy_takes_its_last_path_as_the_destination() {
        let Command::Copy(copy) = parse(&["copy", "host:a", "b@2", "c"]).unwrap().command else {
            unreachable!()
        };
        assert_eq!(copy.sources.len(), 2);
        assert_eq!(copy.destination.to_string(), "/c");
        assert!(parse(&["copy", "host:a"]).is_err());
    }

    #[test]
    fn run_hands_everything_after_the_path_to_the_factory() {
        let Command::Run(run) = parse(&["run", "/etc/system.d/x", "verify", "--deep"]).unwrap().command
        else {
            unreachable!()
        };
        assert_eq!(run.args, ["verify", "--deep"]);
    }

    #[test]
    fn control_lists_gets_sets_or_triggers_but_one_at_a_time() {
        assert!(parse(&["control"]).is_ok());
        assert!(parse(&["control", "get", "a"]).is_ok());
        assert!(parse(&["control", "set", "a", "b"]).is_ok());
        assert!(parse(&["control", "--mode", "sync"]).is_ok());
        assert!(parse(&["control", "--mode", "sync", "list"]).is_err());
        assert!(parse(&["control", "--mode", "other"]).is_err());
    }
}
