//! The nodes under `/etc/system.d/`: which there are, and how the work of each stands.

use std::sync::Arc;

use bytes::Bytes;
use pond_oplog::{Timeline, Version};
use pond_tinyfs::{Errno, Error, FileType, NodeId, TinyFs};

use crate::control::settings::{ALL_FACTORIES, ENABLED_FACTORIES_KEY};
use crate::control::table::Control;
use crate::factories::progress::Progress;
use crate::{FactoryStatus, PostCommit, Registry, Role, StewardError};

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

/// The nodes of a tree, and what settings and earlier runs say of them.
pub(crate) struct FactoryNodes {
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) control: Arc<Control>,
    pub(crate) registry: Registry,
    pub(crate) progress: Arc<Progress>,
    /// Whether the pond goes back to one that was made from another.
    pub(crate) is_fork: bool,
}

impl FactoryNodes {
    /// The nodes that run after a commit where they are enabled. A replica's remotes do not: its follower brings versions in.
    pub(crate) fn that_run(&self) -> Result<Vec<FactoryNode>, StewardError> {
        let mut nodes = system_nodes(&self.fs)?;
        // What is not known stays, so that it is told of.
        nodes.retain(|node| {
            self.registry.get(&node.factory).map_or(true, |known| known.post_commit().is_some())
        });
        if self.control.role() == Role::Replica {
            nodes.retain(|node| !self.registry.is_remote(&node.factory));
        }
        Ok(nodes)
    }

    /// Whether a node runs here after commits, as far as the setting goes.
    pub(crate) fn is_enabled(&self, node: &FactoryNode) -> bool {
        let enabled = self.control.get(ENABLED_FACTORIES_KEY).filter(|enabled| !enabled.is_empty());
        match enabled.as_deref() {
            // What came from elsewhere runs nothing by itself.
            None => !self.is_fork,
            Some(ALL_FACTORIES) => true,
            Some(enabled) => enabled.split(',').any(|path| path.trim() == node.path),
        }
    }

    /// The mode in which a factory runs now; `None` if it does not.
    pub(crate) fn mode(&self, factory: &str) -> Option<String> {
        // Until a promoted pond has a version on its own timeline, a push would take it for the pond that it
        // superseded.
        let pending = || self.registry.is_remote(factory) && self.pending_timeline().is_some();
        self.control.factory_mode(factory).filter(|_| !pending())
    }

    /// The timeline that the pond was promoted to, as long as it has no version there.
    pub(crate) fn pending_timeline(&self) -> Option<Timeline> {
        self.control.timeline().filter(|timeline| self.progress.tip().timeline < *timeline)
    }

    /// Whether what a node's factory does changes the pond.
    pub(crate) fn writes(&self, node: &FactoryNode) -> bool {
        let factory = self.registry.get(&node.factory);
        factory.is_ok_and(|factory| factory.post_commit().is_some_and(PostCommit::writes))
    }

    /// The version up to which a node should have done its work.
    pub(crate) fn goal(&self, node: &FactoryNode) -> Version {
        let tip = self.progress.tip();
        if self.writes(node) { tip.others } else { tip.version }
    }

    /// How they fare, in the order in which they run.
    pub(crate) fn status(&self) -> Result<Vec<FactoryStatus>, StewardError> {
        let status = |node: FactoryNode| {
            let work = self.progress.work(node.id, || self.control.watermark(node.id));
            let behind = work.owed(self.goal(&node)).map_or(0, |owed| owed.end().0 - owed.start().0 + 1);
            // What nobody has run since the pond was opened fares as the last one left it.
            let before = work.message.is_none().then(|| self.control.outcome(node.id)).flatten();
            let (failed, message) = before.unwrap_or_default();
            FactoryStatus {
                mode: self.mode(&node.factory).filter(|_| self.is_enabled(&node)),
                remote: self.registry.is_remote(&node.factory),
                path: node.path,
                factory: node.factory,
                watermark: work.watermark,
                behind,
                last_message: work.message.or(message),
                failed: work.failures > 0 || (failed && behind > 0),
                running_ms: work.running.map(|since| since.elapsed().as_millis() as u64),
            }
        };
        Ok(self.that_run()?.into_iter().map(status).collect())
    }
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
