//! `pond backup restore`: plain files, or a pond, out of a store.

use std::path::{Path, PathBuf};

use pond_oplog::At;
use pond_replicate::config::{RemoteConfig, Storage};
use pond_replicate::{Found, InitOptions, Inspector, ReplicateError};
use pond_steward::StewardError;
use serde_json::json;

use super::super::restore::{plan, told};
use super::failed::failed;
use super::staging::Staging;
use super::{matching, remote};
use crate::cli::BackupRestoreArgs;
use crate::context::Context;
use crate::copier::{Copier, Side, total_size};
use crate::error::{During, Failure, Result};
use crate::interrupt;
use crate::path::{GivenPath, TreePath};
use crate::progress::{Progress, Transfers};
use crate::restorer::{Action, Existing, How, Restorer, summary};
use crate::target::{DirectTree, FileTree, HostTree, Owners, Pond};
use crate::time;

const WHAT: &str = "cannot restore from the backup store";

/// Restores a version, or a part of it.
pub fn restore(args: &BackupRestoreArgs, context: &mut Context) -> Result {
    let owners = owners(args)?;
    let patterns = matching::patterns(&args.path).map_err(|why| Failure::usage(WHAT, why))?;
    let (inspector, configuration) = remote::open(&args.store, WHAT, context)?;
    let at = args.version.or(args.timestamp).unwrap_or(At::Tip);
    let progress = Transfers::new("restore", context.notices);
    let found = inspector.find(at, &progress).map_err(|error| failed(WHAT, &error))?;
    if let Some(expected) = args.expect.filter(|expected| *expected > found.newest.0) {
        let why = format!("its newest version is {}, and version {expected} is expected", found.newest);
        return Err(Failure::new(WHAT, why).next(
            "it may be an old copy of the store, or one that is not complete: look whether there is another, or leave --expect out",
        ));
    }
    // Who names a version gets that one; a pond says so itself.
    if let Some(shortfall) = &found.shortfall
        && args.version.is_none()
        && found.version == found.newest
        && !args.as_pond
    {
        context.notices.warn(&shortfall.to_string());
    }
    refuse_precious(args, &configuration, context)?;
    match args.as_pond {
        true => as_pond(args, &configuration, &inspector, at, context),
        false => {
            let fetched = Fetch { inspector: &inspector, configuration: &configuration, found: &found };
            files(args, &fetched, &patterns, owners, context)
        }
    }
}

/// Refuses the store itself and ponds, and what lies in them. With `--delete` also what they lie in: their files would be taken for what
/// a version does not have.
fn refuse_precious(args: &BackupRestoreArgs, configuration: &[u8], context: &Context) -> Result {
    let to = existing(&std::path::absolute(&args.to).during(|| WHAT.to_owned())?);
    let store = match RemoteConfig::parse(configuration).map(|config| config.storage) {
        Ok(Storage::Local { path }) => Some((existing(&path), "the backup store")),
        _ => None,
    };
    let ours = existing(context.pond.directory());
    let ponds = to.ancestors().chain([ours.as_path()]).filter(|place| place.join("data/_delta_log").is_dir());
    // A pond that is being made may have been begun.
    let ponds = ponds.filter(|_| !args.as_pond).map(|place| (place.to_owned(), "a pond"));
    let mut precious = store.into_iter().chain(ponds);
    match precious.find(|(place, _)| to.starts_with(place) || args.delete && place.starts_with(&to)) {
        None => Ok(()),
        Some((place, name)) => Err(Failure::new(
            format!("cannot restore to {}", to.display()),
            format!("{name} lies at {}", place.display()),
        )
        .next("name a directory of its own, that is neither in there nor around it")),
    }
}

/// A path by its real name, as far as it exists.
fn existing(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

fn owners(args: &BackupRestoreArgs) -> Result<Owners> {
    match &args.owner_map {
        _ if args.no_owner => Ok(Owners::mine()),
        None => Ok(Owners::default()),
        Some(map) => {
            let what = || format!("{WHAT}: cannot use the map of owners {}", map.display());
            let text = std::fs::read_to_string(map).during(what)?;
            Owners::parse(&text).map_err(|why| Failure::usage(what(), why))
        }
    }
}

/// Makes a replica, as `pond init --from-backup` does.
fn as_pond(
    args: &BackupRestoreArgs,
    configuration: &[u8],
    inspector: &Inspector,
    at: At,
    context: &mut Context,
) -> Result {
    let directory = std::path::absolute(&args.to).during(|| WHAT.to_owned())?;
    let options = InitOptions { at: (at != At::Tip).then_some(at), tip: false };
    let progress = Transfers::new("restore", context.notices);
    let made = pond_replicate::init_from_backup(&directory, configuration, &options, &progress);
    pond_replicate::Progress::end(&progress);
    let made = made.map_err(|error| cut_off(&directory, &error))?;
    if let Some(shortfall) = &made.shortfall {
        context.notices.warn(&shortfall.to_string());
    }
    let position = made.position;
    context.out.json(&json!({
        "path": directory, "store": inspector.place(), "mode": "replica", "version": position.version,
        "digest": position.digest, "timestamp": position.timestamp, "timeline": position.timeline,
    }))?;
    context.out.line(&format!(
        "Made the replica {} from {}, at version {} of {} (digest {}).\n`pond --pond {} mount MOUNTPOINT` mounts it.",
        directory.display(),
        inspector.place(),
        position.version,
        time::local_micros(position.timestamp),
        position.digest,
        directory.display(),
    ))
}

/// What of the fetched is kept, where fetching failed.
fn cut_off(kept: &Path, error: &ReplicateError) -> Failure {
    let next = format!("what was fetched is kept in {}; the same command goes on from there", kept.display());
    if interrupt::check().is_err() {
        return Failure::new(WHAT, "it was interrupted").next(next);
    }
    let failure = Failure::because(WHAT, error);
    match error.restorable() {
        Some(version) => failure.next(format!(
            "`pond backup verify --level data` says what is damaged; --version {version} restores what comes before, if that is whole"
        )),
        None => failure,
    }
}

/// What is to be fetched.
struct Fetch<'a> {
    inspector: &'a Inspector,
    configuration: &'a [u8],
    found: &'a Found,
}

impl Fetch<'_> {
    /// Brings the version into a replica that holds nothing before its base, or, where that base is damaged, all that the store has before.
    fn into(&self, staging: &mut Staging, context: &Context) -> Result {
        let at = Some(At::Version(self.found.version));
        let init = |pond: &Path, tip: bool| {
            let progress = Transfers::new("restore", context.notices);
            let options = InitOptions { at, tip };
            let made = pond_replicate::init_from_backup(pond, self.configuration, &options, &progress);
            pond_replicate::Progress::end(&progress);
            match made {
                // An earlier run had it whole.
                Err(ReplicateError::Steward(StewardError::AlreadyAReplica { .. })) => Ok(()),
                made => made.map(drop),
            }
        };
        let base = |error: &ReplicateError| matches!(error, ReplicateError::Corrupt { key, .. } if key.contains("/base-"));
        match init(staging.pond(), true) {
            Err(error) if base(&error) && self.found.base > self.found.oldest => {
                context.notices.warn(&format!("{error}. The restore begins with an older base"));
                staging.begin_anew()?;
                init(staging.pond(), false)
            }
            made => made,
        }
        .map_err(|error| cut_off(staging.directory(), &error))
    }
}

fn files(
    args: &BackupRestoreArgs,
    fetch: &Fetch<'_>,
    patterns: &[GivenPath],
    owners: Owners,
    context: &mut Context,
) -> Result {
    let found = fetch.found;
    let to = std::path::absolute(&args.to).during(|| WHAT.to_owned())?;
    let mut staging = Staging::open(&to, found, args.dry_run)?;
    fetch.into(&mut staging, context)?;
    let replica = Pond::new(staging.pond().to_owned(), context.pond.origin().clone(), context.notices);
    let reader = replica.open_at(At::Version(found.version))?;
    let position = reader.position();
    if position.digest != found.digest {
        let why = format!("version {} there is another one than a moment ago", found.version);
        return Err(Failure::new(WHAT, why).next("`pond backup verify` says what is wrong with the store"));
    }
    let tree = DirectTree::to_read(&reader).during(|| WHAT.to_owned())?.with_owners(owners);
    let wanted = match patterns.is_empty() {
        true => vec![TreePath::root()],
        false => match matching::find(&tree, patterns, &format!("@{}", found.version), WHAT) {
            Ok(wanted) => wanted,
            Err(failure) => {
                drop(reader);
                staging.undo(&to)?;
                return Err(failure);
            }
        },
    };
    let spared = staging.within(&to);
    let how = How {
        delete: args.delete,
        dry_run: args.dry_run,
        existing: match (args.overwrite, staging.has_begun()) {
            (true, _) => Existing::Replace,
            (false, true) => Existing::Begun,
            (false, false) => Existing::Keep,
        },
        elsewhere: true,
        spared: spared.as_deref().map(on_host).transpose()?,
        written: None,
    };
    let restored = put(&tree, &to, &wanted, &how, found, context);
    let (done, failures) = match restored {
        Ok(done) => done,
        // Of a dry run nothing is left.
        Err(failure) if args.dry_run => return Err(failure),
        Err(failure) => {
            context.notices.warn(&format!(
                "stopped; what was put there is whole, what was fetched is kept in {}, and the same command goes on with the rest",
                staging.directory().display()
            ));
            return Err(failure);
        }
    };
    let root = tree.stat(&TreePath::root()).during(|| WHAT.to_owned())?;
    drop(reader);
    staging.remove()?;
    if patterns.is_empty() && how.existing != Existing::Keep && !args.dry_run {
        // The directory in which it was fetched has changed it.
        let host = HostTree::host();
        host.set_times(&on_host(&to)?, root.atime, root.mtime).during(|| WHAT.to_owned())?;
    }
    report(args, fetch, &done, failures, context)
}

fn on_host(path: &Path) -> Result<TreePath> {
    let given = GivenPath::on_host(path).map_err(|why| Failure::usage(WHAT, why))?;
    HostTree::host().resolve(&given, true).during(|| format!("{WHAT} to {}", path.display()))
}

/// Puts what is wanted of a tree below a directory.
fn put(
    tree: &dyn FileTree,
    to: &Path,
    wanted: &[TreePath],
    how: &How,
    found: &Found,
    context: &Context,
) -> Result<(Vec<(Action, TreePath)>, u64)> {
    let host = HostTree::host();
    let suffix = format!("@{}", found.version);
    let from = Side { tree, prefix: "", suffix: &suffix };
    let target = Side { tree: &host, prefix: "host:", suffix: "" };
    let to = on_host(to)?;
    let mut total = 0;
    if Progress::is_watched(context.notices) && !how.dry_run {
        total = wanted.iter().map(|path| total_size(tree, path).unwrap_or(0)).sum();
    }
    let progress = Progress::new("restore", total, context.notices);
    let copier = Copier::new(target, None, &progress, context.notices);
    let mut restorer = Restorer::new(from, target, copier, how, context.notices);
    let mut made: Vec<TreePath> = Vec::new();
    let place =
        |path: &TreePath| path.names_below(&TreePath::root()).fold(to.clone(), |to, name| to.join(name));
    let result = wanted.iter().try_for_each(|path| {
        for parent in above(path) {
            let missing = host.existing(&place(&parent)).during(|| WHAT.to_owned())?.is_none();
            let is_new = !made.contains(&parent);
            if missing && is_new {
                restorer.make_parent(&place(&parent))?;
            }
            if is_new && (missing || how.existing != Existing::Keep) {
                made.push(parent);
            }
        }
        restorer.restore(path, &place(path))
    });
    // From below, since what comes into a directory changes its times.
    made.sort_by_key(|path| std::cmp::Reverse(path.names_below(&TreePath::root()).count()));
    let result = result
        .and_then(|()| made.iter().try_for_each(|parent| restorer.finish_parent(parent, &place(parent))));
    let done = restorer.end();
    progress.finish();
    result.map(|()| done)
}

/// The directories above a path, without the root, from the top down.
fn above(path: &TreePath) -> Vec<TreePath> {
    let (mut above, mut parent) = (Vec::new(), path.parent());
    while parent.name().is_some() {
        above.push(parent.clone());
        parent.pop();
    }
    above.reverse();
    above
}

fn report(
    args: &BackupRestoreArgs,
    fetch: &Fetch<'_>,
    done: &[(Action, TreePath)],
    failures: u64,
    context: &mut Context,
) -> Result {
    let found = fetch.found;
    let took = format!(
        "version {} of {} (digest {}) from {}",
        found.version,
        time::local_micros(found.timestamp),
        found.digest,
        fetch.inspector.place()
    );
    if args.dry_run {
        plan(done, context)?;
        return context.out.line(&format!("This is what restoring {took} would do."));
    }
    let mut facts = summary(done, failures);
    let words = told(&facts);
    facts["path"] = json!(args.to);
    facts["store"] = json!(fetch.inspector.place());
    facts["version"] = json!(found.version);
    facts["digest"] = json!(found.digest);
    facts["timestamp"] = json!(found.timestamp);
    facts["time"] = json!(time::rfc3339_micros(found.timestamp));
    facts["newest_version"] = json!(found.newest);
    context.out.json(&facts)?;
    let words = if words.is_empty() { "nothing differs".to_owned() } else { words.join(", ") };
    let place = PathBuf::from(&args.to);
    context.out.line(&format!("Restored {took} to {}: {words}.", place.display()))?;
    match failures {
        0 => Ok(()),
        _ => Err(Failure::Reported),
    }
}
