//! A scratch that a command mounts for itself, and takes away again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pond_mount::{MountError, Ready};
use pond_oplog::Version;

use super::mount::AS_POND;
use crate::error::{During, Failure, Result};
use crate::output::Notices;
use crate::part::Part;

/// How long processes may keep it busy before it is taken from them.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long its daemon may take to end after that.
const END: Duration = Duration::from_secs(20);

/// A scratch; it is unmounted with this value.
pub struct ScratchMount {
    ready: Ready,
    notices: Notices,
    /// Whether it has still to be unmounted.
    is_mounted: bool,
}

impl ScratchMount {
    /// Mounts a scratch of a version on a directory that exists. Nobody but the user who asks may enter it.
    pub fn mount(pond: &Path, version: Version, mountpoint: &Path, notices: Notices) -> Result<Self> {
        let mut arguments: Vec<OsString> = Vec::new();
        if std::env::current_exe().is_ok_and(|program| Part::of(&program) != Part::Pond) {
            arguments.push(AS_POND.into());
        }
        arguments.extend(["--pond".into(), pond.into(), "mount".into(), "--foreground".into()]);
        arguments.extend(["--scratch".into(), format!("--version={version}").into()]);
        arguments.extend(["--".into(), mountpoint.into()]);
        let ready = pond_mount::mount_daemon(&arguments, |_| ())
            .during(|| format!("cannot mount a scratch of version {version}"))?;
        Ok(ScratchMount { ready, notices, is_mounted: true })
    }

    /// Its root.
    pub fn root(&self) -> &PathBuf {
        &self.ready.mountpoint
    }

    /// Unmounts it, also while processes that were left behind use it.
    pub fn end(mut self) -> Result {
        self.unmount()
    }

    fn unmount(&mut self) -> Result {
        let what = || format!("cannot unmount {}", self.ready.mountpoint.display());
        let began = Instant::now();
        loop {
            match pond_mount::unmount(&self.ready.mountpoint) {
                Err(MountError::Busy { .. }) if began.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(MountError::Busy { .. }) => break,
                // What the program itself has unmounted is gone already.
                Ok(_) | Err(MountError::NotMounted(_)) => {
                    self.is_mounted = false;
                    return Ok(());
                }
                Err(error) => return Err(Failure::because(what(), &error)),
            }
        }
        // It detaches the mount and ends.
        // SAFETY: takes numbers only. The daemon is our child, so that nobody else has its number.
        unsafe { libc::kill(self.ready.pid as i32, libc::SIGTERM) };
        while began.elapsed() < END {
            let mounts = pond_mount::mounts().during(what)?;
            if mounts.iter().all(|mount| mount.mountpoint != self.ready.mountpoint) {
                self.is_mounted = false;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Failure::new(what(), "its daemon does not end"))
    }
}

impl Drop for ScratchMount {
    fn drop(&mut self) {
        if self.is_mounted
            && let Err(Failure::Failed(report)) = self.unmount()
        {
            self.notices.warn(&format!("{}: {}", report.what, report.why));
        }
    }
}
