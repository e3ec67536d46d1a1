//! A mount from its beginning to its end: open the pond, mount, serve, commit everything, end.
//!
//! ```text
//! check mountpoint, /dev/fuse → open the pond (lock, recovery) → mount → session, socket → ready
//!      … served until the kernel ends the session (umount), or a signal asks for it …
//! socket gone → Steward closes: everything committed, lock given up → those who wait are told → end
//! ```

pub(crate) mod log_file;
pub(crate) mod ready;

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use pond_oplog::{At, Origin};
use pond_steward::{
    Found, LockHolder, OpenOptions, Priority, Reader, Registry, Role, Steward, StewardError, lock_holder,
};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::adapter::Adapter;
use crate::adapter::session::{Mounted, Session};
use crate::coherence::stale;
use crate::control::client;
use crate::control::server::Server;
use crate::daemon::ready::Ready;
use crate::daemon::ready::{Progress, ReadyPipe};
use crate::error::MountError;
use crate::mounting::mount_info;
use crate::mounting::mount_point;
use crate::mounting::options::MountOptions;
use crate::service::shown::Shown;

/// How long a mount waits for a daemon that is still committing after its unmount.
const WAIT_FOR_PREDECESSOR: Duration = Duration::from_secs(60);

/// How long a detached mount may still be used before the daemon ends.
const GRACE: Duration = Duration::from_millis(500);

/// How often a mount looks whether it still has to wait.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// After this time of waiting a mount says what it waits for.
const SAY_SO: Duration = Duration::from_millis(500);

/// Threads for requests that wait. Each parked write or cold read has one for as long as it takes.
const WAITING_THREADS: usize = 256;

/// How long such a thread stays when nothing waits.
const KEEP_WAITING: Duration = Duration::from_secs(24 * 3600);

/// What the main thread waits for.
enum Event {
    SessionEnded(io::Result<()>),
    Signal(&'static str),
}

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

/// Whoever asked for the mount, while it is not ready.
struct Starter<'a> {
    /// To the command that waits; `None` in the foreground.
    pipe: Option<ReadyPipe>,
    tell: &'a dyn Fn(&Progress),
}

impl Starter<'_> {
    fn tell(&self, progress: &Progress) {
        match &self.pipe {
            Some(pipe) => pipe.progress(progress),
            None => (self.tell)(progress),
        }
    }

    /// Fails if nobody waits for the mount any more.
    fn check(&self) -> Result<(), MountError> {
        match &self.pipe {
            Some(pipe) if pipe.starter_has_ended() => Err(MountError::Cancelled),
            _ => Ok(()),
        }
    }

    /// Waits while somebody is in the way, up to the time that a daemon may take to end; says so after a while. The one
    /// who still is then.
    fn wait_while(
        &self,
        mut in_the_way: impl FnMut() -> Result<Option<LockHolder>, MountError>,
    ) -> Result<Option<LockHolder>, MountError> {
        let began = Instant::now();
        let mut said = false;
        while let Some(holder) = in_the_way()? {
            self.check()?;
            if began.elapsed() >= WAIT_FOR_PREDECESSOR {
                return Ok(Some(holder));
            }
            if !said && began.elapsed() >= SAY_SO {
                tracing::info!(%holder, "waiting for whoever has the pond open");
                self.tell(&Progress::Waiting(holder.to_string()));
                said = true;
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(None)
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

/// The absolute path of a pond that may not exist yet, without symbolic links as far as it does.
fn resolve_pond(pond: &Path) -> Result<PathBuf, MountError> {
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
fn open_pond(
    pond: &Path,
    options: &MountOptions,
    registry: Registry,
    starter: &Starter,
) -> Result<(Shown, bool), MountError> {
    let at = options.at.unwrap_or(At::Tip);
    let fixed = is_fixed(options);
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
fn is_fixed(options: &MountOptions) -> bool {
    (options.read_only && !options.follow) || options.at.is_some_and(|at| at != At::Tip)
}

fn is_replica(shown: &Shown) -> bool {
    shown.status().mode == Some(Role::Replica)
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
    let fixed = is_fixed(options);
    let read_only = fixed || shown.fs().is_read_only();
    let log = if in_background { Some(log_file::redirect(pond, mountpoint, fixed)?) } else { None };
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(WAITING_THREADS)
        // Where the system grants no more threads, as in a container at its limit, those that there are do all the work:
        // so they stay, and one is there from the beginning.
        .thread_keep_alive(KEEP_WAITING)
        .thread_name("pond-waiting")
        .on_thread_start(|| Priority::Ordinary.take())
        .enable_all()
        .build()
        .map_err(|error| MountError::io("start threads for", pond, error))?;
    drop(runtime.spawn_blocking(|| ()));
    let mounted = Arc::new(Mounted {
        shown: shown.clone(),
        mountpoint: mountpoint.to_owned(),
        read_only,
        follows: !fixed && is_replica(shown),
        pinned: options.at.is_some_and(|at| at != At::Tip),
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
        let adapter = Adapter::new(mounted.clone(), runtime.handle().clone(), owner, options.inode32)
            .map_err(|error| MountError::io("start the reading threads of", mountpoint, error))?;
        // Before the session, so that the kernel hears of all that changes after its first look.
        let (fs, coherence, follows) = (shown.fs().clone(), adapter.coherence(), mounted.follows);
        if let Some(steward) = shown.steward() {
            steward.watch_changes(Box::new(move |stale| coherence.tell(stale::notes(&fs, stale, follows))));
        }
        let session = Session::start(adapter, descriptor, mountpoint)?;
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

/// Reports signals as events.
fn watch_signals(runtime: &Runtime, sender: &Sender<Event>, mountpoint: &Path) -> Result<(), MountError> {
    let failed = |error| MountError::io("watch for signals that end", mountpoint, error);
    let signals = [
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::interrupt(), "SIGINT"),
        (SignalKind::hangup(), "SIGHUP"),
    ];
    // What the starter ignores (nohup, say), stays ignored.
    for (kind, name) in signals.into_iter().filter(|(kind, _)| !is_ignored(kind.as_raw_value())) {
        let _in_runtime = runtime.enter();
        let mut signals = signal(kind).map_err(failed)?;
        let sender = sender.clone();
        runtime.spawn(async move {
            // Ends when nobody listens any more.
            while signals.recv().await.is_some() && sender.send(Event::Signal(name)).is_ok() {}
        });
    }
    Ok(())
}

/// Reports the session's end as an event.
fn watch_session(
    session: thread::JoinHandle<io::Result<()>>,
    sender: Sender<Event>,
    mountpoint: &Path,
) -> Result<(), MountError> {
    thread::Builder::new()
        .name("pond-watch".to_owned())
        .spawn(move || {
            let ended = session.join().unwrap_or_else(|_| Err(io::Error::other("the session panicked")));
            // Without a listener the process is at its end anyway.
            drop(sender.send(Event::SessionEnded(ended)));
        })
        .map(drop)
        .map_err(|error| MountError::io("watch", mountpoint, error))
}

fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only fills in the present one, for which zeros are a valid value.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init().sa_sigaction == libc::SIG_IGN
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
