//! What a factory may do with the pond that it runs in.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use pond_oplog::{CommitInfo, OpLog, Version, history_of};
use pond_tinyfs::{Draft, FileType, Make, NodeId, OldContent, Stale, TinyFs};

use crate::StewardError;
use crate::commit::writers::Writers;
use crate::control::keys::SUPERSEDED_KEY;
use crate::control::table::Control;
use crate::factories::progress::Progress;
use crate::paths::{self, ChangeWatcher, look_up, made, make, make_parents, owner};

/// What becomes of what factories write.
pub(crate) enum Writes {
    /// It is let in as everybody's is, and committed.
    Committed(Arc<Writers>),
    /// The tree of a pond that makes no versions refuses it.
    Refused,
}

/// The pond as a factory sees it.
pub struct FactoryPond {
    pub(crate) path: PathBuf,
    pub(crate) fs: Arc<TinyFs>,
    pub(crate) oplog: Arc<OpLog>,
    pub(crate) control: Arc<Control>,
    pub(crate) writes: Writes,
    pub(crate) progress: Arc<Progress>,
    pub(crate) watcher: Arc<RwLock<Option<ChangeWatcher>>>,
    pub(crate) stopping: Arc<AtomicBool>,
}

impl FactoryPond {
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
        &self.fs
    }

    /// What the log says about these versions, oldest first. Recent ones cost no I/O.
    pub fn commits(&self, versions: RangeInclusive<Version>) -> Result<Vec<CommitInfo>, StewardError> {
        if let Some(recent) = self.progress.recent(&versions) {
            return Ok(recent);
        }
        Ok(history_of(&self.path, versions)?)
    }

    /// Whether the process wants to end and the time that was left to finish in is over: long work should stop now,
    /// with an error that says what it still owes.
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Makes [`stopping`](Self::stopping) true.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The pond takes no writes from now on, nor when it is opened again; `why` is shown to whoever asks. What was
    /// written before is still committed. For a push that finds that another pond makes this history now. Lifted by
    /// `pond control set superseded ""` and by promoting.
    ///
    /// # Errors
    ///
    /// If it could not be written down: then it holds only until the pond is closed.
    pub fn refuse_writes(&self, why: &str) -> Result<(), StewardError> {
        if let Writes::Committed(writers) = &self.writes {
            writers.committer().refuse_writes(why, true);
        }
        if self.control.get(SUPERSEDED_KEY).as_deref() == Some(why) {
            return Ok(());
        }
        self.control.set_all(&[(SUPERSEDED_KEY, why)])
    }

    /// A setting, by its whole name: `NAME:…` are a factory's own.
    pub fn control_get(&self, key: &str) -> Option<String> {
        self.control.get(key)
    }

    /// Commits what was written.
    pub(crate) fn commit(&self) -> Result<(), StewardError> {
        match &self.writes {
            Writes::Committed(writers) => writers.committer().commit_now().map(drop),
            Writes::Refused => Ok(()),
        }
    }

    /// Makes a file with this content, or gives it to the file that is there, of which all else stays; makes missing directories. No
    /// commit holds it half-written, and none waits while the content is copied. After an error a file that was there is as it was.
    pub fn write_file(&self, path: &str, content: &[u8]) -> Result<(), StewardError> {
        let parts = paths::parts(path)?;
        let failed = |action, source| StewardError::Tree { action, path: path.to_owned(), source };
        if let Writes::Committed(writers) = &self.writes
            && !writers.has_room()
        {
            writers.wait_for_room(0).map_err(|error| failed("write", error))?;
        }
        // Copied before, since no commit begins while the file changes.
        let mut draft = Draft::new();
        draft.append(content);
        let mut stale = Vec::new();
        let write = |fs: &TinyFs, nodes: &mut Vec<NodeId>| {
            let result = write_file(fs, &parts, draft, nodes, &mut stale);
            result.map_err(|error| match error {
                WriteError::Tree(action, source) => failed(action, source),
                WriteError::Steward(error) => error,
            })
        };
        let result = match &self.writes {
            Writes::Committed(writers) => writers.committer().change_by_factory(write),
            Writes::Refused => write(&self.fs, &mut Vec::new()),
        };
        if let Some(watcher) = self.watcher.read().as_ref() {
            watcher(&stale);
        }
        result.map(drop)
    }
}

enum WriteError {
    Tree(&'static str, pond_tinyfs::Error),
    Steward(StewardError),
}

fn write_file(
    fs: &TinyFs,
    parts: &[&str],
    content: Draft,
    nodes: &mut Vec<NodeId>,
    stale: &mut Vec<Stale>,
) -> Result<OldContent, WriteError> {
    let tree = |action| move |source| WriteError::Tree(action, source);
    let caller = owner();
    // Directories made are the factory's, also when it got no further.
    let parent = make_parents(fs, &caller, parts, stale, nodes).map_err(WriteError::Steward)?;
    let name = parts[parts.len() - 1];
    let file = match look_up(fs, parent, name).map_err(tree("look up"))? {
        Some(found) if found.kind == FileType::File => {
            stale.push(Stale::Attributes(found.id));
            found.id
        }
        Some(_) => return Err(WriteError::Tree("write", pond_tinyfs::Errno::EXIST.into())),
        None => {
            nodes.push(parent);
            stale.extend(made(parent, name.as_bytes()));
            make(fs, &caller, parent, name, Make::File { mode: 0o644 }).map_err(tree("make"))?.id
        }
    };
    nodes.push(file);
    fs.replace(&caller, file, content).map_err(tree("write"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use pond_tinyfs::{Caller, SetXattr};

    use crate::{OpenOptions, Steward};

    use super::*;

    #[test]
    fn whoever_commits_does_not_wait_for_a_factory_that_writes_much() {
        let place = tempfile::tempdir().unwrap();
        let pond = place.path().join("pond");
        Steward::init(&pond).unwrap();
        let by_hand = OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() };
        let steward = Steward::open(&pond, by_hand).unwrap();
        let factory = &steward.common.post_commit.pond;
        let (fs, root) = (steward.fs(), Caller::root());
        factory.write_file("/reports/large", b"before").unwrap();
        let before = fs.resolve(b"/reports/large").unwrap().id;
        fs.link(&root, before, NodeId::ROOT, b"link").unwrap();
        fs.setxattr(&root, before, b"user.a", b"1", SetXattr::Any).unwrap();

        let content = vec![7; 64 << 20];
        let waits = || {
            // Else it would wait for room.
            steward.commit_now().unwrap();
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    while !done.load(Ordering::Acquire) {
                        let began = Instant::now();
                        drop(steward.source().unwrap().committer.ledger());
                        longest = longest.max(began.elapsed());
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    longest
                });
                let began = Instant::now();
                factory.write_file("/reports/large", &content).unwrap();
                let took = began.elapsed();
                done.store(true, Ordering::Release);
                (waiter.join().unwrap(), took)
            })
        };
        // On a busy machine a thread may wait for a processor as long.
        let waited: Vec<_> = (0..6).map(|_| waits()).collect();
        println!("{waited:?}");
        assert!(waited.iter().filter(|(longest, took)| *longest * 3 < *took).count() >= 2, "{waited:?}");

        let after = fs.resolve(b"/reports/large").unwrap();
        assert_eq!((after.id, after.nlink, after.size), (before, 2, content.len() as u64));
        assert_eq!(fs.getxattr(before, b"user.a").unwrap(), b"1");
        steward.commit_now().unwrap();
        let tail = fs.read(before, (64 << 20) - 5, 10).unwrap().fill(&**fs.persistence()).unwrap();
        assert_eq!(tail, [7; 5]);
        steward.close().unwrap();
    }
}
