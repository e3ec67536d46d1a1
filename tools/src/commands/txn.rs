//! `pond txn`: all that a command does becomes one version, or nothing.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread;

use pond_mount::transaction::{self, Program, Ran, Transaction};
use pond_mount::{Mount, Published, PublishedConflict};
use pond_oplog::Layout;
use pond_steward::Steward;
use serde_json::json;

use crate::cli::TxnArgs;
use crate::context::Context;
use crate::error::{During, Failure, Report, Result};
use crate::output::{count, json_bytes};
use crate::path::escape;
use crate::redact;
use crate::target::State;
use crate::waiting;

/// Others changed the same meanwhile: sysexits' EX_TEMPFAIL, which asks to try again.
const CONFLICT: u8 = 75;

/// We failed, not the command; so with `env`, `nice` and `timeout`.
const OURS: u8 = 125;

/// The command cannot be run.
const NOT_RUN: u8 = 126;

/// The command is not found.
const NOT_FOUND: u8 = 127;

/// Most conflicts that are listed.
const LISTED: usize = 20;

/// Runs a command in a transaction.
pub fn txn(args: &TxnArgs, context: &mut Context) -> Result {
    let ended = refuse_within().and_then(|()| run(args, context));
    ended.map_err(|failure| match failure {
        Failure::Failed(report) => Failure::Told { code: OURS, report },
        failure => failure,
    })
}

fn what() -> String {
    "cannot run a transaction".to_owned()
}

/// A transaction in a scratch would end with that, and one within another would have nothing to wait for.
fn refuse_within() -> Result {
    let here = pond_mount::mount_of_current_directory().during(what)?;
    if std::env::var_os(transaction::VARIABLE).is_some() {
        return Err(Failure::new(what(), "one is under way here already, of which this would be a part")
            .next("run the command as it is: what it does is taken over with the rest, or not at all"));
    }
    match here.filter(Mount::is_scratch) {
        Some(scratch) => Err(Failure::new(
            what(),
            format!("the current directory lies in a scratch, {}", scratch.mountpoint.display()),
        )
        .next(
            "run the command as it is: nobody else sees what it does here; or change to the pond's own mount",
        )),
        None => Ok(()),
    }
}

fn run(args: &TxnArgs, context: &mut Context) -> Result {
    let opened = Opened::find(context, pond_mount::mount_of_current_directory().during(what)?)?;
    transaction::forward_signals();
    let ended = run_until_taken(args, context, &opened);
    let closed = opened.close(context);
    ended.and(closed)
}

fn run_until_taken(args: &TxnArgs, context: &mut Context, opened: &Opened) -> Result {
    let program = Program { words: args.command.clone(), to_standard_error: context.out.is_json() };
    let command = redact::words(&args.command);
    let mut runs = 1;
    loop {
        // What the command prints comes after what was printed before.
        context.out.flush()?;
        let ran = opened.begin(context)?.run(&program, &command, args.message.as_deref()).during(what)?;
        let published = match ran {
            Ran::Well(published) => published,
            Ran::Failed(status) => return Err(failed(status, context)),
            Ran::NotRun(error) => return Err(not_run(&args.command[0], &error)),
        };
        match published {
            Published::Version(version) => {
                let fact = json!({"event": "taken over", "version": version});
                context.notices.tell(&fact, || format!("Version {version} is what the command did."));
                context.out.json(&json!({"version": version, "runs": runs}))?;
                return context.out.flush();
            }
            Published::Nothing => {
                let fact = json!({"event": "nothing to take over"});
                context
                    .notices
                    .tell(&fact, || "The command changed nothing: there is no new version.".into());
                context.out.json(&json!({"version": null, "runs": runs}))?;
                return context.out.flush();
            }
            Published::Conflicts(conflicts) if runs > args.retry => {
                return Err(conflict(&conflicts, runs, args, context));
            }
            Published::Conflicts(conflicts) => {
                let fact = json!({"event": "run again", "conflicts": facts(&conflicts)});
                let again =
                    || format!("Others changed the same meanwhile; running it again:\n{}", list(&conflicts));
                context.notices.tell(&fact, again);
                runs += 1;
            }
        }
    }
}

/// The pond as it was found, and where its tree is shown to the command.
enum Opened {
    /// A daemon has it open, and this is its mount.
    Mounted(Mount),
    /// We have it open, and show it in this directory.
    Here(Arc<Steward>, PathBuf),
}

impl Opened {
    fn find(context: &Context, here: Option<Mount>) -> Result<Self> {
        match context.pond.state()? {
            State::Mounted(mut daemon) => daemon.mount().map(Opened::Mounted),
            State::Unmounted => {
                let pond = context.pond.directory().canonicalize().ok();
                if let Some(here) = here.filter(|here| Some(&here.source) == pond.as_ref()) {
                    let why = format!(
                        "the current directory lies in a mount, {}, through which the pond cannot be changed",
                        here.mountpoint.display()
                    );
                    return Err(Failure::new(what(), why)
                        .next("mount the pond to be written to, or change out of it"));
                }
                let steward = context.pond.open()?;
                let pond = steward.pond().canonicalize().during(what)?;
                let place = Layout::new(&pond).mirror().join("transaction");
                // Only this command, which has the writer lock, uses it; one that was killed has left it.
                fs::DirBuilder::new().mode(0o700).recursive(true).create(&place).during(what)?;
                Ok(Opened::Here(steward, place))
            }
        }
    }

    fn begin(&self, context: &Context) -> Result<Transaction> {
        let pond = context.pond.directory();
        let begun = match self {
            Opened::Mounted(mount) => {
                let State::Mounted(daemon) = context.pond.state()? else {
                    return Err(Failure::new(what(), "the pond was unmounted meanwhile").next("run it again"));
                };
                Transaction::begin(pond, &mount.mountpoint, Some(mount), daemon.into_stream())
            }
            Opened::Here(steward, place) => {
                let stream = serve(steward).during(what)?;
                Transaction::begin(pond, place, None, stream)
            }
        };
        begun.during(what)
    }

    fn close(self, context: &Context) -> Result {
        let Opened::Here(steward, place) = self else { return Ok(()) };
        // Where it stays, the next transaction uses it.
        drop(fs::remove_dir(&place));
        waiting::close(&steward, context.notices).during(|| "cannot close the pond".to_owned()).map(drop)
    }
}

/// Serves a transaction in this process, as the daemon of a mounted pond does in its own.
fn serve(steward: &Arc<Steward>) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let steward = steward.clone();
    thread::Builder::new().name("pond-txn".to_owned()).spawn(move || {
        // The other end is ours, too, and tells the user of failures.
        drop(pond_mount::serve_transaction(&steward, theirs));
    })?;
    Ok(ours)
}

/// The command was not successful.
fn failed(status: ExitStatus, context: &Context) -> Failure {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    };
    let fact = json!({"event": "nothing taken over", "exit_code": status.code(), "signal": status.signal()});
    context.notices.tell(&fact, || format!("The command {how}: nothing has happened to the pond."));
    match (status.code(), status.signal()) {
        (Some(code), _) => Failure::Exit(code as u8),
        // So that a shell knows that it was interrupted.
        (None, Some(signal @ (libc::SIGINT | libc::SIGTERM | libc::SIGHUP))) => Failure::Interrupted(signal),
        (None, signal) => Failure::Exit(128_u8.saturating_add(signal.unwrap_or_default() as u8)),
    }
}

fn not_run(program: &OsStr, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
    let report = Report {
        what: format!("cannot run {}", escape(program.as_encoded_bytes())),
        why: crate::error::chain(error),
        next: None,
    };
    Failure::Told { code, report }
}

fn conflict(conflicts: &[PublishedConflict], runs: u32, args: &TxnArgs, context: &mut Context) -> Failure {
    let facts = json!({"version": null, "runs": runs, "conflicts": facts(conflicts)});
    if let Err(failure) = context.out.json(&facts) {
        return failure;
    }
    let times =
        if runs > 1 { format!(", in each of {} runs", count(u64::from(runs), "run")) } else { String::new() };
    let report = Report {
        what: "cannot take over what the command did".to_owned(),
        why: format!(
            "others changed the same meanwhile{times}, so nothing has happened\n{}",
            list(conflicts)
        ),
        next: (args.retry == 0).then(|| "run it again, or with --retry 3".to_owned()),
    };
    Failure::Told { code: CONFLICT, report }
}

fn facts(conflicts: &[PublishedConflict]) -> serde_json::Value {
    let facts = conflicts.iter().map(|conflict| {
        let (path, path_hex) = json_bytes(&conflict.path);
        let mut fact = json!({"path": path, "why": conflict.why});
        if let Some(hex) = path_hex {
            fact["path_hex"] = json!(hex);
        }
        fact
    });
    facts.collect()
}

fn list(conflicts: &[PublishedConflict]) -> String {
    let mut lines: Vec<String> = conflicts
        .iter()
        .take(LISTED)
        .map(|conflict| format!("      {}: {}", escape(&conflict.path), conflict.why))
        .collect();
    if let Some(more) = conflicts.len().checked_sub(LISTED).filter(|&more| more > 0) {
        lines.push(format!("      and {more} more"));
    }
    lines.join("\n")
}
