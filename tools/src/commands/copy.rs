//! `pond copy`: finds out which trees and places are meant; the copying is [`Copier`]'s.

use std::collections::HashMap;
use std::path::Path;

use pond_oplog::At;
use serde_json::json;

use crate::cli::CopyArgs;
use crate::context::Context;
use crate::copier::{Copied, Copier, Side, total_size};
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::missing;
use crate::output::{count, size};
use crate::path::{GivenPath, ReadPath, TreePath, When, WritePath};
use crate::progress::Progress;
use crate::target::{Access, Destination, HostTree, Identity};

/// Copies into the pond, out of it, or inside it.
pub fn copy(args: &CopyArgs, context: &mut Context) -> Result {
    let into_pond = matches!(args.destination, WritePath::Pond(_));
    let outside = |path: &ReadPath| matches!(path, ReadPath::Host(_));
    if !into_pond && args.sources.iter().all(outside) {
        let what = format!("cannot copy to {}", args.destination);
        return Err(Failure::usage(what, "neither SRC nor DEST is inside the pond").next("use cp"));
    }
    let trees = Trees::open(args, context)?;
    interrupt::catch();
    let result = copy_all(args, &trees, context);
    match trees.now {
        Some(access) => access.finish(result),
        None => result,
    }
}

/// The trees that a copy concerns.
struct Trees {
    host: HostTree,
    now: Option<Access>,
    versions: HashMap<At, (Access, String)>,
}

impl Trees {
    fn open(args: &CopyArgs, context: &Context) -> Result<Self> {
        let mut versions = HashMap::new();
        let mut reads_now = false;
        for source in &args.sources {
            match source {
                ReadPath::Pond(_, when @ When::At(at)) if !versions.contains_key(at) => {
                    versions.insert(*at, (context.pond.read(*when)?, format!("@{at}")));
                }
                ReadPath::Pond(_, When::Now) => reads_now = true,
                _ => {}
            }
        }
        let now = match &args.destination {
            WritePath::Pond(_) => Some(context.pond.change()?),
            WritePath::Host(_) if reads_now => Some(context.pond.read(When::Now)?),
            WritePath::Host(_) => None,
        };
        Ok(Trees { host: HostTree::host(), now, versions })
    }

    fn host(&self) -> Side<'_> {
        Side { tree: &self.host, prefix: "host:", suffix: "" }
    }

    fn pond(&self, when: When) -> Option<Side<'_>> {
        let (access, suffix) = match when {
            When::Now => (self.now.as_ref()?, ""),
            When::At(at) => {
                let (access, suffix) = self.versions.get(&at)?;
                (access, suffix.as_str())
            }
        };
        Some(Side { tree: access.tree(), prefix: "", suffix })
    }

    /// Side and path of something to read; all of them have been opened.
    fn source(&self, path: &ReadPath) -> Result<(Side<'_>, GivenPath)> {
        match path {
            ReadPath::Host(path) => Ok((self.host(), on_host(path)?)),
            ReadPath::Pond(path, when) => Ok((self.opened(*when)?, path.clone())),
        }
    }

    fn destination(&self, path: &WritePath) -> Result<(Side<'_>, GivenPath)> {
        match path {
            WritePath::Host(path) => Ok((self.host(), on_host(path)?)),
            WritePath::Pond(path) => Ok((self.opened(When::Now)?, path.clone())),
        }
    }

    fn opened(&self, when: When) -> Result<Side<'_>> {
        self.pond(when).ok_or_else(|| Failure::new("cannot copy", "the pond is not open"))
    }
}

fn on_host(path: &Path) -> Result<GivenPath> {
    GivenPath::on_host(path).map_err(|why| Failure::new(format!("cannot find host:{}", path.display()), why))
}

/// One thing to copy.
struct Job<'a> {
    side: Side<'a>,
    from: TreePath,
    to: TreePath,
}

fn copy_all(args: &CopyArgs, trees: &Trees, context: &mut Context) -> Result {
    let (to, given) = trees.destination(&args.destination)?;
    let destination = Destination::find(to.tree, &given, args.sources.len() > 1)
        .during(|| format!("cannot copy to {}", args.destination))?;
    // The kernel's name for the pond's directory, which a path of the host may be in by whatever name.
    let pond = std::fs::metadata(context.pond.directory()).ok().map(|pond| Identity::of_host(&pond));
    refuse_within_pond(to, &destination.of(given.name()), pond)
        .map_err(|why| Failure::new(format!("cannot copy to {}", args.destination), why))?;
    let mut jobs = Vec::new();
    for source in &args.sources {
        let what = || format!("cannot copy {source}");
        let (side, given) = trees.source(source)?;
        let found = side.tree.resolve(&given, false).and_then(|from| side.tree.stat(&from).map(|_| from));
        let from = match source {
            ReadPath::Pond(path, _) => missing::during(found, path, what)?,
            ReadPath::Host(_) => found.during(what)?,
        };
        refuse_within_pond(side, &from, pond).map_err(|why| Failure::new(what(), why))?;
        let to_path = destination.of(given.name());
        refuse_within_itself(side, &from, to, &to_path).map_err(|why| Failure::new(what(), why))?;
        jobs.push(Job { side, from, to: to_path });
    }

    let mut total = 0;
    if Progress::is_watched(context.notices) {
        for job in &jobs {
            // What cannot be read is told when it is copied.
            total += total_size(job.side.tree, &job.from).unwrap_or(0);
        }
    }
    let progress = Progress::new("copy", total, context.notices);
    let mut copier = Copier::new(to, pond, &progress, context.notices);
    let result = jobs.iter().try_for_each(|job| copier.copy(job.side, &job.from, &job.to));
    let copied = copier.copied();
    progress.finish();
    result?;
    report(&copied, context)
}

/// The pond's own directory is for pond alone.
fn refuse_within_pond(side: Side<'_>, path: &TreePath, pond: Option<Identity>) -> Result<(), String> {
    let mut above = path.clone();
    while pond.is_some() {
        // What is not there yet is in what is above it.
        if side.tree.stat(&above).is_ok_and(|stat| pond == Some(stat.identity)) {
            return Err("it is in the pond's own directory, which is for pond alone".to_owned());
        }
        if above.name().is_none() {
            break;
        }
        above.pop();
    }
    Ok(())
}

/// A directory copied into itself would never end.
fn refuse_within_itself(
    from: Side<'_>,
    path: &TreePath,
    to: Side<'_>,
    to_path: &TreePath,
) -> Result<(), String> {
    let words = |error: std::io::Error| crate::error::chain(&error);
    let source = from.tree.stat(path).map_err(words)?;
    if !source.is_directory() {
        return Ok(());
    }
    let mut above = to_path.clone();
    while above.name().is_some() {
        above.pop();
        if to.tree.stat(&above).map_err(words)?.identity == source.identity {
            return Err(format!("{} lies within it", to.show(to_path)));
        }
    }
    Ok(())
}

fn report(copied: &Copied, context: &mut Context) -> Result {
    context.out.json(copied)?;
    let mut event = json!(copied);
    event["event"] = json!("copy.copied");
    context.notices.detail(event, || {
        let others = copied.symlinks + copied.hard_links + copied.special;
        let mut parts = vec![count(copied.files, "file")];
        if copied.directories > 0 {
            parts.push(count(copied.directories, "directory"));
        }
        if others > 0 {
            parts.push(count(others, "link or special file"));
        }
        format!("Copied {}, {}.", parts.join(", "), size(copied.bytes))
    });
    match copied.failed {
        0 => Ok(()),
        _ => Err(Failure::Reported),
    }
}
