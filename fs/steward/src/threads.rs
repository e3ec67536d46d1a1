//! The threads of an open pond.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::commit::drain::Drainer;
use crate::host::priority::Priority;
use crate::pacing::backpressure::DRAINERS;
use crate::{Steward, StewardError};

/// How long closing waits for post-commit work that is under way, and for a pull.
const CLOSE_GRACE: Duration = Duration::from_secs(10);

/// How long it then waits for those that were told to break off.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Starts a thread of this name.
pub(crate) type Spawn<'a> =
    dyn FnMut(&str, Box<dyn FnOnce() + Send + 'static>) -> io::Result<JoinHandle<()>> + 'a;

/// As [`Spawn`], really.
pub(crate) fn spawn(name: &str, body: Box<dyn FnOnce() + Send + 'static>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// A thread's body at this priority.
fn at(priority: Priority, body: impl FnOnce() + Send + 'static) -> Box<dyn FnOnce() + Send> {
    Box::new(move || {
        priority.take();
        body();
    })
}

/// Those that run. A replica has no use for the first three and for merging, and a source not for the last.
#[derive(Default)]
pub(crate) struct Threads {
    committer: Option<JoinHandle<()>>,
    drainers: Vec<JoinHandle<()>>,
    fsync: Option<JoinHandle<()>>,
    housekeeper: Option<JoinHandle<()>>,
    merges: Option<JoinHandle<()>>,
    cleaning: Option<JoinHandle<()>>,
    post_commit: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
}

impl Steward {
    /// Starts the threads; where one cannot be started, those before it are ended again.
    pub(crate) fn start(&self, follow: bool, spawn: &mut Spawn<'_>) -> Result<Threads, StewardError> {
        let mut threads = Threads::default();
        let started = self.start_each(&mut threads, follow, spawn);
        if let Err(error) = started {
            if let Err(error) = self.end_following(&mut threads) {
                tracing::error!(%error, "opening");
            }
            self.end_post_commit(&mut threads);
            self.end_journal(&mut threads);
            self.end_rest(&mut threads);
            return Err(StewardError::io("start the threads of", &self.pond, error));
        }
        Ok(threads)
    }

    fn start_each(&self, threads: &mut Threads, follow: bool, spawn: &mut Spawn<'_>) -> io::Result<()> {
        match &self.follower {
            None => {
                let (committer, fsync) = (self.committer.clone(), self.fsync.clone());
                threads.committer = Some(spawn("pond-commit", Box::new(move || committer.run()))?);
                threads.fsync = Some(spawn("pond-journal", at(Priority::Prompt, move || fsync.run()))?);
                for _ in 0..DRAINERS {
                    let drainer = Drainer::new(self.committer.clone());
                    threads.drainers.push(spawn("pond-drain", at(Priority::Aside, move || drainer.run()))?);
                }
            }
            // Nothing is ever uncommitted there; who asked for a commit all the same must not wait for ever.
            Some(_) => self.committer.stop(),
        }
        let (housekeeper, oplog, control, committer) =
            (self.housekeeper.clone(), self.oplog.clone(), self.control.clone(), self.committer.clone());
        let body = move || housekeeper.run(&oplog, &control, &committer);
        threads.housekeeper = Some(spawn("pond-housekeeper", Box::new(body))?);
        if self.follower.is_none() && self.maintained {
            let maintenance = self.maintenance.clone();
            threads.merges =
                Some(spawn("pond-merge", at(Priority::Aside, move || maintenance.run_merges()))?);
            let maintenance = self.maintenance.clone();
            threads.cleaning =
                Some(spawn("pond-clean", at(Priority::Aside, move || maintenance.run_cleaning(false)))?);
        }
        if self.follower.is_some() && follow && self.maintained {
            let maintenance = self.maintenance.clone();
            threads.cleaning =
                Some(spawn("pond-clean", at(Priority::Aside, move || maintenance.run_cleaning(true)))?);
        }
        if self.factories_run {
            let post_commit = self.post_commit.clone();
            threads.post_commit = Some(spawn("pond-factories", Box::new(move || post_commit.run()))?);
        }
        if let (Some(follower), true) = (&self.follower, follow) {
            let follower = follower.clone();
            threads.follower = Some(spawn("pond-follow", Box::new(move || follower.run()))?);
        }
        Ok(())
    }

    /// Ends following. A pull can be broken off at any point and owes nothing.
    ///
    /// # Errors
    ///
    /// [`StewardError::StillPulling`] if it did not end, and so may still write to the pond.
    pub(crate) fn end_following(&self, threads: &mut Threads) -> Result<(), StewardError> {
        let Some(follower) = &self.follower else { return Ok(()) };
        if !follower.stop(CLOSE_GRACE) {
            return Err(StewardError::StillPulling {
                pond: self.pond.clone(),
                seconds: CLOSE_GRACE.as_secs(),
            });
        }
        join(threads.follower.take());
        Ok(())
    }

    /// Ends post-commit work, which gets some seconds for what it still owes.
    pub(crate) fn end_post_commit(&self, threads: &mut Threads) {
        let progress = &self.post_commit.nodes.progress;
        if let Some(thread) = threads.post_commit.take() {
            let ended = progress.finish(CLOSE_GRACE) || {
                self.post_commit.pond.stop();
                progress.finish(STOP_GRACE)
            };
            match ended {
                true => join(Some(thread)),
                false => tracing::warn!(
                    "a factory is still running; it is left behind, and what it owes is done at the next mount"
                ),
            }
        }
        self.post_commit.pond.stop();
    }

    /// Ends the journal's thread, once all who waited are answered.
    pub(crate) fn end_journal(&self, threads: &mut Threads) {
        self.fsync.stop();
        join(threads.fsync.take());
    }

    /// Ends maintenance, which makes versions.
    pub(crate) fn end_maintenance(&self, threads: &mut Threads) {
        self.maintenance.stop();
        join(threads.merges.take());
        join(threads.cleaning.take());
    }

    /// Ends the committer and the housekeeper.
    pub(crate) fn end_rest(&self, threads: &mut Threads) {
        self.end_maintenance(threads);
        self.committer.stop();
        join(threads.committer.take());
        threads.drainers.drain(..).for_each(|drainer| join(Some(drainer)));
        self.housekeeper.stop();
        join(threads.housekeeper.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    let Some(thread) = thread else { return };
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(name, "a thread ended with a panic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::table::Control;
    use crate::host::lock::WriterLock;
    use crate::{OpenOptions, init};
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[test]
    fn where_a_thread_cannot_be_started_those_before_it_are_ended() {
        let pond = tempfile::tempdir().unwrap();
        init::init(pond.path()).unwrap();
        for allowed in 0..9 {
            let running = Arc::new(Mutex::new(Vec::new()));
            let mut started = 0;
            let mut limited = |name: &str, body: Box<dyn FnOnce() + Send>| {
                if started == allowed {
                    return Err(io::Error::from_raw_os_error(libc::EAGAIN));
                }
                started += 1;
                running.lock().push(name.to_owned());
                let (running, of) = (running.clone(), name.to_owned());
                let body = move || {
                    body();
                    running.lock().retain(|name| *name != of);
                };
                spawn(name, Box::new(body))
            };
            let lock = WriterLock::acquire(pond.path(), None).unwrap();
            let control = Control::open(pond.path(), true).unwrap();
            let steward = Steward::open_source(pond.path(), OpenOptions::default(), control).unwrap();
            match steward.start(true, &mut limited) {
                Ok(mut threads) => {
                    assert_eq!(allowed, 8, "a source has eight threads");
                    steward.end_post_commit(&mut threads);
                    steward.end_journal(&mut threads);
                    steward.end_rest(&mut threads);
                }
                Err(error) => assert_eq!(error.errno(), libc::EAGAIN),
            }
            assert_eq!(started, allowed);
            assert_eq!(*running.lock(), [""; 0]);
            drop(lock);
        }
        // Nothing of it is in the way of the next attempt.
        Steward::open(pond.path(), OpenOptions::default()).unwrap().close().unwrap();
    }
}
