//! A version that can be written to and is thrown away.
//!
//! Writers fill memory; a thread of its own moves what they wrote into a file without a name, so that of any amount a little is in
//! memory. Nothing is committed, journaled or named.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pond_oplog::{At, Position};
use pond_tinyfs::{Errno, Error, TinyFs};

use crate::{OpenOptions, Priority, Reader, State, Status, StewardError, Uncommitted};

/// With so much written and in memory, bytes, it is moved to the file.
const SPILL: u64 = 4 << 20;

/// With so much, writers wait until some has been moved.
const FULL: u64 = 32 << 20;

/// How often those who wait look whether a file that was removed has made room.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One version of a pond, which may be changed: nobody else sees it, and it ends with this value. Opening one takes no lock and
/// writes nothing but a pin; several may be open, also of the same version and while another process writes.
pub struct Scratch {
    reader: Arc<Reader>,
    spiller: Arc<Spiller>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread that moves content out of memory shares with those who write.
struct Spiller {
    fs: Arc<TinyFs>,
    state: Mutex<Spilling>,
    /// The thread has something to do.
    wanted: Condvar,
    /// It has done something.
    ended: Condvar,
}

#[derive(Default)]
struct Spilling {
    wanted: bool,
    stopped: bool,
    /// Bytes that those bring who waited and were let in, and that may not be in the tree yet.
    admitted: u64,
    /// How many times it has moved something, or could not.
    rounds: u64,
    /// Why the last time failed.
    failure: Option<Error>,
}

impl Scratch {
    /// Opens a version to be changed. Of the options only the cache's budget and the registry matter.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::open`], and where nothing can be written in the pond's directory.
    pub fn open(pond: &Path, at: At, options: OpenOptions) -> Result<Arc<Scratch>, StewardError> {
        let reader = Reader::open(pond, at, options)?;
        let fs = reader.view().scratch(pond)?;
        let (wanted, ended) = (Condvar::new(), Condvar::new());
        let spiller = Arc::new(Spiller { fs, state: Mutex::default(), wanted, ended });
        let thread = {
            let spiller = spiller.clone();
            let failed = |error: io::Error| StewardError::io("start a thread for a scratch of", pond, error);
            let work = move || spiller.work();
            thread::Builder::new().name("pond-scratch".to_owned()).spawn(work).map_err(failed)?
        };
        Ok(Arc::new(Scratch { reader, spiller, thread: Some(thread) }))
    }

    /// `$POND`.
    pub fn pond(&self) -> &Path {
        self.reader.pond()
    }

    /// The tree.
    pub fn fs(&self) -> &Arc<TinyFs> {
        &self.spiller.fs
    }

    /// The version as which it began.
    pub fn position(&self) -> Position {
        self.reader.position()
    }

    /// The version as which it began, as it was.
    pub(crate) fn version(&self) -> &Arc<TinyFs> {
        self.reader.fs()
    }

    /// Facts and figures: of the version as which it began, of what it holds now, and of the pond as it is now.
    pub fn status(&self) -> Status {
        let bytes = self.fs().dirty_bytes();
        let mut status = self.reader.status();
        status.state = State::Scratch;
        status.nodes = self.fs().node_count();
        status.uncommitted = Uncommitted { rows: 0, bytes };
        status.memory.content = bytes;
        status
    }

    /// Whether a write may proceed now; what was written before is then on its way out of memory.
    pub fn has_room(&self) -> bool {
        self.spiller.has_room()
    }

    /// Does what brings so many bytes of content, once there is room for them.
    ///
    /// # Errors
    ///
    /// Those of `work`; and why content cannot leave memory, where it is full of that.
    pub fn when_room<T>(&self, bytes: u64, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        self.spiller.wait_for_room(bytes)?;
        let done = work();
        self.spiller.state.lock().admitted -= bytes;
        done
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.spiller.state.lock().stopped = true;
        self.spiller.wanted.notify_all();
        self.spiller.ended.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a scratch panicked");
        }
    }
}

impl Spiller {
    fn has_room(&self) -> bool {
        let content = self.fs.content_in_memory();
        if content.unspilled >= SPILL {
            self.want();
        }
        content.total() < FULL
    }

    fn want(&self) {
        let mut state = self.state.lock();
        if !state.wanted {
            state.wanted = true;
            self.wanted.notify_one();
        }
    }

    /// Waits until a write of so many bytes may proceed, and counts them as let in.
    fn wait_for_room(&self, bytes: u64) -> Result<(), Error> {
        let mut failed = None;
        loop {
            self.has_room();
            let mut state = self.state.lock();
            if state.stopped {
                return Err(Errno::ROFS.into());
            }
            if self.fs.content_in_memory().total() + state.admitted < FULL {
                state.admitted += bytes;
                return Ok(());
            }
            match &state.failure {
                // One whole attempt that began after we came has failed.
                Some(failure) if failed.is_some_and(|rounds| state.rounds > rounds + 1) => {
                    return Err(failure.clone());
                }
                Some(_) => failed = failed.or(Some(state.rounds)),
                None => failed = None,
            }
            self.ended.wait_for(&mut state, LOOK_AGAIN);
        }
    }

    fn work(&self) {
        Priority::Ordinary.take();
        loop {
            {
                let mut state = self.state.lock();
                while !state.wanted && !state.stopped {
                    self.wanted.wait(&mut state);
                }
                if state.stopped {
                    return;
                }
                state.wanted = false;
            }
            let spilled = self.fs.spill();
            if let Err(error) = &spilled {
                tracing::warn!(%error, "what was written to a scratch stays in memory");
            }
            let mut state = self.state.lock();
            state.failure = spilled.err();
            state.rounds += 1;
            self.ended.notify_all();
        }
    }
}
