//! Following: on a replica one thread has a factory bring versions in, at its interval.
//!
//! A run that fails leaves what is shown as it was, and is repeated at growing intervals. One run at a time: `sync`
//! and the thread wait for each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::control::keys::REMOTE_CONFIG_KEY;
use crate::factories::nodes::{FactoryNode, system_nodes};
use crate::factories::runner::{Runner, run_factory};
use crate::host::end_process::EndProcessOnPanic;
use crate::{Factory, FactoryContext, FactoryError, Replica, StewardError, VersionSource};
use pond_tinyfs::Advise;

/// A failed run is repeated after this, where the factory has no interval of its own.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// The longest time between two attempts of a run that keeps failing, where the interval is not longer.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// Brings versions in. One thread [`run`](Self::run)s it; any may ask it.
pub(crate) struct Follower {
    pub(crate) replica: Replica,
    post_commit: Arc<Runner>,
    /// Held by a run.
    pulling: Mutex<()>,
    schedule: Mutex<Schedule>,
    wanted: Condvar,
}

struct Schedule {
    stop: bool,
    /// When the thread pulls next; `None` if it waits to be asked.
    due: Option<Instant>,
    /// The pauses to come, after a failure.
    retry: Option<ExponentialBackoff>,
}

impl Follower {
    pub(crate) fn new(replica: Replica, post_commit: Arc<Runner>) -> Self {
        Follower {
            replica,
            post_commit,
            pulling: Mutex::default(),
            schedule: Mutex::new(Schedule { stop: false, due: Some(Instant::now()), retry: None }),
            wanted: Condvar::new(),
        }
    }

    /// The thread. Ends after [`stop`](Self::stop).
    pub(crate) fn run(&self) {
        let _no_silent_end = EndProcessOnPanic("following the source");
        while self.wait_until_due() {
            if let Err(error) = self.pull()
                && !self.replica.stopping()
            {
                tracing::warn!(%error, "could not bring new versions in; it is tried again");
            }
        }
    }

    fn wait_until_due(&self) -> bool {
        let mut schedule = self.schedule.lock();
        loop {
            if schedule.stop {
                return false;
            }
            match schedule.due {
                Some(due) if due <= Instant::now() => return true,
                Some(due) => {
                    self.wanted.wait_until(&mut schedule, due);
                }
                None => self.wanted.wait(&mut schedule),
            }
        }
    }

    /// Ends the thread. False if a run did not end within `grace`.
    pub(crate) fn stop(&self, grace: Duration) -> bool {
        self.schedule.lock().stop = true;
        self.wanted.notify_all();
        self.replica.stop();
        self.pulling.try_lock_for(grace).is_some()
    }

    /// Brings in what there is, now; what the factory said.
    pub(crate) fn pull(&self) -> Result<String, StewardError> {
        let _one_at_a_time = self.pulling.lock();
        let started = Instant::now();
        let (node, interval) = match self.node() {
            Ok(found) => found,
            Err(reason) => {
                let name = self.source().map_or("", |(name, _)| name);
                let node = FactoryNode::new(REMOTE_CONFIG_KEY, name, Bytes::new());
                self.note(started, None, &Err(&reason));
                return Err(failed(&node, reason));
            }
        };
        let result = self.run_once(&node, &[])?;
        self.note(started, interval, &result.as_ref().map(drop));
        result.map_err(|reason| failed(&node, reason))
    }

    /// Runs a node of the factory with arguments of its own, in place of a pull.
    pub(crate) fn run_node(&self, node: &FactoryNode, args: &[String]) -> Result<String, StewardError> {
        let _one_at_a_time = self.pulling.lock();
        self.run_once(node, args)?.map_err(|reason| failed(node, reason))
    }

    fn run_once(
        &self,
        node: &FactoryNode,
        args: &[String],
    ) -> Result<Result<String, FactoryError>, StewardError> {
        if self.replica.stopping() {
            return Err(StewardError::Closed);
        }
        let mode = self.post_commit.nodes.control.factory_mode(&node.factory);
        let context = FactoryContext {
            factory: &node.factory,
            mode: mode.as_deref().unwrap_or("pull"),
            args,
            configuration: &node.configuration,
            path: &node.path,
            commits: None,
            pond: &self.post_commit.pond,
        };
        let pull = |factory: &dyn Factory| match factory.version_source() {
            Some(source) => source.pull(&context, &self.replica),
            None => Err(FactoryError::new(format!("{} brings no versions in", factory.name()))),
        };
        Ok(run_factory(&self.post_commit.nodes.registry, &context, pull))
    }

    /// The factory that brings versions in, and its name.
    fn source(&self) -> Result<(&str, &dyn VersionSource), FactoryError> {
        let source = self.post_commit.nodes.registry.version_source();
        source.ok_or_else(|| FactoryError::new("this program knows no factory that brings versions in"))
    }

    /// Takes note of how a run went, and decides when the next one is due.
    fn note(&self, started: Instant, interval: Option<Duration>, result: &Result<(), &FactoryError>) {
        // What it was told to break off has not failed.
        if let Err(reason) = result
            && !self.replica.stopping()
        {
            self.replica.failed(reason.in_full());
        }
        let mut schedule = self.schedule.lock();
        schedule.due = match result {
            Ok(()) => {
                schedule.retry = None;
                interval.map(|interval| started + interval)
            }
            Err(_) => {
                let retry = schedule.retry.get_or_insert_with(|| pauses(interval));
                Some(Instant::now() + retry.next().unwrap_or(LONGEST_RETRY))
            }
        };
        drop(schedule);
        // Somebody else may have pulled while the thread was waiting.
        self.wanted.notify_all();
    }

    /// What is followed, and how often: the stored configuration or, where the settings were lost, the first remote of the pond.
    fn node(&self) -> Result<(FactoryNode, Option<Duration>), FactoryError> {
        let nodes = &self.post_commit.nodes;
        let (name, source) = self.source()?;
        let node = match nodes.control.get(REMOTE_CONFIG_KEY) {
            Some(configuration) => FactoryNode::new(REMOTE_CONFIG_KEY, name, configuration.into()),
            None => {
                let found = system_nodes(&nodes.fs).map_err(FactoryError::because)?;
                found.into_iter().find(|node| node.factory == name).ok_or_else(|| {
                    FactoryError::new(format!(
                        "this replica does not know what to follow: there is no setting {REMOTE_CONFIG_KEY} and no node of \
                         the factory {name}"
                    ))
                    .advise(format!(
                        "store the YAML of its backup with `pond control set {REMOTE_CONFIG_KEY} \"$(cat remote.yaml)\"`"
                    ))
                })?
            }
        };
        let interval = source.interval(&node.configuration)?;
        Ok((node, interval))
    }
}

fn failed(node: &FactoryNode, reason: FactoryError) -> StewardError {
    StewardError::FactoryFailed { path: node.path.clone(), factory: node.factory.clone(), reason }
}

/// Growing pauses, so that many replicas do not all ask a store again at the moment at which it is back.
fn pauses(interval: Option<Duration>) -> ExponentialBackoff {
    let first = interval.unwrap_or(DEFAULT_RETRY).max(Duration::from_millis(10));
    ExponentialBuilder::default()
        .with_min_delay(first)
        .with_max_delay(LONGEST_RETRY.max(first))
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_never_end() {
        let first = Duration::from_millis(200);
        let pauses: Vec<Duration> = pauses(Some(first)).take(40).collect();
        assert_eq!(pauses.len(), 40);
        assert!(pauses[0] >= first && pauses[0] <= 2 * first);
        assert!(pauses.iter().all(|pause| *pause <= 2 * LONGEST_RETRY));
        assert!(pauses[39] >= LONGEST_RETRY);
        let hour = Duration::from_secs(3600);
        assert!(super::pauses(Some(hour)).take(10).all(|pause| pause >= hour && pause <= 2 * hour));
    }
}
