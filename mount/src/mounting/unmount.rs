//! Ending a mount: everything is committed, the mount is gone, and so is its daemon.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pond_steward::FactoryStatus;
use serde::Serialize;
use serde_json::Value;

use crate::control::client;
use crate::control::client::Client;
use crate::control::protocol::Farewell;
use crate::control::protocol::Request;
use crate::error::MountError;
use crate::mounting::busy;
use crate::mounting::busy_process::BusyProcess;
use crate::mounting::mount_info;
use crate::mounting::mount_point;

/// How long others may keep a copy of the mount before they are no longer waited for: most end with what they began for.
const PATIENCE: Duration = Duration::from_secs(3);

/// What an unmount did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnmountReport {
    /// The pond's directory.
    pub pond: PathBuf,
    /// Where it was mounted.
    pub mountpoint: PathBuf,
    /// The version that holds everything or, of a mount that followed, that it showed last; `None` where one version
    /// was shown or nobody was there to say.
    pub version: Option<u64>,
    /// Whether it was a scratch, whose changes are gone.
    pub scratch: bool,
    /// Whether it followed a source elsewhere.
    pub followed: bool,
    /// The nodes under `/etc/system.d/` that have not handled all versions, such as a push that could not keep up: the
    /// next mount goes on with it.
    pub owed: Vec<FactoryStatus>,
    /// Whether the daemon had died before: its mount was only taken away, and the next mount recovers.
    pub was_dead: bool,
    /// Processes in other mount namespaces that still have it mounted, one of each: the daemon ends once they have, and
    /// nobody waits for that.
    pub kept_by: Vec<BusyProcess>,
}

/// Commits everything, unmounts, and waits for the daemon to end.
///
/// If somebody uses the mount, nothing is unmounted and the error names them.
pub fn unmount(mountpoint: &Path) -> Result<UnmountReport, MountError> {
    let mountpoint = mount_point::absolute(mountpoint)?;
    let mount = mount_info::mount_at(&mountpoint)?
        .filter(mount_info::Mount::is_pond)
        .ok_or_else(|| MountError::NotMounted(mountpoint.clone()))?;
    let mut report = UnmountReport {
        pond: mount.source.clone(),
        scratch: mount.is_scratch(),
        mountpoint: mountpoint.clone(),
        version: None,
        followed: false,
        owed: Vec::new(),
        was_dead: false,
        kept_by: Vec::new(),
    };

    let status_file = mountpoint.join(".pond/status.json");
    let status: Value = match fs::read(&status_file) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| MountError::Protocol {
            pond: report.pond.clone(),
            problem: format!("wrote a status that this program does not understand: {error}"),
            advice: None,
        })?,
        Err(error) if mount_point::is_dead(&error) => {
            mount_point::unmount(&mountpoint, true)?;
            report.was_dead = true;
            return Ok(report);
        }
        // Root is kept out of another user's private mount, but not away from its daemon.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Value::Null,
        Err(error) => return Err(MountError::io("read", &status_file, error)),
    };
    let mut pid = status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let mut daemon = match mount.read_only {
        // It is nobody else's, and nothing of it is kept.
        _ if report.scratch => None,
        true => daemon_of(&report.pond, &mountpoint),
        false => client::connect(&report.pond)?,
    };
    if let Some(daemon) = &mut daemon {
        // As this process sees it, also from another pid namespace.
        pid = Some(daemon.daemon_pid()?);
        report.followed = status["follows"].as_bool().unwrap_or(mount.read_only);
        report.version = version(&daemon.call(&Request::Unmount)?);
    }
    let process = pid.and_then(open_process);

    if !mount_point::unmount(&mountpoint, false)? {
        return Err(MountError::Busy { users: busy::users_of(&mountpoint, pid), mountpoint });
    }
    // The filesystem ends with its last mount, and the daemon with the filesystem.
    let began = Instant::now();
    let is_worth_waiting = |report: &mut UnmountReport| {
        report.kept_by = busy::keepers_of(&mount.device, pid);
        report.kept_by.is_empty() || began.elapsed() < PATIENCE
    };
    if let Some(daemon) = &mut daemon {
        let Some(farewell) = daemon.answer_while(&mut || is_worth_waiting(&mut report))? else {
            return Ok(report);
        };
        let farewell: Farewell = serde_json::from_value(farewell).map_err(|error| MountError::Protocol {
            pond: report.pond.clone(),
            problem: format!("took its leave in a way that this program does not understand: {error}"),
            advice: None,
        })?;
        report.version = Some(farewell.version.0);
        report.owed = farewell.owed;
    }
    if let Some(process) = process {
        let pond = report.pond.clone();
        let ended = wait_for_end(&process, &mut || is_worth_waiting(&mut report))
            .map_err(|error| MountError::io("wait for the daemon of", &pond, error))?;
        if !ended {
            return Ok(report);
        }
    }
    report.kept_by.clear();
    Ok(report)
}

/// The daemon of a mount, if it listens. That of a fixed version does not, and one that does may be that of another mount of
/// the pond.
pub(crate) fn daemon_of(pond: &Path, mountpoint: &Path) -> Option<Client> {
    let asked = client::connect(pond).and_then(|daemon| {
        let Some(mut daemon) = daemon else { return Ok(None) };
        let status = daemon.call(&Request::Status)?;
        let is_its_own = status["mountpoint"].as_str() == Some(&*mountpoint.to_string_lossy());
        Ok(is_its_own.then_some(daemon))
    });
    asked.unwrap_or_else(|error| {
        // Somebody else's daemon, say: nothing can be lost by unmounting without it.
        tracing::debug!(%error, "unmounting without the daemon's help");
        None
    })
}

fn version(position: &Value) -> Option<u64> {
    position["version"].as_u64()
}

/// A descriptor that becomes readable when the process ends; `None` if it has.
fn open_process(pid: u32) -> Option<OwnedFd> {
    // SAFETY: a system call without pointers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: the call gave us a descriptor of our own.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

/// Waits for the end of a process as long as `goes_on` says so, which is asked every moment; whether it ended.
fn wait_for_end(process: &OwnedFd, goes_on: &mut dyn FnMut() -> bool) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one initialized pollfd.
        match unsafe { libc::poll(&raw mut poll, 1, client::LOOK.as_millis() as i32) } {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            0 if goes_on() => {}
            ready => return Ok(ready == 1),
        }
    }
}
