//! Opens the pond that is to be mounted, or makes it, once nobody else has it open.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use pond_oplog::{At, Origin};
use pond_steward::{
    Found, LockHolder, OpenOptions, Reader, Registry, Role, Scratch, Steward, StewardError, lock_holder,
};

use crate::control::client;
use crate::control::protocol::Request;
use crate::daemon::ready::Progress;
use crate::daemon::shown::Shown;
use crate::daemon::starter::Starter;
use crate::error::MountError;
use crate::mounting::mount_info;
use crate::mounting::options::MountOptions;

/// The absolute path of a pond that may not exist yet, without symbolic links as far as it does.
pub(crate) fn resolve_pond(pond: &Path) -> Result<PathBuf, MountError> {
    let failed = |error| MountError::io("find the pond", pond, error);
    let absolute = std::path::absolute(pond).map_err(failed)?;
    for ancestor in absolute.ancestors() {
        match ancestor.canonicalize() {
            Ok(mut resolved) => {
                // Nothing is left of the path below the last ancestor that exists when the pond itself does.
                let rest = absolute.strip_prefix(ancestor).unwrap_or(Path::new(""));
                for (index, component) in rest.components().enumerate() {
                    if component == Component::ParentDir {
                        // What is missing has no links: `..` undoes the name before it, and may lead to what exists again.
                        resolved.pop();
                        return resolve_pond(
                            &resolved.join(rest.components().skip(index + 1).collect::<PathBuf>()),
                        );
                    }
                    resolved.push(component);
                }
                return Ok(resolved);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if ancestor.is_symlink() {
                    return Err(MountError::DanglingLink(ancestor.to_owned()));
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(absolute)
}

/// Opens the pond, or makes it; says whether it did.
pub(crate) fn open_pond(
    pond: &Path,
    options: &MountOptions,
    registry: Registry,
    starter: &Starter,
) -> Result<(Shown, bool), MountError> {
    let at = options.at.unwrap_or(At::Tip);
    let fixed = is_fixed(options) || options.scratch;
    let made = match Steward::probe(pond)? {
        Found::Pond => false,
        Found::Other => return Err(MountError::NotAPond(pond.to_owned())),
        Found::Nothing | Found::Unfinished if fixed => return Err(MountError::NoPond(pond.to_owned())),
        Found::Nothing | Found::Unfinished if options.follow => {
            return Err(MountError::NothingToFollow(pond.to_owned()));
        }
        Found::Nothing | Found::Unfinished if options.no_create => {
            return Err(MountError::NotCreated(pond.to_owned()));
        }
        Found::Nothing | Found::Unfinished => {
            starter.check()?;
            Steward::init(pond)?;
            starter.tell(&Progress::Made(pond.to_owned()));
            true
        }
    };
    // A mount that is there will not go away by waiting; a daemon that has lost its mount will soon be gone. A
    // replica's mount is read-only and has a daemon that listens all the same.
    let mounts = mount_info::mounts_of(pond)?;
    let is_mounted = mounts.iter().any(|mount| !mount.read_only)
        || (!mounts.is_empty() && client::connect(pond)?.is_some());
    let defaults = OpenOptions::default();
    let open = OpenOptions {
        commit_interval: options.commit_interval.unwrap_or(defaults.commit_interval),
        registry,
        origin: Origin::mount(),
        ..defaults
    };
    if fixed && at == At::Tip && !is_mounted {
        wait_for_predecessor(pond, starter)?;
    }
    let shown = match (fixed, is_mounted) {
        (true, _) if options.scratch => {
            if at == At::Tip && is_mounted {
                commit(pond);
            }
            Shown::Scratch(Scratch::open(pond, at, open)?)
        }
        (true, _) => Shown::Fixed(Reader::open(pond, at, open)?),
        (false, true) => Shown::Newest(Steward::open(pond, open)?),
        (false, false) => Shown::Newest(open_after_predecessor(pond, &open, starter)?),
    };
    if options.follow && !is_replica(&shown) {
        shown.close()?;
        return Err(MountError::NothingToFollow(pond.to_owned()));
    }
    Ok((shown, made))
}

/// Has the daemon of a mounted pond commit, so that its newest version holds what is in the mount now. What it cannot is not in that.
fn commit(pond: &Path) {
    let committed = client::connect(pond).and_then(|daemon| match daemon {
        Some(mut daemon) => daemon.call(&Request::Commit).map(drop),
        None => Ok(()),
    });
    if let Err(error) = committed {
        tracing::warn!(%error, "the newest version may not hold everything");
    }
}

/// Opens the pond for writing once whoever has it open, such as a daemon that is still committing, has ended.
fn open_after_predecessor(
    pond: &Path,
    open: &OpenOptions,
    starter: &Starter,
) -> Result<Arc<Steward>, MountError> {
    let mut opened = None;
    let mut refused = None;
    starter.wait_while(|| match Steward::open(pond, open.clone()) {
        Ok(steward) => {
            opened = Some(steward);
            Ok(None)
        }
        Err(StewardError::LockHeld { pond, holder }) => {
            refused = Some(StewardError::LockHeld { pond, holder: holder.clone() });
            Ok(Some(holder))
        }
        Err(error) => Err(error.into()),
    })?;
    match (opened, refused) {
        (Some(steward), _) => Ok(steward),
        (None, Some(refused)) => Err(refused.into()),
        (None, None) => Err(MountError::Cancelled),
    }
}

/// Waits while a daemon that has lost its mount is still committing: that version is the newest one.
fn wait_for_predecessor(pond: &Path, starter: &Starter) -> Result<(), MountError> {
    // Other commands take the lock as well, and they have nothing that somebody was promised.
    let is_daemon = |holder: &LockHolder| {
        let mut words = holder.command.split(' ');
        words.any(|word| word == "mount" || word.ends_with("mount.fuse.pond"))
    };
    if let Some(holder) = starter.wait_while(|| Ok(lock_holder(pond)?.filter(is_daemon)))? {
        tracing::warn!(%holder, "still commits; what is shown may not be its last version");
    }
    Ok(())
}

/// Whether one version is shown for good.
pub(crate) fn is_fixed(options: &MountOptions) -> bool {
    (options.read_only && !options.follow) || options.at.is_some_and(|at| at != At::Tip)
}

pub(crate) fn is_replica(shown: &Shown) -> bool {
    shown.status().mode == Some(Role::Replica)
}
