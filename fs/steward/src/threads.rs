//! The threads of an open pond.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pond_oplog::OpLog;

use crate::StewardError;
use crate::commit::committer::Committer;
use crate::commit::drain::Drainer;
use crate::commit::fsync::Fsync;
use crate::control::table::Control;
use crate::factories::runner::Runner;
use crate::host::priority::Priority;
use crate::pacing::backpressure::DRAINERS;
use crate::replica::follow::Follower;
use crate::upkeep::housekeeper::Housekeeper;
use crate::upkeep::maintenance::Maintenance;

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

/// What the threads work with. A replica has a follower, and has no use for the committer, the journal and merging.
pub(crate) struct Work {
    pub(crate) pond: PathBuf,
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) control: Arc<Control>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) fsync: Arc<Fsync>,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) maintenance: Arc<Maintenance>,
    /// Whether it runs in the background.
    pub(crate) maintained: bool,
    pub(crate) post_commit: Arc<Runner>,
    /// Whether factories run after commits.
    pub(crate) factories_run: bool,
    pub(crate) follower: Option<Arc<Follower>>,
}

/// Those that run.
pub(crate) struct Threads {
    work: Work,
    committer: Option<JoinHandle<()>>,
    drainers: Vec<JoinHandle<()>>,
    fsync: Option<JoinHandle<()>>,
    housekeeper: Option<JoinHandle<()>>,
    merges: Option<JoinHandle<()>>,
    cleaning: Option<JoinHandle<()>>,
    post_commit: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
}

impl Threads {
    fn none(work: Work) -> Self {
        Threads {
            work,
            committer: None,
            drainers: Vec::new(),
            fsync: None,
            housekeeper: None,
            merges: None,
            cleaning: None,
            post_commit: None,
            follower: None,
        }
    }

    /// Starts the threads; where one cannot be started, those before it are ended again.
    pub(crate) fn start(work: Work, follow: bool, spawn: &mut Spawn<'_>) -> Result<Threads, StewardError> {
        let mut threads = Threads::none(work);
        let started = threads.start_each(follow, spawn);
        if let Err(error) = started {
            if let Err(error) = threads.end_following() {
                tracing::error!(%error, "opening");
            }
            threads.end_post_commit();
            threads.end_journal();
            threads.end_rest();
            return Err(StewardError::io("start the threads of", &threads.work.pond, error));
        }
        Ok(threads)
    }

    fn start_each(&mut self, follow: bool, spawn: &mut Spawn<'_>) -> io::Result<()> {
        match &self.work.follower {
            None => {
                let (committer, fsync) = (self.work.committer.clone(), self.work.fsync.clone());
                self.committer = Some(spawn("pond-commit", Box::new(move || committer.run()))?);
                self.fsync = Some(spawn("pond-journal", at(Priority::Prompt, move || fsync.run()))?);
                for _ in 0..DRAINERS {
                    let drainer = Drainer::new(self.work.committer.clone());
                    self.drainers.push(spawn("pond-drain", at(Priority::Aside, move || drainer.run()))?);
                }
            }
            // Nothing is ever uncommitted there; who asked for a commit all the same must not wait for ever.
            Some(_) => self.work.committer.stop(),
        }
        let (housekeeper, oplog, control, committer) = (
            self.work.housekeeper.clone(),
            self.work.oplog.clone(),
            self.work.control.clone(),
            self.work.committer.clone(),
        );
        let body = move || housekeeper.run(&oplog, &control, &committer);
        self.housekeeper = Some(spawn("pond-housekeeper", Box::new(body))?);
        if self.work.follower.is_none() && self.work.maintained {
            let maintenance = self.work.maintenance.clone();
            self.merges = Some(spawn("pond-merge", at(Priority::Aside, move || maintenance.run_merges()))?);
            let maintenance = self.work.maintenance.clone();
            self.cleaning =
                Some(spawn("pond-clean", at(Priority::Aside, move || maintenance.run_cleaning(false)))?);
        }
        if self.work.follower.is_some() && follow && self.work.maintained {
            let maintenance = self.work.maintenance.clone();
            self.cleaning =
                Some(spawn("pond-clean", at(Priority::Aside, move || maintenance.run_cleaning(true)))?);
        }
        if self.work.factories_run {
            let post_commit = self.work.post_commit.clone();
            self.post_commit = Some(spawn("pond-factories", Box::new(move || post_commit.run()))?);
        }
        if let (Some(follower), true) = (&self.work.follower, follow) {
            let follower = follower.clone();
            self.follower = Some(spawn("pond-follow", Box::new(move || follower.run()))?);
        }
        Ok(())
    }

    /// Ends following. A pull can be broken off at any point and owes nothing.
    ///
    /// # Errors
    ///
    /// [`StewardError::StillPulling`] if it did not end, and so may still write to the pond.
    pub(crate) fn end_following(&mut self) -> Result<(), StewardError> {
        let Some(follower) = &self.work.follower else { return Ok(()) };
        if !follower.stop(CLOSE_GRACE) {
            return Err(StewardError::StillPulling {
                pond: self.work.pond.clone(),
                seconds: CLOSE_GRACE.as_secs(),
            });
        }
        join(self.follower.take());
        Ok(())
    }

    /// Ends post-commit work, which gets some seconds for what it still owes.
    pub(crate) fn end_post_commit(&mut self) {
        let progress = &self.work.post_commit.nodes.progress;
        if let Some(thread) = self.post_commit.take() {
            let ended = progress.finish(CLOSE_GRACE) || {
                self.work.post_commit.pond.stop();
                progress.finish(STOP_GRACE)
            };
            match ended {
                true => join(Some(thread)),
                false => tracing::warn!(
                    "a factory is still running; it is left behind, and what it owes is done at the next mount"
                ),
            }
        }
        self.work.post_commit.pond.stop();
    }

    /// Ends the journal's thread, once all who waited are answered.
    pub(crate) fn end_journal(&mut self) {
        self.work.fsync.stop();
        join(self.fsync.take());
    }

    /// Ends maintenance, which makes versions.
    pub(crate) fn end_maintenance(&mut self) {
        self.work.maintenance.stop();
        join(self.merges.take());
        join(self.cleaning.take());
    }

    /// Ends the committer and the housekeeper.
    pub(crate) fn end_rest(&mut self) {
        self.end_maintenance();
        self.work.committer.stop();
        join(self.committer.take());
        self.drainers.drain(..).for_each(|drainer| join(Some(drainer)));
        self.work.housekeeper.stop();
        join(self.housekeeper.take());
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
    use crate::host::lock::WriterLock;
    use crate::{OpenOptions, Steward, init};
    use parking_lot::Mutex;

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
            match Threads::start(steward.work(), true, &mut limited) {
                Ok(mut threads) => {
                    assert_eq!(allowed, 8, "a source has eight threads");
                    threads.end_post_commit();
                    threads.end_journal();
                    threads.end_rest();
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
