//! The threads of an open pond: those that every one has, and those of a source or of a replica.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::StewardError;
use crate::commit::drain::Drainer;
use crate::common::Common;
use crate::host::priority::Priority;
use crate::kind::Kind;
use crate::pacing::backpressure::DRAINERS;
use crate::replica::follow::Follower;
use crate::source::Source;

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

/// Those that run.
pub(crate) struct Threads {
    common: Arc<Common>,
    kind: Kind,
    /// The committer and the drainers.
    storing: Vec<JoinHandle<()>>,
    journal: Option<JoinHandle<()>>,
    /// Those that merge, prune and clean.
    upkeep: Vec<JoinHandle<()>>,
    housekeeper: Option<JoinHandle<()>>,
    post_commit: Option<JoinHandle<()>>,
    follower: Option<JoinHandle<()>>,
}

impl Threads {
    /// Starts the threads; where one cannot be started, those before it are ended again. `follow` says whether a replica brings
    /// versions in by itself.
    pub(crate) fn start(
        common: Arc<Common>,
        kind: Kind,
        follow: bool,
        spawn: &mut Spawn<'_>,
    ) -> Result<Threads, StewardError> {
        let mut threads = Threads {
            common,
            kind,
            storing: Vec::new(),
            journal: None,
            upkeep: Vec::new(),
            housekeeper: None,
            post_commit: None,
            follower: None,
        };
        let started = match threads.kind.clone() {
            Kind::Source(source) => threads.start_source(&source, spawn),
            Kind::Replica(following) => threads.start_replica(&following.follower, follow, spawn),
        };
        if let Err(error) = started {
            if let Err(error) = threads.end_following() {
                tracing::error!(%error, "opening");
            }
            threads.end_post_commit();
            threads.end_journal();
            threads.end_rest();
            return Err(StewardError::io("start the threads of", &threads.common.pond, error));
        }
        Ok(threads)
    }

    fn start_source(&mut self, source: &Arc<Source>, spawn: &mut Spawn<'_>) -> io::Result<()> {
        let committer = source.committer.clone();
        self.storing.push(spawn("pond-commit", Box::new(move || committer.run()))?);
        let fsync = source.fsync.clone();
        self.journal = Some(spawn("pond-journal", at(Priority::Prompt, move || fsync.run()))?);
        for _ in 0..DRAINERS {
            let drainer = Drainer::new(source.committer.clone());
            self.storing.push(spawn("pond-drain", at(Priority::Aside, move || drainer.run()))?);
        }
        let committer = source.committer.clone();
        self.start_housekeeper(move || committer.disk().restore_reserve(), spawn)?;
        if self.common.maintained {
            let maintenance = source.maintenance.clone();
            let merges = at(Priority::Aside, move || maintenance.merger.run());
            self.upkeep.push(spawn("pond-merge", merges)?);
            let maintenance = source.maintenance.clone();
            let cleaning = at(Priority::Aside, move || maintenance.run_cleaning());
            self.upkeep.push(spawn("pond-clean", cleaning)?);
        }
        self.start_factories(spawn)
    }

    fn start_replica(
        &mut self,
        follower: &Arc<Follower>,
        follow: bool,
        spawn: &mut Spawn<'_>,
    ) -> io::Result<()> {
        self.start_housekeeper(|| {}, spawn)?;
        if follow && self.common.maintained {
            let cleaner = self.common.cleaner.clone();
            self.upkeep.push(spawn("pond-clean", at(Priority::Aside, move || cleaner.run()))?);
        }
        self.start_factories(spawn)?;
        if follow {
            let follower = follower.clone();
            self.follower = Some(spawn("pond-follow", Box::new(move || follower.run()))?);
        }
        Ok(())
    }

    fn start_housekeeper(
        &mut self,
        each_period: impl Fn() + Send + 'static,
        spawn: &mut Spawn<'_>,
    ) -> io::Result<()> {
        let common = self.common.clone();
        let body = move || common.housekeeper.run(&common.oplog, &common.control, &each_period);
        self.housekeeper = Some(spawn("pond-housekeeper", Box::new(body))?);
        Ok(())
    }

    fn start_factories(&mut self, spawn: &mut Spawn<'_>) -> io::Result<()> {
        if self.common.factories_run {
            let post_commit = self.common.post_commit.clone();
            self.post_commit = Some(spawn("pond-factories", Box::new(move || post_commit.run()))?);
        }
        Ok(())
    }

    /// Ends following. A pull can be broken off at any point and owes nothing.
    ///
    /// # Errors
    ///
    /// [`StewardError::StillPulling`] if it did not end, and so may still write to the pond.
    pub(crate) fn end_following(&mut self) -> Result<(), StewardError> {
        let Kind::Replica(following) = &self.kind else { return Ok(()) };
        if !following.follower.stop(CLOSE_GRACE) {
            return Err(StewardError::StillPulling {
                pond: self.common.pond.clone(),
                seconds: CLOSE_GRACE.as_secs(),
            });
        }
        join(self.follower.take());
        Ok(())
    }

    /// Ends post-commit work, which gets some seconds for what it still owes.
    pub(crate) fn end_post_commit(&mut self) {
        let post_commit = &self.common.post_commit;
        let progress = &post_commit.nodes.progress;
        if let Some(thread) = self.post_commit.take() {
            let ended = progress.finish(CLOSE_GRACE) || {
                post_commit.pond.stop();
                progress.finish(STOP_GRACE)
            };
            match ended {
                true => join(Some(thread)),
                false => tracing::warn!(
                    "a factory is still running; it is left behind, and what it owes is done at the next mount"
                ),
            }
        }
        post_commit.pond.stop();
    }

    /// Ends the journal's thread, once all who waited are answered.
    pub(crate) fn end_journal(&mut self) {
        if let Kind::Source(source) = &self.kind {
            source.fsync.stop();
        }
        join(self.journal.take());
    }

    /// Ends maintenance, which makes versions.
    pub(crate) fn end_maintenance(&mut self) {
        match &self.kind {
            Kind::Source(source) => source.maintenance.stop(),
            Kind::Replica(_) => self.common.cleaner.stop(),
        }
        self.upkeep.drain(..).for_each(|thread| join(Some(thread)));
    }

    /// Ends those that store, and the housekeeper.
    pub(crate) fn end_rest(&mut self) {
        self.end_maintenance();
        if let Kind::Source(source) = &self.kind {
            source.committer.stop();
        }
        self.storing.drain(..).for_each(|thread| join(Some(thread)));
        self.common.housekeeper.stop();
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
    use crate::control::keys::ROLE_KEY;
    use crate::control::table::Control;
    use crate::host::lock::WriterLock;
    use crate::{OpenOptions, Role, Steward, init};
    use parking_lot::Mutex;

    #[test]
    fn a_replica_has_no_threads_that_would_store() {
        let pond = tempfile::tempdir().unwrap();
        init::init(pond.path()).unwrap();
        let control = Control::open(pond.path(), true).unwrap();
        control.set(ROLE_KEY, Role::Replica.setting()).unwrap();
        let steward = Steward::open_replica(pond.path(), OpenOptions::default(), control).unwrap();
        let mut names = Vec::new();
        let mut noted = |name: &str, body: Box<dyn FnOnce() + Send>| {
            names.push(name.to_owned());
            spawn(name, body)
        };
        let mut threads =
            Threads::start(steward.common.clone(), steward.kind.clone(), true, &mut noted).unwrap();
        threads.end_following().unwrap();
        threads.end_post_commit();
        threads.end_rest();
        assert_eq!(names, ["pond-housekeeper", "pond-clean", "pond-factories", "pond-follow"]);
    }

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
            match Threads::start(steward.common.clone(), steward.kind.clone(), true, &mut limited) {
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
