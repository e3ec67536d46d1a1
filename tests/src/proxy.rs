//! A small HTTP proxy between pond and an S3 server: it keeps a log of the requests, and spoils those it is told to.
//!
//! What it passes on it does not change, or the signatures would no longer fit; only
//! [`Fault::ForgetCondition`] does, for a server that checks none.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The server never sees it; the answer has this status.
    Answer(u16),
    /// The server never sees it; the connection breaks.
    Disconnect,
    /// The server never sees it; nothing is answered for so long, then the connection breaks.
    Stall(Duration),
    /// The server does what was asked, and the connection breaks before the answer.
    LoseAnswer,
    /// The server does what was asked, and half the answer's body arrives.
    Truncate,
    /// One bit in the middle of the answer's body is wrong.
    FlipBit,
    /// The server does not see `If-None-Match`, as one that does not know it.
    ForgetCondition,
}

/// A request as it came by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Key in the bucket, still percent-encoded; empty for a listing.
    pub key: String,
    /// Query string.
    pub query: String,
    /// The access key id of whoever signed it; empty if nobody did.
    pub user: String,
    /// Bytes of its body.
    pub sent: u64,
    /// Status and bytes of the body that were answered, if anything was.
    pub answered: Option<(u16, u64)>,
    /// What was done to it.
    pub fault: Option<Fault>,
}

type Decide = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;

/// A proxy that listens on a port of its own until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    log: Mutex<Vec<Seen>>,
    decide: Mutex<Option<Decide>>,
    stopping: AtomicBool,
}

impl Proxy {
    /// In front of `HOST:PORT`.
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            log: Mutex::default(),
            decide: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), shared) = (client, accepting.clone()) else { continue };
                // An error is a peer that went away: a client that was killed, a server that ended.
                thread::spawn(move || serve(&client, &shared).ok());
            }
        });
        Proxy { address, shared }
    }

    /// Its address, `http://HOST:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests since the start or the last [`Proxy::forget`].
    pub fn log(&self) -> Vec<Seen> {
        lock(&self.shared.log).clone()
    }

    /// Starts a new log; the old one.
    pub fn forget(&self) -> Vec<Seen> {
        std::mem::take(&mut lock(&self.shared.log))
    }

    /// From now on each request is shown to `decide`, which may spoil it.
    pub fn spoil(&self, decide: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        *lock(&self.shared.decide) = Some(Box::new(decide));
    }

    /// Spoils the request that comes after `number` others.
    pub fn spoil_one(&self, number: usize, fault: Fault) {
        let mut left = number;
        self.spoil(move |_| {
            let hit = left == 0;
            left = left.wrapping_sub(1);
            hit.then_some(fault)
        });
    }

    /// From now on nothing is spoilt.
    pub fn heal(&self) {
        *lock(&self.shared.decide) = None;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread in accept(2); where that fails it is awake.
        TcpStream::connect(self.address).ok();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The head of a request or an answer, and its body.
struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn without(&mut self, names: &[&str]) {
        self.headers.retain(|(known, _)| !names.iter().any(|name| known.eq_ignore_ascii_case(name)));
    }

    fn write(&self, to: &mut impl Write, body: &[u8]) -> io::Result<()> {
        let mut head = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())?;
        to.write_all(body)?;
        to.flush()
    }
}

/// Serves the requests of a connection, one after the other.
fn serve(client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    while let Some(mut request) = read_head(&mut reader)? {
        let length = request.header("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        request.body = vec![0; length];
        reader.read_exact(&mut request.body)?;
        let (number, fault) = note(&request, shared);
        if !answer(client, request, fault, shared, number)? {
            return client.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

/// Enters a request in the log, and asks what is to become of it.
fn note(request: &Message, shared: &Shared) -> (usize, Option<Fault>) {
    let mut words = request.start.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_bucket, key)| key);
    let authorization = request.header("authorization").unwrap_or_default();
    let credential = authorization.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next());
    let mut seen = Seen {
        method: method.to_owned(),
        key: key.to_owned(),
        query: query.to_owned(),
        user: credential.unwrap_or_default().to_owned(),
        sent: request.body.len() as u64,
        answered: None,
        fault: None,
    };
    seen.fault = lock(&shared.decide).as_mut().and_then(|decide| decide(&seen));
    let fault = seen.fault;
    let mut log = lock(&shared.log);
    log.push(seen);
    (log.len() - 1, fault)
}

/// Answers a request; whether the connection can go on.
fn answer(
    mut client: &TcpStream,
    mut request: Message,
    fault: Option<Fault>,
    shared: &Shared,
    number: usize,
) -> io::Result<bool> {
    match fault {
        Some(Fault::Answer(status)) => {
            let body = refusal(status);
            let headers = vec![
                ("Content-Type".to_owned(), "application/xml".to_owned()),
                ("Content-Length".to_owned(), body.len().to_string()),
            ];
            let start = format!("HTTP/1.1 {status} Spoilt");
            Message { start, headers, body: Vec::new() }.write(&mut client, body.as_bytes())?;
            return Ok(true);
        }
        Some(Fault::Disconnect) => return Ok(false),
        Some(Fault::Stall(time)) => {
            thread::sleep(time);
            return Ok(false);
        }
        Some(Fault::ForgetCondition) => request.without(&["if-none-match"]),
        Some(Fault::LoseAnswer | Fault::Truncate | Fault::FlipBit) | None => {}
    }
    let head_only = request.start.starts_with("HEAD ");
    let mut response = forward(request, &shared.upstream)?;
    if fault == Some(Fault::LoseAnswer) {
        return Ok(false);
    }
    if fault == Some(Fault::FlipBit) && !response.body.is_empty() {
        let middle = response.body.len() / 2;
        response.body[middle] ^= 1;
    }
    response.start = response.start.replacen("HTTP/1.0", "HTTP/1.1", 1);
    let status = response.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    response.without(&["connection", "transfer-encoding"]);
    if !head_only && status != 204 && status != 304 {
        response.without(&["content-length"]);
        response.headers.push(("Content-Length".to_owned(), response.body.len().to_string()));
    }
    let truncated = fault == Some(Fault::Truncate);
    let body = &response.body[..if truncated { response.body.len() / 2 } else { response.body.len() }];
    response.write(&mut client, body)?;
    if let Some(seen) = lock(&shared.log).get_mut(number) {
        seen.answered = Some((status, body.len() as u64));
    }
    Ok(!truncated)
}

/// As S3 says it.
fn refusal(status: u16) -> String {
    let code = match status {
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        500 => "InternalError",
        503 => "SlowDown",
        _ => "Spoilt",
    };
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by the test's proxy</Message></Error>")
}

fn forward(mut request: Message, upstream: &str) -> io::Result<Message> {
    let mut server = TcpStream::connect(upstream)?;
    server.set_nodelay(true)?;
    request.without(&["connection"]);
    request.headers.push(("Connection".to_owned(), "close".to_owned()));
    request.write(&mut server, &request.body)?;
    let mut reader = BufReader::new(server);
    let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up");
    let mut response = read_head(&mut reader)?.ok_or_else(gone)?;
    assert!(response.header("transfer-encoding").is_none(), "the server sends chunks: {}", response.start);
    reader.read_to_end(&mut response.body)?;
    Ok(response)
}

/// Start line and headers; `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Message>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end_matches(['\r', '\n']).to_owned();
        if line.is_empty() && !lines.is_empty() {
            break;
        }
        lines.push(line);
    }
    let headers = lines[1..].iter().filter_map(|line| line.split_once(':'));
    Ok(Some(Message {
        headers: headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(),
        start: std::mem::take(&mut lines[0]),
        body: Vec::new(),
    }))
}
