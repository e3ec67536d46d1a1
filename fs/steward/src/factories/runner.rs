//! Post-commit work: the nodes under `/etc/system.d/` run after each commit, in name order, off the commit path.
//!
//! One that is behind handles all it missed in one run. A failure is recorded and the run repeated later; it never
//! fails the commit. What a factory writes is itself a commit, which does not start the writing factories again, but
//! does start those that do not write, such as a push.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use pond_oplog::Version;
use pond_tinyfs::{Advise, NodeId};

use crate::control::row::{ControlRow, Event};
use crate::factories::host_path::refuse_own;
use crate::factories::nodes::{FactoryNode, FactoryNodes, SYSTEM_DIRECTORY};
use crate::factories::pond::FactoryPond;
use crate::factories::progress::Pass;
use crate::host::end_process::EndProcessOnPanic;
use crate::upkeep::housekeeper::Housekeeper;
use crate::{Factory, FactoryContext, FactoryError, Registry, Role, StewardError};

/// Runs factories. One thread [`run`](Self::run)s it.
pub(crate) struct Runner {
    pub(crate) nodes: FactoryNodes,
    pub(crate) housekeeper: Arc<Housekeeper>,
    pub(crate) pond: FactoryPond,
    /// One factory runs at a time.
    pub(crate) running: Mutex<()>,
}

impl Runner {
    /// The post-commit thread.
    pub(crate) fn run(&self) {
        // Those who wait for a pass would wait for ever.
        let _no_silent_end = EndProcessOnPanic("post-commit work");
        while let Some(pass) = self.nodes.progress.next_pass() {
            let nodes = self.pass(&pass);
            self.nodes.progress.passed(&pass, &nodes);
        }
    }

    /// Runs what is due; the nodes that there are.
    fn pass(&self, pass: &Pass) -> Vec<NodeId> {
        // A node is tried once for each goal, and a writing one once in all.
        let mut tried: HashMap<NodeId, Version> = HashMap::new();
        loop {
            let nodes = match self.nodes.that_run() {
                Ok(nodes) => nodes,
                Err(error) => {
                    tracing::error!(%error, "could not list {SYSTEM_DIRECTORY}");
                    return Vec::new();
                }
            };
            let before = self.nodes.progress.tip();
            let due: Vec<&FactoryNode> =
                nodes.iter().filter(|node| self.is_due(node, pass, &tried)).collect();
            for node in &due {
                self.record(Event::PostCommitPending, node, Some(before.version), None);
            }
            for node in due {
                let writes = self.nodes.writes(node);
                tried.insert(
                    node.id,
                    if writes { Version(u64::MAX) } else { self.nodes.progress.tip().version },
                );
                // The failure is recorded, and the run repeated later.
                if let Err(error) = self.run_node(node, &[]) {
                    tracing::warn!(path = node.path, factory = node.factory, %error, "post-commit work failed");
                }
                if writes && let Err(error) = self.pond.commit() {
                    tracing::warn!(path = node.path, %error, "what the factory wrote is not yet committed");
                }
            }
            // A push follows the last commit, also where a factory made it.
            if self.nodes.progress.tip() == before {
                return nodes.iter().map(|node| node.id).collect();
            }
        }
    }

    fn is_due(&self, node: &FactoryNode, pass: &Pass, tried: &HashMap<NodeId, Version>) -> bool {
        let goal = self.nodes.goal(node);
        let work = self.nodes.progress.work(node.id, || self.nodes.control.watermark(node.id));
        let resting = work.retry_at.is_some_and(|retry_at| std::time::Instant::now() < retry_at);
        // Who waits for a sync is to hear that a store is gone, also where it has been sent everything.
        let looks = pass.syncs && self.nodes.registry.is_remote(&node.factory);
        (looks || work.owed(goal).is_some())
            && tried.get(&node.id).is_none_or(|&tried| tried < goal)
            && (pass.asked_for || !resting)
            && self.nodes.is_enabled(node)
            && self.nodes.mode(&node.factory).is_some()
    }

    /// Runs a node now.
    pub(crate) fn run_node(&self, node: &FactoryNode, args: &[String]) -> Result<String, StewardError> {
        let _one_at_a_time = self.running.lock();
        let mode = self.nodes.mode(&node.factory).ok_or_else(|| {
            let factory = node.factory.clone();
            match self.nodes.pending_timeline().filter(|_| self.nodes.control.role() == Role::Source) {
                Some(timeline) => StewardError::TimelinePending { factory, timeline },
                None => StewardError::NotOnAReplica { factory },
            }
        })?;
        let work = self.nodes.progress.work(node.id, || self.nodes.control.watermark(node.id));
        let goal = self.nodes.progress.tip().version;
        self.record(Event::PostCommitStarted, node, Some(goal), None);
        self.nodes.progress.started(node.id);
        let context = FactoryContext {
            factory: &node.factory,
            mode: &mode,
            args,
            configuration: &node.configuration,
            path: &node.path,
            commits: work.owed(goal),
            pond: &self.pond,
        };
        match run_factory(&self.nodes.registry, &context, post_commit(&context)) {
            Ok(message) => {
                // With arguments it was asked for something of its own.
                let watermark = args.is_empty().then_some(goal);
                self.nodes.progress.succeeded(node.id, watermark, &message);
                self.record(Event::PostCommitCompleted, node, watermark, Some(message.clone()));
                Ok(message)
            }
            Err(reason) => {
                self.nodes.progress.failed(node.id, &reason.in_full());
                self.record(Event::PostCommitFailed, node, Some(goal), Some(reason.in_full()));
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
        let txn_seq = self.nodes.progress.tip().txn_seq;
        self.nodes.control.record(ControlRow::post_commit(
            event,
            (node.id, &node.path),
            (txn_seq, version),
            value,
        ));
    }
}

/// Has a factory do some of its work; a panic is its failure.
pub(crate) fn run_factory(
    registry: &Registry,
    context: &FactoryContext<'_>,
    work: impl FnOnce(&dyn Factory) -> Result<String, FactoryError>,
) -> Result<String, FactoryError> {
    let factory = registry.get(context.factory).map_err(FactoryError::because)?;
    caught(|| {
        // A mount, or a link, may be another since the node was made.
        for path in factory.writes_to(context.configuration)? {
            refuse_own(context.pond.path(), &path)?;
        }
        work(&**factory)
    })
}

/// What a factory does after commits.
fn post_commit(context: &FactoryContext<'_>) -> impl FnOnce(&dyn Factory) -> Result<String, FactoryError> {
    move |factory| match factory.post_commit() {
        Some(post_commit) => post_commit.run(context),
        None => Err(FactoryError::new(format!("there is nothing that a node of {} does", factory.name()))),
    }
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
