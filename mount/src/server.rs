//! The control socket: how commands reach the daemon while the pond is mounted.
//!
//! Each connection has a thread of its own, which may wait and may tell the kernel what changed behind its back.
//! An answer goes out only after that, so that whoever gets it sees the change in the mount.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use pond_oplog::{Layout, Position};
use pond_steward::StewardError;
use serde_json::{Value, json};

use crate::protocol::Response;
use crate::session::Mounted;
use crate::{MountError, Request, RequestError, client};

/// Listens until it is stopped.
pub(crate) struct Server {
    socket: PathBuf,
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
}

struct Shared {
    mounted: Arc<Mounted>,
    notifier: Notifier,
    stopping: AtomicBool,
    /// Those who wait for the last commit.
    farewells: Mutex<Vec<UnixStream>>,
}

impl Server {
    /// Begins to listen. Whoever calls holds the writer lock, so a socket that is there already is a dead daemon's.
    pub(crate) fn start(mounted: Arc<Mounted>, notifier: Notifier) -> Result<Server, MountError> {
        let socket = Layout::new(mounted.steward.pond()).socket();
        let failed = |error| MountError::io("listen at", &socket, error);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let (_directory, path) = client::short_path(&socket).map_err(failed)?;
        let listener = Arc::new(UnixListener::bind(&path).map_err(failed)?);
        fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(failed)?;
        let shared =
            Shared { mounted, notifier, stopping: AtomicBool::new(false), farewells: Mutex::default() };
        let server = Server { socket: socket.clone(), listener, shared: Arc::new(shared) };
        let (listener, shared) = (server.listener.clone(), server.shared.clone());
        spawn("pond-socket", move || accept(&listener, &shared)).map_err(failed)?;
        Ok(server)
    }

    /// Takes no more connections.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Err(error) = fs::remove_file(&self.socket) {
            tracing::warn!(socket = %self.socket.display(), %error, "cannot remove the control socket");
        }
        // SAFETY: the descriptor is open; this wakes the thread in accept(2).
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }

    /// Tells those who asked for the unmount how the last commit went.
    pub(crate) fn farewell(&self, closed: &Result<Position, StewardError>) {
        let response = match closed {
            Ok(position) => to_response(Ok(position)),
            Err(error) => Response::Error(refusal(error)),
        };
        for mut stream in self.shared.farewells.lock().drain(..) {
            if let Err(error) = send(&mut stream, &response) {
                tracing::debug!(%error, "nobody waits for the last commit any more");
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    loop {
        let stream = match listener.accept() {
            _ if shared.stopping.load(Ordering::Acquire) => return,
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors, say: there will be some again.
                tracing::warn!(%error, "cannot take a connection");
                thread::sleep(std::time::Duration::from_millis(100));
                continue;
            }
        };
        let shared = shared.clone();
        let served = spawn("pond-command", move || {
            if let Err(error) = serve(stream, &shared) {
                tracing::debug!(%error, "a command hung up");
            }
        });
        if let Err(error) = served {
            tracing::warn!(%error, "cannot serve a connection");
        }
    }
}

fn serve(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let reader = BufReader::new(stream.try_clone()?);
    for line in reader.lines() {
        let request: Request = match serde_json::from_str(&line?) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("the daemon does not understand the request: {error}");
                send(&mut stream, &Response::Error(RequestError { message, errno: libc::EPROTO }))?;
                continue;
            }
        };
        let response = shared.answer(&request);
        if request == Request::Unmount && matches!(response, Response::Ok(_)) {
            shared.farewells.lock().push(stream.try_clone()?);
        }
        send(&mut stream, &response)?;
    }
    Ok(())
}

fn send(stream: &mut UnixStream, response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn to_response<T: serde::Serialize>(result: Result<T, &StewardError>) -> Response {
    match result.map(serde_json::to_value) {
        Ok(Ok(value)) => Response::Ok(value),
        Ok(Err(error)) => Response::Error(RequestError { message: error.to_string(), errno: libc::EIO }),
        Err(error) => Response::Error(refusal(error)),
    }
}

fn refusal(error: &StewardError) -> RequestError {
    RequestError { message: error.to_string(), errno: error.errno() }
}

impl Shared {
    fn answer(&self, request: &Request) -> Response {
        let steward = &self.mounted.steward;
        match request {
            Request::Status => match self.mounted.status() {
                Ok(status) => Response::Ok(status),
                Err(error) => Response::Error(RequestError { message: error.to_string(), errno: libc::EIO }),
            },
            Request::Sync => to_response(steward.sync().as_ref()),
            Request::Commit | Request::Unmount => to_response(steward.commit_now().as_ref()),
            Request::Mknod { factory, path, configuration } => {
                let place =
                    FirstMissing::of(path, |path| steward.fs().resolve(path).ok().map(|node| node.id.get()));
                let made = steward.mknod(factory, path, configuration);
                if made.is_ok() {
                    self.invalidate(place);
                }
                to_response(made.as_ref())
            }
            Request::Run { path, args } => to_response(steward.run(path, args).as_ref()),
            Request::ControlGet { key } => to_response(Ok(steward.control_get(key.as_deref()))),
            Request::ControlSet { key, value } => to_response(steward.control_set(key, value).as_ref()),
            Request::Factories => {
                let factories: Vec<Value> = steward
                    .registry()
                    .iter()
                    .map(|factory| json!({"name": factory.name(), "description": factory.description()}))
                    .collect();
                Response::Ok(factories.into())
            }
        }
    }

    /// Tells the kernel of a name that has come into being.
    fn invalidate(&self, place: Option<FirstMissing<'_>>) {
        let Some(place) = place else { return };
        let parent = INodeNo(place.parent);
        let told = self
            .notifier
            .inval_entry(parent, OsStr::from_bytes(place.name))
            // Its attributes, and its pages: they are the listing, which the name alone would leave standing.
            .and_then(|()| self.notifier.inval_inode(parent, 0, 0));
        if let Err(error) = told {
            tracing::warn!(%error, "the kernel may show an old directory for a while");
        }
    }
}

/// The first component of a path that is not there yet.
#[derive(Debug, PartialEq, Eq)]
struct FirstMissing<'a> {
    parent: u64,
    name: &'a [u8],
}

impl<'a> FirstMissing<'a> {
    fn of(path: &'a str, inode: impl Fn(&[u8]) -> Option<u64>) -> Option<Self> {
        let mut parent = INodeNo::ROOT.0;
        let mut end = 0;
        for name in path.split('/') {
            end += name.len();
            if !name.is_empty() {
                match inode(&path.as_bytes()[..end]) {
                    Some(inode) => parent = inode,
                    None => return Some(FirstMissing { parent, name: name.as_bytes() }),
                }
            }
            end += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_of_the_first_name_that_was_missing() {
        let tree = |path: &[u8]| match path {
            b"/etc" => Some(5),
            b"/etc/system.d" => Some(6),
            _ => None,
        };
        let missing = |parent, name| Some(FirstMissing { parent, name });
        assert_eq!(FirstMissing::of("/etc/system.d/log", tree), missing(6, b"log".as_slice()));
        assert_eq!(FirstMissing::of("/etc/new/log", tree), missing(5, b"new".as_slice()));
        assert_eq!(FirstMissing::of("/new", tree), missing(1, b"new".as_slice()));
        assert_eq!(FirstMissing::of("/etc/system.d", tree), None);
    }
}
