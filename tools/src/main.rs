//! The `pond` program: a filesystem whose whole history is a Delta table, from the command line.
//!
//! Also what `mount(8)` and `umount(8)` call under the names in [`mount_helper`].
#![warn(missing_docs)]

mod child;
mod cli;
mod commands;
mod context;
mod copier;
mod error;
mod interrupt;
mod missing;
mod mount_helper;
mod output;
mod part;
mod path;
mod pattern;
mod progress;
mod redact;
mod registry;
mod restorer;
mod target;
mod time;
mod usage;
mod users;
mod waiting;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use pond_oplog::Origin;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, Global};
use crate::context::{Context, data_directory};
use crate::error::{Failure, Result};
use crate::mount_helper::{MountHelper, UmountHelper};
use crate::output::{LogFormat, Notices, Output};
use crate::part::Part;
use crate::target::Pond;

/// glibc's keeps what a burst of large files needed; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    raise_open_files();
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let part = match arguments.get(1) {
        Some(first) if first == commands::AS_POND => {
            arguments.remove(1);
            Part::Pond
        }
        _ => Part::of(arguments.first().map_or(Path::new(""), Path::new)),
    };
    let (notices, result) = match part {
        Part::Pond => run_pond(&arguments),
        Part::Mount => run_mount_helper(&arguments),
        Part::Umount => run_umount_helper(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match &failure {
                Failure::Failed(report) | Failure::Told { report, .. } | Failure::Usage(report) => {
                    notices.failure(report);
                }
                Failure::Interrupted(signal) => interrupt::die(*signal),
                Failure::OutputClosed | Failure::Reported | Failure::Exit(_) => {}
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// So many files may be open, where the system allows it. Not more: helpers such as fusermount3 may close all that could be.
const OPEN_FILES: libc::rlim_t = 1 << 16;

/// Takes enough descriptors: a restore fetches several files at a time, and a mount keeps data files open.
fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a pointer to a live value.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_cur.max(limit.rlim_max.min(OPEN_FILES));
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if !raised {
        // With few descriptors it works too, only slower.
        eprintln!("pond: the limit of open files stays as it is: {}", std::io::Error::last_os_error());
    }
}

fn run_pond(arguments: &[OsString]) -> (Notices, Result) {
    let Cli { global, command } = usage::parse(arguments);
    let Global { pond, json, log_format, verbose } = global;
    let notices = Notices::new(log_format, verbose > 0);
    log_to_stderr(log_format, verbose, matches!(command, Command::Mount(_)));
    let makes_ponds = matches!(command, Command::Init(_) | Command::Mount(_));
    // What these say or do is of the mount itself.
    let in_scratches = matches!(command, Command::Status(_) | Command::Umount(_) | Command::Completions(_));
    let result = pond_directory(pond, makes_ponds, in_scratches).and_then(|directory| {
        let command_line = redact::command_line(&arguments[1..]);
        run(directory, Origin::command(command_line), json, notices, |context| {
            commands::run(command, context)
        })
    });
    (notices, result)
}

fn run_mount_helper(arguments: &[OsString]) -> (Notices, Result) {
    let helper = MountHelper::parse_from(arguments);
    let notices = Notices::new(LogFormat::Text, helper.is_verbose());
    log_to_stderr(LogFormat::Text, helper.is_verbose().into(), false);
    let source = helper.source().to_path_buf();
    (notices, run(source, Origin::mount(), false, notices, |context| helper.run(context)))
}

fn run_umount_helper(arguments: &[OsString]) -> (Notices, Result) {
    let helper = UmountHelper::parse_from(arguments);
    let notices = Notices::new(LogFormat::Text, helper.is_verbose());
    log_to_stderr(LogFormat::Text, helper.is_verbose().into(), false);
    // Which pond it is, the mount says.
    (notices, run(PathBuf::new(), Origin::mount(), false, notices, |context| helper.run(context)))
}

fn run(
    directory: PathBuf,
    origin: Origin,
    json: bool,
    notices: Notices,
    command: impl FnOnce(&mut Context) -> Result,
) -> Result {
    let pond = Pond::new(directory, origin, notices);
    let mut context = Context { pond, out: Output::new(json), notices };
    let result = command(&mut context);
    // What was found out before a failure is shown nevertheless, and the failure counts more than its reader's end.
    match (result, context.out.flush()) {
        (Ok(()), flushed) => flushed,
        (Err(failure), _) => Err(failure),
    }
}

/// `--pond`, else `$POND` (clap sees to both), else the pond in whose mount the current directory lies, else `pond` in the user's data directory, which is made for those
/// commands that make ponds.
fn pond_directory(given: Option<PathBuf>, make_parent: bool, in_scratches: bool) -> Result<PathBuf> {
    if let Some(directory) = given {
        let directory = std::path::absolute(&directory).map_err(|error| {
            Failure::because(format!("cannot find the pond {}", directory.display()), &error)
        })?;
        return match pond_mounted_on(&directory) {
            Some(pond) => Err(Failure::new(
                "cannot open the pond",
                format!("{} is where the pond {} is mounted", directory.display(), pond.display()),
            )
            .next(format!("--pond and $POND name the pond's directory: --pond {}", pond.display()))),
            None => Ok(directory),
        };
    }
    let here = pond_mount::mount_of_current_directory()
        .map_err(|error| Failure::because("cannot tell which pond is mounted here", &error))?;
    if let Some(mount) = here {
        if mount.is_scratch() && !in_scratches {
            // It would change, or show, the pond itself.
            return Err(Failure::new(
                "cannot tell which pond is meant",
                format!("the current directory lies in a scratch of {}", mount.source.display()),
            )
            .next(format!(
                "use ordinary programs here, or name the pond itself: pond --pond {}",
                mount.source.display()
            )));
        }
        return Ok(mount.source);
    }
    let data = data_directory().ok_or_else(|| {
        Failure::new("cannot tell where the pond is", "this user has no home directory")
            .next("name the pond's directory with --pond or $POND")
    })?;
    if make_parent {
        std::fs::create_dir_all(&data).map_err(|error| {
            Failure::because(format!("cannot make {}", data.display()), &error)
                .next("name the pond's directory with --pond or $POND")
        })?;
    }
    Ok(data.join("pond"))
}

/// The pond that is mounted there, if one is. What is mounted is not asked, as it may no longer answer.
fn pond_mounted_on(directory: &Path) -> Option<PathBuf> {
    let mounts = pond_mount::mounts().ok()?;
    let topmost = mounts.into_iter().rfind(|mount| mount.mountpoint == directory)?;
    topmost.is_pond().then_some(topmost.source)
}

/// What the packages below have to say goes to standard error, which is the log of a daemon. `$POND_LOG` chooses
/// in detail (`pond_mount=debug`).
fn log_to_stderr(format: LogFormat, verbose: u8, serves: bool) {
    let level = match (verbose, serves) {
        // Whoever reads damaged content gets the error itself.
        (0, false) => "error,pond_oplog::content=off",
        (0, true) | (1, false) => {
            "warn,pond_tinyfs=info,pond_oplog=info,pond_steward=info,pond_mount=info,pond_replicate=info"
        }
        (1, true) | (2, _) => {
            "info,pond_tinyfs=debug,pond_oplog=debug,pond_steward=debug,pond_mount=debug,pond_replicate=debug"
        }
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("POND_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A line that does not fit on a full disk is lost. Its error must not be printed: printing it there would fail as well,
    // with a panic, and end a daemon that holds what is not yet committed.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}
