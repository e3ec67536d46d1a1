//! What ends a mount: signals, and the end of its session.

use std::path::Path;
use std::sync::mpsc::Sender;
use std::{io, thread};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::MountError;

/// What the main thread waits for.
pub(crate) enum Event {
    SessionEnded(io::Result<()>),
    Signal(&'static str),
}

/// Reports signals as events.
pub(crate) fn watch_signals(
    runtime: &Runtime,
    sender: &Sender<Event>,
    mountpoint: &Path,
) -> Result<(), MountError> {
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
pub(crate) fn watch_session(
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
