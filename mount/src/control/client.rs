//! Talking to the daemon of a mounted pond over `$POND/socket`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pond_oplog::Layout;
use serde_json::Value;

use crate::control::protocol::Request;
use crate::control::protocol::Response;
use crate::error::MountError;

/// How long a daemon may take to say how it fares.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile. One that is stopped twice in a row is not waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    pond: PathBuf,
    stream: BufReader<UnixStream>,
}

/// Connects to the daemon that has this pond mounted for writing, or following; `None` if there is none.
pub fn connect(pond: &Path) -> Result<Option<Client>, MountError> {
    let socket = Layout::new(pond).socket();
    match short_path(&socket).and_then(|(_directory, path)| UnixStream::connect(path)) {
        Ok(stream) => Ok(Some(Client { pond: pond.to_owned(), stream: BufReader::new(stream) })),
        // No socket, or one that a daemon left behind.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ECONNREFUSED | libc::ENOTDIR)) =>
        {
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(MountError::AnotherUsers(pond.to_owned()))
        }
        Err(error) => Err(MountError::io("connect to the daemon at", &socket, error)),
    }
}

impl Client {
    /// A connection that is there already.
    pub(crate) fn over(pond: &Path, stream: UnixStream) -> Client {
        Client { pond: pond.to_owned(), stream: BufReader::new(stream) }
    }

    /// The connection itself, for what is no line.
    pub fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }

    /// The same, lent.
    pub(crate) fn stream(&self) -> &UnixStream {
        self.stream.get_ref()
    }

    /// An error about what was said.
    pub(crate) fn misunderstood(&self, problem: &str) -> MountError {
        self.protocol(format!("answered what this program does not understand: {problem}"), None)
    }

    /// Asks and waits for the answer: what the Steward's method of that name returns, as JSON.
    /// Once it is here, the mount shows what it says.
    pub fn call(&mut self, request: &Request) -> Result<Value, MountError> {
        self.send(request)?;
        self.answer()
    }

    /// The same, and calls `goes_on` every moment until the answer is there; gives up once that says false: `None`. The daemon
    /// does what it was asked all the same, and this connection is of no more use.
    pub fn call_while(
        &mut self,
        request: &Request,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Value>, MountError> {
        self.send(request)?;
        self.answer_while(goes_on)
    }

    /// Waits for an answer as long as `goes_on` says so, which is asked every moment.
    pub(crate) fn answer_while(
        &mut self,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Value>, MountError> {
        while !self.has_answer()? {
            if !goes_on() {
                return Ok(None);
            }
        }
        self.answer().map(Some)
    }

    fn send(&mut self, request: &Request) -> Result<(), MountError> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| self.protocol(format!("cannot be asked: {error}"), None))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(|error| {
            self.protocol(format!("has gone ({error})"), Some("see `pond status` for its log"))
        })
    }

    /// The pond's status, which a daemon gives at once: an error if it has not after some seconds, or is stopped.
    pub fn status(&mut self) -> Result<Value, MountError> {
        let pid = self.daemon_pid()?;
        let began = Instant::now();
        self.send(&Request::Status)?;
        let mut stopped = 0;
        while !self.has_answer()? {
            stopped = if is_stopped(pid) { stopped + 1 } else { 0 };
            if stopped == 2 || began.elapsed() >= PATIENCE {
                return Err(MountError::NoAnswer { pond: self.pond.clone(), pid, stopped: stopped > 0 });
            }
        }
        self.answer()
    }

    /// Whether an answer begins within a moment.
    fn has_answer(&self) -> Result<bool, MountError> {
        if !self.stream.buffer().is_empty() {
            // It came together with the one before.
            return Ok(true);
        }
        let mut poll =
            libc::pollfd { fd: self.stream.get_ref().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one initialized pollfd.
        match unsafe { libc::poll(&raw mut poll, 1, LOOK.as_millis() as i32) } {
            -1 => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
                error => Err(MountError::io("wait for the daemon of", &self.pond, error)),
            },
            ready => Ok(ready == 1),
        }
    }

    /// Waits for an answer.
    pub(crate) fn answer(&mut self) -> Result<Value, MountError> {
        let mut line = String::new();
        let problem = match self.stream.read_line(&mut line) {
            Ok(0) => return Err(self.protocol("ended without an answer".to_owned(), Some("see its log"))),
            Ok(_) => match serde_json::from_str(&line) {
                Ok(Response::Ok(value)) => return Ok(value),
                Ok(Response::Error(error)) => return Err(error.into()),
                Err(error) => format!("answered what this program does not understand: {error}"),
            },
            Err(error) => format!("does not answer: {error}"),
        };
        Err(self.protocol(problem, None))
    }

    /// The daemon's process id.
    pub fn daemon_pid(&self) -> Result<u32, MountError> {
        let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the buffer and its length are what SO_PEERCRED fills in.
        let result = unsafe {
            libc::getsockopt(
                self.stream.get_ref().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                credentials.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == -1 {
            let error = io::Error::last_os_error();
            return Err(MountError::io("find the daemon of", &self.pond, error));
        }
        // SAFETY: zeroed, then filled in by the kernel.
        Ok(unsafe { credentials.assume_init() }.pid.cast_unsigned())
    }

    fn protocol(&self, problem: String, advice: Option<&'static str>) -> MountError {
        MountError::Protocol { pond: self.pond.clone(), problem, advice }
    }
}

/// Whether a process was stopped by a signal or a debugger; see proc_pid_stat(5).
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Its name, in parentheses, may hold any character.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('T' | 't'))
}

/// A path to a socket that fits the 108 bytes of a socket address however deep its directory lies, and the open
/// directory by which it leads.
pub(crate) fn short_path(socket: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    };
    let directory = File::open(directory)?;
    let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok((directory, path))
}
