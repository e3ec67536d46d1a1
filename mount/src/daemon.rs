//! A mount from its beginning to its end: open the pond, mount, serve, commit everything, end.
//!
//! ```text
//! check mountpoint, /dev/fuse → open the pond (lock, recovery) → mount → session, socket → ready
//!      … served until the kernel ends the session (umount), or a signal asks for it …
//! socket gone → Steward closes: everything committed, lock given up → those who wait are told → end
//! ```

mod events;
pub(crate) mod log_file;
pub(crate) mod mounted;
mod opening;
pub(crate) mod ready;
mod server;
mod shown;
mod starter;
pub(crate) mod transaction;
mod waiting_threads;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use pond_oplog::At;
use pond_steward::{Registry, StewardError};
use tokio::runtime::Runtime;

use crate::adapter::session::{self, Session};
use crate::coherence::stale;
use crate::daemon::events::{Event, watch_session, watch_signals};
use crate::daemon::mounted::Mounted;
use crate::daemon::opening::{is_fixed, is_replica, open_pond, resolve_pond};
use crate::daemon::ready::{Progress, Ready, ReadyPipe};
use crate::daemon::server::Server;
use crate::daemon::shown::Shown;
use crate::daemon::starter::Starter;
use crate::error::MountError;
use crate::mounting::mount_info;
use crate::mounting::mount_point;
use crate::mounting::options::{MountOptions, VersionsOption};
use crate::service::guard::ShownTo;
use crate::service::{Service, Settings};

/// How long a detached mount may still be used before the daemon ends.
const GRACE: Duration = Duration::from_millis(500);

/// Threads for requests that wait. Each parked write or cold read has one for as long as it takes.
const WAITING_THREADS: usize = 256;

/// How long the kernel may hold an old version that nobody asks for.
const VERSION_KEPT: Duration = Duration::from_secs(60);

/// Mounts a pond and serves it until it is unmounted or a SIGTERM, SIGINT or SIGHUP asks for the end; then
/// everything is committed. `tell` hears what happens before the mount is ready, unless a starter does, and `on_ready` is
/// called once it answers.
///
/// Started by [`mount_daemon`](crate::mount_daemon), it tells the starter, and moves its output to the log; if the starter
/// ends before the mount is ready, nothing stays mounted. A missing pond is made, unless the options say otherwise, and so is
/// the mountpoint's last component.
pub fn mount_foreground(
    pond: &Path,
    mountpoint: &Path,
    options: &MountOptions,
    registry: Registry,
    tell: impl Fn(&Progress),
    on_ready: impl FnOnce(&Ready),
) -> Result<(), MountError> {
    log_panics();
    let starter = Starter { pipe: ReadyPipe::from_environment(), tell: &tell };
    let begun = begin(pond, mountpoint, options, registry, &starter);
    let pipe = starter.pipe;
    let (serving, ready) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            if let Some(pipe) = pipe {
                pipe.error(&error);
            }
            return Err(error);
        }
    };
    on_ready(&ready);
    let heard = pipe.as_ref().map_or(Ok(()), |pipe| pipe.ready(&ready));
    drop(pipe);
    match heard {
        Ok(()) => serving.until_the_end(),
        Err(error) => {
            tracing::warn!(%error, "the command that asked for this mount has ended: unmounting");
            serving.give_up()
        }
    }
}

/// Panics go to the log too. They end the process where they could leave a change half made: the tree, the session
/// threads and the Steward see to that themselves. Elsewhere, in a decoder given damaged bytes, they are errors.
fn log_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        tracing::error!(%panic, "panicked");
    }));
}

/// A mount that answers.
struct Serving {
    mounted: Arc<Mounted>,
    server: Option<Server>,
    device: String,
    events: Receiver<Event>,
    runtime: Runtime,
}

fn begin(
    pond: &Path,
    mountpoint: &Path,
    options: &MountOptions,
    registry: Registry,
    starter: &Starter,
) -> Result<(Serving, Ready), MountError> {
    let mountpoint = mount_point::absolute(mountpoint)?;
    let pond = resolve_pond(pond)?;
    mount_point::open_fuse()?;
    mount_point::check(&pond, &mountpoint)?;

    let (shown, made) = open_pond(&pond, options, registry, starter)?;
    let pond = shown.pond().to_owned();
    // Nobody else has the pond open for writing, and none of it is shown yet: errors from here on close it again.
    let begun = show(&shown, &pond, &mountpoint, options, starter, made);
    if begun.is_err()
        && let Err(error) = shown.close()
    {
        tracing::error!(%error, "cannot close the pond");
    }
    begun
}

fn show(
    shown: &Shown,
    pond: &Path,
    mountpoint: &Path,
    options: &MountOptions,
    starter: &Starter,
    made: bool,
) -> Result<(Serving, Ready), MountError> {
    let in_background = starter.pipe.is_some();
    let fixed = is_fixed(options) || options.scratch;
    let read_only = shown.fs().is_read_only() || options.read_only;
    let log = if in_background { Some(log_file::redirect(pond, mountpoint, fixed)?) } else { None };
    let runtime = waiting_threads::start(WAITING_THREADS)
        .map_err(|error| MountError::io("start threads for", pond, error))?;
    let mounted = Arc::new(Mounted {
        shown: shown.clone(),
        mountpoint: mountpoint.to_owned(),
        read_only,
        follows: !fixed && is_replica(shown),
        pinned: options.at.is_some_and(|at| at != At::Tip),
        versions: shown.versions(),
        log: log.clone(),
    });

    // Before anybody sees a mount: a signal that comes any time after that commits everything first.
    let (sender, events) = mpsc::channel();
    watch_signals(&runtime, &sender, mountpoint)?;
    starter.check()?;
    mount_point::make(mountpoint)?;
    // Now that both exist: a pond beneath its own mount would wait for itself for ever.
    mount_point::refuse_nesting(pond, mountpoint)?;
    let hidden = mount_point::hidden(mountpoint).filter(|_| !options.non_empty);
    let descriptor = mount_point::mount(pond, mountpoint, read_only, options)?;
    let serve = || {
        // SAFETY: neither call can fail.
        let owner = unsafe { (libc::geteuid(), libc::getegid()) };
        let settings = Settings {
            owner,
            inode32: options.inode32,
            askers: session::threads(),
            versions: shown_to(options.versions),
            idle: VERSION_KEPT,
        };
        let service = Service::new(mounted.clone(), runtime.handle().clone(), settings)
            .map_err(|error| MountError::io("start the reading threads of", mountpoint, error))?;
        // Before the session, so that the kernel hears of all that changes after its first look.
        let (fs, coherence, follows) = (shown.fs().clone(), service.coherence().clone(), mounted.follows);
        if let Some(steward) = shown.steward() {
            steward.watch_changes(Box::new(move |stale| coherence.tell(stale::notes(&fs, stale, follows))));
        }
        let session = Session::start(Arc::new(service), descriptor, mountpoint)?;
        let device = mount_info::mount_at(mountpoint)?.map(|mount| mount.device).unwrap_or_default();
        mount_point::raise_read_ahead(&device);
        let server =
            shown.steward().map(|steward| Server::start(mounted.clone(), steward.clone())).transpose()?;
        watch_session(session.thread, sender, mountpoint)?;
        Ok::<_, MountError>((device, server))
    };
    let (device, server) = match serve() {
        Ok(parts) => parts,
        Err(error) => {
            if let Err(error) = mount_point::unmount(mountpoint, true) {
                tracing::error!(%error, "cannot take the mount away again");
            }
            return Err(error);
        }
    };
    if in_background && let Err(error) = std::env::set_current_dir("/") {
        tracing::warn!(%error, "cannot change to /: the starter's directory stays in use");
    }
    let ready = Ready {
        pond: pond.to_owned(),
        mountpoint: mountpoint.to_owned(),
        pid: std::process::id(),
        version: shown.position().version.0,
        read_only,
        scratch: options.scratch,
        made,
        notes: hidden.into_iter().chain(shown.status().notes).collect(),
        log,
    };
    tracing::info!(
        pond = %ready.pond.display(), mountpoint = %ready.mountpoint.display(), version = ready.version,
        read_only, "mounted"
    );
    for note in &ready.notes {
        tracing::warn!("{note}");
    }
    Ok((Serving { mounted, server, device, events, runtime }, ready))
}

/// To whom old versions show what; `None` for nobody.
fn shown_to(option: VersionsOption) -> Option<ShownTo> {
    match option {
        VersionsOption::Allowed => Some(ShownTo::Allowed),
        VersionsOption::All => Some(ShownTo::All),
        VersionsOption::Off => None,
    }
}

impl Serving {
    fn until_the_end(self) -> Result<(), MountError> {
        let ended = self.wait();
        self.close(ended)
    }

    /// Ends a mount that nobody waits for any more.
    fn give_up(self) -> Result<(), MountError> {
        let ended = if self.end_session() { Ok(()) } else { self.wait() };
        self.close(ended)?;
        Err(MountError::Cancelled)
    }

    /// Commits everything.
    fn close(self, ended: io::Result<()>) -> Result<(), MountError> {
        if let Some(server) = &self.server {
            server.stop();
        }
        let closed = self.mounted.shown.close();
        match &closed {
            Ok(position) => tracing::info!(version = position.version.0, "everything is committed"),
            Err(error) => tracing::error!(%error, "not everything could be committed"),
        }
        if let Some(server) = &self.server {
            server.farewell(&closed);
        }
        // A thread that still waits, for a file of a detached mount, is not waited for.
        self.runtime.shutdown_background();
        closed.map_err(StewardError::into).and(
            ended.map_err(|source| MountError::Session {
                mountpoint: self.mounted.mountpoint.clone(),
                source,
            }),
        )
    }

    /// Waits until no request can come in any more.
    fn wait(&self) -> io::Result<()> {
        loop {
            match self.events.recv() {
                Ok(Event::SessionEnded(ended)) => return ended,
                Ok(Event::Signal(name)) => {
                    tracing::info!(signal = name, "ending");
                    if self.end_session() {
                        return Ok(());
                    }
                }
                Err(mpsc::RecvError) => return Err(io::Error::other("nobody watches the session")),
            }
        }
    }

    /// Unmounts on our own account, also while somebody uses the mount. Whether no change can come in any more.
    fn end_session(&self) -> bool {
        let mountpoint = &self.mounted.mountpoint;
        let unmounted = mount_info::mount_at(mountpoint).and_then(|mount| match mount {
            // Only our own: something else may have been mounted over it.
            Some(mount) if mount.device == self.device => {
                Ok(mount_point::unmount(mountpoint, false)? || mount_point::unmount(mountpoint, true)?)
            }
            _ => Ok(false),
        });
        if let Err(error) = unmounted {
            tracing::error!(%error, "cannot unmount");
        }
        match self.events.recv_timeout(GRACE) {
            Ok(Event::SessionEnded(_)) => true,
            Ok(Event::Signal(_)) | Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(mountpoint = %mountpoint.display(), "ends while it is still in use");
                // What would come in after the last commit would be lost.
                self.mounted.shown.fs().set_read_only(true);
                true
            }
            Err(RecvTimeoutError::Disconnected) => true,
        }
    }
}
