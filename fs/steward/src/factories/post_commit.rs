//! Post-commit work: the nodes under `/etc/system.d/` run after each commit, in name order, off the commit path.
//!
//! One that is behind handles all it missed in one run. A failure is recorded and the run repeated later; it never
//! fails the commit. What a factory writes is itself a commit, which does not start the writing factories again, but
//! does start those that do not write, such as a push.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use pond_oplog::Version;
use pond_tinyfs::{Errno, Error, FileType, NodeId, TinyFs};

use crate::control::row::{ControlRow, Event};
use crate::control::table::{Control, TIMELINE_KEY};
use crate::factories::factory::REMOTE;
use crate::factories::host_path::refuse_own;
use crate::factories::pond::FactoryPond;
use crate::factories::progress::{Pass, Progress};
use crate::host::end_process::EndProcessOnPanic;
use crate::upkeep::housekeeper::Housekeeper;
use crate::{FactoryContext, FactoryError, FactoryStatus, Registry, Role, StewardError};

/// Nodes in this directory run after each commit.
pub(crate) const SYSTEM_DIRECTORY: &str = "/etc/system.d";

/// A factory's node.
#[derive(Clone, Debug)]
pub(crate) struct FactoryNode {
    pub(crate) id: NodeId,
    pub(crate) path: String,
    pub(crate) factory: String,
    pub(crate) configuration: Bytes,
}

impl FactoryNode {
    /// One that is not in the tree.
    pub(crate) fn new(path: &str, factory: &str, configuration: Bytes) -> Self {
        FactoryNode { id: NodeId::ROOT, path: path.to_owned(), factory: factory.to_owned(), configuration }
    }
}

/// Runs factories. One thread [`run`](Self::run)s it.
pub(crate) struct PostCommit {
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) control: Arc<Control>,
    pub(crate) registry: Registry,
    pub(crate) progress: Arc<Progress>,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) pond: FactoryPond,
    /// One factory runs at a time.
    pub(crate) running: Mutex<()>,
}

impl PostCommit {
    /// The post-commit thread.
    pub(crate) fn run(&self) {
        // Those who wait for a pass would wait for ever.
        let _no_silent_end = EndProcessOnPanic("post-commit work");
        while let Some(pass) = self.progress.next_pass() {
            let nodes = self.pass(&pass);
            self.progress.passed(&pass, &nodes);
        }
    }

    /// Runs what is due; the nodes that there are.
    fn pass(&self, pass: &Pass) -> Vec<NodeId> {
        // A node is tried once for each goal, and a writing one once in all.
        let mut tried: HashMap<NodeId, Version> = HashMap::new();
        loop {
            let nodes = match self.nodes() {
                Ok(nodes) => nodes,
                Err(error) => {
                    tracing::error!(%error, "could not list {SYSTEM_DIRECTORY}");
                    return Vec::new();
                }
            };
            let before = self.progress.tip();
            let due: Vec<&FactoryNode> =
                nodes.iter().filter(|node| self.is_due(node, pass, &tried)).collect();
            for node in &due {
                self.record(Event::PostCommitPending, node, Some(before.version), None);
            }
            for node in due {
                let writes = self.writes(node);
                tried.insert(node.id, if writes { Version(u64::MAX) } else { self.progress.tip().version });
                // The failure is recorded, and the run repeated later.
                if let Err(error) = self.run_node(node, &[]) {
                    tracing::warn!(path = node.path, factory = node.factory, %error, "post-commit work failed");
                }
                if writes && let Err(error) = self.pond.commit() {
                    tracing::warn!(path = node.path, %error, "what the factory wrote is not yet committed");
                }
            }
            // A push follows the last commit, also where a factory made it.
            if self.progress.tip() == before {
                return nodes.iter().map(|node| node.id).collect();
            }
        }
    }

    /// The nodes that run after a commit. A replica's remotes do not: its follower brings versions in.
    fn nodes(&self) -> Result<Vec<FactoryNode>, StewardError> {
        let mut nodes = system_nodes(&self.fs)?;
        if self.control.role() == Role::Replica {
            nodes.retain(|node| node.factory != REMOTE);
        }
        Ok(nodes)
    }

    fn is_due(&self, node: &FactoryNode, pass: &Pass, tried: &HashMap<NodeId, Version>) -> bool {
        let goal = self.goal(node);
        let work = self.progress.work(node.id, || self.control.watermark(node.id));
        let resting = work.retry_at.is_some_and(|retry_at| std::time::Instant::now() < retry_at);
        work.owed(goal).is_some()
            && tried.get(&node.id).is_none_or(|&tried| tried < goal)
            && (pass.asked_for || !resting)
            && self.mode(&node.factory).is_some()
    }

    /// The mode in which a factory runs now; `None` if it does not.
    fn mode(&self, factory: &str) -> Option<String> {
        // Until a promoted pond has a version on its own timeline, a push would take it for the pond that it
        // superseded.
        let pending = || factory == REMOTE && self.pending_timeline().is_some();
        self.control.factory_mode(factory).filter(|_| !pending())
    }

    /// The timeline that the pond was promoted to, as long as it has no version there.
    fn pending_timeline(&self) -> Option<u64> {
        let timeline = self.control.get(TIMELINE_KEY).and_then(|timeline| timeline.parse::<u64>().ok());
        timeline.filter(|timeline| self.pond.oplog.position().timeline < *timeline)
    }

    fn writes(&self, node: &FactoryNode) -> bool {
        self.registry.get(&node.factory).is_ok_and(|factory| factory.writes())
    }

    /// The version up to which a node should have done its work.
    fn goal(&self, node: &FactoryNode) -> Version {
        let tip = self.progress.tip();
        if self.writes(node) { tip.others } else { tip.version }
    }

    /// Runs a node now.
    pub(crate) fn run_node(&self, node: &FactoryNode, args: &[String]) -> Result<String, StewardError> {
        let _one_at_a_time = self.running.lock();
        let mode = self.mode(&node.factory).ok_or_else(|| {
            let factory = node.factory.clone();
            match self.pending_timeline().filter(|_| self.control.role() == Role::Source) {
                Some(timeline) => StewardError::TimelinePending { factory, timeline },
                None => StewardError::NotOnAReplica { factory },
            }
        })?;
        let work = self.progress.work(node.id, || self.control.watermark(node.id));
        let goal = self.progress.tip().version;
        self.record(Event::PostCommitStarted, node, Some(goal), None);
        self.progress.started(node.id);
        let context = FactoryContext {
            factory: &node.factory,
            mode: &mode,
            args,
            configuration: &node.configuration,
            path: &node.path,
            commits: work.owed(goal),
            pond: &self.pond,
            replica: None,
        };
        match run_factory(&self.registry, &node.factory, &context) {
            Ok(message) => {
                // With arguments it was asked for something of its own.
                let watermark = args.is_empty().then_some(goal);
                self.progress.succeeded(node.id, watermark, &message);
                self.record(Event::PostCommitCompleted, node, watermark, Some(message.clone()));
                Ok(message)
            }
            Err(reason) => {
                self.progress.failed(node.id, &reason.to_string());
                self.record(Event::PostCommitFailed, node, Some(goal), Some(reason.to_string()));
                self.housekeeper.flush_soon();
                Err(StewardError::FactoryFailed {
                    path: node.path.clone(),
                    factory: node.factory.clone(),
                    reason,
                })
            }
        }
    }

    fn record(&self, event: Event, node: &FactoryNode, version: Option<Version>, value: Option<String>) {
        let txn_seq = self.progress.tip().txn_seq;
        self.control.record(ControlRow::post_commit(event, (node.id, &node.path), (txn_seq, version), value));
    }

    /// How the nodes under `/etc/system.d/` fare, in the order in which they run.
    pub(crate) fn status(&self) -> Result<Vec<FactoryStatus>, StewardError> {
        let status = |node: FactoryNode| {
            let work = self.progress.work(node.id, || self.control.watermark(node.id));
            let behind = work.owed(self.goal(&node)).map_or(0, |owed| owed.end().0 - owed.start().0 + 1);
            // What nobody has run since the pond was opened fares as the last one left it.
            let before = work.message.is_none().then(|| self.control.outcome(node.id)).flatten();
            let (failed, message) = before.unwrap_or_default();
            FactoryStatus {
                mode: self.mode(&node.factory),
                path: node.path,
                factory: node.factory,
                watermark: work.watermark,
                behind,
                last_message: work.message.or(message),
                failed: work.failures > 0 || (failed && behind > 0),
                running_ms: work.running.map(|since| since.elapsed().as_millis() as u64),
            }
        };
        Ok(self.nodes()?.into_iter().map(status).collect())
    }
}

/// Runs a factory; a panic is its failure.
pub(crate) fn run_factory(
    registry: &Registry,
    factory: &str,
    context: &FactoryContext<'_>,
) -> Result<String, FactoryError> {
    let factory = registry.get(factory).map_err(|error| FactoryError::new(error.to_string()))?;
    caught(|| {
        // A mount, or a link, may be another since the node was made.
        for path in factory.writes_to(context.configuration)? {
            refuse_own(context.pond.path(), &path)?;
        }
        factory.run(context)
    })
}

/// What a factory does, in which a panic is a failure of the factory's. A change of the tree that panics ends the process, so
/// what unwinds here has left it whole.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, FactoryError>) -> Result<T, FactoryError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(FactoryError::new(panic_message(&*panic))))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("without a message"))
}

/// The factory's node at a path.
pub(crate) fn factory_node(fs: &TinyFs, path: &str) -> Result<FactoryNode, StewardError> {
    let failed = |source| StewardError::Tree { action: "find", path: path.to_owned(), source };
    let found = fs.resolve(path.as_bytes()).map_err(failed)?;
    if found.kind != FileType::Dynamic {
        return Err(StewardError::NotDynamic { path: path.to_owned() });
    }
    let (factory, configuration) = fs.dynamic(found.id).map_err(failed)?;
    Ok(FactoryNode { id: found.id, path: path.to_owned(), factory, configuration })
}

/// The nodes under `/etc/system.d/`, by name.
pub(crate) fn system_nodes(fs: &TinyFs) -> Result<Vec<FactoryNode>, StewardError> {
    let failed = |source| StewardError::Tree { action: "list", path: SYSTEM_DIRECTORY.to_owned(), source };
    let directory = match fs.resolve(SYSTEM_DIRECTORY.as_bytes()) {
        Ok(found) if found.kind == FileType::Directory => found.id,
        // No directory, no work.
        Ok(_) | Err(Error::Errno(Errno::NOENT | Errno::NOTDIR)) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names: Vec<Vec<u8>> = Vec::new();
    fs.readdir(directory, 0, &mut |entry| {
        if entry.kind == FileType::Dynamic {
            names.push(entry.name.to_vec());
        }
        true
    })
    .map_err(failed)?;
    names.sort();
    let mut nodes = Vec::with_capacity(names.len());
    for name in names {
        let path = format!("{SYSTEM_DIRECTORY}/{}", String::from_utf8_lossy(&name));
        match factory_node(fs, &path) {
            Ok(node) => nodes.push(node),
            // Removed since the directory was read.
            Err(StewardError::Tree { source: Error::Errno(Errno::NOENT), .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(nodes)
}
