//! `pond mkdir`, `pond rm` and `pond mv`: what changes names and nothing else.

use std::io;

use serde_json::json;

use crate::cli::{MkdirArgs, MvArgs, RmArgs};
use crate::context::Context;
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::output::Notices;
use crate::path::{GivenPath, TreePath, WritePath};
use crate::target::{Destination, FileTree};

/// Makes directories.
pub fn mkdir(args: &MkdirArgs, context: &mut Context) -> Result {
    let access = context.pond.change()?;
    let result = args.paths.iter().try_for_each(|path| {
        let made = match args.parents {
            true => make_with_parents(access.tree(), path),
            false => access.tree().place(path).and_then(|place| access.tree().make_directory(&place, 0o777)),
        };
        made.map_err(|error| {
            let failure = Failure::because(format!("cannot make the directory {path}"), &error);
            match error.kind() {
                io::ErrorKind::NotFound => failure.next("-p makes the missing parents too"),
                _ => own_name(failure, &error, &[path]),
            }
        })
    });
    access.finish(result)?;
    tell_each("made", &args.paths, context)
}

/// Adds why one of these paths may not be changed, where it lies in what each mount shows of itself.
fn own_name(failure: Failure, error: &io::Error, paths: &[&dyn ToString]) -> Failure {
    let is_any_own = || paths.iter().any(|path| is_own(&path.to_string()));
    match error.kind() {
        io::ErrorKind::PermissionDenied if is_any_own() => failure.next("the name .pond is the mount's own"),
        _ => failure,
    }
}

/// Whether a path lies in what each mount shows of itself.
fn is_own(path: &str) -> bool {
    path == "/.pond" || path.starts_with("/.pond/")
}

/// What was done to which paths, for programs.
fn tell_each(done: &str, paths: &[GivenPath], context: &mut Context) -> Result {
    paths.iter().try_for_each(|path| context.out.json(&json!({ done: true, "path": path.to_string() })))
}

/// Makes each component that is missing; those that exist must be directories.
fn make_with_parents(tree: &dyn FileTree, path: &GivenPath) -> io::Result<()> {
    for prefix in path.prefixes() {
        let place = tree.resolve(&prefix, true)?;
        match tree.existing(&place)? {
            Some(stat) if stat.is_directory() => {}
            Some(_) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            None => tree.make_directory(&place, 0o777)?,
        }
    }
    Ok(())
}

/// Removes files and directories.
pub fn rm(args: &RmArgs, context: &mut Context) -> Result {
    let access = context.pond.change()?;
    interrupt::catch();
    let mut removal =
        Removal { tree: access.tree(), args, notices: context.notices, failed: false, removed: 0 };
    let result = args.paths.iter().try_for_each(|path| removal.remove_given(path));
    let (failed, removed) = (removal.failed, removal.removed);
    access.finish(result)?;
    context.out.json(&json!({ "removed": removed }))?;
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

struct Removal<'a> {
    tree: &'a dyn FileTree,
    args: &'a RmArgs,
    notices: Notices,
    failed: bool,
    /// Names that went.
    removed: u64,
}

impl Removal<'_> {
    fn remove_given(&mut self, path: &GivenPath) -> Result {
        let what = || format!("cannot remove {path}");
        let found = self.tree.place(path).and_then(|place| Ok((self.tree.existing(&place)?, place)));
        match found {
            Ok((Some(stat), _)) if stat.is_directory() && !self.args.recursive => self.report(
                Failure::new(what(), "it is a directory").next("-r removes it with everything in it"),
            ),
            Ok((Some(stat), place)) => self.remove(&place, stat.is_directory()),
            Ok((None, _)) if self.args.force => Ok(()),
            Err(error) if self.args.force && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Ok((None, _)) => {
                self.report(Failure::because(what(), &io::Error::from_raw_os_error(libc::ENOENT)))
            }
            Err(error) => self.report(Failure::because(what(), &error)),
        }
    }

    fn remove(&mut self, path: &TreePath, directory: bool) -> Result {
        interrupt::check()?;
        // Of the mount's own, every version with all that is in it, nothing could be removed.
        let removed = if directory && is_own(&path.to_string()) {
            self.tree.remove_directory(path)
        } else if directory {
            match self.tree.entries(path) {
                Ok(entries) => {
                    for (name, stat) in entries {
                        self.remove(&path.join(&name), stat.is_directory())?;
                    }
                    self.tree.remove_directory(path)
                }
                Err(error) => Err(error),
            }
        } else {
            self.tree.unlink(path)
        };
        match removed {
            Ok(()) => {
                self.removed += 1;
                Ok(())
            }
            // What is left in it has been reported.
            Err(error) if self.failed && error.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
            Err(error) => {
                let failure = Failure::because(format!("cannot remove {path}"), &error);
                self.report(own_name(failure, &error, &[path]))
            }
        }
    }

    /// Tells what failed, and lets the others go on.
    fn report(&mut self, failure: Failure) -> Result {
        match failure {
            Failure::Failed(report) => {
                self.failed = true;
                self.notices.failure(&report);
                Ok(())
            }
            other => Err(other),
        }
    }
}

/// Moves or renames.
pub fn mv(args: &MvArgs, context: &mut Context) -> Result {
    let inside = |path: &WritePath| match path {
        WritePath::Pond(path) => Ok(path.clone()),
        WritePath::Host(_) => Err(Failure::usage(format!("cannot move {path}"), "it is outside the pond")
            .next("`pond copy` crosses the border; then remove what is no longer wanted")),
    };
    let sources = args.sources.iter().map(inside).collect::<Result<Vec<_>>>()?;
    let destination = inside(&args.destination)?;
    let access = context.pond.change()?;
    let result = move_all(access.tree(), &sources, &destination);
    for (from, to) in access.finish(result)? {
        context.out.json(&json!({ "from": from, "to": to }))?;
    }
    Ok(())
}

/// Moves each; from where and to where.
fn move_all(
    tree: &dyn FileTree,
    sources: &[GivenPath],
    destination: &GivenPath,
) -> Result<Vec<(String, String)>> {
    let to = Destination::find(tree, destination, sources.len() > 1)
        .during(|| format!("cannot move to {destination}"))?;
    let mut moved = Vec::new();
    for source in sources {
        let what = || format!("cannot move {source} to {destination}");
        let from = tree.place(source).during(what)?;
        let target = to.of(from.name());
        let stat = tree.stat(&from).during(what)?;
        if stat.is_directory() && target.starts_with(&from) && target != from {
            return Err(Failure::new(what(), "a directory cannot be moved into itself"));
        }
        tree.rename(&from, &target)
            .map_err(|error| own_name(Failure::because(what(), &error), &error, &[&from, &target]))?;
        moved.push((from.to_string(), target.to_string()));
    }
    Ok(moved)
}
