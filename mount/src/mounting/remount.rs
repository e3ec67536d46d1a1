//! `mount -o remount`: the options of a mount that is there already.
//!
//! mount(8) leaves it to the helper, with the options that are in force and those that are to change. The kernel does most of
//! it: it refuses writes, or takes them again. A mount whose daemon takes no writes, as it began read-only beside the writer or
//! is a replica's, cannot become writable so.

use std::io;
use std::path::{Path, PathBuf};

use crate::control::protocol::Request;
use crate::error::MountError;
use crate::mounting::mount_info;
use crate::mounting::mount_point;
use crate::mounting::options::MountOptions;
use crate::mounting::unmount;

/// What a remount did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remounted {
    /// The options are in force.
    Done,
    /// The mount began read-only, by a daemon that cannot write. It was unmounted, and is to be mounted anew.
    MountAnew,
}

/// Gives a mount of a pond these options.
///
/// Read-only: refused while files are open for writing; once it returns, everything is committed.
pub fn remount(mountpoint: &Path, options: &MountOptions) -> Result<Remounted, MountError> {
    let mountpoint = mount_point::absolute(mountpoint)?;
    let mount = mount_info::mount_at(&mountpoint)?
        .filter(mount_info::Mount::is_pond)
        .ok_or_else(|| MountError::NotMounted(mountpoint.clone()))?;
    let mut daemon = unmount::daemon_of(&mount.source, &mountpoint);
    if !options.read_only {
        let stays = |why: String| MountError::StaysReadOnly { mountpoint: mountpoint.clone(), why };
        match &mut daemon {
            Some(daemon) => {
                let status = daemon.call(&Request::Status)?;
                if status["follows"].as_bool() == Some(true) {
                    return Err(stays(
                        "it follows a source, and what it shows changes only there".to_owned(),
                    ));
                }
                if let Some(why) = status["read_only_because"].as_str() {
                    return Err(stays(why.to_owned()));
                }
            }
            None if mount.read_only && !mount.is_scratch() => {
                if is_pinned(&mountpoint)? {
                    return Err(stays("it shows one version of the past".to_owned()));
                }
                unmount::unmount(&mountpoint)?;
                return Ok(Remounted::MountAnew);
            }
            None => {}
        }
    }
    if !mount_point::remount(&mountpoint, options)? {
        let pid = daemon.as_ref().and_then(|daemon| daemon.daemon_pid().ok());
        return Err(MountError::OpenForWriting {
            users: crate::mounting::busy::users_of(&mountpoint, pid),
            mountpoint,
        });
    }
    if let (true, Some(daemon)) = (options.read_only, &mut daemon) {
        daemon.call(&Request::Commit)?;
    }
    Ok(Remounted::Done)
}

/// Whether a mount without a daemon that listens shows a version other than the newest at its time.
fn is_pinned(mountpoint: &Path) -> Result<bool, MountError> {
    let path: PathBuf = mountpoint.join(".pond/status.json");
    let text = std::fs::read(&path).map_err(|error| MountError::io("read", &path, error))?;
    let status: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|error| MountError::io("understand", &path, io::Error::other(error)))?;
    Ok(status["pinned"].as_bool() == Some(true))
}
