//! Serves the scratch of a transaction, and makes a version of it.
//!
//! Whoever began it has mounted it where only its own processes see it, and sends the descriptor along. Its end says what is to happen:
//! a request, or a connection that is closed, with which all is gone.

use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pond_oplog::Origin;
use pond_steward::{Scratch, Steward, StewardError, TransactionEnd};
use pond_tinyfs::Advise;
use serde_json::{Value, json};

use crate::adapter::session::{self, Session};
use crate::control::descriptor;
use crate::control::protocol::{Published, PublishedConflict, Request, RequestError, Response};
use crate::daemon::mounted::Mounted;
use crate::daemon::shown::Shown;
use crate::daemon::waiting_threads;
use crate::error::MountError;
use crate::service::guard::ShownTo;
use crate::service::{Service, Settings};

/// Threads for requests that wait.
const WAITING_THREADS: usize = 64;

/// How long the kernel may hold an old version that nobody asks for.
const VERSION_KEPT: Duration = Duration::from_secs(60);

/// How long the kernel may take to let go of a mount that no process has any more.
const LET_GO: Duration = Duration::from_secs(60);

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(2);

/// Serves one transaction of a pond that is open in this process, to its end; the other end of the connection is
/// [`Transaction`](crate::transaction::Transaction)'s.
///
/// # Errors
///
/// Where whoever began it has gone: then nothing has happened. Its own failures it is told itself.
pub fn serve_transaction(steward: &Arc<Steward>, stream: UnixStream) -> io::Result<()> {
    let mut lines = io::BufReader::new(stream.try_clone()?);
    match read(&mut lines)? {
        Some(Request::BeginTransaction { mountpoint }) => {
            serve(steward, &mountpoint, stream, &mut lines, &|| None)
        }
        request => Err(io::Error::other(format!("a transaction was to begin, not {request:?}"))),
    }
}

/// The same for one that was asked for already. `refusal` is the answer where the pond takes no changes any more.
pub(crate) fn serve(
    steward: &Arc<Steward>,
    mountpoint: &Path,
    mut stream: UnixStream,
    lines: &mut impl BufRead,
    refusal: &dyn Fn() -> Option<Response>,
) -> io::Result<()> {
    let scratch = match steward.begin_transaction() {
        Ok(scratch) => scratch,
        Err(error) => return send(&mut stream, &refused(&error)),
    };
    let version = scratch.position().version;
    tracing::debug!(%version, "a transaction begins");
    send(&mut stream, &Response::Ok(json!({"version": version})))?;
    let served = Served::begin(&scratch, mountpoint, descriptor::receive(&stream)?);
    let served = match served {
        Ok(served) => served,
        Err(error) => return send(&mut stream, &failed(&error.to_string())),
    };
    send(&mut stream, &Response::Ok(Value::Null))?;
    let request = read(lines)?;
    let is_gone = served.wait_until_unmounted();
    let response = match request {
        None => {
            tracing::debug!(%version, "a transaction ends, and nothing has happened");
            return Ok(());
        }
        Some(Request::EndTransaction { .. }) if !is_gone => {
            failed("what the command left behind is still mounted somewhere, so it was not taken over")
        }
        Some(Request::EndTransaction { command, message }) => {
            // It may have been mounted read-only meanwhile.
            if let Some(refused) = refusal() {
                return send(&mut stream, &refused);
            }
            match steward.end_transaction(&scratch, Origin::transaction(command, message)) {
                Ok(end) => answer(end),
                Err(error) => refused(&error),
            }
        }
        Some(_) => failed("a transaction is under way on this connection"),
    };
    send(&mut stream, &response)
}

/// A scratch and the session that shows it.
struct Served {
    session: Session,
    /// Its threads end with it.
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn begin(scratch: &Arc<Scratch>, mountpoint: &Path, descriptor: OwnedFd) -> Result<Self, MountError> {
        let shown = Shown::Scratch(scratch.clone());
        let mounted = Arc::new(Mounted {
            versions: shown.versions(),
            shown,
            mountpoint: mountpoint.to_owned(),
            read_only: false,
            follows: false,
            pinned: false,
            log: None,
        });
        let failed = |error| MountError::io("start threads for", mountpoint, error);
        let runtime = waiting_threads::start(WAITING_THREADS).map_err(failed)?;
        let settings = Settings {
            // SAFETY: neither call can fail.
            owner: unsafe { (libc::geteuid(), libc::getegid()) },
            inode32: false,
            askers: session::threads(),
            versions: Some(ShownTo::Allowed),
            idle: VERSION_KEPT,
        };
        let service = Service::new(mounted, runtime.handle().clone(), settings).map_err(failed)?;
        let session = Session::start(Arc::new(service), descriptor, mountpoint)?;
        Ok(Served { session, _runtime: runtime })
    }

    /// Waits until the kernel has sent all that was done there, and lets go of it; whether it has.
    fn wait_until_unmounted(self) -> bool {
        let began = Instant::now();
        while !self.session.thread.is_finished() && began.elapsed() < LET_GO {
            std::thread::sleep(LOOK);
        }
        self.session.thread.is_finished()
    }
}

/// The next request; `None` if there is none any more.
fn read(lines: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    match lines.read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

fn send(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn answer(end: TransactionEnd) -> Response {
    let published = match end {
        TransactionEnd::Version(version) => Published::Version(version),
        TransactionEnd::Nothing => Published::Nothing,
        TransactionEnd::Conflicts(conflicts) => {
            let told = conflicts.into_iter().map(|conflict| PublishedConflict {
                path: conflict.path,
                why: conflict.clash.words().to_owned(),
            });
            Published::Conflicts(told.collect())
        }
    };
    match serde_json::to_value(published) {
        Ok(value) => Response::Ok(value),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(message: &str) -> Response {
    Response::Error(RequestError::new(message, libc::EIO))
}

fn refused(error: &StewardError) -> Response {
    let (message, advice) = (error.to_string(), error.advice());
    Response::Error(RequestError { message, advice, errno: error.errno() })
}
