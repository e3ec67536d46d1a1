//! Threads for reads that must wait, and for what is read ahead of them.
//!
//! They are not those on which writers wait for room: however many of these there are, a read finds a thread. Reads go
//! before reading ahead, which takes at most half of the threads.
//!
//! Handing a small read over takes as long as half of the read. One at a time is therefore done on the thread that took the
//! request, as long as another one is there to take requests.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use crate::service::abort::guarded;

/// So many reads wait for the disk at once.
const THREADS: usize = 16;
/// So many of the threads read ahead at once.
const AHEAD: usize = THREADS / 2;
/// Work ahead of readers that may wait for a thread; more is not done.
const WAITING: usize = 256;

type Work = Box<dyn FnOnce() + Send>;

/// Leave to wait for the disk on a session's thread; given back when it is dropped.
pub(crate) struct Here<'a>(&'a AtomicBool);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The threads. They end when this is dropped, after the reads that were asked for.
pub(crate) struct Readers {
    shared: Arc<Shared>,
    /// Taken while a session's thread waits for the disk itself; for good where the session has only one.
    here: AtomicBool,
}

#[derive(Default)]
struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
}

#[derive(Default)]
struct Queues {
    reads: VecDeque<Work>,
    ahead: VecDeque<Work>,
    /// Threads that read ahead now.
    busy_ahead: usize,
    closed: bool,
}

impl Readers {
    /// For a session of so many threads.
    pub(crate) fn start(session_threads: usize) -> io::Result<Self> {
        // Those that were started end with this if another one cannot be.
        let readers = Readers { shared: Arc::default(), here: AtomicBool::new(session_threads < 2) };
        for _ in 0..THREADS {
            let shared = readers.shared.clone();
            std::thread::Builder::new().name("pond-read".into()).spawn(move || shared.run())?;
        }
        Ok(readers)
    }

    /// Leave for the calling thread, one of the session's, to wait for the disk itself for something small.
    pub(crate) fn here(&self) -> Option<Here<'_>> {
        (!self.here.swap(true, Ordering::Acquire)).then_some(Here(&self.here))
    }

    /// Does this, which reads little, on the calling thread, one of the session's, or on one of the threads.
    pub(crate) fn read_little(&self, work: impl FnOnce() + Send + 'static) {
        match self.here() {
            Some(_here) => work(),
            None => self.read(work),
        }
    }

    /// Does this on one of the threads.
    pub(crate) fn read(&self, work: impl FnOnce() + Send + 'static) {
        self.shared.queues.lock().reads.push_back(Box::new(work));
        self.shared.work.notify_one();
    }

    /// Does this when no read waits, or never if there is too much of it.
    pub(crate) fn prefetch(&self, work: impl FnOnce() + Send + 'static) {
        let mut queues = self.shared.queues.lock();
        if queues.ahead.len() < WAITING {
            queues.ahead.push_back(Box::new(work));
            drop(queues);
            self.shared.work.notify_one();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.queues.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn run(&self) {
        let mut queues = self.queues.lock();
        loop {
            if let Some(work) = queues.reads.pop_front() {
                drop(queues);
                guarded(work);
                queues = self.queues.lock();
            } else if queues.closed {
                return;
            } else if queues.busy_ahead < AHEAD
                && let Some(work) = queues.ahead.pop_front()
            {
                queues.busy_ahead += 1;
                drop(queues);
                guarded(work);
                queues = self.queues.lock();
                queues.busy_ahead -= 1;
            } else {
                self.work.wait(&mut queues);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_read_finds_a_thread_however_much_is_read_ahead() {
        let readers = Readers::start(1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..THREADS * 2 {
            let (gate, done) = (gate.clone(), done.clone());
            readers.prefetch(move || {
                // Until the sender is gone.
                let _ = gate.lock().recv();
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let (sender, receiver) = mpsc::channel();
        readers.read(move || sender.send(()).unwrap());
        receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 0);
        drop(release);
        let start = std::time::Instant::now();
        while done.load(Ordering::SeqCst) < THREADS * 2 {
            assert!(start.elapsed() < Duration::from_secs(10), "what waits is done as threads come free");
            std::thread::yield_now();
        }
    }

    #[test]
    fn reads_asked_for_are_answered_after_the_end_is_announced() {
        let readers = Readers::start(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        for n in 0..100 {
            let sender = sender.clone();
            readers.read(move || sender.send(n).unwrap());
        }
        drop((readers, sender));
        assert_eq!(receiver.iter().count(), 100);
    }
}
