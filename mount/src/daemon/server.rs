//! The control socket: how commands reach the daemon while the pond is mounted.
//!
//! Each connection has a thread of its own, which may wait. What a command changes, the Steward has the kernel told of
//! before the command's answer goes out, so that whoever gets it sees the change in the mount.

use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;
use pond_oplog::{Layout, Origin, Position};
use pond_steward::{Steward, StewardError};
use pond_tinyfs::Advise;
use serde_json::{Value, json};

use crate::control::client;
use crate::control::protocol::Request;
use crate::control::protocol::RequestError;
use crate::control::protocol::{Farewell, Response};
use crate::daemon::mounted::Mounted;
use crate::daemon::transaction;
use crate::error::MountError;

/// Listens until it is stopped.
pub(crate) struct Server {
    socket: PathBuf,
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
}

struct Shared {
    mounted: Arc<Mounted>,
    steward: Arc<Steward>,
    stopping: AtomicBool,
    /// Those who wait for the last commit.
    farewells: Mutex<Vec<UnixStream>>,
}

impl Server {
    /// Begins to listen. Whoever calls holds the writer lock, so a socket that is there already is a dead daemon's.
    pub(crate) fn start(mounted: Arc<Mounted>, steward: Arc<Steward>) -> Result<Server, MountError> {
        let socket = Layout::new(steward.pond()).socket();
        let failed = |error| MountError::io("listen at", &socket, error);
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let (_directory, path) = client::short_path(&socket).map_err(failed)?;
        let listener = Arc::new(UnixListener::bind(&path).map_err(failed)?);
        fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(failed)?;
        let shared =
            Shared { mounted, steward, stopping: AtomicBool::new(false), farewells: Mutex::default() };
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
        let response = to_response(
            closed
                .as_ref()
                .map(|position| Farewell { version: position.version, owed: self.shared.steward.owed() }),
        );
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
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let request = serde_json::from_str(&line);
        line.clear();
        let request: Request = match request {
            Ok(request) => request,
            Err(error) => {
                let message = format!("the daemon does not understand the request: {error}");
                send(&mut stream, &Response::Error(RequestError::new(message, libc::EPROTO)))?;
                continue;
            }
        };
        if let Request::BeginTransaction { mountpoint } = &request {
            if let Some(refused) = shared.refuse_where_read_only() {
                send(&mut stream, &refused)?;
                continue;
            }
            // The connection is the transaction's from now on.
            return transaction::serve(&shared.steward, mountpoint, stream, &mut reader, &|| {
                shared.refuse_where_read_only()
            });
        }
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
        Ok(Err(error)) => Response::Error(RequestError::new(error.to_string(), libc::EIO)),
        Err(error) => Response::Error(refusal(error)),
    }
}

fn refusal(error: &StewardError) -> RequestError {
    RequestError { message: error.to_string(), advice: error.advice(), errno: error.errno() }
}

impl Shared {
    /// The answer to a change, where this mount takes none. A replica says itself why it does not.
    fn refuse_where_read_only(&self) -> Option<Response> {
        (self.mounted.is_read_only() && !self.mounted.follows).then(|| {
            let message = format!("{} is mounted read-only", self.mounted.mountpoint.display());
            Response::Error(RequestError::new(message, libc::EROFS))
        })
    }

    fn answer(&self, request: &Request) -> Response {
        let steward = &self.steward;
        match request {
            Request::Status => match self.mounted.status() {
                Ok(status) => Response::Ok(status),
                Err(error) => Response::Error(RequestError::new(error.to_string(), libc::EIO)),
            },
            Request::Sync => to_response(steward.sync().as_ref()),
            Request::Commit | Request::Unmount => to_response(steward.commit_now().as_ref()),
            Request::Mknod { factory, path, configuration } => self
                .refuse_where_read_only()
                .unwrap_or_else(|| to_response(steward.mknod(factory, path, configuration).as_ref())),
            Request::BeginTransaction { .. } | Request::EndTransaction { .. } => {
                let message = "no transaction is under way on this connection";
                Response::Error(RequestError::new(message, libc::EPROTO))
            }
            Request::Run { path, args } => to_response(steward.run(path, args).as_ref()),
            Request::ControlGet { key } => to_response(Ok(steward.control_get(key.as_deref()))),
            Request::ControlSet { key, value } => to_response(steward.control_set(key, value).as_ref()),
            Request::Tag { name, change, command } => match name.parse() {
                Ok(tag) => to_response(steward.tag(tag, *change, &Origin::command(command)).as_ref()),
                Err(error) => Response::Error(RequestError::new(error.to_string(), libc::EINVAL)),
            },
            Request::Maintain(options) => to_response(steward.maintain(options, &|_| {}).as_ref()),
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
}
