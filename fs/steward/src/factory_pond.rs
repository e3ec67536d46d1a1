//! What a factory may do with the pond that it runs in.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use pond_oplog::{CommitInfo, OpLog, Version, history};
use pond_tinyfs::{FileType, Make, NodeId, SetAttributes, TinyFs, WriteFlags};

use crate::StewardError;
use crate::commit::Committer;
use crate::paths::{self, Change, ChangeWatcher, look_up, make, make_parents, owner};
use crate::progress::Progress;

/// A factory writes so many bytes at a time.
const WRITE: usize = 1 << 20;

/// The pond as a factory sees it.
pub struct FactoryPond {
    path: PathBuf,
    oplog: Arc<OpLog>,
    committer: Arc<Committer>,
    progress: Arc<Progress>,
    watcher: Arc<RwLock<Option<ChangeWatcher>>>,
}

impl FactoryPond {
    pub(crate) fn new(
        path: &Path,
        oplog: Arc<OpLog>,
        committer: Arc<Committer>,
        progress: Arc<Progress>,
        watcher: Arc<RwLock<Option<ChangeWatcher>>>,
    ) -> Self {
        FactoryPond { path: path.to_owned(), oplog, committer, progress, watcher }
    }

    /// `$POND`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pond's identity.
    pub fn pond_id(&self) -> String {
        self.oplog.identity().pond_id.to_string()
    }

    /// The log, to read from.
    pub fn oplog(&self) -> &Arc<OpLog> {
        &self.oplog
    }

    /// The tree, to read from. Changes go through [`write_file`](Self::write_file): others would start the factory
    /// again.
    pub fn fs(&self) -> &Arc<TinyFs> {
        &self.committer.fs
    }

    /// What the log says about these versions, oldest first. Recent ones cost no I/O.
    pub fn commits(&self, versions: RangeInclusive<Version>) -> Result<Vec<CommitInfo>, StewardError> {
        if let Some(recent) = self.progress.recent(&versions) {
            return Ok(recent);
        }
        let tip = self.oplog.position().version;
        let limit = usize::try_from(tip.0.saturating_sub(versions.start().0) + 1).ok();
        let mut commits = history(&self.path, limit)?;
        commits.retain(|commit| versions.contains(&commit.position.version));
        commits.reverse();
        Ok(commits)
    }

    /// Commits what was written.
    pub(crate) fn commit(&self) -> Result<(), StewardError> {
        self.committer.commit_now().map(drop)
    }

    /// Makes a file with this content, or gives it to the file that is there; makes missing directories. No commit
    /// holds it half-written.
    pub fn write_file(&self, path: &str, content: &[u8]) -> Result<(), StewardError> {
        let parts = paths::parts(path)?;
        let failed = |action, source| StewardError::Tree { action, path: path.to_owned(), source };
        if !self.committer.has_room() {
            self.committer.wait_for_room().map_err(|error| failed("write", error))?;
        }
        let mut changes = Vec::new();
        let result = self.committer.change_by_factory(|fs, nodes| {
            let result = write_file(fs, &parts, content, nodes, &mut changes);
            result.map_err(|error| match error {
                WriteError::Tree(action, source) => failed(action, source),
                WriteError::Steward(error) => error,
            })
        });
        if let Some(watcher) = self.watcher.read().as_ref() {
            watcher(&changes);
        }
        result
    }
}

enum WriteError {
    Tree(&'static str, pond_tinyfs::Error),
    Steward(StewardError),
}

fn write_file(
    fs: &TinyFs,
    parts: &[&str],
    content: &[u8],
    nodes: &mut Vec<NodeId>,
    changes: &mut Vec<Change>,
) -> Result<(), WriteError> {
    let tree = |action| move |source| WriteError::Tree(action, source);
    let caller = owner();
    let parent = make_parents(fs, &caller, parts, changes);
    // Directories made are the factory's, also when it got no further.
    nodes.extend(changes.iter().flat_map(|change| [change.parent, change.node]));
    let parent = parent.map_err(WriteError::Steward)?;
    let name = parts[parts.len() - 1];
    let file = match look_up(fs, parent, name).map_err(tree("look up"))? {
        Some(found) if found.kind == FileType::File => found.id,
        Some(_) => return Err(WriteError::Tree("write", pond_tinyfs::Errno::EXIST.into())),
        None => {
            nodes.push(parent);
            make(fs, &caller, parent, name, Make::File { mode: 0o644 }).map_err(tree("make"))?.id
        }
    };
    nodes.push(file);
    changes.push(Change { parent, name: name.as_bytes().to_vec(), node: file });
    let truncate = SetAttributes { size: Some(0), ..SetAttributes::default() };
    fs.setattr(&caller, file, &truncate).map_err(tree("truncate"))?;
    let mut offset = 0;
    while offset < content.len() {
        let piece = &content[offset..content.len().min(offset + WRITE)];
        offset +=
            fs.write(&caller, file, offset as u64, piece, WriteFlags::default()).map_err(tree("write"))?;
    }
    Ok(())
}
