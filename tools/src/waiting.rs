//! Long waits for somebody else: whoever waits is told what for, first after a second and then less and less often, and
//! may give up.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use pond_oplog::Position;
use pond_steward::{Steward, StewardError};
use serde_json::json;

use crate::error::{Failure, Result};
use crate::output::Notices;

/// What takes no longer needs no words.
const SILENCE: Duration = Duration::from_secs(1);

/// The longest time between two words.
const LONGEST: Duration = Duration::from_secs(60);

/// How often it is looked whether a word is due, or the time is up.
const LOOK: Duration = Duration::from_millis(200);

/// A wait.
pub struct Wait {
    began: Instant,
    next: Duration,
    timeout: Option<Duration>,
    notices: Notices,
}

impl Wait {
    /// One that begins now and lasts at most so long.
    pub fn new(timeout: Option<Duration>, notices: Notices) -> Self {
        Wait { began: Instant::now(), next: SILENCE, timeout, notices }
    }

    /// To be called again and again: says `what` is waited for when that is due. False once the time is up.
    pub fn goes_on(&mut self, what: impl FnOnce() -> String) -> bool {
        let waited = self.began.elapsed();
        if self.timeout.is_some_and(|timeout| waited >= timeout) {
            return false;
        }
        if waited >= self.next {
            let (seconds, message) = (waited.as_secs(), what());
            let event = json!({"event": "waiting", "seconds": seconds, "message": message});
            // The same words again would look as if nothing had gone on.
            let since = if self.next == SILENCE { String::new() } else { format!(" ({seconds} s)") };
            self.notices.tell(&event, || format!("pond: {message}{since}"));
            self.next = (waited * 2).max(5 * SILENCE).min(waited + LONGEST);
        }
        true
    }
}

/// Does `work` on a thread of its own, and calls `goes_on` every moment until it is done; gives up once that says false: `None`.
/// What the work would have given comes by the receiver all the same.
pub fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    mut goes_on: impl FnMut() -> bool,
) -> Result<Result<T, mpsc::Receiver<T>>> {
    let (done, finished) = mpsc::sync_channel(1);
    let body = move || {
        // Nobody waits any more where that fails.
        done.send(work()).ok();
    };
    let started = thread::Builder::new().name("pond-work".to_owned()).spawn(body);
    started.map_err(|error| Failure::because("cannot start a thread", &error))?;
    loop {
        match finished.recv_timeout(LOOK) {
            Ok(value) => return Ok(Ok(value)),
            Err(RecvTimeoutError::Timeout) if goes_on() => {}
            Err(RecvTimeoutError::Timeout) => return Ok(Err(finished)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new("cannot go on", "a thread of this program ended with a panic"));
            }
        }
    }
}

/// Closes a pond. That gives pushes some seconds for what they still owe, and says so if it takes long.
pub fn close(steward: &Arc<Steward>, notices: Notices) -> Result<Position, StewardError> {
    let mut wait = Wait::new(None, notices);
    let closing = steward.clone();
    let goes_on = || {
        wait.goes_on(|| {
            let version = steward.position().version;
            format!("version {version} holds everything; pushes and other factories get ten seconds for what they owe")
        })
    };
    match in_background(move || closing.close(), goes_on) {
        Ok(Ok(closed)) => closed,
        _ => steward.close(),
    }
}
