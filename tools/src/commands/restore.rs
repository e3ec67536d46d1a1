//! `pond restore` and `pond undelete`: what was, put back as new commits.

use std::collections::HashSet;

use pond_mount::Request;
use pond_oplog::{At, Views};
use serde_json::json;

use crate::cli::{RestoreArgs, UndeleteArgs};
use crate::context::Context;
use crate::copier::{Copier, Side};
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::missing;
use crate::output::{Column, count};
use crate::path::{GivenPath, ReadPath, TreePath, When};
use crate::progress::Progress;
use crate::restorer::{Action, Existing, How, Restorer, summary};
use crate::target::{Access, State};

/// Puts back what a version had.
pub fn restore(args: &RestoreArgs, context: &mut Context) -> Result {
    let what = || format!("cannot restore {}", args.path);
    let (path, at) = match &args.path {
        ReadPath::Pond(path, When::At(at)) => (path, *at),
        ReadPath::Pond(path, When::Now) => {
            let next = format!("write {path}@V; `pond log {path}` lists the versions in which it changed");
            return Err(Failure::usage(what(), "it is not said from which version").next(next));
        }
        ReadPath::Host(_) => {
            return Err(Failure::usage(
                what(),
                "it is outside the pond, which remembers only what is inside",
            ));
        }
    };
    let wanted = Wanted { path, at, to: args.to.as_ref(), delete: args.delete, dry_run: args.dry_run };
    bring_back(&wanted, &what, context)
}

/// Puts back what was deleted, as the last version had it.
pub fn undelete(args: &UndeleteArgs, context: &mut Context) -> Result {
    let path = &args.path;
    let what = || format!("cannot undelete {path}");
    let tree_path = TreePath::of_names(path).map_err(|why| Failure::usage(what(), why))?;
    // What a mount has not committed is in no version.
    commit(context)?;
    let views = context.pond.versions()?;
    let bytes = tree_path.to_bytes();
    let past = views.past().during(what)?;
    let gone = past.gone().during(what)?;
    let Some(last) = gone.iter().find(|gone| gone.path == bytes) else {
        let events = past.of_path(&bytes).during(what)?;
        let (why, next) = match events.is_empty() {
            true => ("no version that is kept had it", "`pond log --deleted` lists what is gone".to_owned()),
            false => {
                ("nothing of this name was deleted", format!("`pond log {path}` says what became of it"))
            }
        };
        return Err(Failure::new(what(), why).next(next));
    };
    let version = last.last;
    let to = args.to.as_ref().unwrap_or(path);
    let access = context.pond.read(When::Now)?;
    let tree = access.tree();
    let place = tree.resolve(&to.parent(), true).map(|parent| parent.join(to.name().unwrap_or_default()));
    if place.is_ok_and(|place| tree.existing(&place).is_ok_and(|there| there.is_some())) {
        let failure = Failure::new(what(), format!("there is something at {to}"));
        return Err(failure.next(format!(
            "give another name with --to, or put it back with `pond restore {path}@{version}`"
        )));
    }
    drop(access);
    // A directory is removed name by name, which may take several versions.
    let minute = last.commit.position.timestamp - 60_000_000;
    let below = |path: &[u8]| path.starts_with(&bytes) && path.get(bytes.len()) == Some(&b'/');
    let before = gone.iter().filter(|gone| {
        let at = &gone.commit.position;
        below(&gone.path) && at.version < last.commit.position.version && at.timestamp > minute
    });
    if let Some(first) = before.clone().map(|gone| gone.commit.position.version.0).min() {
        let earlier = first.saturating_sub(1);
        context.notices.warn(&format!(
            "{} below it went in the minute before, from version {first} on: `pond restore {path}@{earlier}` brings those back too",
            count(before.count() as u64, "path"),
        ));
    }
    let at = At::Version(version);
    let wanted = Wanted { path, at, to: args.to.as_ref(), delete: false, dry_run: args.dry_run };
    bring_back(&wanted, &what, context)
}

/// What to bring back.
struct Wanted<'a> {
    path: &'a GivenPath,
    at: At,
    to: Option<&'a GivenPath>,
    delete: bool,
    dry_run: bool,
}

/// Commits what a mount has not committed.
fn commit(context: &Context) -> Result {
    if let State::Mounted(mut daemon) = context.pond.state()?
        && daemon.status()?["read_only_because"].is_null()
    {
        daemon.call(&Request::Commit, "commit what was written")?;
    }
    Ok(())
}

fn bring_back(wanted: &Wanted<'_>, what: &dyn Fn() -> String, context: &mut Context) -> Result {
    let version = context.pond.read(When::At(wanted.at))?;
    let resolved = version.tree().resolve(wanted.path, false);
    let from = resolved.and_then(|from| version.tree().stat(&from).map(|_| from));
    let from = missing::during(from, wanted.path, what)?;
    if !wanted.dry_run {
        commit(context)?;
    }
    // The pond before the versions: opening it may commit what a crash left.
    let now = match wanted.dry_run {
        true => context.pond.read(When::Now)?,
        false => context.pond.change()?,
    };
    let result = restore_into(wanted, &version, &now, &from, what, context);
    now.finish(result)
}

fn restore_into(
    wanted: &Wanted<'_>,
    version: &Access,
    now: &Access,
    from: &TreePath,
    what: &dyn Fn() -> String,
    context: &mut Context,
) -> Result {
    let written = written(&context.pond.versions()?, wanted.at, context);
    let how = How {
        delete: wanted.delete,
        dry_run: wanted.dry_run,
        existing: Existing::Replace,
        elsewhere: false,
        spared: None,
        written,
    };
    let suffix = format!("@{}", wanted.at);
    let from_side = Side { tree: version.tree(), prefix: "", suffix: &suffix };
    let to_side = Side { tree: now.tree(), prefix: "", suffix: "" };
    let to = match wanted.to {
        None => from.clone(),
        Some(to) => now.tree().place(to).during(|| format!("cannot restore to {to}"))?,
    };
    let progress = Progress::new("restore", 0, context.notices);
    let copier = Copier::new(to_side, None, &progress, context.notices);
    let mut restorer = Restorer::new(from_side, to_side, copier, &how, context.notices);
    let parents = missing_parents(now, &to, what)?;
    if wanted.to.is_some() && !parents.is_empty() {
        let failure = Failure::new(what(), format!("there is no directory {}", to.parent()));
        return Err(failure.next(format!("make it with `pond mkdir -p {}`", to.parent())));
    }
    interrupt::catch();
    let restored = parents
        .iter()
        .try_for_each(|parent| restorer.make_parent(parent))
        .and_then(|()| restorer.restore(from, &to))
        .and_then(|()| parents.iter().rev().try_for_each(|parent| restorer.finish_parent(parent, parent)));
    let (done, failed) = restorer.end();
    progress.finish();
    if let Err(Failure::Interrupted(_)) = restored {
        context.notices.warn(&format!(
            "stopped after {}; what was put back is whole, and the same command goes on with the rest",
            count(done.len() as u64, "change"),
        ));
    }
    restored?;
    report(&done, failed, wanted.dry_run, context)
}

/// Nodes whose content may differ from that of a version; none if that cannot be told, and everything is compared.
fn written(views: &Views, at: At, context: &Context) -> Option<HashSet<u64>> {
    let touched = views.touched(at, At::Tip);
    match touched {
        Ok(nodes) => Some(nodes.into_iter().map(|node| node.get()).collect()),
        Err(error) => {
            context
                .notices
                .warn(&format!("everything is compared byte by byte: {}", crate::error::chain(&error)));
            None
        }
    }
}

/// The directories above a path that are not there, from the top down.
fn missing_parents(now: &Access, to: &TreePath, what: &dyn Fn() -> String) -> Result<Vec<TreePath>> {
    let (mut above, mut missing) = (to.clone(), Vec::new());
    while above.name().is_some() {
        above.pop();
        match now.tree().existing(&above) {
            Ok(Some(_)) => break,
            Ok(None) => missing.push(above.clone()),
            Err(error) => return Err(Failure::because(what(), &error)),
        }
    }
    missing.reverse();
    Ok(missing)
}

fn report(done: &[(Action, TreePath)], failed: u64, dry_run: bool, context: &mut Context) -> Result {
    if dry_run {
        return plan(done, context);
    }
    let facts = summary(done, failed);
    context.out.json(&facts)?;
    let told = told(&facts);
    match told.is_empty() {
        true if failed > 0 => {}
        true => context.out.line("Nothing differs.")?,
        false => context.out.line(&format!("Restored: {}.", told.join(", ")))?,
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Reported),
    }
}

/// How much of what was done, in words.
pub fn told(facts: &serde_json::Value) -> Vec<String> {
    let words = ["created", "written", "linked", "attributes", "removed"];
    let told = words.iter().filter(|word| facts[**word] != 0);
    told.map(|word| format!("{} {word}", facts[*word])).collect()
}

/// Lists what would be done.
pub fn plan(done: &[(Action, TreePath)], context: &mut Context) -> Result {
    for (action, path) in done {
        let name = super::changes::Name::new(&path.to_bytes());
        context.out.json(&name.with(json!({ "action": action })))?;
    }
    let columns = [Column::text("ACTION"), Column::text("PATH")];
    let rows = done.iter().map(|(action, path)| vec![action.name().to_owned(), path.to_string()]);
    context.out.table(&columns, rows)
}
