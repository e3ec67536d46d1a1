//! `pond bisect`: the first bad version, by halving.

mod search;

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use pond_oplog::{At, CommitInfo, Version, View};
use serde_json::{Value, json};

use self::search::{Search, Verdict};
use super::scratch_mount::ScratchMount;
use super::show;
use crate::child;
use crate::cli::BisectArgs;
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::output::count;
use crate::path::GivenPath;

/// Says that a version cannot be told.
const SKIP: i32 = 125;

/// The last exit code that says that a version is bad.
const LAST_BAD: i32 = 127;

/// Finds the first bad version, and shows it.
pub fn bisect(args: &BisectArgs, context: &mut Context) -> Result {
    let pond = context.pond.directory().to_path_buf();
    let views = context.pond.versions()?;
    let what = || "cannot search the history".to_owned();
    let open = |at| views.open(at).during(what);
    // As long as they are held, nothing between them is cleaned away.
    let (good, bad) = (open(args.good)?, open(args.bad)?);
    let (first, last) = (good.position().version, bad.position().version);
    if first >= last {
        return Err(Failure::usage(
            what(),
            format!("the good version, {first}, must be older than the bad one, {last}"),
        ));
    }
    let versions: Vec<Version> = pond_oplog::history_of(&pond, first..=last)
        .during(what)?
        .iter()
        .map(|commit: &CommitInfo| commit.position.version)
        .collect();
    let path = args.path.as_deref().map(inside).transpose()?;
    let is_same = |one: usize, other: usize| -> Result<bool> {
        let view = |place: usize| open(At::Version(versions[place]));
        same(&*view(one)?, &*view(other)?, path.as_deref()).during(what)
    };
    if is_same(0, versions.len() - 1)? {
        let path = args.path.as_deref().unwrap_or("anything");
        let why = format!("nothing changed at {path} between versions {first} and {last}");
        return Err(Failure::new(what(), why));
    }

    interrupt::catch();
    let place = tempfile::Builder::new().prefix("pond-bisect-").tempdir().during(what)?;
    let mut search = Search::among(versions.len());
    let mut tried: Vec<Value> = Vec::new();
    while let Some(next) = search.next(is_same)? {
        interrupt::check()?;
        let version = versions[next];
        let left = search.left();
        context.notices.tell(&json!({"event": "try", "version": version, "suspects": left}), || {
            format!("Trying version {version}: the first bad one is one of {left}.")
        });
        let status = try_version(args, &pond, version, place.path(), context)?;
        let verdict = verdict(status).map_err(|how| {
            Failure::new(
                format!("cannot tell whether version {version} is good"),
                format!("the command {how}"),
            )
            .next("exit with 0 for good, 1 to 127 for bad, and 125 where it cannot be told")
        })?;
        let word = match verdict {
            Verdict::Good => "good",
            Verdict::Bad => "bad",
            Verdict::Skip => "skipped",
        };
        let fact = json!({"version": version, "exit_code": status.code(), "verdict": word});
        context.notices.tell(&fact, || format!("Version {version} is {word}."));
        tried.push(fact);
        search.know(next, verdict);
    }
    let suspects: Vec<Version> = search.suspects().map(|place| versions[place]).collect();
    let [first_bad] = suspects[..] else {
        context.out.json(&json!({"first_bad": Value::Null, "suspects": suspects, "tried": tried}))?;
        let among = format!("{} to {}", suspects[0], suspects[suspects.len() - 1]);
        return Err(Failure::new(
            "cannot tell the first bad version",
            format!("it is one of {among}, and the others of these were skipped"),
        ));
    };
    context.out.json(&json!({"first_bad": first_bad, "tried": tried}))?;
    context.out.line(&format!(
        "Version {first_bad} is the first bad one, found in {}.",
        count(tried.len() as u64, "run")
    ))?;
    context.out.line("")?;
    show::show_version(At::Version(first_bad), context)
}

/// A path as the tree takes it.
fn inside(text: &str) -> Result<Vec<u8>> {
    let path = GivenPath::new(text.as_bytes()).map_err(|why| Failure::usage("cannot use --path", why))?;
    let names = path.components().iter();
    Ok(names.flat_map(|name| [&b"/"[..], name]).collect::<Vec<_>>().concat())
}

/// Whether two versions have the same at a path, or at all.
fn same(one: &View, other: &View, path: Option<&[u8]>) -> Result<bool, pond_tinyfs::Error> {
    match path {
        Some(path) => one.fs().is_same_at(other.fs(), path),
        None => Ok(one.position().cut_lsn == other.position().cut_lsn),
    }
}

fn try_version(
    args: &BisectArgs,
    pond: &Path,
    version: Version,
    place: &Path,
    context: &mut Context,
) -> Result<ExitStatus> {
    // What the command prints comes after what was printed before.
    context.out.flush()?;
    let scratch = ScratchMount::mount(pond, version, place, context.notices)?;
    let [program, arguments @ ..] = &args.command[..] else {
        return Err(Failure::usage("cannot search the history", "there is no command"));
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(scratch.root()).env("POND_BISECT", scratch.root());
    if context.out.is_json() {
        let ours = std::io::stderr();
        command.stdout(Stdio::from(
            std::os::fd::AsFd::as_fd(&ours)
                .try_clone_to_owned()
                .during(|| format!("cannot run {}", String::from_utf8_lossy(program.as_bytes())))?,
        ));
    }
    let ran = child::run(&mut command);
    let ended = scratch.end();
    ran.and_then(|status| ended.map(|()| status))
}

/// What an exit code says; how it ended where it says nothing.
fn verdict(status: ExitStatus) -> std::result::Result<Verdict, String> {
    match status.code() {
        Some(0) => Ok(Verdict::Good),
        Some(SKIP) => Ok(Verdict::Skip),
        Some(1..=LAST_BAD) => Ok(Verdict::Bad),
        Some(code) => Err(format!("exited with {code}")),
        None => Err(format!("was ended by signal {}", status.signal().unwrap_or_default())),
    }
}
