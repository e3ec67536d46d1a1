//! `pond fork`.

use pond_mount::Request;
use pond_oplog::{At, OpLog};
use pond_steward::Steward;
use serde_json::json;

use crate::cli::ForkArgs;
use crate::context::{Context, command_for};
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::output::{count, size};
use crate::progress::Progress;
use crate::target::State;

/// Makes a pond of its own from a version of this one.
pub fn fork(args: &ForkArgs, context: &mut Context) -> Result {
    let what = || format!("cannot make the fork {}", args.directory.display());
    if args.version.is_none() {
        commit_everything(context)?;
    }
    interrupt::catch();
    let (from, at) = (context.pond.directory().to_path_buf(), args.version.unwrap_or(At::Tip));
    let bytes = OpLog::fork_bytes(&from, at).during(what)?;
    let progress = Progress::new("fork", bytes, context.notices);
    let tell = |bytes| {
        progress.advance(bytes);
        interrupt::check().is_ok()
    };
    let forked = Steward::fork(&from, at, &args.directory, context.pond.origin(), &tell);
    progress.finish();
    let forked = forked.during(what)?;
    let Some(forked) = forked else {
        interrupt::check()?;
        return Err(Failure::new(what(), "it was broken off"));
    };
    let mut facts = json!(forked);
    facts["path"] = json!(args.directory);
    context.out.json(&facts)?;
    let (pond, version) = (command_for(&args.directory), forked.from.version);
    let (shared, copied, rewritten) = (forked.shared, forked.copied, forked.rewritten);
    let files =
        |amount: pond_oplog::Amount| format!("{}, {}", count(amount.files, "data file"), size(amount.bytes));
    context.out.line(&format!(
        "{} is a pond of its own now, made from version {version}: it shares {} with this one.",
        args.directory.display(),
        files(shared)
    ))?;
    if copied.files > 0 {
        context
            .out
            .line(&format!("Copied, since no second name can be made for them there: {}.", files(copied)))?;
    }
    if rewritten.files > 0 {
        context
            .out
            .line(&format!("Written anew without what came after that version: {}.", files(rewritten)))?;
    }
    context.out.line(&format!(
        "`{pond} mount MOUNTPOINT` mounts it. No factory runs in it until you say which: `{pond} control set enabled_factories PATHS`."
    ))
}

/// What was written so far is part of the newest version, from which the fork is made.
fn commit_everything(context: &mut Context) -> Result {
    match context.pond.state()? {
        State::Mounted(mut daemon) => daemon.call(&Request::Commit, "commit").map(drop),
        // What the journal holds is recovered.
        State::Unmounted => context
            .pond
            .open_without_factories()?
            .close()
            .during(|| "cannot close the pond".to_owned())
            .map(drop),
    }
}
