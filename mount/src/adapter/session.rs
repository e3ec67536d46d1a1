//! A FUSE session over a descriptor that is mounted already.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::{io, thread};

use fuser::{Config, SessionACL};
use pond_steward::Priority;

use crate::adapter::Adapter;
use crate::error::MountError;
use crate::mounting::mount_point;
use crate::service::Service;
use crate::service::backing::Backing;

/// Threads that take requests. Two keep each other's replies out of the way; four were slower. On a single processor
/// a second one only costs switches: it is woken for what the first takes anyway.
const THREADS: usize = 2;

/// How many threads of a session take requests.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(THREADS, |cores| THREADS.min(cores.get()))
}

/// A running session.
pub(crate) struct Session {
    /// Ends when the filesystem is unmounted.
    pub(crate) thread: JoinHandle<io::Result<()>>,
}

impl Session {
    /// Answers the kernel's INIT and begins to serve. The mount must be there: only then does INIT come.
    pub(crate) fn start<B: Backing>(
        service: Arc<Service<B>>,
        descriptor: OwnedFd,
        mountpoint: &Path,
    ) -> Result<Session, MountError> {
        let failed = |source| MountError::Session { mountpoint: mountpoint.to_owned(), source };
        let mut config = Config::default();
        config.n_threads = Some(threads());
        // For a queue of its own each thread opens /dev/fuse, which a user who mounted by fusermount3 need not be
        // allowed to.
        config.clone_fd = mount_point::open_fuse().is_ok();
        // The kernel enforces who may come in, by the option allow_other. fuser would check a second time, by the
        // filesystem's user id, and refuse what the kernel allows.
        let coherence = service.coherence().clone();
        let session = fuser::Session::from_fd(Adapter::new(service), descriptor, SessionACL::All, config)
            .map_err(failed)?;
        coherence.start(Arc::new(session.notifier())).map_err(failed)?;
        let thread = thread::Builder::new()
            .name("pond-session".to_owned())
            .spawn(move || {
                // The threads that take requests inherit it.
                Priority::Prompt.take();
                session.run()
            })
            .map_err(failed)?;
        Ok(Session { thread })
    }
}
